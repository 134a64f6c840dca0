# SPDX-License-Identifier: Apache-2.0
"""The side of the co-simulation that runs inside the simulator.

One coroutine drives all streams. It wakes once in a window of cycles, reads one status word,
empties the results, fills the buffers that the engine has used up (see :mod:`sim.cosim.wrapper`)
and sleeps again. Outcomes are written beside their jobs.
"""

import os
from pathlib import Path

import cocotb
import numpy as np
import numpy.typing as npt
from cocotb.handle import HierarchyObject, Immediate
from cocotb.triggers import Timer

from sim.cosim.inside import (
    PERIOD,
    RESET_CYCLES,
    BenchError,
    Pipes,
    bit,
    start_clock,
    vector,
    whole,
)
from sim.cosim.jobs import Job, Outcome, read_job, write_outcome
from sim.cosim.protocol import (
    COUNTERS,
    PATIENCE,
    POSITION_BITS,
    SINK,
    SOURCES,
    STREAMS,
    WINDOW,
    status_fields,
)

POSITIONS = 1 << POSITION_BITS


class Source:
    """Keeps the two buffers of an input stream filled."""

    def __init__(self, dut: HierarchyObject, name: str) -> None:
        self.name = name
        self.banks = [vector(dut, f"{name}_bank{bank}") for bank in range(2)]
        self.end_port = vector(dut, f"{name}_end")
        self.width = len(self.banks[0]) // (8 * WINDOW)
        self.data = b""
        self.first = 0  # number of the beat at the start of ``data``, a multiple of WINDOW
        self.taken = 0  # beats taken by the engine's side, all jobs together
        self.end = 0  # beats of all jobs up to this one
        self.banked = 0  # banks that were written, or are passed over

    def load(self, beats: npt.NDArray[np.uint8]) -> None:
        """Take a job's beats, uint8 [n, width]; all former ones must be gone."""
        if beats.dtype != np.uint8 or beats.ndim != 2 or beats.shape[1] != self.width:
            raise BenchError(f"{self.name}: beats must be uint8 [n, {self.width}]")
        before = self.end % WINDOW
        self.first = self.end - before
        # Room before the first beat, and after the last so that the last bank is whole.
        self.data = bytes(before * self.width) + beats.tobytes() + bytes(WINDOW * self.width)
        self.banked = self.first // WINDOW
        self.end += len(beats)

    def refill(self, position: int) -> None:
        """Write the banks that are used up; ``position`` counts taken beats modulo 2^16."""
        self.taken += (position - self.taken) % POSITIONS
        written = False
        while self.banked * WINDOW < self.end and self.banked <= self.taken // WINDOW + 1:
            start = (self.banked * WINDOW - self.first) * self.width
            beats = self.data[start : start + WINDOW * self.width]
            self.banks[self.banked % 2].value = Immediate(int.from_bytes(beats, "little"))
            self.banked += 1
            written = True
        if written:
            end = min(self.banked * WINDOW, self.end)
            self.end_port.value = Immediate(end % POSITIONS)


class Bench:
    """The engine and its streams."""

    def __init__(self, dut: HierarchyObject) -> None:
        self.clk, self.rst = bit(dut, "clk"), bit(dut, "rst")
        self.sources = [Source(dut, name) for name in SOURCES]
        self.outputs = {name: vector(dut, name) for name in ("status", SINK, "counters")}
        self.stalls_port, self.ahead_port = vector(dut, "stalls"), bit(dut, "ahead")
        self.fields = {
            name: (offset, (1 << width) - 1) for name, (offset, width) in status_fields().items()
        }
        counters = (counter.split(":") for counter in os.environ[COUNTERS].split(","))
        self.counter_bits = {name: int(bits) for name, bits in counters}
        self.patience = int(os.environ[PATIENCE])
        self.width = len(self.outputs[SINK]) // (8 * WINDOW)
        self.window = Timer(PERIOD * WINDOW, "ns")
        self.status = 0
        self.taken = 0  # results of all jobs
        self.results: list[bytes] = []
        self.pipes = Pipes()

    def field(self, name: str) -> int:
        """Give a field of the status word that was read last."""
        offset, mask = self.fields[name]
        return self.status >> offset & mask

    async def serve(self) -> None:
        """Run jobs until there are no more."""
        await self.reset()
        await self.pipes.serve(self.handle)

    async def handle(self, path: Path) -> None:
        """Run the job of a file."""
        write_outcome(path.with_suffix(".out"), await self.run(read_job(path)))

    async def reset(self) -> None:
        """Start the clock and reset the engine; ends half a cycle before a rising edge."""
        # At time 0 Icarus would still overwrite what is written now.
        await Timer(PERIOD, "ns")
        for port in (self.stalls_port, *(source.end_port for source in self.sources)):
            port.value = Immediate(0)
        for source in self.sources:
            for bank in source.banks:
                bank.value = Immediate(0)
        self.rst.value = Immediate(1)
        await start_clock(self.clk)
        await Timer(RESET_CYCLES * PERIOD, "ns")
        self.rst.value = Immediate(0)

    async def run(self, job: Job) -> Outcome:
        """Run one layer."""
        self.results = []
        expected = self.taken + job.results
        rng = np.random.default_rng(job.seed)
        probability = np.array([job.stalls.get(name, 0.0) for name in STREAMS])
        stalls = bool(probability.any())
        if not stalls:
            self.stalls_port.value = Immediate(0)
        self.ahead_port.value = Immediate(int(job.ahead))
        self.read()
        for source in self.sources:
            source.load(job.beats[source.name])
            source.refill(self.field(source.name))
        while True:
            if stalls:
                held = rng.random((len(STREAMS), WINDOW)) < probability[:, None]
                bits = np.packbits(held.ravel(), bitorder="little").tobytes()
                self.stalls_port.value = Immediate(int.from_bytes(bits, "little"))
            await self.window
            self.read()
            self.collect(expected)
            for source in self.sources:
                source.refill(self.field(source.name))
            if self.taken == expected and self.finished():
                break
            if self.field("quiet") >= self.patience:
                raise BenchError(self.hang(expected))
            self.pipes.report(lambda: self.progress(job))
        return self.outcome()

    def read(self) -> None:
        """Read the status word."""
        self.status = self.whole("status", 0, len(self.outputs["status"]))
        if self.field("broken"):
            raise BenchError("results: a word changed or was withdrawn before it was taken")

    def whole(self, name: str, low: int, high: int) -> int:
        """Give bits low … high − 1 of an output."""
        return whole(name, self.outputs[name], low, high)

    def collect(self, expected: int) -> None:
        """Take the results that have come."""
        new = (self.field(SINK) - self.taken) % POSITIONS
        if not new:
            return
        if self.taken + new > expected:
            raise BenchError(f"results: more than the {expected - self.taken} words that are due")
        slot = self.taken % WINDOW
        self.taken += new
        bits = 8 * self.width
        # At most two stretches of the ring: up to its end, then from its start.
        for start, stop in ((slot, min(slot + new, WINDOW)), (0, slot + new - WINDOW)):
            if stop > start:
                value = self.whole(SINK, start * bits, stop * bits)
                self.results.append(value.to_bytes((stop - start) * self.width, "little"))

    def finished(self) -> bool:
        """Whether all beats were taken and the engine has come to rest."""
        resting = self.field("idle") and not self.field("valid")
        return bool(resting) and all(source.taken == source.end for source in self.sources)

    def outcome(self) -> Outcome:
        """Give what the job that has finished left."""
        words = np.frombuffer(b"".join(self.results), dtype=np.uint8)
        word = self.whole("counters", 0, len(self.outputs["counters"]))
        counters = {}
        for name, bits in self.counter_bits.items():
            counters[name] = word & ((1 << bits) - 1)
            word >>= bits
        return Outcome(
            words=words.reshape(-1, self.width),
            counters=counters,
            cycles=self.field("finished") - self.field("started"),
        )

    def progress(self, job: Job) -> dict[str, object]:
        """Give how far a job is."""
        left = sum(source.end - source.taken for source in self.sources)
        total = sum(map(len, job.beats.values()))
        return {"share": 1 - left / max(1, total), "cycle": self.field("cycle")}

    def hang(self, expected: int) -> str:
        """Describe the state of all streams."""
        valid, ready = self.field("valid"), self.field("ready")
        states = []
        for index, name in enumerate(STREAMS):
            waiting = (
                f"{expected - self.taken} due"
                if name == SINK
                else f"{self.sources[index].end - self.sources[index].taken} left"
            )
            offered = "valid" if valid >> index & 1 else "not valid"
            accepted = "ready" if ready >> index & 1 else "not ready"
            states.append(f"{name} {offered}, {accepted}, {waiting}")
        cycles = f"no stream moved for {self.field('quiet')} cycles"
        return f"the engine hangs, {cycles} (cycle {self.field('cycle')}): {'; '.join(states)}"


@cocotb.test()
async def serve(dut: HierarchyObject) -> None:
    """Run the jobs of the other process."""
    await Bench(dut).serve()
