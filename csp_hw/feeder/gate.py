# SPDX-License-Identifier: Apache-2.0
"""When a tile may be read, and what must not be overwritten until then."""

from amaranth import Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from csp_hw.config import CspConfig
from csp_hw.feeder.layouts import lane_slots, number_shape, span_layout
from csp_hw.ports import TILE_BITS


class TileGate(wiring.Component):
    """Hold the next tile until its input and its lanes' windows are there.

    Tiles can be taken every two cycles. A tile has ``rows`` · I lanes to walk, at least two.

    Members
    -------
    start, begin : In(1)
        A layer starts; its constants are there.
    tile_count : In
    spans : In(stream)
        The tiles.
    complete : In
        Positions below this number are in the line buffer, in all their phases.
    all_in : In(1)
        The whole input is.
    walked : In(1)
        The windows of one more group of lanes are there.
    free : In(1)
        The reader is free for a tile: none is read, or the last word of one is asked for in
        this cycle.
    finish : In(1)
        The last word of a tile is asked for in this cycle.
    tile_valid : Out(1)
        The next tile may be read; it is taken in this cycle if ``free``.
    tile : Out
        That tile.
    limit : Out
        Positions from this number on would overwrite what the oldest tile still needs.
    unlimited : Out(1)
        All tiles of the layer are read.
    waits : Out(1)
        The reader is free, ``limit`` is that of the next tile, and its input is not there.
    """

    def __init__(self, config: CspConfig):
        self.config = config
        super().__init__(
            {
                "start": In(1),
                "begin": In(1),
                "tile_count": In(TILE_BITS),
                "spans": In(stream.Signature(span_layout(config))),
                "complete": In(number_shape(config)),
                "all_in": In(1),
                "walked": In(1),
                "free": In(1),
                "finish": In(1),
                "tile_valid": Out(1),
                "tile": Out(span_layout(config)),
                "limit": Out(number_shape(config)),
                "unlimited": Out(1),
                "waits": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        tile = Signal(span_layout(self.config), reset_less=True)
        limit = Signal(number_shape(self.config), reset_less=True)
        m.d.comb += [self.tile.eq(tile), self.limit.eq(limit)]
        held = Signal()
        taken = Signal()
        do_load = self.spans.valid & self.spans.ready
        m.d.comb += [
            taken.eq(self.tile_valid & self.free),
            self.spans.ready.eq(~held | taken),
        ]
        with m.If(taken):
            m.d.sync += held.eq(0)
        with m.If(do_load):
            m.d.sync += [held.eq(1), tile.eq(self.spans.payload)]

        # Both conditions stay true once they are, until the tile is taken.
        resident = Signal()
        groups = Signal(range(lane_slots(self.config) + 1))
        seen = Signal()
        m.d.comb += self.tile_valid.eq(resident & seen)
        m.d.sync += [
            resident.eq(held & ~taken & (self.all_in | (self.complete >= tile.need))),
            seen.eq(held & ~taken & (groups >= tile.interleave)),
            groups.eq(groups + self.walked),
        ]
        with m.If(taken):
            m.d.sync += groups.eq(groups + self.walked - tile.interleave)

        # The oldest tile is the one that is read, else the next one. Its last words may still be
        # on their way to the banks, but the first beat that a new limit lets in is stored three
        # cycles later, and that is after them.
        adopted = Signal()
        adopt = Signal()
        m.d.comb += adopt.eq(held & ~adopted & self.free)
        with m.If(adopt):
            m.d.sync += [adopted.eq(1), limit.eq(tile.limit)]
        with m.If(taken):
            m.d.sync += adopted.eq(0)
        m.d.comb += self.waits.eq(adopted & ~resident)

        left = Signal(TILE_BITS, reset_less=True)
        running = Signal()
        finished = Signal()
        m.d.sync += [
            finished.eq(self.finish),
            left.eq(left - finished),
            self.unlimited.eq(running & (left == 0)),
        ]
        with m.If(self.begin):
            m.d.sync += [left.eq(self.tile_count), running.eq(1)]
        with m.If(self.start):
            # Lower than any position.
            m.d.sync += [running.eq(0), self.unlimited.eq(0), limit.eq(0)]
        return m
