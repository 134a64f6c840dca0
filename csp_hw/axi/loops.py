# SPDX-License-Identifier: Apache-2.0
"""Two nested loops of addresses."""

from amaranth import Module, Mux, Signal, signed
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from csp_hw.axi.ports import LOOP_BITS, loop_layout, run_layout


class LoopAddress(wiring.Component):
    """Turn a command into its runs.

    For n2 = 0 … count2 − 1, for n1 = 0 … count1 − 1: ``beats`` beats from
    offset + n2 · pitch2 + n1 · pitch1 (mod 2^32), ``last`` with the last of them.

    The first run is on offer in the cycle after the command's transfer; one run a cycle, also from
    a command to the next. Counts of 0 are not allowed: whoever makes commands refuses them.

    Parameters
    ----------
    steady : bool
        ``i.payload`` stays as it is from a command's transfer until that of its last run: nothing
        of it is copied.

    Members
    -------
    i : In(stream)
        Commands, :func:`csp_hw.axi.ports.loop_layout`.
    o : Out(stream)
        Runs, :func:`csp_hw.axi.ports.run_layout`.
    """

    i: In(stream.Signature(loop_layout()))
    o: Out(stream.Signature(run_layout()))

    def __init__(self, *, steady: bool = False):
        self.steady = steady
        super().__init__()

    def elaborate(self, platform):
        m = Module()
        command = self.i.payload
        loop = command if self.steady else Signal(loop_layout(), reset_less=True)
        run = self.o.payload
        offset = Signal.like(run.offset, reset_less=True)
        start = Signal.like(run.offset, reset_less=True)  # of the inner loop
        # Turns that follow this one, less one: the sign marks the last turn.
        turn1, turn2 = (Signal(signed(LOOP_BITS + 1), reset_less=True) for _ in range(2))
        step = Signal()
        wrap = Signal()
        onward = Signal.like(run.offset)
        m.d.comb += [
            step.eq(self.o.valid & self.o.ready),
            wrap.eq(turn1[-1]),
            run.offset.eq(offset),
            run.beats.eq(loop.beats),
            run.last.eq(wrap & turn2[-1]),
            onward.eq(Mux(wrap, start + loop.pitch2, offset + loop.pitch1)),
            self.i.ready.eq(~self.o.valid | (step & run.last)),
        ]
        with m.If(step):
            m.d.sync += [offset.eq(onward), turn1.eq(turn1 - 1)]
            with m.If(wrap):
                m.d.sync += [start.eq(onward), turn1.eq(loop.count1 - 2), turn2.eq(turn2 - 1)]
        with m.If(self.i.ready):
            m.d.sync += self.o.valid.eq(self.i.valid)
            with m.If(self.i.valid):
                m.d.sync += [
                    offset.eq(command.offset),
                    start.eq(command.offset),
                    turn1.eq(command.count1 - 2),
                    turn2.eq(command.count2 - 2),
                ]
                if not self.steady:
                    m.d.sync += loop.eq(command)
        return m
