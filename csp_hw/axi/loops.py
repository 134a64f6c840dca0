# SPDX-License-Identifier: Apache-2.0
"""Two nested loops of addresses."""

from amaranth import Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from csp_hw.axi.ports import loop_layout, run_layout


class LoopAddress(wiring.Component):
    """Turn a command into its runs.

    For n2 = 0 … count2 − 1, for n1 = 0 … count1 − 1: ``beats`` beats from
    offset + n2 · pitch2 + n1 · pitch1 (mod 2^32), ``last`` with the last of them.

    The first run is on offer in the cycle after the command's transfer; one run a cycle, also from
    a command to the next. Counts of 0 are not allowed: whoever makes commands refuses them.

    Members
    -------
    i : In(stream)
        Commands, :func:`csp_hw.axi.ports.loop_layout`.
    o : Out(stream)
        Runs, :func:`csp_hw.axi.ports.run_layout`.
    """

    i: In(stream.Signature(loop_layout()))
    o: Out(stream.Signature(run_layout()))

    def elaborate(self, platform):
        m = Module()
        loop = Signal(loop_layout(), reset_less=True)
        run = self.o.payload
        start = Signal.like(run.offset, reset_less=True)  # of the inner loop
        turn1 = Signal.like(loop.count1)  # turns that follow this one
        turn2 = Signal.like(loop.count2)
        step = Signal()
        wrap = Signal()
        onward = Signal.like(run.offset)
        m.d.comb += [
            step.eq(self.o.valid & self.o.ready),
            wrap.eq(turn1 == 0),
            run.beats.eq(loop.beats),
            run.last.eq(wrap & (turn2 == 0)),
            onward.eq(Mux(wrap, start, run.offset) + Mux(wrap, loop.pitch2, loop.pitch1)),
            self.i.ready.eq(~self.o.valid | (step & run.last)),
        ]
        with m.If(step):
            m.d.sync += [run.offset.eq(onward), turn1.eq(turn1 - 1)]
            with m.If(wrap):
                m.d.sync += [start.eq(onward), turn1.eq(loop.count1 - 1), turn2.eq(turn2 - 1)]
        with m.If(self.i.ready):
            m.d.sync += self.o.valid.eq(self.i.valid)
            with m.If(self.i.valid):
                command = self.i.payload
                m.d.sync += [
                    loop.eq(command),
                    run.offset.eq(command.offset),
                    start.eq(command.offset),
                    turn1.eq(command.count1 - 1),
                    turn2.eq(command.count2 - 1),
                ]
        return m
