# SPDX-License-Identifier: Apache-2.0
"""The way of the input into the line buffer."""

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from csp_hw.config import CspConfig
from csp_hw.feeder.counter import CycleCounter
from csp_hw.feeder.layouts import (
    address_bits,
    constants_layout,
    number_shape,
    row_bits,
    store_layout,
)
from csp_hw.ports import EXTENT_BITS, IMAGE_BITS, feed_layout, results_layout


class MapWriter(wiring.Component):
    """Store the beats of a map, in the order image, y, x, beat.

    Position (x, y) of an image is number (image · lines + y div stride) · pitch + x div stride, in
    phase (y mod stride, x mod stride). A line of the grid is complete up to some x only in its last
    phase, which is another line of the map. Numbers, phases and words are counted.

    Throughput: one beat a cycle below ``limit``.

    Members
    -------
    start, begin : In(1)
        A layer starts; its ``constants`` are there.
    feed, constants : In
    i : In(stream)
    limit : In
        Positions from this number on wait.
    unlimited : In(1)
        None do.
    store : Out
        A cycle after each beat.
    complete : Out
        Positions below this number are stored at the latest in this cycle, in all phases.
    done : Out(1)
        All positions are.
    blocked : Out(1)
        The next beat is above the limit.
    """

    def __init__(self, config: CspConfig):
        self.config = config
        super().__init__(
            {
                "start": In(1),
                "begin": In(1),
                "feed": In(feed_layout(config)),
                "constants": In(constants_layout(config)),
                "i": In(stream.Signature(results_layout(config))),
                "limit": In(number_shape(config)),
                "unlimited": In(1),
                "store": Out(store_layout(config)),
                "complete": Out(number_shape(config)),
                "done": Out(1),
                "blocked": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config, feed, constants = self.config, self.feed, self.constants

        # Where the beat after the next one lies in the map.
        advance = Signal()
        m.submodules.beat = beat = CycleCounter(len(feed.beats))
        m.submodules.x = x = CycleCounter(EXTENT_BITS)
        m.submodules.y = y = CycleCounter(EXTENT_BITS)
        m.submodules.image = image = CycleCounter(IMAGE_BITS)
        m.submodules.phase_x = phase_x = CycleCounter(len(constants.x.stride))
        m.submodules.phase_y = phase_y = CycleCounter(len(constants.y.stride))
        pixel_done = advance & beat.last
        line_done = pixel_done & x.last
        image_done = line_done & y.last
        for counter, size, step, restart in (
            (beat, feed.beats, advance, 0),
            (x, feed.width, pixel_done, 0),
            (y, feed.height, line_done, 0),
            (image, feed.images, image_done, 0),
            # The map's end may cut a grid position short.
            (phase_x, constants.x.stride, pixel_done, line_done),
            (phase_y, constants.y.stride, line_done, image_done),
        ):
            m.d.comb += [
                counter.size.eq(size),
                counter.step.eq(step),
                counter.begin.eq(self.begin | restart),
            ]

        # Its number and word, and where its line of the grid, the next line and the next image
        # begin.
        ahead = Signal()
        number = Signal(number_shape(config), reset_less=True)
        line = Signal.like(number)
        next_line = Signal.like(number)
        next_image = Signal.like(number)
        word = Signal(address_bits(config), reset_less=True)
        line_word = Signal.like(word)  # of the first beat in this line of the map
        line_words = Signal.like(word)
        next_line_word = Signal.like(word)
        last_phase = Signal()
        m.d.comb += [
            last_phase.eq(phase_y.last | y.last),
            next_line_word.eq(Mux(last_phase, 0, line_word + line_words)),
        ]
        m.d.sync += line_words.eq(feed.beats << feed.stride_x)
        with m.If(advance):
            m.d.sync += word.eq(word + 1)
        with m.If(pixel_done & phase_x.last):
            m.d.sync += [number.eq(number + 1), word.eq(line_word)]
        with m.If(line_done):
            m.d.sync += [
                number.eq(line),
                word.eq(next_line_word),
                line_word.eq(next_line_word),
            ]
            with m.If(last_phase):
                start = Mux(y.last, next_image, next_line)
                m.d.sync += [line.eq(start), number.eq(start), next_line.eq(start + feed.pitch)]
        with m.If(image_done):
            m.d.sync += next_image.eq(next_image + constants.image_step)
            with m.If(image.last):
                m.d.sync += ahead.eq(0)
        with m.If(self.begin):
            m.d.sync += [
                ahead.eq(1),
                *(signal.eq(0) for signal in (number, line, word, line_word)),
                next_line.eq(feed.pitch),
                next_image.eq(constants.image_step),
            ]

        # The next beat; it waits for room.
        running = Signal()
        due = Signal()
        due_number = Signal.like(number)
        due_word = Signal.like(word)
        complete = Signal.like(number)
        room = Signal(reset_less=True)
        do_store = self.i.valid & self.i.ready
        m.d.comb += [
            self.i.ready.eq(due & room),
            self.blocked.eq(due & ~room),
            self.done.eq(running & ~ahead & ~due),
            advance.eq(ahead & (~due | do_store)),
        ]
        below = Signal()
        m.d.comb += below.eq(Mux(advance, number < self.limit, due_number < self.limit))
        m.d.sync += room.eq(self.unlimited | below)
        with m.If(do_store):
            m.d.sync += due.eq(0)
        with m.If(advance):
            m.d.sync += [
                due.eq(1),
                due_number.eq(number),
                due_word.eq(word),
                complete.eq(Mux(last_phase, number, line)),
            ]
        with m.If(self.begin):
            m.d.sync += [running.eq(1), complete.eq(0)]
        with m.If(self.start):
            m.d.sync += running.eq(0)

        bank, slot = due_number[: row_bits(config)], due_number[row_bits(config) :]
        store = Signal(store_layout(config), reset_less=True)
        banks = Signal(config.rows)
        m.d.comb += [
            self.complete.eq(complete),
            self.store.eq(store),
            self.store.banks.eq(banks),
        ]
        m.d.sync += [
            banks.eq(Mux(do_store, 1 << bank, 0)),
            store.address.eq((due_word << feed.ring_bits) | (slot & constants.ring_mask)),
            store.word.eq(Cat(self.i.payload)),
        ]
        return m
