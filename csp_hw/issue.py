# SPDX-License-Identifier: Apache-2.0
"""The issuer: from blocks of surviving taps to one product a cycle."""

from amaranth import Cat, Module, Mux, Signal, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from csp_hw.config import COUNT_BITS, CspConfig
from csp_hw.ports import tile_layout
from csp_hw.skip import block_layout


def product_layout(config: CspConfig) -> data.StructLayout:
    """Give what the array's edge must know of a product.

    Fields
    ------
    valid, last
        A product is issued; it is the last of its run.
    fresh
        The run is the first that its entry meets in this tile.
    bank, word
        Where the run's entry stands.
    last_chunk
        It is of chunk K − 1.
    live
        Rows whose pixel is real.
    """
    return data.StructLayout(
        {
            "valid": unsigned(1),
            "last": unsigned(1),
            "fresh": unsigned(1),
            "bank": unsigned(1),
            "word": range(config.half_depth),
            "last_chunk": unsigned(1),
            "live": unsigned(config.rows),
        }
    )


def finished_layout(config: CspConfig) -> data.StructLayout:
    """Give what the drain must know of a computed tile.

    Fields
    ------
    tile
        The tile's command.
    touched
        Entries 0 … touched − 1 hold sums, all others are zero (the high-water mark).
    half, overlaps
        The bank that holds the tile or, unless it overlaps, both do.
    """
    return data.StructLayout(
        {
            "tile": tile_layout(config),
            "touched": range(config.depth + 1),
            "half": unsigned(1),
            "overlaps": unsigned(1),
        }
    )


class Issuer(wiring.Component):
    """Walk each block: for each chunk, for each interleaved pixel, for each tap of the run.

    One product a cycle while blocks, activations and weights are there; the next block, and the
    next tile if its half of the accumulation buffer is free, follow without a bubble. A tile
    without survivors costs one cycle.

    Members
    -------
    chunks : In(8)
        K, constant during a layer, from two cycles before its first block on.
    tiles, blocks : In(stream)
    activations, weights
        ``available``, ``offset`` and ``release`` of the two replay buffers.
    product : Out
        Registered: valid in the same cycle as the data of the replay buffers.
    finished : Out
        A tile whose last product is issued in this cycle, with ``finished_valid``.
    drained : In(2)
        Halves that are drained in this cycle.
    open : Out
        A tile is being computed.
    stalled_* : Out
        Why no product is issued in this cycle, at most one of them: no block of counts, no
        activation, no weight, the accumulation buffer not drained.
    """

    def __init__(self, config: CspConfig, activation_words: int, weight_words: int):
        self.config = config
        super().__init__(
            {
                "chunks": In(COUNT_BITS),
                "tiles": In(stream.Signature(tile_layout(config))),
                "blocks": In(stream.Signature(block_layout(config))),
                "activations_available": In(range(activation_words + 1)),
                "activations_offset": Out(range(activation_words)),
                "activations_release": Out(range(activation_words + 1)),
                "weights_available": In(range(weight_words + 1)),
                "weights_offset": Out(range(weight_words)),
                "weights_release": Out(range(weight_words + 1)),
                "product": Out(product_layout(config)),
                "finished": Out(finished_layout(config)),
                "finished_valid": Out(1),
                "drained": In(2),
                "open": Out(1),
                "issued": Out(1),
                "stalled_counts": Out(1),
                "stalled_activations": Out(1),
                "stalled_weights": Out(1),
                "stalled_bank": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config = self.config
        slots = config.max_period

        # The tile at work.
        tile = Signal(tile_layout(config))
        tile_open = self.open
        half = Signal()
        overlaps = Signal()
        touched = Signal(range(config.depth + 1))
        occupied = Signal(2)

        # The block at work: the run's taps still to come, all taps of this chunk's runs, and of
        # the next chunk's.
        block = Signal(block_layout(config))
        block_valid = Signal()
        pending = Signal(slots)
        run_taps = Signal(slots)
        next_taps = Signal(slots)
        next_chunk = Signal(range(config.depth + 1))
        pixel = Signal(range(max(config.max_interleave, 2)))
        entry = Signal(range(config.depth))
        pixel_offset = Signal(range(slots * config.max_interleave + 1))
        tap_offset = Signal(range(slots + 1))

        # This cycle's product.
        others = pending & (pending - 1)[:slots]
        slot = Signal(range(max(slots, 2)))
        for position in reversed(range(slots)):
            with m.If(pending[position]):
                m.d.comb += slot.eq(position)
        activations_ready = self.activations_offset < self.activations_available
        weights_ready = self.weights_offset < self.weights_available
        issue = self.issued
        last = Signal()
        last_pixel = Signal()
        chunk_done = Signal()
        block_done = Signal()
        fresh = Signal()
        m.d.comb += [
            self.activations_offset.eq(pixel_offset + slot),
            self.weights_offset.eq(tap_offset),
            issue.eq(block_valid & pending.any() & activations_ready & weights_ready),
            last.eq(others == 0),
            last_pixel.eq(pixel + 1 == tile.interleave),
            chunk_done.eq(issue & last & last_pixel),
            block_done.eq((chunk_done & (next_taps == 0)) | (block_valid & (block.taps == 0))),
            fresh.eq(entry == touched),
        ]

        # Walk on.
        touched_next = Signal.like(touched)
        m.d.comb += touched_next.eq(touched + (issue & last & fresh))
        m.d.sync += touched.eq(touched_next)
        with m.If(issue):
            m.d.sync += [pending.eq(others), tap_offset.eq(tap_offset + 1)]
            with m.If(last):
                m.d.sync += [
                    entry.eq(entry + 1),
                    tap_offset.eq(0),
                    pending.eq(run_taps),
                    pixel.eq(pixel + 1),
                    pixel_offset.eq(pixel_offset + block.taps),
                ]
        with m.If(chunk_done):
            m.d.sync += [
                pixel.eq(0),
                pixel_offset.eq(0),
                pending.eq(next_taps),
                run_taps.eq(next_taps),
                next_taps.eq(Cat(count > next_chunk + 1 for count in block.counts)),
                next_chunk.eq(next_chunk + 1),
            ]
            m.d.comb += self.weights_release.eq(tap_offset + 1)
        with m.If(chunk_done & block_done):
            m.d.comb += self.activations_release.eq(pixel_offset + block.taps)

        # A finished tile goes to the drain.
        m.d.comb += [
            self.finished_valid.eq(block_done & block.end),
            self.finished.tile.eq(tile),
            self.finished.touched.eq(touched_next),
            self.finished.half.eq(half),
            self.finished.overlaps.eq(overlaps),
        ]

        # The next block; the first of a tile needs the tile's command and a free place.
        command = self.tiles.payload
        # Whether K · I fits a half, for each I: known long before a tile comes.
        fits = Signal(config.max_interleave + 1)
        m.d.sync += fits.eq(
            Cat(self.chunks * n <= config.half_depth for n in range(config.max_interleave + 1))
        )
        starts_tile = Signal()
        command_overlaps = Signal()
        place_free = Signal()
        load = Signal()
        arriving = self.blocks.payload
        m.d.comb += [
            starts_tile.eq(~tile_open | self.finished_valid),
            command_overlaps.eq(fits.bit_select(command.interleave, 1)),
            place_free.eq(Mux(command_overlaps, ~occupied.bit_select(~half, 1), occupied == 0)),
            load.eq(
                (~block_valid | block_done)
                & self.blocks.valid
                & (~starts_tile | (self.tiles.valid & place_free))
            ),
            self.blocks.ready.eq(load),
            self.tiles.ready.eq(load & starts_tile),
        ]
        occupy = Signal(2)
        m.d.sync += occupied.eq(occupied & ~self.drained | occupy)
        with m.If(block_done):
            m.d.sync += block_valid.eq(0)
        with m.If(self.finished_valid):
            m.d.sync += tile_open.eq(0)
        with m.If(load):
            m.d.sync += [
                block.eq(arriving),
                block_valid.eq(1),
                pending.eq(Cat(count.any() for count in arriving.counts)),
                run_taps.eq(Cat(count.any() for count in arriving.counts)),
                next_taps.eq(Cat(count > 1 for count in arriving.counts)),
                next_chunk.eq(1),
                pixel.eq(0),
                entry.eq(0),
                pixel_offset.eq(0),
                tap_offset.eq(0),
            ]
        with m.If(load & starts_tile):
            m.d.sync += [
                tile.eq(command),
                tile_open.eq(1),
                half.eq(~half),
                overlaps.eq(command_overlaps),
                touched.eq(0),
            ]
            m.d.comb += occupy.eq(Mux(command_overlaps, Cat(half, ~half), 0b11))

        # Why nothing is issued. Nothing is due if no tile was asked for.
        waits = block_valid & pending.any()
        m.d.comb += [
            self.stalled_activations.eq(waits & ~activations_ready),
            self.stalled_weights.eq(waits & activations_ready & ~weights_ready),
            self.stalled_counts.eq(~waits & (tile_open | self.tiles.valid) & ~self.stalled_bank),
            self.stalled_bank.eq(
                ~waits & ~tile_open & self.tiles.valid & self.blocks.valid & ~place_free
            ),
        ]

        # Hand the product on, in step with the data.
        place = Signal(range(config.depth))
        m.d.comb += place.eq(entry)
        with m.If(overlaps):
            m.d.comb += place.eq(Cat(half, entry))
        m.d.sync += [
            self.product.valid.eq(issue),
            self.product.last.eq(issue & last),
            self.product.fresh.eq(fresh),
            self.product.bank.eq(place[0]),
            self.product.word.eq(place[1:]),
            self.product.last_chunk.eq(next_chunk == self.chunks),
            self.product.live.eq(tile.live.word_select(pixel, config.rows)),
        ]
        return m
