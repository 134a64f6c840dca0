# SPDX-License-Identifier: Apache-2.0
"""Counters that know their end, as a register."""

from amaranth import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out


class CycleCounter(wiring.Component):
    """Count 0 … size − 1 and around again; only where it stands is told, not the number.

    Members
    -------
    size : In
        At least 1; constant from two cycles before ``begin`` on.
    part : In
        1 … size; alike.
    begin : In(1)
        Go to 0.
    step : In(1)
        Go on.
    last : Out(1)
        The number is size − 1. A register, like
    inside : Out(1)
        the number is below ``part``.
    """

    def __init__(self, bits: int):
        super().__init__(
            {
                "size": In(bits),
                "part": In(bits),
                "begin": In(1),
                "step": In(1),
                "last": Out(1),
                "inside": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        following = Signal.like(self.size, reset_less=True)  # the number after this one
        top = Signal.like(self.size, reset_less=True)
        single, last, inside = (
            Signal(name=name, reset_less=True) for name in ("single", "last", "inside")
        )
        m.d.comb += [self.last.eq(last), self.inside.eq(inside)]
        m.d.sync += [top.eq(self.size - 1), single.eq(self.size == 1)]
        with m.If(self.step):
            m.d.sync += [
                following.eq(following + 1),
                last.eq(following == top),
                inside.eq(inside & (following != self.part)),
            ]
        with m.If((self.step & last) | self.begin):
            m.d.sync += [following.eq(1), last.eq(single), inside.eq(1)]
        return m
