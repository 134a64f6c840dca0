# SPDX-License-Identifier: Apache-2.0
"""The way of the input into the line buffer."""

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from csp_hw.config import CspConfig
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

        # Of the beat after the next one: its number and word, where it is in the map, and where
        # its line of the grid, the next line and the next image begin.
        ahead = Signal()
        number = Signal(number_shape(config))
        line = Signal.like(number)
        next_line = Signal.like(number)
        next_image = Signal.like(number)
        word = Signal(address_bits(config))
        line_word = Signal.like(word)  # of the first beat in this line of the map
        beat = Signal(range(config.line_words))
        x, y = Signal(EXTENT_BITS), Signal(EXTENT_BITS)
        image = Signal(IMAGE_BITS)
        phases = []
        for axis, name in ((constants.x, "x"), (constants.y, "y")):
            phase = Signal(2, name=f"phase_{name}")
            last = Signal(name=f"last_phase_{name}")
            m.d.comb += last.eq(phase + 1 == axis.stride)
            phases.append((phase, last))
        (phase_x, last_phase_x), (phase_y, last_phase_y) = phases

        last_x, last_y = Signal(), Signal()
        advance = Signal()
        line_words = Signal.like(word)
        m.d.comb += [last_x.eq(x + 1 == feed.width), last_y.eq(y + 1 == feed.height)]
        m.d.sync += line_words.eq(feed.beats << feed.stride_x)
        with m.If(advance):
            m.d.sync += [beat.eq(beat + 1), word.eq(word + 1)]
            with m.If(beat + 1 == feed.beats):
                m.d.sync += [beat.eq(0), x.eq(x + 1), phase_x.eq(phase_x + 1)]
                with m.If(last_phase_x):
                    m.d.sync += [phase_x.eq(0), number.eq(number + 1), word.eq(line_word)]
                with m.If(last_x):
                    m.d.sync += [
                        x.eq(0),
                        phase_x.eq(0),
                        y.eq(y + 1),
                        phase_y.eq(phase_y + 1),
                        number.eq(line),
                        word.eq(line_word + line_words),
                        line_word.eq(line_word + line_words),
                    ]
                    with m.If(last_phase_y | last_y):
                        m.d.sync += [
                            phase_y.eq(0),
                            line.eq(next_line),
                            number.eq(next_line),
                            next_line.eq(next_line + feed.pitch),
                            word.eq(0),
                            line_word.eq(0),
                        ]
                    with m.If(last_y):
                        m.d.sync += [
                            y.eq(0),
                            line.eq(next_image),
                            number.eq(next_image),
                            next_line.eq(next_image + feed.pitch),
                            next_image.eq(next_image + constants.image_step),
                            image.eq(image + 1),
                            ahead.eq(image + 1 != feed.images),
                        ]
        with m.If(self.begin):
            m.d.sync += [
                ahead.eq(1),
                *(signal.eq(0) for signal in (number, line, word, line_word, beat)),
                *(signal.eq(0) for signal in (x, y, image, phase_x, phase_y)),
                next_line.eq(feed.pitch),
                next_image.eq(constants.image_step),
            ]

        # The next beat; it waits for room.
        running = Signal()
        due = Signal()
        due_number = Signal.like(number)
        due_word = Signal.like(word)
        room = Signal()
        do_store = self.i.valid & self.i.ready
        m.d.comb += [
            self.i.ready.eq(due & room),
            self.blocked.eq(due & ~room),
            self.done.eq(running & ~ahead & ~due),
            advance.eq(ahead & (~due | do_store)),
        ]
        m.d.sync += room.eq(self.unlimited | (Mux(advance, number, due_number) < self.limit))
        with m.If(do_store):
            m.d.sync += due.eq(0)
        with m.If(advance):
            m.d.sync += [
                due.eq(1),
                due_number.eq(number),
                due_word.eq(word),
                self.complete.eq(Mux(last_phase_y | last_y, number, line)),
            ]
        with m.If(self.begin):
            m.d.sync += [running.eq(1), self.complete.eq(0)]
        with m.If(self.start):
            m.d.sync += running.eq(0)

        bank, slot = due_number[: row_bits(config)], due_number[row_bits(config) :]
        m.d.sync += [
            self.store.banks.eq(Mux(do_store, 1 << bank, 0)),
            self.store.address.eq((due_word << feed.ring_bits) | (slot & constants.ring_mask)),
            self.store.word.eq(Cat(self.i.payload)),
        ]
        return m
