# SPDX-License-Identifier: Apache-2.0
"""The drain: reads finished tiles out of the array while the next ones compute."""

from amaranth import Module, Mux, Signal, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from csp_hw.array import Array
from csp_hw.buffer import ResultBuffer
from csp_hw.config import COUNT_BITS, CspConfig
from csp_hw.issue import PRODUCT_LATENCY, finished_layout
from csp_hw.ports import sums_layout
from csp_hw.row import drain_layout
from csp_hw.util import counted, delayed


def queue_depth(config: CspConfig) -> int:
    """Give the words behind the array: enough for one word a cycle over the whole round trip."""
    return Array.drain_latency(config) + 10


class Drain(wiring.Component):
    """Ask for the sums of a tile in the order pixel i, row, chunk: rows · K · I words.

    One word a cycle. The array cannot wait, so a word is asked for only if the queue behind the
    array has room for it. Tiles follow each other without a bubble.

    Members
    -------
    chunks : In(8)
        K, constant during a layer.
    finished, finished_valid : In
        From the issuer.
    drained : Out(2)
        Halves whose last word is asked for in this cycle.
    request : Out
        To the array.
    sums : In
        From the array, ``Array.drain_latency`` cycles after ``request``.
    o : Out(stream)
        Sums; entries that no run touched read as zero.
    busy : Out
        A tile is waiting, being drained or on its way.
    """

    def __init__(self, config: CspConfig):
        self.config = config
        super().__init__(
            {
                "chunks": In(COUNT_BITS),
                "finished": In(finished_layout(config)),
                "finished_valid": In(1),
                "drained": Out(2),
                "request": Out(drain_layout(config)),
                "sums": In(sums_layout(config)["acc"].shape),
                "o": Out(stream.Signature(sums_layout(config))),
                "busy": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config = self.config

        # At most two tiles wait: one a half.
        waiting = [
            Signal(finished_layout(config), name=f"tile_{n}", reset_less=True) for n in range(2)
        ]
        write_to, read_from = Signal(), Signal()
        for n in range(2):
            with m.If(self.finished_valid & (write_to == n)):
                m.d.sync += waiting[n].eq(self.finished)
        m.d.sync += write_to.eq(write_to ^ self.finished_valid)

        # A tile may be drained once its last sum is written. From its last product's issue to its
        # first request, three cycles are registers: of `finished`, `tiles` and `request`.
        wait = PRODUCT_LATENCY + Array.DRAIN_DISTANCE - 3
        arrived = delayed(m, self.finished_valid, wait, "arrived")
        tile_done = Signal()
        _, any_computed = counted(m, "computed", 2, self.finished_valid, tile_done)
        _, any_tiles = counted(m, "tiles", 2, arrived, tile_done)

        # The walk.
        tile = Signal(finished_layout(config))
        pixel = Signal(range(max(config.max_interleave, 2)))
        row = Signal(range(max(config.rows, 2)))
        chunk = Signal(range(config.depth))
        entry = Signal(range(config.depth))
        place = Signal(range(config.depth))
        top_chunk = Signal.like(chunk, reset_less=True)  # a register here: the layer is far away
        # Registers: the end of a tile frees its place at once.
        last_chunk, one_chunk = Signal(reset_less=True), Signal(reset_less=True)
        last_row = Signal()
        last_pixel = Signal()
        ask, did_read = Signal(), Signal()
        room, any_room = counted(m, "room", self.queue_depth, did_read, ask, init=self.queue_depth)
        m.d.comb += [
            tile.eq(Mux(read_from, waiting[1], waiting[0])),
            ask.eq(any_tiles & any_room),
            last_row.eq(row == config.rows - 1),
            last_pixel.eq(pixel + 1 == tile.tile.interleave),
            tile_done.eq(ask & last_chunk & last_row & last_pixel),
            place.eq(Mux(tile.overlaps, (entry << 1) | tile.half, entry)),
        ]
        m.d.sync += [
            top_chunk.eq(self.chunks - 1),
            one_chunk.eq(top_chunk == 0),
            last_chunk.eq(chunk == top_chunk),
        ]
        with m.If(ask):
            m.d.sync += [
                chunk.eq(chunk + 1),
                last_chunk.eq(chunk + 1 == top_chunk),
                entry.eq(entry + tile.tile.interleave),
            ]
            with m.If(last_chunk):
                m.d.sync += [chunk.eq(0), last_chunk.eq(one_chunk)]
                m.d.sync += [entry.eq(pixel), row.eq(row + 1)]
                with m.If(last_row):
                    m.d.sync += [row.eq(0), entry.eq(pixel + 1), pixel.eq(pixel + 1)]
        with m.If(tile_done):
            m.d.sync += [pixel.eq(0), entry.eq(0), read_from.eq(~read_from)]
            m.d.comb += self.drained.eq(Mux(tile.overlaps, 1 << tile.half, 0b11))

        request = Signal(drain_layout(config), reset_less=True)
        asked = Signal()
        m.d.sync += [
            asked.eq(ask),
            request.row.eq(row),
            request.bank.eq(place[0]),
            request.address.eq(place[1:]),
        ]
        m.d.comb += [self.request.eq(request), self.request.valid.eq(asked)]

        # What the sums are travels beside the array.
        tag = Signal(
            data.StructLayout(
                {
                    "zero": unsigned(1),
                    "live": unsigned(1),
                    "chunk": range(config.depth),
                }
            )
        )
        m.d.comb += [
            tag.zero.eq(entry >= tile.touched),
            tag.live.eq(tile.tile.live.word_select(pixel, config.rows).bit_select(row, 1)),
            tag.chunk.eq(chunk),
        ]
        latency = 1 + Array.drain_latency(config)
        arrives = delayed(m, ask, latency, "arrives")
        tag = delayed(m, tag, latency, "tag", reset_less=True)

        # Not for all of its words is there a request.
        depth = 1 << (self.queue_depth - 1).bit_length()
        m.submodules.queue = queue = ResultBuffer(sums_layout(config), depth)
        word = Signal(sums_layout(config))
        m.d.comb += [word.chunk.eq(tag.chunk), word.live.eq(tag.live)]
        with m.If(~tag.zero):
            m.d.comb += word.acc.eq(self.sums)
        wiring.connect(m, queue.o, wiring.flipped(self.o))
        # Twice, since it is a long way from below the array to where words are asked for.
        m.d.comb += did_read.eq(delayed(m, self.o.valid & self.o.ready, 2, "did_read"))
        m.d.comb += [
            queue.data.eq(word),
            queue.write.eq(arrives),
            self.busy.eq(self.finished_valid | any_computed | (room != self.queue_depth)),
        ]
        return m

    @property
    def queue_depth(self) -> int:
        """Words behind the array, see :func:`queue_depth`."""
        return queue_depth(self.config)
