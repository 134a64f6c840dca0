# SPDX-License-Identifier: Apache-2.0
"""Counter-based skipping: from a stream of counts to blocks of surviving taps."""

from amaranth import Cat, Module, Signal, Value, signed, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from csp_hw.axi.queue import Queue
from csp_hw.config import COUNT_BITS, TAP_BITS, CspConfig
from csp_hw.ports import KERNEL_BITS, position_layout, tile_counts_layout


def survivor_layout(config: CspConfig) -> data.StructLayout:
    """Give a surviving tap. An empty tile sends one entry, ``position.empty`` and of count 0."""
    return data.StructLayout(
        {
            "count": unsigned(COUNT_BITS),
            "position": position_layout(config),
        }
    )


def tap_layout() -> data.StructLayout:
    """Give what a block keeps of a surviving tap."""
    return data.StructLayout(
        {
            "count": unsigned(COUNT_BITS),
            "empty": unsigned(1),
            "end": unsigned(1),
        }
    )


def block_layout(config: CspConfig) -> data.StructLayout:
    """Give a block: the counts of at most T surviving taps."""
    return data.StructLayout(
        {
            "counts": data.ArrayLayout(unsigned(COUNT_BITS), config.max_period),
            "taps": range(config.max_period + 1),  # 0: a tile without survivors
            "end": unsigned(1),  # the tile's last block
        }
    )


class Scanner(wiring.Component):
    """Find the surviving taps: step over a whole word of L zero counts in a cycle.

    A word costs max(1, its surviving taps) cycles: all zeros before, between and after them are
    free. No word is aligned to a tap, so this is never slower than looking L counts ahead of each
    surviving tap, which costs ceil(gap / L) cycles a tap.

    The last surviving tap of a tile is known only when its remaining counts were seen, so a tap
    leaves when the next one is found, or when its tile has ended.

    Where a tap lies follows from the number of its word: channels are innermost, then s, then r.
    Unless L and ``cols`` are powers of two, and each word belongs to one kernel position, all of
    whose channels the line buffer can hold, the positions say nothing, but all else holds.

    Members
    -------
    position_words, kernel_w : In
        Words of counts of a kernel position, kernel positions of a line; constant during a layer,
        from the cycle before its first word on.
    i : In(stream)
        ceil(J / L) words a tile.
    o : Out(stream)
    """

    def __init__(self, config: CspConfig):
        self.config = config
        super().__init__(
            {
                "position_words": In(TAP_BITS),
                "kernel_w": In(KERNEL_BITS),
                "i": In(stream.Signature(tile_counts_layout(config))),
                "o": Out(stream.Signature(survivor_layout(config))),
            }
        )

    def elaborate(self, platform):
        m = Module()
        lanes = self.config.lookahead

        # The word at work: its counts, which of them are still to be sent, whether there are any,
        # and whether there is more than one: registers, since much depends on them.
        word = Signal(tile_counts_layout(self.config), reset_less=True)
        word_valid = Signal()
        pending = Signal(lanes, reset_less=True)
        some, more = Signal(reset_less=True), Signal(reset_less=True)
        others = _but_first(pending)
        arriving = Cat(count.any() for count in self.i.payload.counts)
        count = Signal(COUNT_BITS)
        lane_found = Signal(range(lanes))
        for lane in reversed(range(lanes)):
            with m.If(pending[lane]):
                m.d.comb += [count.eq(word.counts[lane]), lane_found.eq(lane)]

        # Where it lies: kernel position, words of the position before it, and how many follow, less
        # one, so that the sign marks the last one.
        r, s = Signal(KERNEL_BITS), Signal(KERNEL_BITS)
        most = max(1, self.config.line_words * self.config.cols // lanes)
        part = Signal(range(most))
        parts, parts_left = (
            Signal(signed(len(part) + 2), name=name, reset_less=True)
            for name in ("parts", "parts_left")
        )
        last_s = Signal.like(s, reset_less=True)
        m.d.sync += [last_s.eq(self.kernel_w - 1), parts.eq(self.position_words - 2)]
        channel = Cat(lane_found, part)
        byte_bits = range(self.config.cols)[-1].bit_length()
        begins = Signal(init=1)  # no word of the tile has come

        # The survivor held back, and the rules for letting it go.
        held = Signal(survivor_layout(self.config), reset_less=True)
        held_valid = Signal()
        held_end = held.position.end
        step = Signal()
        needs_hold = some | (word.last & (~held_valid | held_end))
        word_done = Signal()
        m.d.comb += [
            self.o.payload.eq(held),
            self.o.valid.eq(held_valid & (held_end | (word_valid & some))),
            # Unless a survivor must go first, and does not.
            step.eq(word_valid & (~held_valid | self.o.ready | ~(some | (word.last & held_end)))),
            word_done.eq(step & ~more),
            self.i.ready.eq(~word_valid | word_done),
        ]
        with m.If(self.o.valid & self.o.ready):
            m.d.sync += held_valid.eq(0)
        with m.If(step):
            m.d.sync += [
                pending.eq(others),
                some.eq(more),
                more.eq(_but_first(others).any()),
            ]
            with m.If(needs_hold):
                m.d.sync += [
                    held_valid.eq(1),
                    held.count.eq(count),
                    held.position.r.eq(r),
                    held.position.s.eq(s),
                    held.position.beat.eq(channel[byte_bits:]),
                    held.position.byte.eq(channel[:byte_bits]),
                    held.position.empty.eq(~some),
                    held_end.eq(~more & word.last),
                ]
            with m.Elif(~more & word.last):
                m.d.sync += held_end.eq(1)
        with m.If(begins):
            m.d.sync += parts_left.eq(parts)
        with m.If(word_done):
            m.d.sync += [
                word_valid.eq(0),
                part.eq(part + 1),
                parts_left.eq(parts_left - 1),
            ]
            with m.If(parts_left[-1]):
                m.d.sync += [part.eq(0), parts_left.eq(parts), s.eq(s + 1)]
                with m.If(s == last_s):
                    m.d.sync += [s.eq(0), r.eq(r + 1)]
            with m.If(word.last):
                m.d.sync += [part.eq(0), parts_left.eq(parts), s.eq(0), r.eq(0), begins.eq(1)]
        with m.If(self.i.valid & self.i.ready):
            m.d.sync += [
                word.eq(self.i.payload),
                word_valid.eq(1),
                pending.eq(arriving),
                some.eq(arriving.any()),
                more.eq(_but_first(arriving).any()),
                begins.eq(0),
            ]
        return m


def _but_first(bits: Value) -> Value:
    """Give the bits without the lowest one that is set."""
    return Cat(bit & bits[:n].any() for n, bit in enumerate(bits))


class Assembler(wiring.Component):
    """Gather T surviving taps, or the last ones of a tile, into a block; one tap a cycle.

    Members
    -------
    period : In
        T, constant during a layer.
    i : In(stream)
    o : Out(stream)
        Offered in the cycle in which the block's last tap is.
    """

    def __init__(self, config: CspConfig):
        self.config = config
        super().__init__(
            {
                "period": In(range(config.max_period + 1)),
                "i": In(stream.Signature(tap_layout())),
                "o": Out(stream.Signature(block_layout(config))),
            }
        )

    def elaborate(self, platform):
        m = Module()
        gathered = Signal(data.ArrayLayout(unsigned(COUNT_BITS), self.config.max_period))
        taps = Signal(range(self.config.max_period + 1))
        last = Signal(reset_less=True)  # of T; a register, since it holds back what comes before
        tap = self.i.payload
        complete = Signal()

        m.d.sync += last.eq(taps + 1 == self.period)
        m.d.comb += [
            complete.eq(tap.end | last),
            self.o.payload.counts.eq(gathered),
            self.o.payload.taps.eq(taps + ~tap.empty),
            self.o.payload.end.eq(tap.end),
            self.o.valid.eq(self.i.valid & complete),
            self.i.ready.eq(~complete | self.o.ready),
        ]
        for slot in range(self.config.max_period):
            with m.If(taps == slot):
                m.d.comb += self.o.payload.counts[slot].eq(tap.count)

        with m.If(self.i.valid & self.i.ready):
            m.d.sync += [
                gathered.eq(self.o.payload.counts),
                taps.eq(taps + 1),
                last.eq(taps + 2 == self.period),
            ]
            with m.If(complete):
                # Counts beyond a block's taps stay zero, so that they take part in no run.
                m.d.sync += [gathered.eq(0), taps.eq(0), last.eq(self.period == 1)]
        return m


class SkipController(wiring.Component):
    """Counts in, blocks out, with a queue of F · T taps and one of F blocks between them.

    The queues even out the gaps between surviving taps: while the array spends I · n cycles on a
    tap, the scanner is ahead.

    Members
    -------
    period : In
        T, constant during a layer.
    position_words, kernel_w : In
        See :class:`Scanner`.
    i : In(stream)
        L counts a word.
    o : Out(stream)
        Blocks.
    positions : Out(stream)
        Where each surviving tap lies, in order; one entry for a tile without survivors. A tap
        joins its block in the cycle in which its position is taken, so a block never comes before
        its positions.
    """

    def __init__(self, config: CspConfig):
        self.config = config
        super().__init__(
            {
                "period": In(range(config.max_period + 1)),
                "position_words": In(TAP_BITS),
                "kernel_w": In(KERNEL_BITS),
                "i": In(stream.Signature(tile_counts_layout(config))),
                "o": Out(stream.Signature(block_layout(config))),
                "positions": Out(stream.Signature(position_layout(config))),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config = self.config
        m.submodules.scanner = scanner = Scanner(config)
        m.submodules.assembler = assembler = Assembler(config)
        m.submodules.survivors = survivors = _queue(
            survivor_layout(config), config.row_blocks * config.max_period
        )
        m.submodules.blocks = blocks = _queue(block_layout(config), config.row_blocks)
        tap, position = assembler.i.payload, survivors.o.payload.position

        wiring.connect(m, wiring.flipped(self.i), scanner.i)
        wiring.connect(m, scanner.o, survivors.i)
        wiring.connect(m, assembler.o, blocks.i)
        wiring.connect(m, blocks.o, wiring.flipped(self.o))
        m.d.comb += [
            scanner.position_words.eq(self.position_words),
            scanner.kernel_w.eq(self.kernel_w),
            assembler.period.eq(self.period),
        ]

        # A tap goes to the assembler and its position out in the same cycle. The assembler's ready
        # does not depend on its valid, and the queue behind it never withdraws its own.
        m.d.comb += [
            tap.count.eq(survivors.o.payload.count),
            tap.empty.eq(position.empty),
            tap.end.eq(position.end),
            self.positions.payload.eq(position),
            assembler.i.valid.eq(survivors.o.valid & self.positions.ready),
            self.positions.valid.eq(survivors.o.valid & assembler.i.ready),
            survivors.o.ready.eq(assembler.i.ready & self.positions.ready),
        ]
        return m


def _queue(shape, words: int) -> Queue:
    """Give a queue that takes so many words, at least two, and one more while places get free."""
    return Queue(shape, max(2, 1 << (words - 2).bit_length()), room=words + 1)
