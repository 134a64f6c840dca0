# SPDX-License-Identifier: Apache-2.0
"""The buffer at the end of a pipeline that cannot stall."""

from amaranth import Module, Signal
from amaranth.lib import memory, stream, wiring
from amaranth.lib.wiring import In, Out


class ResultBuffer(wiring.Component):
    """Offer words in the order in which they were written: memory, then a register.

    There is no check for room: whoever writes lets into its pipeline only what will have a place
    here. ``depth`` words have one, the one on offer included; a transfer on ``o`` gives its place
    back in the next cycle.

    A word written in cycle n is on offer from n + 2 on, or later if others are before it.

    Parameters
    ----------
    shape
        Shape of a word.
    depth : int
        A power of two; 16 words are one row of LUT RAM on an ECP5.

    Members
    -------
    write, data : In
    o : Out(stream)
    """

    def __init__(self, shape, depth: int):
        if depth < 2 or depth & (depth - 1):
            raise ValueError(f"depth must be a power of two, not {depth}")
        self.shape = shape
        self.depth = depth
        super().__init__({"write": In(1), "data": In(shape), "o": Out(stream.Signature(shape))})

    def elaborate(self, platform):
        m = Module()
        # Never read where it is empty, so no address is read and written in one cycle.
        m.submodules.store = store = memory.Memory(
            shape=self.shape, depth=self.depth, init=[], attrs={"no_rw_check": 1}
        )
        write, read = store.write_port(), store.read_port(domain="comb")
        tail = Signal(range(self.depth))
        head = Signal(range(self.depth))
        stored = Signal(range(self.depth + 1))
        do_read = Signal()
        word = Signal(self.shape, reset_less=True)
        m.d.comb += [
            self.o.payload.eq(word),
            write.addr.eq(tail),
            write.data.eq(self.data),
            write.en.eq(self.write),
            read.addr.eq(head),
            self.o.payload.eq(word),
            do_read.eq((stored != 0) & (~self.o.valid | self.o.ready)),
        ]
        m.d.sync += [
            stored.eq(stored + self.write - do_read),
            tail.eq(tail + self.write),
            head.eq(head + do_read),
        ]
        with m.If(do_read):
            m.d.sync += [word.eq(read.data), self.o.valid.eq(1)]
        with m.Elif(self.o.ready):
            m.d.sync += self.o.valid.eq(0)
        return m
