# SPDX-License-Identifier: Apache-2.0
"""Where an AXI4-Stream comes in: packets of known length."""

from amaranth import Module, unsigned
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from csp_hw.axi.meter import RunMeter
from csp_hw.axi.ports import run_layout
from csp_hw.axi.queue import BEYOND, Queue
from csp_hw.axi.signature import PacketSignature

#: Beats in the queue that keeps both sides' handshakes apart, besides the one on offer.
DEPTH = 2


class PacketReader(wiring.Component):
    """Let as many beats through as runs say, and look whether packets end where they should.

    Beats that come before their run wait. A beat is on offer two cycles after it came, at the
    earliest; one beat a cycle.

    Parameters
    ----------
    data_bytes : int
        Bytes of a beat; a power of two.
    each : bool
        A packet is a run; else it is all runs up to one with ``last``.

    Members
    -------
    axi : In(PacketSignature)
    runs : In(stream)
        :func:`csp_hw.axi.ports.run_layout`; offsets do not matter. A run of 0 beats is nothing.
    o : Out(stream)
        Beats.
    drop : In(1)
        Take what comes and forget it.
    due : Out(1)
        Not all beats of the runs that were taken have left on ``o``.
    waiting : Out(1)
        A beat is due and has not come.
    short, long : Out(1)
        A packet has ended before its last beat, or has not ended with it; both stay until reset.
    """

    def __init__(self, data_bytes: int, *, each: bool = False):
        self.data_bytes = data_bytes
        self.each = each
        super().__init__(
            {
                "axi": In(PacketSignature(data_bytes)),
                "runs": In(stream.Signature(run_layout())),
                "o": Out(stream.Signature(unsigned(8 * data_bytes))),
                "drop": In(1),
                "due": Out(1),
                "waiting": Out(1),
                "short": Out(1),
                "long": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        t = self.axi.t
        m.submodules.queue = queue = Queue(t.payload.shape(), DEPTH, room=DEPTH + BEYOND)
        m.submodules.meter = meter = RunMeter()
        wiring.connect(m, wiring.flipped(self.runs), meter.runs)
        beat = queue.o.payload
        ends = meter.ends if self.each else meter.last
        m.d.comb += [
            queue.i.payload.eq(t.payload),
            queue.i.valid.eq(t.valid & ~self.drop),
            t.ready.eq(queue.i.ready | self.drop),
            self.o.payload.eq(beat.data),
            self.o.valid.eq(queue.o.valid & meter.due),
            queue.o.ready.eq(self.o.ready & meter.due),
            meter.take.eq(self.o.valid & self.o.ready),
            self.due.eq(meter.due),
            self.waiting.eq(meter.due & ~queue.o.valid),
        ]
        with m.If(meter.take):
            m.d.sync += [
                self.short.eq(self.short | (beat.last & ~ends)),
                self.long.eq(self.long | (ends & ~beat.last)),
            ]
        return m
