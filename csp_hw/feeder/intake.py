# SPDX-License-Identifier: Apache-2.0
"""The way in for the list of tiles: checks, and what each tile needs of the line buffer."""

from amaranth import Module, Signal, signed, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from csp_hw.config import COUNT_BITS, CspConfig
from csp_hw.feeder.layouts import constants_layout, row_bits, span_layout, walk_layout
from csp_hw.ports import GROUP_BITS, TILE_BITS, entry_layout
from csp_hw.slice import RegisterSlice
from csp_hw.util import most_interleave


class TileIntake(wiring.Component):
    """Take the entries of a layer and hand each to the walker and to the reader.

    An entry that is wrong is not handed on, nor is any after it.

    Members
    -------
    start : In(1)
        A layer starts. Only after all tiles of the one before were handed on.
    tile_count : In
        The layer's entries; no more are taken.
    chunks : In
        K: of the layer, each of a tile's I pixels has so many partial sums.
    open : In(1)
        ``constants`` are there; entries are handed on.
    constants : In
    entries : In(stream)
    walks, spans : Out(stream)
        Each tile for the walker and for the reader, which take it each in its own time.
    bad_interleave, bad_order : Out(1)
        An entry's I is 0 or too large, for the array or for K; its first group is one of the tile
        before it or lower.
    """

    def __init__(self, config: CspConfig):
        self.config = config
        super().__init__(
            {
                "start": In(1),
                "tile_count": In(TILE_BITS),
                "chunks": In(COUNT_BITS),
                "open": In(1),
                "constants": In(constants_layout(config)),
                "entries": In(stream.Signature(entry_layout())),
                "walks": Out(stream.Signature(walk_layout(config))),
                "spans": Out(stream.Signature(span_layout(config))),
                "bad_interleave": Out(1),
                "bad_order": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config, constants = self.config, self.constants
        bad = Signal()
        left = Signal(signed(TILE_BITS + 1), init=-1)  # less one: the sign says that none is
        m.d.comb += bad.eq(self.bad_interleave | self.bad_order)

        # The entry as it came. One every other cycle is enough, so what is left is counted a cycle
        # later: so many bits are close to where they come from, and far from here.
        m.submodules.entry = arrived = RegisterSlice(entry_layout())
        entry, entry_taken = arrived.o.payload, Signal()
        is_open, was_taken = Signal(), Signal()
        m.d.comb += [
            is_open.eq(~left[-1] & ~was_taken),
            arrived.i.payload.eq(self.entries.payload),
            arrived.i.valid.eq(self.entries.valid & is_open),
            arrived.o.ready.eq(entry_taken),
            self.entries.ready.eq(arrived.i.ready & is_open),
        ]
        m.d.sync += was_taken.eq(self.entries.valid & self.entries.ready)
        with m.If(was_taken):
            m.d.sync += left.eq(left - 1)

        # Its distance from the tile before.
        measured = Signal(
            data.StructLayout(
                {
                    "group": unsigned(GROUP_BITS),
                    "interleave": range(config.max_interleave + 1),
                    "crowded": unsigned(1),
                    "gap": unsigned(GROUP_BITS),
                    "end": unsigned(GROUP_BITS + 1),
                }
            ),
            reset_less=True,
        )
        measured_valid = Signal()
        measured_taken = Signal()
        gap = Signal(signed(GROUP_BITS + 2))
        end = Signal(GROUP_BITS + 1, reset_less=True)
        # A PE must hold all its sums. The largest I for K is known long before.
        largest = most_interleave(m, "largest", self.chunks, config.depth, config.max_interleave)
        wrong_interleave = (entry.interleave == 0) | (entry.interleave > config.max_interleave)
        m.d.comb += [
            gap.eq(entry.group - end),
            entry_taken.eq(arrived.o.valid & ~bad & (~measured_valid | measured_taken)),
        ]
        with m.If(entry_taken):
            m.d.sync += [
                measured.group.eq(entry.group),
                measured.interleave.eq(entry.interleave),
                measured.crowded.eq(entry.interleave > largest),
                measured.gap.eq(gap),
                measured.end.eq(entry.group + entry.interleave),
                end.eq(entry.group + entry.interleave),
                self.bad_interleave.eq(wrong_interleave),
                self.bad_order.eq((gap < 0) & ~wrong_interleave),
            ]
        with m.If(entry_taken | measured_taken):
            m.d.sync += measured_valid.eq(entry_taken)

        crowded = Signal()
        m.d.comb += crowded.eq(measured_valid & measured.crowded)
        with m.If(crowded):
            m.d.sync += self.bad_interleave.eq(1)

        # What it needs; then both may have it.
        walk = Signal(walk_layout(config), reset_less=True)
        span = Signal(span_layout(config), reset_less=True)
        waiting = Signal(2)
        m.d.comb += [
            self.walks.payload.eq(walk),
            self.walks.valid.eq(waiting[0]),
            self.spans.payload.eq(span),
            self.spans.valid.eq(waiting[1]),
            measured_taken.eq(
                measured_valid
                & self.open
                & ~bad
                & ~crowded
                & (~waiting[0] | self.walks.ready)
                & (~waiting[1] | self.spans.ready)
            ),
        ]
        for n, port in enumerate((self.walks, self.spans)):
            with m.If(port.ready):
                m.d.sync += waiting[n].eq(0)
        with m.If(measured_taken):
            rows = row_bits(config)
            m.d.sync += [
                waiting.eq(0b11),
                walk.gap.eq(measured.gap),
                walk.apart.eq(measured.gap != 0),
                walk.interleave.eq(measured.interleave),
                span.slot.eq(measured.group),
                span.interleave.eq(measured.interleave),
                span.need.eq((measured.end << rows) + constants.far),
                span.limit.eq((measured.group << rows) + constants.near),
            ]
        with m.If(self.start):
            m.d.sync += [left.eq(self.tile_count - 1), end.eq(0)]
        return m
