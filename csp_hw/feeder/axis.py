# SPDX-License-Identifier: Apache-2.0
"""The walk along one axis: which taps of each window lie in the map."""

from amaranth import Module, Mux, Signal, signed
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
        No tap has still to enter or to leave;
    settles : Out(1)
        nor will one have in the next cycle.
    """

    def __init__(self):
        super().__init__(
            {
                "axis": In(axis_layout()),
                "back": In(1),
                "step": In(1),
                "window": Out(window_layout()),
                "settled": Out(1),
                "settles": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        axis = self.axis
        origin = axis.origin
        before = Signal.like(origin.before, reset_less=True)
        room = Signal.like(origin.room, reset_less=True)
        window = Signal(window_layout(), reset_less=True)
        first_left = Signal(reset_less=True)  # tap first − 1 exists
        stop_left = Signal(reset_less=True)
        settled = Signal(reset_less=True)
        m.d.comb += [self.window.eq(window), self.settled.eq(settled)]

        # Where it will be after a step, with or without a change of taps; all sums at once, since
        # it is known late whether there is a step. Where there is no such tap, the distances run
        # on and wrap around, unheeded.
        enters, leaves = Signal(), Signal()
        distance = Signal(signed(5), reset_less=True)
        m.d.sync += distance.eq(axis.stride - axis.dilation)
        moved, left = Signal.like(origin.before), Signal.like(origin.room)
        m.d.comb += [moved.eq(before + axis.stride), left.eq(room - axis.stride)]
        next_before, next_room = Signal.like(origin.before), Signal.like(origin.room)
        next_first_left, next_stop_left = Signal(), Signal()
        with m.If(self.step):
            m.d.comb += [
                enters.eq(first_left & ~moved[-1]),
                leaves.eq(stop_left & left[-1]),
                next_before.eq(Mux(enters, before + distance, moved)),
                next_room.eq(Mux(leaves, room - distance, left)),
            ]
        with m.Else():
            m.d.comb += [
                enters.eq(first_left & ~before[-1]),
                leaves.eq(stop_left & room[-1]),
                next_before.eq(Mux(enters, before - axis.dilation, before)),
                next_room.eq(Mux(leaves, room + axis.dilation, room)),
            ]
        m.d.comb += [
            next_first_left.eq(Mux(enters, window.first != 1, first_left)),
            next_stop_left.eq(Mux(leaves, window.stop != 1, stop_left)),
            self.settles.eq(
                ~(next_first_left & ~next_before[-1]) & ~(next_stop_left & next_room[-1])
            ),
        ]
        with m.If(enters):
            m.d.sync += window.first.eq(window.first - 1)
        with m.If(leaves):
            m.d.sync += window.stop.eq(window.stop - 1)
        with m.If(self.back):
            m.d.comb += [
                next_before.eq(origin.before),
                next_room.eq(origin.room),
                next_first_left.eq(origin.window.first != 0),
                next_stop_left.eq(origin.window.stop != 0),
            ]
            m.d.sync += window.eq(origin.window)
        # What is settled is known a cycle before it is asked.
        m.d.sync += [
            before.eq(next_before),
            room.eq(next_room),
            first_left.eq(next_first_left),
            stop_left.eq(next_stop_left),
            settled.eq(self.settles),
        ]
        return m
