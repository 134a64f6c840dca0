# SPDX-License-Identifier: Apache-2.0
"""The order of activation words: for each block, for each interleaved pixel, for each tap."""

from amaranth import Module, Signal
from amaranth.lib import memory, stream, wiring
from amaranth.lib.wiring import In, Out

from csp_hw.config import CspConfig
from csp_hw.feeder.layouts import lane_slots, request_layout, span_layout, tap_layout

#: Taps that are kept even if two blocks are fewer: one row of LUT RAM on an ECP5. A block's room
#: is seen two cycles after its end, and the first tap of the block after next must come in time.
LEAST_TAPS = 16


def kept_taps(config: CspConfig) -> int:
    """Give how many taps are kept: those of two blocks."""
    return max(LEAST_TAPS, 2 * config.max_period)


class TapReplay(wiring.Component):
    """Ask for one word a cycle.

    The taps of two blocks are kept. Those of a block are read once for each pixel; a block begins
    with its first tap, and the taps of the next one are gathered meanwhile, so blocks follow each
    other without a gap, and so do tiles. A tile without survivors costs I cycles.

    Members
    -------
    taps : In(stream)
    tile_valid : In(1)
        There is a tile to read; it is taken in this cycle if ``free``.
    tile : In
    free, finish : Out(1)
        See :class:`csp_hw.feeder.gate.TileGate`.
    credit : In(1)
        There is room for a word.
    asked : Out(1)
        A word is asked for in this cycle, ``request`` says which one in the next.
    request : Out
    """

    def __init__(self, config: CspConfig):
        self.config = config
        super().__init__(
            {
                "taps": In(stream.Signature(tap_layout(config))),
                "tile_valid": In(1),
                "tile": In(span_layout(config)),
                "free": Out(1),
                "finish": Out(1),
                "credit": In(1),
                "asked": Out(1),
                "request": Out(request_layout(config)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config = self.config
        depth = kept_taps(config)
        m.submodules.store = store = memory.Memory(shape=tap_layout(config), depth=depth, init=[])
        write, read = store.write_port(), store.read_port(domain="comb")

        # Where to write, to read, and the first tap of the block; a bit more tells full from empty.
        write_at = Signal(range(2 * depth))
        read_at = Signal(range(2 * depth))
        block_at = Signal(range(2 * depth))
        room = Signal(init=1)
        do_write = self.taps.valid & self.taps.ready
        full_at = block_at ^ depth
        m.d.comb += [
            self.taps.ready.eq(room),
            write.addr.eq(write_at[:-1]),
            write.data.eq(self.taps.payload),
            write.en.eq(do_write),
            read.addr.eq(read_at[:-1]),
        ]
        # A register, because it holds back all that comes before.
        write_next = (write_at + 1)[: len(write_at)]
        m.d.sync += room.eq(write_at != full_at)
        with m.If(do_write):
            m.d.sync += [write_at.eq(write_next), room.eq(write_next != full_at)]

        # Word after word.
        tap = read.data
        reading = Signal()
        first_slot = Signal.like(self.tile.slot, reset_less=True)
        slot = Signal.like(first_slot, reset_less=True)
        first_lanes = Signal(range(lane_slots(config)))
        lanes = Signal.like(first_lanes)
        interleave = Signal.like(self.tile.interleave, reset_less=True)
        # Still to do for the block, this one included.
        pixels = Signal.like(interleave, reset_less=True)
        last_pixel = Signal()
        step = Signal()
        pass_done = Signal()
        block_done = Signal()
        m.d.comb += [
            last_pixel.eq(pixels == 1),
            step.eq(reading & self.credit & (read_at != write_at)),
            pass_done.eq(step & tap.block_end),
            block_done.eq(pass_done & last_pixel),
            self.finish.eq(block_done & tap.tile_end),
            self.free.eq(~reading | self.finish),
            self.asked.eq(step & ~tap.empty),
        ]
        with m.If(step):
            m.d.sync += read_at.eq(read_at + 1)
        with m.If(pass_done):
            m.d.sync += [
                read_at.eq(block_at),
                pixels.eq(pixels - 1),
                slot.eq(slot + 1),
                lanes.eq(lanes + 1),
            ]
        with m.If(block_done):
            m.d.sync += [
                read_at.eq(read_at + 1),
                block_at.eq(read_at + 1),
                pixels.eq(interleave),
                slot.eq(first_slot),
                lanes.eq(first_lanes),
            ]
        with m.If(self.finish):
            m.d.sync += [reading.eq(0), lanes.eq(lanes + 1), first_lanes.eq(lanes + 1)]
        with m.If(self.free & self.tile_valid):
            m.d.sync += [
                reading.eq(1),
                interleave.eq(self.tile.interleave),
                pixels.eq(self.tile.interleave),
                first_slot.eq(self.tile.slot),
                slot.eq(self.tile.slot),
            ]

        request = Signal(request_layout(config), reset_less=True)
        valid, release = Signal(), Signal()
        m.d.comb += [
            self.request.eq(request),
            self.request.valid.eq(valid),
            self.request.release.eq(release),
        ]
        m.d.sync += [
            valid.eq(self.asked),
            request.slot.eq(slot),
            request.lanes.eq(lanes),
            *(request[name].eq(tap[name]) for name in ("offset", "word", "byte", "r", "s")),
            release.eq(pass_done & tap.tile_end),
        ]
        return m
