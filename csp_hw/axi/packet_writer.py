# SPDX-License-Identifier: Apache-2.0
"""Where a stream leaves as an AXI4-Stream, in packets."""

from amaranth import Module, Signal, unsigned
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from csp_hw.axi.meter import RunMeter
from csp_hw.axi.ports import run_layout
from csp_hw.axi.signature import PacketSignature


class PacketWriter(wiring.Component):
    """Send as many beats as runs say; a packet ends with the last beat of a run with ``last``.

    A beat is on offer in the cycle after its transfer on ``i``; one beat a cycle.

    Parameters
    ----------
    data_bytes : int
        Bytes of a beat; a power of two.

    Members
    -------
    runs : In(stream)
        :func:`csp_hw.axi.ports.run_layout`; offsets do not matter. A run of 0 beats is nothing.
    i : In(stream)
        Beats.
    strobe : In(data_bytes)
        Bytes of each beat that mean something; constant while there are runs.
    stop : In(1)
        Take no more beats, and end a packet that has begun with a beat of no bytes; stays high
        until reset.
    quiet : Out(1)
        No beat is on offer, and no packet has begun without its end: with ``stop``, it is safe to
        reset.
    idle : Out(1)
        All beats of the runs that were taken have left.
    waiting : Out(1)
        A beat is on offer.
    axi : Out(PacketSignature)
    """

    def __init__(self, data_bytes: int):
        self.data_bytes = data_bytes
        super().__init__(
            {
                "runs": In(stream.Signature(run_layout())),
                "i": In(stream.Signature(unsigned(8 * data_bytes))),
                "strobe": In(data_bytes),
                "stop": In(1),
                "quiet": Out(1),
                "idle": Out(1),
                "waiting": Out(1),
                "axi": Out(PacketSignature(data_bytes, strobes=True)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        t = self.axi.t
        m.submodules.meter = meter = RunMeter()
        wiring.connect(m, wiring.flipped(self.runs), meter.runs)
        begun = Signal()
        free = Signal()
        close = Signal()
        every = (1 << self.data_bytes) - 1
        m.d.comb += [
            free.eq(~t.valid | t.ready),
            self.i.ready.eq(meter.due & free & ~self.stop),
            meter.take.eq(self.i.valid & self.i.ready),
            close.eq(self.stop & begun & free),
            self.quiet.eq(~t.valid & ~begun),
            self.idle.eq(~meter.due & ~t.valid),
            self.waiting.eq(t.valid),
        ]
        with m.If(free):
            m.d.sync += t.valid.eq(meter.take | close)
        with m.If(meter.take):
            m.d.sync += [
                t.payload.data.eq(self.i.payload),
                t.payload.strb.eq(self.strobe),
                t.payload.keep.eq(every),
                t.payload.last.eq(meter.last),
                begun.eq(~meter.last),
            ]
        with m.Elif(close):
            m.d.sync += [
                t.payload.strb.eq(0),
                t.payload.keep.eq(0),
                t.payload.last.eq(1),
                begun.eq(0),
            ]
        return m
