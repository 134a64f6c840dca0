# SPDX-License-Identifier: Apache-2.0
"""The feeder: from a map in raster order to activation words."""

import enum

from amaranth import Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from csp_hw.config import COUNT_BITS, CspConfig
from csp_hw.feeder import lines
from csp_hw.feeder.gate import TileGate
from csp_hw.feeder.intake import TileIntake
from csp_hw.feeder.kernel import KernelScan
from csp_hw.feeder.layouts import span_layout, walk_layout
from csp_hw.feeder.lines import LineBuffer
from csp_hw.feeder.queue import WordQueue
from csp_hw.feeder.replay import TapReplay
from csp_hw.feeder.resolve import TapResolver
from csp_hw.feeder.walker import LaneWalker
from csp_hw.feeder.windows import Windows
from csp_hw.feeder.writer import MapWriter
from csp_hw.ports import (
    TILE_BITS,
    activations_layout,
    entry_layout,
    feed_layout,
    position_layout,
    results_layout,
    tile_layout,
)
from csp_hw.slice import RegisterSlice

#: Cycles for which writer and reader must wait for each other until it counts as for ever: more
#: than a change of either takes to reach the other.
STUCK_CYCLES = 8


class FeedError(enum.IntEnum):
    """Why the feeder stopped."""

    NONE = 0
    INTERLEAVE = 1  # a tile's I is 0 or larger than max_interleave, or I · K than depth
    ORDER = 2  # a tile begins before the end of the one before, or behind the map
    RING = 3  # a tile needs more slots than the ring has


def latency(config: CspConfig) -> int:
    """Give the cycles from the last beat that a tile needs to its first word.

    Six, and those of :func:`csp_hw.feeder.lines.latency`: 9 + ceil(log2(cols) / 3) +
    ceil(log2(rows) / 2).
    """
    return 6 + lines.latency(config)


class Feeder(wiring.Component):
    """Feed one pass over a map after the other.

    The map enters once, in raster order, into a ring of lines, while tile after tile is read from
    it: for each block of T surviving taps, for each interleaved pixel, for each tap of the block, a
    byte for each row. A tile starts when all it may read has come; meanwhile the map's next
    positions take the places that no tile needs any longer.

    With positions p of the grid complete below ``complete``, and d the distances from a lane's
    number l to those that the kernel's taps read, dmin … dmax, a tile at base starts when
    complete ≥ base + I · rows + dmax, and the writer stops at base + dmin + rows · 2^ring_bits
    until the tile is read. A line is complete only in its last phase: with a vertical stride above
    1 the line up to its end must fit below that limit, too.

    Throughput: a word a cycle while the tile's input and the taps' positions are there, across
    blocks and tiles; a beat a cycle while there is room.

    Latency: the first word of a tile is on offer :func:`latency` cycles after the transfer of the
    last beat that the tile needs, if nothing else keeps it. That may be the tile before, the
    first tap, or the tile's lanes, which are walked over at one a cycle, at most two tiles of
    ``max_interleave`` ahead.

    Parameters
    ----------
    config : CspConfig
        That of a core.
    hierarchical : bool
        See :class:`csp_hw.feeder.lines.LineBuffer`.

    Members
    -------
    start : In(1)
        A pass starts; only if not ``busy``.
    feed : In
        Its geometry, from the cycle of ``start`` until the pass ends; so are
    tile_count, chunks, period : In
        its tiles, K and T.
    i : In(stream)
        images · height · width · beats of the map, in the order image, y, x, beat.
    entries : In(stream)
        The list of tiles, ``tile_count`` of them.
    positions : In(stream)
        For each tile its surviving taps in order, the last one with ``end``; or one ``empty`` one.
    tiles : Out(stream)
        Commands for the engine.
    activations : Out(stream)
        I words a surviving tap. Padding and dead lanes are 0.
    busy : Out(1)
        Not all of the pass has come in and gone out.
    moves : Out(1)
        A lane was walked over in the cycle before, of a tile or between tiles.
    error : Out(1)
        Something is wrong; the feeder has stopped, or will, and needs a reset.
    error_code : Out
        What, a :class:`FeedError`.
    """

    def __init__(self, config: CspConfig, *, hierarchical: bool = False):
        config.check_core()
        self.config = config
        self.hierarchical = hierarchical
        super().__init__(
            {
                "start": In(1),
                "feed": In(feed_layout(config)),
                "tile_count": In(TILE_BITS),
                "chunks": In(COUNT_BITS),
                "period": In(range(config.max_period + 1)),
                "i": In(stream.Signature(results_layout(config))),
                "entries": In(stream.Signature(entry_layout())),
                "positions": In(stream.Signature(position_layout(config))),
                "tiles": Out(stream.Signature(tile_layout(config))),
                "activations": Out(stream.Signature(activations_layout(config))),
                "busy": Out(1),
                "moves": Out(1),
                "error": Out(1),
                "error_code": Out(2),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config, feed = self.config, self.feed
        m.submodules.kernel = kernel = KernelScan(config)
        m.submodules.intake = intake = TileIntake(config)
        m.submodules.walker = walker = LaneWalker(config)
        m.submodules.resolver = resolver = TapResolver(config)
        m.submodules.walks = walks = RegisterSlice(walk_layout(config))
        m.submodules.spans = spans = RegisterSlice(span_layout(config))
        m.submodules.gate = gate = TileGate(config)
        m.submodules.replay = replay = TapReplay(config)
        m.submodules.writer = writer = MapWriter(config)
        m.submodules.windows = windows = Windows(config, lines.latency(config) - 1)
        m.submodules.line_buffer = line_buffer = LineBuffer(config, hierarchical=self.hierarchical)
        m.submodules.queue = queue = WordQueue(config)

        # The pass: all blocks begin when the scan of the kernel is through.
        constants = kernel.constants
        opened = Signal()
        m.d.sync += opened.eq(kernel.ready)
        with m.If(self.start):
            m.d.sync += opened.eq(0)
        for block in (intake, resolver, gate):
            m.d.comb += block.tile_count.eq(self.tile_count)
        for block in (kernel, intake, resolver, gate, writer):
            m.d.comb += block.start.eq(self.start)
        for block in (kernel, resolver, walker, writer):
            m.d.comb += block.feed.eq(feed)
        for block in (intake, resolver):
            m.d.comb += block.open.eq(kernel.ready)
        for block in (intake, walker, writer):
            m.d.comb += block.constants.eq(constants)
        for block in (walker, gate, writer, line_buffer):
            m.d.comb += block.begin.eq(kernel.opens)

        # Tiles.
        wiring.connect(m, wiring.flipped(self.entries), intake.entries)
        wiring.connect(m, intake.walks, walks.i)
        wiring.connect(m, walks.o, walker.walks)
        wiring.connect(m, intake.spans, spans.i)
        wiring.connect(m, spans.o, gate.spans)
        wiring.connect(m, walker.tiles, wiring.flipped(self.tiles))
        m.d.comb += [
            intake.chunks.eq(self.chunks),
            windows.lane.eq(walker.lane),
            walker.release.eq(windows.release),
            gate.walked.eq(walker.walked),
            self.moves.eq(walker.moves),
        ]

        # The map.
        wiring.connect(m, wiring.flipped(self.i), writer.i)
        m.d.comb += [
            writer.limit.eq(gate.limit),
            writer.unlimited.eq(gate.unlimited),
            gate.complete.eq(writer.complete),
            gate.all_in.eq(writer.done),
            line_buffer.ring_mask.eq(constants.ring_mask),
            line_buffer.store.eq(writer.store),
        ]

        # Taps.
        wiring.connect(m, wiring.flipped(self.positions), resolver.i)
        wiring.connect(m, resolver.o, replay.taps)
        m.d.comb += [
            resolver.period.eq(self.period),
            kernel.r.eq(resolver.r),
            kernel.s.eq(resolver.s),
            resolver.row.eq(kernel.row),
            resolver.column.eq(kernel.column),
            replay.tile_valid.eq(gate.tile_valid),
            replay.tile.eq(gate.tile),
            gate.free.eq(replay.free),
            gate.finish.eq(replay.finish),
        ]

        # Words.
        m.d.comb += [
            replay.credit.eq(queue.credit),
            line_buffer.request.eq(replay.request),
            windows.request.eq(replay.request),
            line_buffer.mask.eq(windows.mask),
            queue.asked.eq(replay.asked),
            queue.valid.eq(line_buffer.valid),
            queue.word.eq(line_buffer.word),
        ]
        wiring.connect(m, queue.o, wiring.flipped(self.activations))

        # The end: all tiles read, all input in, all words and commands out.
        with m.If(opened & gate.unlimited & writer.done & queue.idle & walker.idle):
            m.d.sync += self.busy.eq(0)
        with m.If(self.start):
            m.d.sync += self.busy.eq(1)

        # Writer and reader that wait for each other do so for ever.
        stuck = Signal(range(STUCK_CYCLES))
        with m.If(writer.blocked & gate.waits):
            m.d.sync += stuck.eq(stuck + 1)
        with m.Else():
            m.d.sync += stuck.eq(0)
        with m.If(~self.error):
            with m.If(intake.bad_interleave):
                m.d.sync += self.error_code.eq(FeedError.INTERLEAVE)
            with m.Elif(intake.bad_order | walker.beyond):
                m.d.sync += self.error_code.eq(FeedError.ORDER)
            with m.Elif(stuck == STUCK_CYCLES - 1):
                m.d.sync += self.error_code.eq(FeedError.RING)
        m.d.comb += self.error.eq(self.error_code != FeedError.NONE)
        return m
