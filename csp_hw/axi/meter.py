# SPDX-License-Identifier: Apache-2.0
"""Runs as numbers of beats, where there are no addresses."""

from amaranth import Module, Signal, signed
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from csp_hw.axi.ports import RUN_BITS, run_layout


class RunMeter(wiring.Component):
    """Say of each beat whether it is due, and whether something ends with it.

    A beat can be taken from the cycle after its run's transfer on; one a cycle, also from a run to
    the next.

    Members
    -------
    runs : In(stream)
        :func:`csp_hw.axi.ports.run_layout`; offsets do not matter. A run of 0 beats is nothing.
    take : In(1)
        A beat is taken; only while ``due``.
    due : Out(1)
        A run has beats that were not taken.
    ends : Out(1)
        While ``due``: the next beat is the last one of its run, …
    last : Out(1)
        … which is the last one of its command.
    """

    runs: In(stream.Signature(run_layout()))
    take: In(1)
    due: Out(1)
    ends: Out(1)
    last: Out(1)

    def elaborate(self, platform):
        m = Module()
        run = self.runs.payload
        # What is left less two, so that the sign marks the last beat.
        left = Signal(signed(RUN_BITS + 1), reset_less=True)
        final = Signal()
        m.d.comb += [
            self.ends.eq(left[-1]),
            self.last.eq(left[-1] & final),
            self.runs.ready.eq(~self.due | (self.take & self.ends)),
        ]
        with m.If(self.runs.ready):
            m.d.sync += [
                self.due.eq(self.runs.valid & run.beats.any()),
                left.eq(run.beats - 2),
                final.eq(run.last),
            ]
        with m.Elif(self.take):
            m.d.sync += left.eq(left - 1)
        return m
