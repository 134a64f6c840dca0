# SPDX-License-Identifier: Apache-2.0
"""A queue whose memory is read into a register slice."""

from amaranth import Module, Signal
from amaranth.lib import memory, stream, wiring
from amaranth.lib.wiring import In, Out

from csp_hw.slice import SLICE, RegisterSlice
from csp_hw.util import counted

#: Cycles from a word's leaving until another one finds its place.
FREED = 2
#: Most words that are kept beyond those of the memory.
BEYOND = SLICE


class Queue(wiring.Component):
    """Keep words in their order, the first ones in the slice behind a memory.

    One word a cycle in and out. A word is on offer two cycles after its transfer at the earliest,
    and its place is free ``FREED`` cycles after it has left.
    No path leads through from one side to the other, and what enables the memory and the slice is
    in registers.

    Parameters
    ----------
    shape
        Shape of a word.
    depth : int
        Words of the memory: a power of two, at least 2.
    room : int, optional
        Words kept, those included whose place is not free yet; at most
        ``BEYOND`` more than ``depth``.
        Without it there must never be more than ``depth``: the queue is always ready.

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
        self.room = room
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
        m.submodules.slice = register = RegisterSlice(self.shape)
        write, read = store.write_port(), store.read_port(domain="comb")
        tail = Signal(range(self.depth))
        head = Signal(range(self.depth))
        do_fetch = Signal()
        _, any_stored = counted(m, "stored", self.depth, write.en, do_fetch)
        wiring.connect(m, register.o, wiring.flipped(self.o))
        if self.room is None:
            m.d.comb += self.i.ready.eq(1)
        else:
            did_give = Signal()
            m.d.sync += did_give.eq(self.o.valid & self.o.ready)
            _, any_free = counted(m, "free", self.room, did_give, write.en, init=self.room)
            m.d.comb += self.i.ready.eq(any_free)
        m.d.comb += [
            write.en.eq(self.i.valid & self.i.ready),
            write.addr.eq(tail),
            write.data.eq(self.i.payload),
            read.addr.eq(head),
            register.i.valid.eq(any_stored),
            register.i.payload.eq(read.data),
            do_fetch.eq(any_stored & register.i.ready),
        ]
        m.d.sync += [
            tail.eq(tail + write.en),
            head.eq(head + do_fetch),
        ]
        return m
