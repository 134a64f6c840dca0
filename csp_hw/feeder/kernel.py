# SPDX-License-Identifier: Apache-2.0
"""What a pass needs to know about its kernel, worked out once when it starts."""

from amaranth import Module, Mux, Signal, signed
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out

from csp_hw.config import CspConfig
from csp_hw.feeder.layouts import (
    OFFSET_BITS,
    address_bits,
    axis_layout,
    constants_layout,
    number_shape,
    origin_layout,
    place_layout,
)
from csp_hw.ports import (
    DILATION_BITS,
    EXTENT_BITS,
    KERNEL_BITS,
    PAD_BITS,
    STRIDE_BITS,
    feed_layout,
)
from csp_hw.util import delayed


class AxisScan(wiring.Component):
    """Go over the kernel's taps along one axis.

    Tap n lies o = n · dilation − padding positions from the window's beginning, that is, in phase
    o mod stride of position o div stride of the grid.

    Members
    -------
    stride, dilation, padding, kernel, size : In
        The axis, constant; the stride as base-2 logarithm.
    start : In(1)
        In the next cycle the scan is at tap 0.
    tap : In
        The tap at which it is: 0, 1, 2 …
    scanning : In(1)
        There is one.
    quotient, phase : Out
        Of that tap, a cycle later.
    axis : Out
        Complete when the scan is.
    """

    def __init__(self):
        super().__init__(
            {
                "stride": In(STRIDE_BITS),
                "dilation": In(DILATION_BITS),
                "padding": In(PAD_BITS),
                "kernel": In(KERNEL_BITS),
                "size": In(EXTENT_BITS),
                "start": In(1),
                "tap": In(KERNEL_BITS),
                "scanning": In(1),
                "quotient": Out(signed(OFFSET_BITS)),
                "phase": Out(2),
                "axis": Out(axis_layout()),
            }
        )

    def elaborate(self, platform):
        m = Module()
        offset = Signal(signed(OFFSET_BITS), reset_less=True)
        stride = Signal(3, reset_less=True)
        quotient = Signal(signed(OFFSET_BITS), reset_less=True)
        phase = Signal(2, reset_less=True)
        origin = Signal(origin_layout(), reset_less=True)
        m.d.sync += [
            offset.eq(offset + self.dilation),
            stride.eq(1 << self.stride),
            quotient.eq(offset >> self.stride),
            phase.eq(offset[:2] & (stride - 1)[:2]),
        ]
        m.d.comb += [
            self.quotient.eq(quotient),
            self.phase.eq(phase),
            self.axis.stride.eq(stride),
            self.axis.dilation.eq(self.dilation),
            self.axis.origin.eq(origin),
        ]
        with m.If(self.scanning & (self.tap < self.kernel)):
            with m.If(offset < 0):
                m.d.sync += [origin.window.first.eq(self.tap + 1), origin.before.eq(offset)]
            with m.If(offset < self.size):
                m.d.sync += [
                    origin.window.stop.eq(self.tap + 1),
                    origin.room.eq(self.size - offset - 1),
                ]
        with m.If(self.start):
            m.d.sync += [offset.eq(-self.padding), origin.window.eq(0)]
        return m


class KernelScan(wiring.Component):
    """Go over the kernel's rows and columns, side by side, one of each a cycle.

    Members
    -------
    start : In(1)
    feed : In
        The geometry, from the cycle of ``start`` on.
    ready : Out(1)
        All is there: max(R, S) + 4 cycles after ``start``, until the next ``start``.
    opens : Out(1)
        The first cycle of ``ready``.
    constants : Out
        See :func:`csp_hw.feeder.layouts.constants_layout`.
    r, s : In
        A kernel position.
    row, column : Out
        Where it lies, in the same cycle.
    """

    def __init__(self, config: CspConfig):
        self.config = config
        super().__init__(
            {
                "start": In(1),
                "feed": In(feed_layout(config)),
                "ready": Out(1),
                "opens": Out(1),
                "constants": Out(constants_layout(config)),
                "r": In(KERNEL_BITS),
                "s": In(KERNEL_BITS),
                "row": Out(place_layout(config)),
                "column": Out(place_layout(config)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config, feed, constants = self.config, self.feed, self.constants
        m.submodules.y = y = AxisScan()
        m.submodules.x = x = AxisScan()

        # Taps 0, 1 … max(R, S) − 1; then what follows runs dry.
        tap = Signal(KERNEL_BITS, reset_less=True)
        scanning = Signal()
        last = Signal()
        passed = Signal(3)  # cycles since the last one
        m.d.comb += last.eq((tap + 1 >= feed.kernel_h) & (tap + 1 >= feed.kernel_w))
        m.d.sync += self.opens.eq(passed[-1])
        m.d.sync += [tap.eq(tap + 1), passed.eq((passed << 1) | (scanning & last))]
        with m.If(last):
            m.d.sync += scanning.eq(0)
        with m.If(passed[-1]):
            m.d.sync += self.ready.eq(1)
        with m.If(self.start):
            m.d.sync += [tap.eq(0), scanning.eq(1), self.ready.eq(0)]

        for axis, stride, dilation, padding, kernel, size in (
            (y, feed.stride_y, feed.dilation_y, feed.pad_top, feed.kernel_h, feed.height),
            (x, feed.stride_x, feed.dilation_x, feed.pad_left, feed.kernel_w, feed.width),
        ):
            m.d.comb += [
                axis.stride.eq(stride),
                axis.dilation.eq(dilation),
                axis.padding.eq(padding),
                axis.kernel.eq(kernel),
                axis.size.eq(size),
                axis.start.eq(self.start),
                axis.tap.eq(tap),
                axis.scanning.eq(scanning),
            ]
        known = Signal(constants_layout(config), reset_less=True)
        m.d.comb += [constants.eq(known), constants.y.eq(y.axis), constants.x.eq(x.axis)]

        # One multiplier: lines · pitch in the first cycle, then a row's lines · pitch.
        opening = Signal(2)
        factor = Signal(signed(EXTENT_BITS + 1))
        pitch = Signal(EXTENT_BITS, reset_less=True)
        product = Signal(signed(2 * EXTENT_BITS + 1), reset_less=True)
        m.d.comb += factor.eq(Mux(opening[0], feed.lines, y.quotient))
        m.d.sync += [
            opening.eq(Mux(self.start, 1, opening << 1)),
            pitch.eq(feed.pitch),
            product.eq(factor * pitch),
        ]
        with m.If(opening[1]):
            m.d.sync += known.image_step.eq(product)

        # The tables, two cycles after the scan. The first tap reaches lowest, the last highest.
        stored = delayed(m, tap, 2, "stored", reset_less=True)
        storing = delayed(m, scanning, 2, "storing")
        across = delayed(m, x.quotient, 1, "across", reset_less=True)
        ends = []
        for name, axis, kernel, reach, words, port, at in (
            ("row", y, feed.kernel_h, product, feed.beats << feed.stride_x, self.row, self.r),
            ("column", x, feed.kernel_w, across, feed.beats, self.column, self.s),
        ):
            phase_words, word = (
                Signal(address_bits(config), name=f"{name}_{what}", reset_less=True)
                for what in ("phase_words", "word")
            )
            m.d.sync += [
                phase_words.eq(words),
                word.eq(
                    Mux(axis.phase[0], phase_words, 0) + Mux(axis.phase[1], phase_words << 1, 0)
                ),
            ]
            table = memory.Memory(shape=place_layout(config), depth=1 << KERNEL_BITS, init=[])
            m.submodules[f"{name}s"] = table
            write, read = table.write_port(), table.read_port(domain="comb")
            m.d.comb += [
                write.addr.eq(stored),
                write.data.offset.eq(reach),
                write.data.word.eq(word),
                write.en.eq(storing),
                read.addr.eq(at),
                port.eq(read.data),
            ]
            low, high = (
                Signal(signed(2 * EXTENT_BITS), name=f"{name}_{end}", reset_less=True)
                for end in ("low", "high")
            )
            with m.If(storing & (stored == 0)):
                m.d.sync += low.eq(reach)
            with m.If(storing & (stored + 1 == kernel)):
                m.d.sync += high.eq(reach)
            ends.append((low, high))

        (top, bottom), (left, right) = ends
        ring = Signal(number_shape(config), reset_less=True)
        m.d.sync += [
            known.ring_mask.eq((1 << feed.ring_bits) - 1),
            ring.eq(config.rows << feed.ring_bits),
            known.near.eq(top + left + ring),
            known.far.eq(bottom + right),
        ]
        return m
