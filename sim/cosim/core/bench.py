# SPDX-License-Identifier: Apache-2.0
"""The side of the core's co-simulation that runs inside the simulator.

It gives orders to the driver (see :mod:`sim.cosim.core.wrapper`) and sleeps until they are carried
out; while the core works it wakes a few times a second, to tell how far it is.
"""

import json
import os
import re
import time
from pathlib import Path
from typing import Any

import cocotb
from cocotb.handle import HierarchyObject, Immediate
from cocotb.triggers import Timer, ValueChange

from sim.cosim.core.protocol import (
    CHANNELS,
    DUMP,
    LOAD,
    PORTS,
    Command,
    Response,
    file_fields,
    order_fields,
    packed,
    status_fields,
    unpacked,
)
from sim.cosim.inside import (
    PERIOD,
    REPORT_EVERY,
    RESET_CYCLES,
    BenchError,
    Pipes,
    bit,
    start_clock,
    vector,
)

#: Cycles of the first stretch of waiting; later ones adapt to the simulator's speed.
STRETCH = 256


class Bench:
    """The core, the memory and the driver."""

    def __init__(self, dut: HierarchyObject) -> None:
        self.ports = os.environ[PORTS].split(",")
        self.clk, self.rst = bit(dut, "clk"), bit(dut, "rst")
        self.settings, self.orders = vector(dut, "settings"), vector(dut, "orders")
        self.files, self.status = vector(dut, "files"), vector(dut, "status")
        self.answer = bit(dut, "answer")
        self.fields = status_fields(self.ports)
        self.turn = 0
        self.stretch = STRETCH
        self.cycles = 0  # of the jobs that are done
        self.pipes = Pipes()

    async def serve(self) -> None:
        """Run jobs until there are no more."""
        # At time 0 Icarus would still overwrite what is written now.
        await Timer(PERIOD, "ns")
        for port in (self.settings, self.orders, self.files):
            port.value = Immediate(0)
        self.rst.value = Immediate(1)
        await start_clock(self.clk)
        await self.pipes.serve(self.run)

    async def run(self, path: Path) -> None:
        """Run the job of a file."""
        job = json.loads(path.read_text())
        if job["reset"]:
            await self.reset(path, job)
        values, responses = [], []
        for address, data, strobe in job["writes"]:
            status = await self.order(Command.WRITE, address=address, data=data, strobe=strobe)
            responses.append(status["response"])
        waited = await self.wait(job)
        for address in job["reads"]:
            status = await self.order(Command.READ, address=address)
            responses.append(status["response"])
            values.append(status["result"])
        for number, (first, count) in enumerate(job["dumps"]):
            await self.file("dump", path.with_suffix(f".dump{number}"), first, count)
        if job["tell"] is not None:
            await self.file("tell", path.with_suffix(".tell"), *job["tell"])
        # What was counted and what was broken up to now, but the interrupt as it was then.
        then = ("irq", "cycle", "finished", "quiet")
        status = self.look() | {name: waited[name] for name in then}
        self.cycles += status["cycle"]
        outcome = {"values": values, "responses": responses, "size": job["size"]}
        outcome["status"] = packed(self.fields, status)
        path.with_suffix(".out").write_text(json.dumps(outcome))

    async def reset(self, path: Path, job: dict[str, Any]) -> None:
        """Reset everything, with a memory as the job wants it."""
        self.rst.value = Immediate(1)
        self.settings.value = Immediate(job["settings"])
        await Timer(RESET_CYCLES * PERIOD, "ns")
        for name, first, count in job["loads"]:
            await self.file("load", path.with_name(name), first, count)
        self.rst.value = Immediate(0)
        await Timer(PERIOD, "ns")

    async def file(self, action: str, path: Path, first: int, count: int) -> None:
        """Load a file into the memory, or write one; takes a cycle."""
        if action == "load":
            path.replace(LOAD)
        fields = {action: 1, "first": first, "count": count}
        self.files.value = Immediate(packed(file_fields(), fields | {action: 0}))
        await Timer(PERIOD, "ns")
        self.files.value = Immediate(packed(file_fields(), fields))
        await Timer(PERIOD, "ns")
        if self.look()["failed"]:
            raise BenchError(f"the memory cannot {action} {count} beats")
        if action != "load":
            Path(DUMP).replace(path)

    async def order(self, command: Command, **values: int) -> dict[str, int]:
        """Have an order carried out; give the status then, half a cycle before a rising edge."""
        self.turn ^= 1
        fields = {"order": self.turn, "command": command, **values}
        self.orders.value = Immediate(packed(order_fields(), fields))
        await ValueChange(self.answer)
        await Timer(PERIOD // 2, "ns")
        status = self.look()
        if status["response"] == Response.LOST:
            raise BenchError(f"register {values['address']:#05x} does not answer")
        return status

    def look(self) -> dict[str, int]:
        """Give the fields of the status word.

        Unknown bits, which Icarus shows, count as 0: whether there are some is a field.
        """
        known = re.sub("[^01]", "0", str(self.status.value))
        return unpacked(self.fields, int(known, 2))

    async def wait(self, job: dict[str, Any]) -> dict[str, int]:
        """Wait for the interrupt, or for some cycles."""
        status = self.look()
        begin, span = status["cycle"], job["timeout"] if job["wait"] is None else job["wait"]
        while True:
            until = min(status["cycle"] + self.stretch, begin + span)
            asleep = time.monotonic()
            status = await self.order(
                Command.WAIT, deadline=until, for_irq=int(job["wait"] is None)
            )
            if status["cycle"] < until:
                return status  # the interrupt, or a broken rule
            self.adapt(time.monotonic() - asleep)
            if status["cycle"] >= begin + span:
                if job["wait"] is None and not status["irq"] and not job["give_up"]:
                    raise BenchError(self.hang(status, span))
                return status
            share = (status["cycle"] - begin) / (job["expected"] or span)
            told = {"share": min(1.0, share), "cycle": self.cycles + status["cycle"]}
            self.pipes.report(told.copy)

    def adapt(self, asleep: float) -> None:
        """Choose the next stretch of waiting after one that took so many seconds."""
        if asleep < REPORT_EVERY / 2:
            self.stretch *= 2
        elif asleep > 2 * REPORT_EVERY and self.stretch > STRETCH:
            self.stretch //= 2

    def hang(self, status: dict[str, int], span: int) -> str:
        """Describe the state of all channels."""
        waiting = [
            f"{port} {channel}"
            for channel in CHANNELS
            for index, port in enumerate(self.ports)
            if status[f"{channel}_valid"] & ~status[f"{channel}_ready"] & 1 << index
        ]
        moved = [
            f"{port} read {status[f'{port}_read_beats']} beats and wrote "
            f"{status[f'{port}_write_beats']}"
            for port in self.ports
        ]
        return (
            f"no interrupt after {span} cycles (cycle {status['cycle']}), nothing moved for "
            f"{status['quiet']}; waiting: {', '.join(waiting) or 'nothing'}; " + "; ".join(moved)
        )


@cocotb.test()
async def serve(dut: HierarchyObject) -> None:
    """Run the jobs of the other process."""
    await Bench(dut).serve()
