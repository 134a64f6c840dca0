# SPDX-License-Identifier: Apache-2.0
"""Counter-based skipping: from a stream of counts to blocks of surviving taps."""

from amaranth import Cat, Module, Mux, Signal, unsigned
from amaranth.lib import data, fifo, stream, wiring
from amaranth.lib.wiring import In, Out

from csp_hw.config import COUNT_BITS, TAP_BITS, CspConfig
from csp_hw.ports import counts_layout


def survivor_layout() -> data.StructLayout:
    """Give a surviving tap. An empty tile sends one entry with count 0."""
    return data.StructLayout(
        {
            "count": unsigned(COUNT_BITS),
            "end": unsigned(1),  # the tile's last
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

    Members
    -------
    taps : In(16)
        J, constant during a layer.
    i : In(stream)
        ceil(J / L) words a tile.
    o : Out(stream)
    """

    def __init__(self, config: CspConfig):
        self.config = config
        super().__init__(
            {
                "taps": In(TAP_BITS),
                "i": In(stream.Signature(counts_layout(config))),
                "o": Out(stream.Signature(survivor_layout())),
            }
        )

    def elaborate(self, platform):
        m = Module()
        lanes = self.config.lookahead
        words_seen = Signal(range((1 << TAP_BITS) // lanes + 1))
        words = Signal.like(words_seen)
        m.d.sync += words.eq((self.taps + (lanes - 1)) >> (lanes.bit_length() - 1))

        # The word at work: its counts, and which of them are still to be sent.
        word = Signal(counts_layout(self.config))
        word_valid = Signal()
        pending = Signal(lanes)
        lowest = pending & (~pending + 1)[:lanes]
        found = Signal()
        count = Signal(COUNT_BITS)
        word_done = Signal()
        tile_done = Signal()
        m.d.comb += [
            found.eq(word_valid & pending.any()),
            word_done.eq(word_valid & ((pending ^ lowest) == 0)),
            tile_done.eq(word_done & (words_seen == words - 1)),
        ]
        for lane in reversed(range(lanes)):
            with m.If(pending[lane]):
                m.d.comb += count.eq(word[lane])

        # The survivor held back, and the rules for letting it go.
        held = Signal(survivor_layout())
        held_valid = Signal()
        step = Signal()
        needs_hold = found | (tile_done & (~held_valid | held.end))
        do_send = self.o.valid & self.o.ready
        m.d.comb += [
            self.o.payload.eq(held),
            self.o.valid.eq(held_valid & (held.end | needs_hold)),
            step.eq(word_valid & (~needs_hold | ~held_valid | do_send)),
            self.i.ready.eq(~word_valid | (step & word_done)),
        ]
        with m.If(do_send):
            m.d.sync += held_valid.eq(0)
        with m.If(step):
            m.d.sync += pending.eq(pending ^ lowest)
            with m.If(needs_hold):
                m.d.sync += [held_valid.eq(1), held.count.eq(count), held.end.eq(tile_done)]
            with m.Elif(tile_done):
                m.d.sync += held.end.eq(1)
            with m.If(word_done):
                m.d.sync += [
                    word_valid.eq(0),
                    words_seen.eq(Mux(tile_done, 0, words_seen + 1)),
                ]
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
                "i": In(stream.Signature(survivor_layout())),
                "o": Out(stream.Signature(block_layout(config))),
            }
        )

    def elaborate(self, platform):
        m = Module()
        gathered = Signal(data.ArrayLayout(unsigned(COUNT_BITS), self.config.max_period))
        taps = Signal(range(self.config.max_period + 1))
        tap = self.i.payload
        survives = tap.count.any()
        complete = Signal()

        m.d.comb += [
            complete.eq(tap.end | (taps + 1 == self.period)),
            self.o.payload.counts.eq(gathered),
            self.o.payload.taps.eq(taps + survives),
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
    i : In(stream)
        L counts a word.
    o : Out(stream)
        Blocks.
    """

    def __init__(self, config: CspConfig):
        self.config = config
        super().__init__(
            {
                "taps": In(TAP_BITS),
                "period": In(range(config.max_period + 1)),
                "i": In(stream.Signature(counts_layout(config))),
                "o": Out(stream.Signature(block_layout(config))),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config = self.config
        m.submodules.scanner = scanner = Scanner(config)
        m.submodules.assembler = assembler = Assembler(config)
        m.submodules.taps = taps = fifo.SyncFIFOBuffered(
            width=survivor_layout().size, depth=config.row_blocks * config.max_period
        )
        m.submodules.blocks = blocks = fifo.SyncFIFOBuffered(
            width=block_layout(config).size, depth=config.row_blocks
        )

        wiring.connect(m, wiring.flipped(self.i), scanner.i)
        m.d.comb += [
            scanner.taps.eq(self.taps),
            assembler.period.eq(self.period),
            taps.w_data.eq(scanner.o.payload),
            taps.w_en.eq(scanner.o.valid),
            scanner.o.ready.eq(taps.w_rdy),
            assembler.i.payload.eq(taps.r_data),
            assembler.i.valid.eq(taps.r_rdy),
            taps.r_en.eq(assembler.i.ready),
            blocks.w_data.eq(assembler.o.payload),
            blocks.w_en.eq(assembler.o.valid),
            assembler.o.ready.eq(blocks.w_rdy),
            self.o.payload.eq(blocks.r_data),
            self.o.valid.eq(blocks.r_rdy),
            blocks.r_en.eq(self.o.ready),
        ]
        return m
