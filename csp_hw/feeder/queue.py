# SPDX-License-Identifier: Apache-2.0
"""A queue behind a pipeline that cannot stall."""

from amaranth import Module, Signal
from amaranth.lib import memory, stream, wiring
from amaranth.lib.wiring import In, Out

from csp_hw.config import CspConfig
from csp_hw.ports import activations_layout

#: Words in the pipeline and the queue together; what a full rate needs is the pipeline's latency
#: and 5 more. One row of LUT RAM on an ECP5.
CREDITS = 16


class WordQueue(wiring.Component):
    """Take the words that were asked for, and say whether one more may be.

    Members
    -------
    credit : Out(1)
        A word may be asked for.
    asked : In(1)
        One is, in this cycle; only if ``credit``.
    valid : In(1)
        One arrives,
    word : In
        this one.
    o : Out(stream)
        Words in the order of their arrival; two cycles after it if none is before.
    idle : Out(1)
        All words that were asked for are taken.
    """

    def __init__(self, config: CspConfig):
        self.config = config
        super().__init__(
            {
                "credit": Out(1),
                "asked": In(1),
                "valid": In(1),
                "word": In(activations_layout(config)),
                "o": Out(stream.Signature(activations_layout(config))),
                "idle": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        # Never read and written at the same place in one cycle.
        m.submodules.store = store = memory.Memory(
            shape=activations_layout(self.config), depth=CREDITS, init=[]
        )
        write, read = store.write_port(), store.read_port(domain="comb")
        free = Signal(range(CREDITS + 1), init=CREDITS)
        free_next = Signal.like(free)
        stored = Signal(range(CREDITS + 1))
        do_fetch = Signal()
        word = Signal(activations_layout(self.config), reset_less=True)
        m.d.comb += [
            self.o.payload.eq(word),
            free_next.eq(free - self.asked + (self.o.valid & self.o.ready)),
            self.idle.eq(free == CREDITS),
            do_fetch.eq((stored != 0) & (~self.o.valid | self.o.ready)),
            write.en.eq(self.valid),
            write.data.eq(self.word),
        ]
        m.d.sync += [
            free.eq(free_next),
            self.credit.eq(free_next != 0),
            stored.eq(stored + self.valid - do_fetch),
            write.addr.eq(write.addr + self.valid),
            read.addr.eq(read.addr + do_fetch),
        ]
        with m.If(do_fetch):
            m.d.sync += [word.eq(read.data), self.o.valid.eq(1)]
        with m.Elif(self.o.ready):
            m.d.sync += self.o.valid.eq(0)
        return m
