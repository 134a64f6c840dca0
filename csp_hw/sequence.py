# SPDX-License-Identifier: Apache-2.0
"""Layer after layer: whose words are let in."""

from amaranth import Module, Signal, signed
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from csp_hw.config import TAP_BITS, CspConfig
from csp_hw.ports import (
    TILE_BITS,
    counts_layout,
    layer_layout,
    tile_counts_layout,
    tile_layout,
)


class LayerSequencer(wiring.Component):
    """Hold the layer at work, and keep the next one's tiles and counts back until it is.

    A layer has as many tile commands, and as many times ceil(J / L) words of counts, as its command
    says. So each stream may run ahead of the others: words that come early wait.

    Members
    -------
    layer, tiles, counts : In(stream)
        From outside. A layer is taken from the second cycle on in which nothing of the one before
        is left to do; one without tiles takes two cycles.
    layer_tiles, layer_counts : Out(stream)
        Those of the layer at work.
    working : In(1)
        A tile of the layer is being computed, drained or put out.
    current : Out
        The layer at work, from the cycle after ``taken``.
    taken : Out(1)
        A layer is taken in this cycle.
    due : Out(1)
        The layer has tiles whose command was not taken.
    idle : Out(1)
        Nothing is due and nothing is working.
    """

    def __init__(self, config: CspConfig):
        self.config = config
        tiles = stream.Signature(tile_layout(config))
        super().__init__(
            {
                "layer": In(stream.Signature(layer_layout(config))),
                "tiles": In(tiles),
                "layer_tiles": Out(tiles),
                "counts": In(stream.Signature(counts_layout(config))),
                "layer_counts": Out(stream.Signature(tile_counts_layout(config))),
                "working": In(1),
                "current": Out(layer_layout(config)),
                "taken": Out(1),
                "due": Out(1),
                "idle": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        command = self.layer.payload
        lanes = self.config.lookahead
        current = Signal(layer_layout(self.config), reset_less=True)
        # Tiles whose command was not taken, and those whose counts are not all in: whether there
        # are any, and how many less two, so that the sign marks the last one.
        counts_due = Signal()
        tiles_left, counts_left = (
            Signal(signed(TILE_BITS + 1), name=f"{name}_left", reset_less=True)
            for name in ("tiles", "counts")
        )
        # Words of counts of this tile less two, and of each.
        word, words = (
            Signal(signed(TAP_BITS + 1), name=name, reset_less=True) for name in ("word", "words")
        )

        # What works is far away, and what is taken reaches far, so a layer is taken a cycle late.
        ready = Signal(init=1)
        m.d.sync += ready.eq(self.idle & ~self.taken)
        m.d.comb += [
            self.current.eq(current),
            self.idle.eq(~self.due & ~self.working),
            self.layer.ready.eq(ready),
            self.taken.eq(self.layer.valid & self.layer.ready),
        ]
        for outside, inside, due in (
            (self.tiles, self.layer_tiles, self.due),
            (self.counts, self.layer_counts, counts_due),
        ):
            m.d.comb += [
                inside.valid.eq(outside.valid & due),
                outside.ready.eq(inside.ready & due),
            ]

        m.d.comb += [
            self.layer_tiles.payload.eq(self.tiles.payload),
            self.layer_counts.payload.counts.eq(self.counts.payload),
            self.layer_counts.payload.last.eq(word[-1]),
        ]
        with m.If(self.tiles.valid & self.tiles.ready):
            m.d.sync += [tiles_left.eq(tiles_left - 1), self.due.eq(~tiles_left[-1])]
        with m.If(self.counts.valid & self.counts.ready):
            m.d.sync += word.eq(word - 1)
            with m.If(word[-1]):
                m.d.sync += [
                    word.eq(words),
                    counts_left.eq(counts_left - 1),
                    counts_due.eq(~counts_left[-1]),
                ]
        tile_words = (command.taps + (lanes - 1)) >> (lanes.bit_length() - 1)
        with m.If(self.taken):
            m.d.sync += [
                current.eq(command),
                self.due.eq(command.tiles.any()),
                counts_due.eq(command.tiles.any()),
            ]
        # While nothing is due the next command's numbers stand here, whether it is taken or not.
        with m.If(~self.due):
            m.d.sync += tiles_left.eq(command.tiles - 2)
        with m.If(~counts_due):
            m.d.sync += [
                counts_left.eq(command.tiles - 2),
                word.eq(tile_words - 2),
                words.eq(tile_words - 2),
            ]
        return m
