# SPDX-License-Identifier: Apache-2.0
"""The walk over all lanes: where each one's pixel lies, and whether it has one."""

from amaranth import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from csp_hw.config import CspConfig
from csp_hw.feeder.axis import AxisWalk
from csp_hw.feeder.counter import CycleCounter
from csp_hw.feeder.layouts import constants_layout, lane_slots, walk_layout
from csp_hw.feeder.windows import lane_layout
from csp_hw.ports import EXTENT_BITS, GROUP_BITS, IMAGE_BITS, feed_layout, tile_layout
from csp_hw.slice import RegisterSlice


class LaneWalker(wiring.Component):
    """Walk l = 0, 1, 2 …, one lane a cycle, and write down the windows of each tile's lanes.

    x, y and the image are counted. Gaps between tiles are walked over. A lane waits where more
    than one tap enters or leaves the map at once, which a stride of 1 never does; with others the
    input of each position takes as many beats or more.

    Members
    -------
    begin : In(1)
        A layer begins; ``constants`` are there. Only when the walker is idle.
    feed, constants : In
    walks : In(stream)
    tiles : Out(stream)
        Commands for the engine.
    lane : Out
        What to keep of a lane, for :class:`csp_hw.feeder.windows.Windows`.
    walked : Out(1)
        The last lane of a group is written in this cycle.
    release : In(1)
        A group of lanes need not be kept any longer.
    moves : Out(1)
        A lane was walked over in the cycle before.
    beyond : Out(1)
        A tile begins behind the map; stays until reset.
    idle : Out(1)
        All commands of the tiles that were walked are taken.
    """

    def __init__(self, config: CspConfig):
        self.config = config
        super().__init__(
            {
                "begin": In(1),
                "feed": In(feed_layout(config)),
                "constants": In(constants_layout(config)),
                "walks": In(stream.Signature(walk_layout(config))),
                "tiles": Out(stream.Signature(tile_layout(config))),
                "lane": Out(lane_layout(config)),
                "walked": Out(1),
                "release": In(1),
                "moves": Out(1),
                "beyond": Out(1),
                "idle": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config, feed = self.config, self.feed
        rows, slots = config.rows, lane_slots(config)
        m.submodules.x = x_walk = AxisWalk()
        m.submodules.y = y_walk = AxisWalk()

        # Groups still to walk over, then groups still to keep.
        gap = Signal(GROUP_BITS, reset_less=True)
        working = Signal()
        keeping = Signal()
        keep = Signal(range(config.max_interleave + 1), reset_less=True)
        interleave = Signal.like(keep, reset_less=True)
        pixel = Signal(range(max(config.max_interleave, 2)), reset_less=True)
        row = Signal(rows, init=1)  # one bit
        slot = Signal(range(slots))
        ended = Signal()  # a tile was walked over in the cycle before
        collected = Signal()  # its command waits for the slice behind
        room = Signal(init=1)
        step = Signal()
        group_done = Signal()
        group_kept = Signal()
        tile_done = Signal()
        loads = self.walks.valid & self.walks.ready
        m.d.comb += [
            group_done.eq(step & row[-1]),
            group_kept.eq(group_done & keeping),
            tile_done.eq(group_kept & (keep == 1)),
            self.walks.ready.eq(~working | tile_done),
        ]
        with m.If(step):
            m.d.sync += row.eq(row.rotate_left(1))
        with m.If(group_kept):
            m.d.sync += [keep.eq(keep - 1), pixel.eq(pixel + 1), slot.eq(slot + 1)]
        with m.If(group_done & ~keeping):
            m.d.sync += [gap.eq(gap - 1), keeping.eq(gap == 1)]
        with m.If(tile_done):
            m.d.sync += working.eq(0)
        with m.If(loads):
            m.d.sync += [
                working.eq(1),
                gap.eq(self.walks.payload.gap),
                keeping.eq(~self.walks.payload.apart),
                keep.eq(self.walks.payload.interleave),
                interleave.eq(self.walks.payload.interleave),
                pixel.eq(0),
            ]

        # Groups kept; whether there is room for one more is a register.
        kept = Signal(range(slots + 1))
        with m.If(group_kept & ~self.release):
            m.d.sync += [kept.eq(kept + 1), room.eq(kept != slots - 1)]
        with m.Elif(~group_kept & self.release):
            m.d.sync += [kept.eq(kept - 1), room.eq(1)]

        # A step is allowed while both walks have settled, and there is a tile with a gap, or with
        # room for its lanes; and the last lane of a group needs the place of the command. Much
        # depends on a step, so this is known a cycle before: for both cases, whether there is a
        # step or not.
        m.submodules.offered = offered = RegisterSlice(tile_layout(config))
        handed = offered.i.ready

        def allowed_next(stepped: bool) -> Value:
            last, before_last = row[-1], row[-2 % rows]
            group = last if stepped else Const(0)
            kept_now = group & keeping
            fresh = ~working | (kept_now & (keep == 1))
            works = Mux(fresh, self.walks.valid, 1)
            keeps = keeping | (group & (gap == 1))
            still_room = Mux(self.release, room | ~kept_now, Mux(kept_now, kept != slots - 1, room))
            ends = before_last if stepped else last
            blocked = ends & (ended | (collected & ~handed))
            return works & (~Mux(fresh, ~self.walks.payload.apart, keeps) | (still_room & ~blocked))

        allowed = Mux(step, allowed_next(True), allowed_next(False))
        m.d.sync += step.eq(x_walk.settles & y_walk.settles & allowed)

        # The lane is counted, and with it the windows move.
        m.submodules.column = column = CycleCounter(EXTENT_BITS)
        m.submodules.line = line = CycleCounter(EXTENT_BITS)
        m.submodules.image = image = CycleCounter(IMAGE_BITS)
        line_done = step & column.last
        image_done = line_done & line.last
        for counter, size, part, go_on in (
            (column, feed.pitch, feed.out_width, step),
            (line, feed.lines, feed.out_height, line_done),
        ):
            m.d.comb += [counter.size.eq(size), counter.part.eq(part), counter.step.eq(go_on)]
        m.d.comb += [image.size.eq(feed.images), image.step.eq(image_done)]
        for counter in (column, line, image):
            m.d.comb += counter.begin.eq(self.begin)
        in_images = Signal()
        with m.If(image_done & image.last):
            m.d.sync += in_images.eq(0)
        with m.If(self.begin):
            m.d.sync += in_images.eq(1)
        m.d.sync += self.moves.eq(step)
        with m.If(step & ~in_images & (~keeping | ((pixel == 0) & row[0]))):
            m.d.sync += self.beyond.eq(1)
        for walk, axis, go_on, back in (
            (x_walk, self.constants.x, step, column.last),
            (y_walk, self.constants.y, line_done, line.last),
        ):
            m.d.comb += [
                walk.axis.eq(axis),
                walk.step.eq(go_on),
                walk.back.eq((go_on & back) | self.begin),
            ]

        # A dead lane has no tap in the map.
        live = Signal()
        m.d.comb += live.eq(column.inside & line.inside & in_images)
        lane = Signal(lane_layout(config), reset_less=True)
        lane_rows = Signal(rows)
        m.d.comb += [self.lane.eq(lane), self.lane.rows.eq(lane_rows)]
        m.d.sync += [
            lane_rows.eq(Mux(step & keeping, row, 0)),
            lane.slot.eq(slot),
            lane.y.eq(Mux(live, y_walk.window, 0)),
            lane.x.eq(Mux(live, x_walk.window, 0)),
            self.walked.eq(group_kept),
        ]

        # The command, a cycle after each step: a group's bits, the groups' bits, then the slice.
        live_now, pixel_now = Signal(reset_less=True), Signal.like(pixel, reset_less=True)
        interleave_now = Signal.like(interleave, reset_less=True)
        m.d.sync += [
            live_now.eq(live),
            pixel_now.eq(pixel),
            interleave_now.eq(interleave),
            ended.eq(tile_done),
        ]
        group_live = Signal(rows, reset_less=True)
        command = Signal(tile_layout(config), reset_less=True)
        tile_live = Cat(group_live[1:], live_now)
        with m.If(self.moves):
            m.d.sync += group_live.eq(tile_live)
        with m.If(self.walked):
            m.d.sync += command.interleave.eq(interleave_now)
            for n in range(config.max_interleave):
                with m.If(pixel_now == n):
                    m.d.sync += command.live.word_select(n, rows).eq(tile_live)
                with m.Elif(pixel_now == 0):
                    m.d.sync += command.live.word_select(n, rows).eq(0)
        with m.If(handed):
            m.d.sync += collected.eq(0)
        with m.If(ended):
            m.d.sync += collected.eq(1)
        wiring.connect(m, offered.o, wiring.flipped(self.tiles))
        m.d.comb += [
            offered.i.payload.eq(command),
            offered.i.valid.eq(collected),
            self.idle.eq(~ended & ~collected & ~self.tiles.valid),
        ]
        return m
