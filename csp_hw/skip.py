# SPDX-License-Identifier: Apache-2.0
"""Counter-based skipping: from a stream of counts to blocks of surviving taps."""

from amaranth import Cat, Module, Signal, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from csp_hw.axi.queue import Queue
from csp_hw.config import COUNT_BITS, TAP_BITS, CspConfig
from csp_hw.ports import KERNEL_BITS, counts_layout, position_layout


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
    Unless L and ``cols`` are powers of two, and each word belongs to one kernel position, the
    positions say nothing, but all else holds.

    Members
    -------
    taps : In(16)
        J, constant during a layer.
    position_words, kernel_w : In
        Words of counts of a kernel position, kernel positions of a line; constant during a layer.
    i : In(stream)
        ceil(J / L) words a tile.
    o : Out(stream)
    """

    def __init__(self, config: CspConfig):
        self.config = config
        super().__init__(
            {
                "taps": In(TAP_BITS),
                "position_words": In(TAP_BITS),
                "kernel_w": In(KERNEL_BITS),
                "i": In(stream.Signature(counts_layout(config))),
                "o": Out(stream.Signature(survivor_layout(config))),
            }
        )

    def elaborate(self, platform):
        m = Module()
        lanes = self.config.lookahead

        # The word at work: its counts, which of them are still to be sent, and its number in the
        # tile.
        word = Signal(counts_layout(self.config), reset_less=True)
        word_valid = Signal()
        pending = Signal(lanes, reset_less=True)
        others = pending & (pending - 1)[:lanes]
        number = Signal(range((1 << TAP_BITS) // lanes + 1))
        last_number = Signal.like(number, reset_less=True)
        count = Signal(COUNT_BITS)
        lane_found = Signal(range(lanes))
        word_done = Signal()
        tile_done = Signal()
        m.d.sync += last_number.eq((self.taps - 1) >> (lanes.bit_length() - 1))
        is_last = number == last_number
        m.d.comb += [
            word_done.eq(word_valid & (others == 0)),
            tile_done.eq(word_done & is_last),
        ]
        for lane in reversed(range(lanes)):
            with m.If(pending[lane]):
                m.d.comb += [count.eq(word[lane]), lane_found.eq(lane)]

        # Where the word at work lies.
        r, s = Signal(KERNEL_BITS), Signal(KERNEL_BITS)
        part = Signal(TAP_BITS)  # its number in its kernel position
        last_s, last_part = (Signal.like(at, reset_less=True) for at in (s, part))
        m.d.sync += [last_s.eq(self.kernel_w - 1), last_part.eq(self.position_words - 1)]
        channel = Cat(lane_found, part)
        byte_bits = range(self.config.cols)[-1].bit_length()

        # The survivor held back, and the rules for letting it go.
        held = Signal(survivor_layout(self.config), reset_less=True)
        held_valid = Signal()
        held_end = held.position.end
        step = Signal()
        needs_hold = word_valid & (pending.any() | (is_last & (~held_valid | held_end)))
        do_send = self.o.valid & self.o.ready
        m.d.comb += [
            self.o.payload.eq(held),
            self.o.valid.eq(held_valid & (held_end | needs_hold)),
            step.eq(word_valid & (~needs_hold | ~held_valid | do_send)),
            self.i.ready.eq(~word_valid | (step & word_done)),
        ]
        with m.If(do_send):
            m.d.sync += held_valid.eq(0)
        with m.If(step):
            m.d.sync += pending.eq(others)
            with m.If(needs_hold):
                m.d.sync += [
                    held_valid.eq(1),
                    held.count.eq(count),
                    held.position.r.eq(r),
                    held.position.s.eq(s),
                    held.position.beat.eq(channel[byte_bits:]),
                    held.position.byte.eq(channel[:byte_bits]),
                    held.position.empty.eq(~pending.any()),
                    held_end.eq(tile_done),
                ]
            with m.Elif(tile_done):
                m.d.sync += held_end.eq(1)
            with m.If(word_done):
                m.d.sync += [word_valid.eq(0), number.eq(number + 1), part.eq(part + 1)]
                with m.If(part == last_part):
                    m.d.sync += [part.eq(0), s.eq(s + 1)]
                    with m.If(s == last_s):
                        m.d.sync += [s.eq(0), r.eq(r + 1)]
                with m.If(is_last):
                    m.d.sync += [number.eq(0), part.eq(0), s.eq(0), r.eq(0)]
        with m.If(self.i.valid & self.i.ready):
            m.d.sync += [
                word.eq(self.i.payload),
                word_valid.eq(1),
                pending.eq(Cat(count.any() for count in self.i.payload)),
            ]
        return m


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
        tap = self.i.payload
        complete = Signal()

        m.d.comb += [
            complete.eq(tap.end | (taps + 1 == self.period)),
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
            m.d.sync += [gathered.eq(self.o.payload.counts), taps.eq(taps + 1)]
            with m.If(complete):
                # Counts beyond a block's taps stay zero, so that they take part in no run.
                m.d.sync += [gathered.eq(0), taps.eq(0)]
        return m


class SkipController(wiring.Component):
    """Counts in, blocks out, with a queue of F · T taps and one of F blocks between them.

    The queues even out the gaps between surviving taps: while the array spends I · n cycles on a
    tap, the scanner is ahead.

    Members
    -------
    taps, period : In
        J and T, constant during a layer.
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
                "taps": In(TAP_BITS),
                "period": In(range(config.max_period + 1)),
                "position_words": In(TAP_BITS),
                "kernel_w": In(KERNEL_BITS),
                "i": In(stream.Signature(counts_layout(config))),
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
            scanner.taps.eq(self.taps),
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
    """Give a queue of so many words, at least two."""
    return Queue(shape, max(2, 1 << (words - 2).bit_length()), room=words)
