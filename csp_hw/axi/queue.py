# SPDX-License-Identifier: Apache-2.0
"""A queue whose memory is read into a register."""

from amaranth import Module, Signal
from amaranth.lib import memory, stream, wiring
from amaranth.lib.wiring import In, Out


class Queue(wiring.Component):
    """Keep words in their order: ``room`` in a memory, one more in the register behind it.

    One word a cycle in and out. A word is on offer two cycles after its transfer at the earliest.
    Both ``i.ready`` and all of ``o`` are registers or a comparison behind them.

    Parameters
    ----------
    shape
        Shape of a word.
    depth : int
        A power of two.
    room : int, optional
        Keep so many words in the memory, not all that fit.

    Members
    -------
    i : In(stream)
    o : Out(stream)
    """

    def __init__(self, shape, depth: int, room: int | None = None):
        if depth < 2 or depth & (depth - 1):
            raise ValueError(f"depth must be a power of two, not {depth}")
        self.shape = shape
        self.depth = depth
        self.room = depth if room is None else room
        super().__init__({"i": In(stream.Signature(shape)), "o": Out(stream.Signature(shape))})

    def elaborate(self, platform):
        m = Module()
        # Never read where it is written: it is read only where a word is stored. LUT RAM, because
        # block RAM would swallow the register and answer late.
        m.submodules.store = store = memory.Memory(
            shape=self.shape,
            depth=self.depth,
            init=[],
            attrs={"no_rw_check": 1, "ram_style": "distributed"},
        )
        write, read = store.write_port(), store.read_port(domain="comb")
        tail = Signal(range(self.depth))
        head = Signal(range(self.depth))
        stored = Signal(range(self.depth + 1))
        do_fetch = Signal()
        word = Signal(self.shape, reset_less=True)
        m.d.comb += [
            self.o.payload.eq(word),
            self.i.ready.eq(~stored[-1] if self.room == self.depth else stored != self.room),
            write.en.eq(self.i.valid & self.i.ready),
            write.addr.eq(tail),
            write.data.eq(self.i.payload),
            do_fetch.eq((stored != 0) & (~self.o.valid | self.o.ready)),
            read.addr.eq(head),
        ]
        m.d.sync += [
            stored.eq(stored + write.en - do_fetch),
            tail.eq(tail + write.en),
            head.eq(head + do_fetch),
        ]
        with m.If(do_fetch):
            m.d.sync += [word.eq(read.data), self.o.valid.eq(1)]
        with m.Elif(self.o.ready):
            m.d.sync += self.o.valid.eq(0)
        return m
