# SPDX-License-Identifier: Apache-2.0
"""The buffer of a layer's weights or counts, which every tile reads from the start again."""

from amaranth import Module, Mux, Signal, signed
from amaranth.lib import memory, stream, wiring
from amaranth.lib.wiring import In, Out

from csp_hw.ports import TILE_BITS
from csp_hw.util import counted, delayed

#: Words of one replay: 65,535 taps of 255 chunks are fewer than 2^24.
WORD_BITS = 24
#: Words between the memory and ``o``; a power of two that covers the five cycles from reading a
#: word to its credit's return.
CREDITS = 8


class ReplayStore(wiring.Component):
    """Put out the words of a stream once a tile, from a memory if they fit.

    Resident words are taken from ``i`` once and put out ``replays`` times; a word may leave while
    later ones still arrive. Words that are not resident pass through: words · replays are taken,
    and the memory is a queue, which bridges the latency of what sends them. In either case
    words · replays leave, in order; if that is none, nothing is taken.

    Throughput: one word a cycle in and out, also from one replay to the next. A word is on offer
    ``LATENCY`` cycles after it was taken, if all before it have left by then.

    Parameters
    ----------
    shape
        Shape of a word.
    depth : int
        Words of the memory, at least 2; a power of two.

    Members
    -------
    start : In(1)
        Begin, with the values of ``words``, ``replays`` and ``resident`` in this cycle; only while
        ``busy`` is low.
    words : In(24)
        Words of one replay; at most ``depth`` if they are resident.
    replays : In(24)
        Tiles of the layer.
    resident : In(1)
    i : In(stream)
        Words beyond those that are due wait.
    o : Out(stream)
    busy : Out(1)
        From the cycle after ``start`` until the last word has left.
    """

    #: Cycles from a word's transfer on ``i`` to the first in which ``o`` may offer it.
    LATENCY = 5

    def __init__(self, shape, depth: int):
        if depth < 2 or depth & (depth - 1):
            raise ValueError(f"depth must be a power of two, at least 2, not {depth}")
        self.shape = shape
        self.depth = depth
        super().__init__(
            {
                "start": In(1),
                "words": In(WORD_BITS),
                "replays": In(TILE_BITS),
                "resident": In(1),
                "i": In(stream.Signature(shape)),
                "o": Out(stream.Signature(shape)),
                "busy": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        # No word of either memory is ever read and written in one cycle. Both are read without a
        # clock and then registered: of the large one Yosys makes block RAM together with `answer`,
        # and believes `no_rw_check` only in this form.
        attrs = {"no_rw_check": 1}
        m.submodules.store = store = memory.Memory(
            shape=self.shape, depth=self.depth, init=[], attrs=attrs
        )
        m.submodules.queue = queue = memory.Memory(
            shape=self.shape, depth=CREDITS, init=[], attrs=attrs
        )
        write, read = store.write_port(), store.read_port(domain="comb")

        resident = Signal()
        again = Signal(signed(WORD_BITS + 1), reset_less=True)
        with m.If(self.start):
            m.d.sync += [resident.eq(self.resident), again.eq(self.words - 2)]

        def walk(name, replays, step):
            """Count words and replays; give whether a word is due and whether it ends a replay.

            Both counters hold what is left less two, so that their sign marks the last one.
            """
            due = Signal(name=f"{name}_due")
            word = Signal(signed(WORD_BITS + 1), name=f"{name}_word", reset_less=True)
            replay = Signal(signed(TILE_BITS + 1), name=f"{name}_replay", reset_less=True)
            with m.If(self.start):
                m.d.sync += [
                    due.eq((self.words != 0) & (self.replays != 0)),
                    word.eq(self.words - 2),
                    replay.eq(replays - 2),
                ]
            with m.Elif(step):
                m.d.sync += word.eq(word - 1)
                with m.If(word[-1]):
                    m.d.sync += [word.eq(again), replay.eq(replay - 1), due.eq(~replay[-1])]
            return due, word[-1]

        # Words in. `kept` counts those that wait to be read for the first time.
        do_write = Signal()
        do_read = Signal()
        do_send = Signal()
        fresh = Signal()
        kept, any_kept = counted(m, "kept", self.depth, do_write, do_read & fresh)
        full = kept[-1]
        write_at = Signal(range(self.depth))
        in_due, _ = walk("in", Mux(self.resident, 1, self.replays), do_write)
        m.d.comb += [
            self.i.ready.eq(in_due & ~full),
            do_write.eq(self.i.valid & self.i.ready),
            write.addr.eq(write_at),
            write.data.eq(self.i.payload),
            write.en.eq(do_write),
        ]

        # Reading. What is resident has arrived when its first replay is over.
        free, any_free = counted(m, "free", CREDITS, do_send, do_read, init=CREDITS)
        read_at = Signal(range(self.depth))
        out_due, out_last = walk("out", self.replays, do_read)
        m.d.comb += [
            do_read.eq(out_due & (~fresh | any_kept) & any_free),
            do_send.eq(self.o.valid & self.o.ready),
            read.addr.eq(read_at),
        ]
        with m.If(self.start):
            m.d.sync += [write_at.eq(0), read_at.eq(0), fresh.eq(1)]
        with m.Else():
            m.d.sync += write_at.eq(write_at + do_write)
            with m.If(do_read):
                m.d.sync += read_at.eq(read_at + 1)
                with m.If(out_last & resident):
                    m.d.sync += [read_at.eq(0), fresh.eq(0)]

        # A block RAM answers late in the cycle: its word goes straight to a register.
        answer = Signal(self.shape, reset_less=True)
        word = Signal(self.shape, reset_less=True)
        arrived = delayed(m, do_read, 2, "arrived")
        with m.If(do_read):
            m.d.sync += answer.eq(read.data)
        m.d.sync += word.eq(answer)

        # Words out. The queue has room for each word that was read.
        enqueue, head = queue.write_port(), queue.read_port(domain="comb")
        stored = Signal(range(CREDITS + 1))
        do_fetch = Signal()
        offered = Signal(self.shape, reset_less=True)
        m.d.comb += [
            self.o.payload.eq(offered),
            enqueue.data.eq(word),
            enqueue.en.eq(arrived),
            do_fetch.eq((stored != 0) & (~self.o.valid | self.o.ready)),
            self.busy.eq(out_due | ~free[-1]),
        ]
        m.d.sync += [
            enqueue.addr.eq(enqueue.addr + arrived),
            head.addr.eq(head.addr + do_fetch),
            stored.eq(stored + arrived - do_fetch),
        ]
        with m.If(do_fetch):
            m.d.sync += [offered.eq(head.data), self.o.valid.eq(1)]
        with m.Elif(self.o.ready):
            m.d.sync += self.o.valid.eq(0)
        return m
