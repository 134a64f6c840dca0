# SPDX-License-Identifier: Apache-2.0
"""The walk along one axis: which taps of each window lie in the map."""

from amaranth import Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from csp_hw.feeder.layouts import axis_layout, window_layout


class AxisWalk(wiring.Component):
    """Keep the taps inside the map while the window moves on.

    The taps inside are consecutive, and both their ends only fall on the way: a tap enters at the
    map's beginning after all higher ones, and leaves at its end after them, too. So two numbers
    and two distances replace a comparison with the map's ends for each tap or each lane. One tap
    can enter and one leave a cycle; with a stride of 1 no more do at a step.

    Members
    -------
    axis : In
        Constant during the walk.
    back, step : In(1)
        Go back to the first window, or on to the next one; only if ``settled``, ``back`` wins.
        ``back`` is allowed at any time before the walk.
    window : Out
        The taps inside, as far as ``settled``.
    settled : Out(1)
        No tap has still to enter or to leave.
    """

    def __init__(self):
        super().__init__(
            {
                "axis": In(axis_layout()),
                "back": In(1),
                "step": In(1),
                "window": Out(window_layout()),
                "settled": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        axis, window = self.axis, self.window
        before = Signal.like(axis.origin.before)
        room = Signal.like(axis.origin.room)
        distance = Signal(3)
        moved = Signal.like(before)
        left = Signal.like(room)
        enters = Signal()
        leaves = Signal()
        m.d.comb += [
            distance.eq(Mux(self.step, axis.stride, 0)),
            moved.eq(before + distance),
            left.eq(room - distance),
            enters.eq((moved >= 0) & (window.first != 0)),
            leaves.eq((left < 0) & (window.stop != 0)),
            self.settled.eq(
                ((before < 0) | (window.first == 0)) & ((room >= 0) | (window.stop == 0))
            ),
        ]
        # Where there is no such tap, the distances run on and wrap around, unheeded.
        m.d.sync += [
            before.eq(moved - Mux(enters, axis.dilation, 0)),
            room.eq(left + Mux(leaves, axis.dilation, 0)),
            window.first.eq(window.first - enters),
            window.stop.eq(window.stop - leaves),
        ]
        with m.If(self.back):
            m.d.sync += [
                before.eq(axis.origin.before),
                room.eq(axis.origin.room),
                window.eq(axis.origin.window),
            ]
        return m
