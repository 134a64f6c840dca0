# SPDX-License-Identifier: Apache-2.0
"""Where windows begin and end along one axis of a map."""

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from csp_hw.ports import EXTENT_BITS, PAD_BITS, POOL_COVER, WINDOW_BITS

#: Positions of a map with the padding on both sides.
POSITION_BITS = EXTENT_BITS + 1


class Axis(wiring.Component):
    """Walk over ``before`` positions of padding, ``size`` of the map, ``after`` of padding.

    Windows begin every ``stride`` positions from the first one on; those that reach beyond the
    last position do not end.

    Members
    -------
    before, size, after, kernel, stride : In
        Constant from the cycle before ``load`` on; size, kernel and stride are not 0.
    load : In(1)
        Go to the first position.
    advance : In(1)
        Go to the next position; from the last one to the first.
    inside : Out(1)
        The position is one of the map.
    last : Out(1)
        It is the last one.
    begins, ends : Out(1)
        A window begins at it, or ends with it.
    cover : Out
        How many positions of the window that ends lie inside, up to POOL_COVER, less 1.
    """

    def __init__(self):
        super().__init__(
            {
                "before": In(PAD_BITS),
                "size": In(EXTENT_BITS),
                "after": In(PAD_BITS),
                "kernel": In(WINDOW_BITS),
                "stride": In(WINDOW_BITS),
                "load": In(1),
                "advance": In(1),
                "inside": Out(1),
                "last": Out(1),
                "begins": Out(1),
                "ends": Out(1),
                "cover": Out(range(POOL_COVER)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        position = Signal(POSITION_BITS)
        # The position before the map's first one, its last one, and the last but one of all; -1,
        # which no position is, if there is none.
        enter, leave, last_but_one = (
            Signal(POSITION_BITS, name=name) for name in ("enter", "leave", "last_but_one")
        )
        to_begin, to_end = Signal(WINDOW_BITS), Signal(WINDOW_BITS)
        m.d.sync += [
            enter.eq(self.before - 1),
            leave.eq(self.before + self.size - 1),
            last_but_one.eq(self.before + self.size + self.after - 2),
        ]
        m.d.comb += [
            self.begins.eq(to_begin == 0),
            self.ends.eq(to_end == 0),
        ]

        # Positions inside: those of a window so far, or, if windows overlap, the last two.
        so_far, total = Signal(range(POOL_COVER + 1)), Signal(range(POOL_COVER + 1))
        was_inside = Signal(2)
        more = Signal(range(POOL_COVER + 2))
        overlaps, three = Signal(), Signal()
        m.d.sync += [overlaps.eq(self.kernel > self.stride), three.eq(self.kernel == 3)]
        with m.If(overlaps):
            m.d.comb += more.eq(was_inside[0] + (was_inside[1] & three) + self.inside)
        with m.Else():
            m.d.comb += more.eq(Mux(self.begins, 0, so_far) + self.inside)
        m.d.comb += [
            total.eq(Mux(more > POOL_COVER, POOL_COVER, more)),
            self.cover.eq(total - 1),
        ]
        with m.If(self.advance):
            m.d.sync += [so_far.eq(total), was_inside.eq(Cat(self.inside, was_inside[0]))]

        with m.If(self.load | (self.advance & self.last)):
            m.d.sync += [
                position.eq(0),
                self.inside.eq(self.before == 0),
                self.last.eq(last_but_one.all()),
                to_begin.eq(0),
                to_end.eq(self.kernel - 1),
            ]
        with m.Elif(self.advance):
            m.d.sync += [
                position.eq(position + 1),
                self.inside.eq((self.inside | (position == enter)) & (position != leave)),
                self.last.eq(position == last_but_one),
                to_begin.eq(to_begin - 1),
                to_end.eq(to_end - 1),
            ]
            with m.If(self.begins):
                m.d.sync += to_begin.eq(self.stride - 1)
            with m.If(self.ends):
                m.d.sync += to_end.eq(self.stride - 1)
        return m
