# SPDX-License-Identifier: Apache-2.0
"""The issuer: from blocks of surviving taps to one product a cycle."""

from amaranth import Cat, Const, Module, Mux, Signal, Value, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from csp_hw.config import COUNT_BITS, CspConfig
from csp_hw.ports import tile_layout
from csp_hw.skip import block_layout
from csp_hw.slice import RegisterSlice
from csp_hw.util import most_interleave

#: Cycles from a product's issue until its words are there, and what is known of it.
PRODUCT_LATENCY = 2


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
        K, constant during a layer.
    tiles, blocks : In(stream)
    activations, weights
        ``available``, ``offset`` and ``release`` of the two replay buffers.
    product : Out
        Registered: valid in the same cycle as the data of the replay buffers.
    finished : Out
        A tile whose last product was issued in the cycle before, with ``finished_valid``.
    drained : In(2)
        Halves that are drained in this cycle.
    given, open : Out
        A tile's command is here that waits; a tile is being computed.
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
                "given": Out(1),
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

        # The tile at work. Its lanes are asked for a cycle late, so they come a cycle late.
        tile, next_tile = (
            Signal(tile_layout(config), name=name, reset_less=True)
            for name in ("tile", "next_tile")
        )
        tile_begins, tile_began = Signal(), Signal()
        tile_done = Signal()
        tile_open = self.open
        half = Signal()
        overlaps = Signal(reset_less=True)
        touched = Signal(range(config.depth + 1), reset_less=True)
        occupied = Signal(2)

        # The block at work: the product's tap and the run's taps behind it, the same at the start
        # of each of this chunk's runs, and the taps of the next chunk's.
        block = Signal(block_layout(config), reset_less=True)
        block_valid = Signal()
        due = Signal()  # the run has a product to issue
        at = Signal(_run_layout(slots), reset_less=True)
        run = Signal(_run_layout(slots), reset_less=True)
        next_taps = Signal(slots, reset_less=True)
        final_chunk = Signal(reset_less=True)  # there are none
        empty = Signal()  # the block has no taps at all
        next_chunk = Signal(range(config.depth + 1), reset_less=True)
        second_chunk = Signal(range(config.depth + 2), reset_less=True)  # the one after it
        pixel = Signal(range(max(config.max_interleave, 2)), reset_less=True)
        final_pixel = Signal.like(pixel, reset_less=True)
        one_pixel = Signal(reset_less=True)  # the first one is the last
        last_pixel = Signal(reset_less=True)
        entry = Signal(range(config.depth), reset_less=True)
        # Words of activations before this pixel's, and before the next one's.
        offset = range(slots * config.max_interleave + 1)
        next_offset = Signal(offset, reset_less=True)
        pixel_offset = Signal(offset, reset_less=True)
        activations_offset = Signal.like(self.activations_offset, reset_less=True)
        tap_offset = Signal(range(slots + 1), reset_less=True)

        # This cycle's product. All that tells which one it is, and whether its words are there, is
        # in registers: much depends on it. So a word can be used from the second cycle on in which
        # it is available.
        activations_ready, weights_ready = Signal(), Signal()
        issue = self.issued
        chunk_done = Signal()
        block_done = Signal()
        fresh = Signal()
        m.d.comb += [
            self.activations_offset.eq(activations_offset),
            self.weights_offset.eq(tap_offset),
            issue.eq(due & activations_ready & weights_ready),
            chunk_done.eq(issue & at.last & last_pixel),
            block_done.eq((chunk_done & final_chunk) | empty),
            fresh.eq(entry == touched),
        ]

        # Walk on: to the run's next tap, to the next pixel's run, to the next chunk's runs.
        touched_next = Signal.like(touched)
        m.d.comb += touched_next.eq(Mux(issue & at.last & fresh, touched + 1, touched))
        m.d.sync += touched.eq(touched_next)
        following, next_run = _run(m, "following", at.rest), _run(m, "next_run", next_taps)
        with m.If(issue):
            m.d.sync += [
                at.eq(following),
                activations_offset.eq(pixel_offset + following.slot),
                tap_offset.eq(tap_offset + 1),
            ]
            with m.If(at.last):
                m.d.sync += [
                    at.eq(run),
                    activations_offset.eq(next_offset + run.slot),
                    entry.eq(entry + 1),
                    tap_offset.eq(0),
                    pixel.eq(pixel + 1),
                    last_pixel.eq(pixel + 1 == final_pixel),
                    pixel_offset.eq(next_offset),
                    next_offset.eq(next_offset + block.taps),
                ]
        # A tap that the next chunk has is none of the one after it only if it ends there.
        later_taps = Signal(slots)
        m.d.comb += later_taps.eq(next_taps & Cat(count != second_chunk for count in block.counts))
        with m.If(chunk_done):
            m.d.sync += [
                due.eq(~final_chunk),
                at.eq(next_run),
                run.eq(next_run),
                activations_offset.eq(next_run.slot),
                pixel.eq(0),
                last_pixel.eq(one_pixel),
                pixel_offset.eq(0),
                next_offset.eq(block.taps),
                next_taps.eq(later_taps),
                final_chunk.eq(~later_taps.any()),
                next_chunk.eq(second_chunk),
                second_chunk.eq(second_chunk + 1),
            ]
            m.d.comb += self.weights_release.eq(tap_offset + 1)
        with m.If(chunk_done & block_done):
            m.d.comb += self.activations_release.eq(next_offset)

        # Whether the next product's words are there. Products of the first chunk take the block's
        # activations one after the other, those of later ones find them there; of weights, those of
        # the first pixel. All comparisons are made, since which one counts is known late.
        activations, weights = self.activations_available, self.weights_available
        later_chunk = next_chunk != 1
        with m.If(issue):
            m.d.sync += [
                activations_ready.eq(later_chunk | (activations_offset + 1 < activations)),
                weights_ready.eq((at.last & ~last_pixel) | (tap_offset + 1 < weights)),
            ]
            with m.If(chunk_done):
                m.d.sync += activations_ready.eq(~final_chunk | (next_offset < activations))
        with m.Elif(due):
            m.d.sync += [
                activations_ready.eq(later_chunk | (activations_offset < activations)),
                weights_ready.eq(tap_offset < weights),
            ]
        with m.Else():
            m.d.sync += [activations_ready.eq(activations.any()), weights_ready.eq(weights.any())]

        # A finished tile goes to the drain.
        finished = Signal(finished_layout(config), reset_less=True)
        m.d.comb += [
            tile_done.eq(block_done & block.end),
            self.finished.eq(finished),
            self.finished.tile.eq(tile),
        ]
        m.d.sync += [
            self.finished_valid.eq(tile_done),
            finished.touched.eq(touched_next),
            finished.half.eq(half),
            finished.overlaps.eq(overlaps),
        ]

        # The next tile's command.
        m.submodules.commands = commands = RegisterSlice(tile_layout(config))
        wiring.connect(m, wiring.flipped(self.tiles), commands.i)
        m.d.comb += self.given.eq(commands.o.valid)

        # Whether its K · I entries fit a half, and whether there is a free place for them: known a
        # cycle later.
        command = commands.o.payload
        place_free, place_taken = Signal(), Signal()
        next_overlaps = Signal(reset_less=True)
        largest = most_interleave(
            m, "largest", self.chunks, config.half_depth, config.max_interleave
        )
        fits = command.interleave <= largest
        free = Mux(fits, ~occupied.bit_select(~half, 1), occupied == 0)
        m.d.sync += [
            next_overlaps.eq(fits),
            place_free.eq(self.given & free & ~tile_begins),
            place_taken.eq(self.given & ~free & ~tile_begins),
        ]

        # The next block; the first of a tile needs the tile's command and a free place.
        starts_tile = Signal()
        load = Signal()
        arriving = self.blocks.payload
        m.d.comb += [
            starts_tile.eq(~tile_open | tile_done),
            load.eq((~block_valid | block_done) & self.blocks.valid & (~starts_tile | place_free)),
            self.blocks.ready.eq(load),
            tile_begins.eq(load & starts_tile),
            commands.o.ready.eq(tile_begins),
        ]
        occupy = Signal(2)
        m.d.sync += occupied.eq(occupied & ~self.drained | occupy)
        with m.If(block_done):
            m.d.sync += [block_valid.eq(0), empty.eq(0)]
        with m.If(tile_done):
            m.d.sync += tile_open.eq(0)
        # All of a block's taps survive, so its first run is all of them.
        first_run = Signal(_run_layout(slots))
        m.d.comb += [
            first_run.rest.eq(Cat(0, *(arriving.taps > n for n in range(1, slots)))),
            first_run.last.eq(arriving.taps == 1),
        ]
        with m.If(load):
            m.d.sync += [
                block.eq(arriving),
                block_valid.eq(1),
                due.eq(arriving.taps != 0),
                at.eq(first_run),
                run.eq(first_run),
                empty.eq(arriving.taps == 0),
                next_taps.eq(Cat(count[1:].any() for count in arriving.counts)),
                final_chunk.eq(~Cat(count[1:] for count in arriving.counts).any()),
                next_chunk.eq(1),
                second_chunk.eq(2),
                pixel.eq(0),
                last_pixel.eq(one_pixel),
                entry.eq(0),
                activations_offset.eq(0),
                pixel_offset.eq(0),
                next_offset.eq(arriving.taps),
                tap_offset.eq(0),
            ]
        m.d.sync += [tile_began.eq(tile_begins), next_tile.eq(command)]
        with m.If(tile_began):
            m.d.sync += tile.eq(next_tile)
        with m.If(tile_begins):
            m.d.sync += [
                final_pixel.eq(command.interleave - 1),
                one_pixel.eq(command.interleave == 1),
                last_pixel.eq(command.interleave == 1),
                tile_open.eq(1),
                half.eq(~half),
                overlaps.eq(next_overlaps),
                touched.eq(0),
            ]
            m.d.comb += occupy.eq(Mux(next_overlaps, Cat(half, ~half), 0b11))

        # Why nothing is issued. Nothing is due if no tile was asked for.
        m.d.comb += [
            self.stalled_activations.eq(due & ~activations_ready),
            self.stalled_weights.eq(due & activations_ready & ~weights_ready),
            self.stalled_counts.eq(
                ~due & (tile_open | self.given | self.tiles.valid) & ~self.stalled_bank
            ),
            self.stalled_bank.eq(~due & ~tile_open & self.blocks.valid & place_taken),
        ]

        # Hand the product on, in step with the data: chosen in the first cycle, as the words are
        # read, and in a register in the second, as they are.
        place = Signal(range(config.depth))
        m.d.comb += place.eq(entry)
        with m.If(overlaps):
            m.d.comb += place.eq(Cat(half, entry))
        chosen, product = (
            Signal(product_layout(config), name=name, reset_less=True)
            for name in ("chosen", "product")
        )
        chosen_pixel = Signal.like(pixel)
        valid, last_valid = Signal(PRODUCT_LATENCY), Signal(PRODUCT_LATENCY)
        m.d.sync += [
            valid.eq(Cat(issue, valid)),
            last_valid.eq(Cat(issue & at.last, last_valid)),
            chosen.fresh.eq(fresh),
            chosen.bank.eq(place[0]),
            chosen.word.eq(place[1:]),
            chosen.last_chunk.eq(next_chunk == self.chunks),
            product.eq(chosen),
            chosen_pixel.eq(pixel),
            product.live.eq(tile.live.word_select(chosen_pixel, config.rows)),
        ]
        m.d.comb += [
            self.product.eq(product),
            self.product.valid.eq(valid[-1]),
            self.product.last.eq(last_valid[-1]),
        ]
        return m


def _run_layout(slots: int) -> data.StructLayout:
    """Give where a run is.

    Fields
    ------
    slot
        Its tap at work.
    rest
        Its taps behind that.
    last
        There are none.
    """
    return data.StructLayout(
        {"slot": range(max(slots, 2)), "rest": unsigned(slots), "last": unsigned(1)}
    )


def _run(m: Module, name: str, taps: Value) -> data.View:
    """Give the run of some taps at its start; of no tap it does not matter."""
    run = Signal(_run_layout(len(taps)), name=name)
    # A tree: for each part of the taps its first one, and whether it has one, or more.
    parts = [(Const(0, 0), tap, Const(0, 1)) for tap in taps]
    while len(parts) > 1:
        if len(parts) % 2:
            parts.append((Const(0, len(parts[0][0])), Const(0, 1), Const(0, 1)))
        parts = [
            (Cat(Mux(some, slot, other_slot), ~some), some | other, many | more | (some & other))
            for (slot, some, many), (other_slot, other, more) in zip(
                parts[::2], parts[1::2], strict=True
            )
        ]
    ((slot, _, many),) = parts
    m.d.comb += [
        run.slot.eq(slot),
        run.rest.eq(taps & (taps - 1)[: len(taps)]),
        run.last.eq(~many),
    ]
    return run
