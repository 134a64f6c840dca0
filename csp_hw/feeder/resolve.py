# SPDX-License-Identifier: Apache-2.0
"""From kernel positions to places in the line buffer, once for each tap."""

from amaranth import Module, Signal, signed
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from csp_hw.config import CspConfig
from csp_hw.feeder.layouts import place_layout, tap_layout
from csp_hw.ports import KERNEL_BITS, TILE_BITS, feed_layout, position_layout


class TapResolver(wiring.Component):
    """Find where the taps lie, and where blocks end.

    Throughput: one tap a cycle. Latency: three cycles.

    Members
    -------
    start : In(1)
        A layer starts.
    tile_count : In
        Its tiles; positions of no more are taken.
    open : In(1)
        The tables are there; positions are taken.
    period : In
        T, constant.
    feed : In
    i : In(stream)
        Positions.
    r, s : Out
        Whose row and column are asked for.
    row, column : In
        Where they lie, in the same cycle.
    o : Out(stream)
    """

    def __init__(self, config: CspConfig):
        self.config = config
        super().__init__(
            {
                "start": In(1),
                "tile_count": In(TILE_BITS),
                "open": In(1),
                "period": In(range(config.max_period + 1)),
                "feed": In(feed_layout(config)),
                "i": In(stream.Signature(position_layout(config))),
                "r": Out(KERNEL_BITS),
                "s": Out(KERNEL_BITS),
                "row": In(place_layout(config)),
                "column": In(place_layout(config)),
                "o": Out(stream.Signature(tap_layout(config))),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config = self.config
        position = self.i.payload
        advance = Signal()
        do_take = self.i.valid & self.i.ready
        m.d.comb += advance.eq(~self.o.valid | self.o.ready)

        # Positions of the layer's tiles only; the next layer's may follow at once.
        left = Signal(signed(TILE_BITS + 1), init=-1)  # less one: the sign says that none is
        taps = Signal(range(config.max_period))
        block_end = Signal()
        m.d.comb += [
            self.i.ready.eq(advance & self.open & ~left[-1]),
            block_end.eq(position.end | (taps + 1 == self.period)),
        ]
        with m.If(do_take):
            m.d.sync += [left.eq(left - position.end), taps.eq(taps + 1)]
            with m.If(block_end):
                m.d.sync += taps.eq(0)
        with m.If(self.start):
            m.d.sync += left.eq(self.tile_count - 1)

        # Look up; add the row's part to the column's; add the beat and make room for the slot.
        m.d.comb += [self.r.eq(position.r), self.s.eq(position.s)]
        row = Signal(place_layout(config), reset_less=True)
        column = Signal(place_layout(config), reset_less=True)
        beats = [Signal.like(position.beat, name=f"beat_{k}", reset_less=True) for k in range(2)]
        *stages, tap = (
            Signal(tap_layout(config), name=f"tap_{k}", reset_less=True) for k in range(3)
        )
        valid = Signal(2)
        m.d.comb += self.o.payload.eq(tap)
        with m.If(advance):
            m.d.sync += [
                valid.eq((valid << 1) | do_take),
                self.o.valid.eq(valid[-1]),
                row.eq(self.row),
                column.eq(self.column),
                beats[0].eq(position.beat),
                *(stages[0][name].eq(position[name]) for name in ("byte", "r", "s", "empty")),
                stages[0].block_end.eq(block_end),
                stages[0].tile_end.eq(position.end),
                stages[1].eq(stages[0]),
                stages[1].offset.eq(row.offset + column.offset),
                stages[1].word.eq(row.word + column.word),
                beats[1].eq(beats[0]),
                tap.eq(stages[1]),
                tap.word.eq((stages[1].word + beats[1]) << self.feed.ring_bits),
            ]
        return m
