# SPDX-License-Identifier: Apache-2.0
"""What the benches inside the simulator share: handles, the clock, orders and messages."""

import json
import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TextIO

from cocotb.clock import Clock
from cocotb.handle import HierarchyObject, Immediate, LogicArrayObject, LogicObject, PackedObject
from cocotb.triggers import Timer

from sim.cosim.protocol import MESSAGES, ORDERS

#: Length of a clock cycle in steps of the simulator.
PERIOD = 2
#: Cycles of reset.
RESET_CYCLES = 8
#: Seconds between two messages of progress.
REPORT_EVERY = 0.2

Vector = LogicArrayObject | PackedObject[Any]


class BenchError(Exception):
    """The hardware did what it must not do; one line."""


def vector(dut: HierarchyObject, name: str) -> Vector:
    """Give a variable of several bits."""
    handle = dut[name]
    assert isinstance(handle, (LogicArrayObject, PackedObject)), name
    return handle


def bit(dut: HierarchyObject, name: str) -> LogicObject:
    """Give a variable of one bit."""
    handle = dut[name]
    assert isinstance(handle, LogicObject), name
    return handle


def whole(name: str, handle: Vector, low: int, high: int) -> int:
    """Give bits low … high − 1 of a variable.

    Raises
    ------
    BenchError
        Some are unknown, which Icarus shows.
    """
    text = str(handle.value)
    text = text[len(text) - high : len(text) - low]
    try:
        return int(text, 2)
    except ValueError:
        raise BenchError(f"unknown bits (x or z) in {name}") from None


async def start_clock(clk: LogicObject) -> None:
    """Start the clock; ends at a falling edge, at which nothing in the design happens.

    Whoever then waits for whole cycles wakes at falling edges.
    """
    # Set at once rather than in the next delta: half as many evaluations of the design.
    clock = Clock(clk, PERIOD, "ns", impl="gpi", set_action=Immediate)
    clock.start(start_high=True)
    await Timer(PERIOD // 2, "ns")


class Pipes:
    """The way to the other process: paths of jobs come in, one a line; messages go out as JSON."""

    def __init__(self) -> None:
        self.orders: TextIO = os.fdopen(int(os.environ[ORDERS]), "r", encoding="utf-8")
        self.messages: TextIO = os.fdopen(int(os.environ[MESSAGES]), "w", encoding="utf-8")
        # When progress was last told. It is told at once, so that a short run tells it, too.
        self.reported = -REPORT_EVERY

    def tell(self, **message: object) -> None:
        """Send a message."""
        self.messages.write(json.dumps(message) + "\n")
        self.messages.flush()

    def report(self, progress: Callable[[], dict[str, object]]) -> None:
        """Tell how far a job is, a few times a second."""
        if time.monotonic() - self.reported > REPORT_EVERY:
            self.reported = time.monotonic()
            self.tell(**progress())

    async def serve(self, run: Callable[[Path], Awaitable[None]]) -> None:
        """Run jobs until there are no more, or one fails."""
        for line in self.orders:
            path = Path(line.rstrip("\n"))
            try:
                await run(path)
            except BenchError as error:
                self.tell(error=str(error))
                return
            self.tell(done=path.name)
