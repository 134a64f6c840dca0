# SPDX-License-Identifier: Apache-2.0
"""The registers of a descriptor, filled beat by beat."""

from amaranth import Cat, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from csp_hw.config import CspConfig
from csp_hw.descriptor import DESCRIPTOR_BYTES, descriptor_layout, reserved_bits
from csp_hw.util import delayed

#: Bits of a beat that are looked at together.
GROUP = 8


class DescriptorBuffer(wiring.Component):
    """Keep the fields of the descriptor that is at work.

    Each beat is written to its own registers, so that no net has more loads than a beat has bits,
    or the descriptor beats. Bits that belong to no field are looked at when they come, and not
    kept.

    Members
    -------
    clear : In(1)
        The next beat is the first one.
    write : In(1)
        A beat comes in this cycle; not in one of ``clear``.
    beat : In
    last : Out(1)
        The next beat is the last one.
    descriptor : Out
        Bits that belong to no field are 0.
    reserved : Out(1)
        One of them was not, from four cycles after its beat until ``clear``.
    """

    def __init__(self, config: CspConfig):
        self.config = config
        super().__init__(
            {
                "clear": In(1),
                "write": In(1),
                "beat": In(8 * config.cols),
                "last": Out(1),
                "descriptor": Out(descriptor_layout()),
                "reserved": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        width = len(self.beat)
        count = 8 * DESCRIPTOR_BYTES // width
        next_place = Signal(count, init=1)  # one bit: the next beat's
        whole = Signal(8 * DESCRIPTOR_BYTES, reset_less=True)
        m.d.comb += [self.descriptor.eq(whole), self.last.eq(next_place[-1])]

        # The beat and, one bit, its place; none if there is no beat. Twice, since it is a long way.
        beat = delayed(m, self.beat, 2, "beats", reset_less=True)
        asked, place = Signal(count), Signal(count)
        m.d.sync += [asked.eq(next_place & self.write.replicate(count)), place.eq(asked)]

        foreign = [(reserved_bits() >> width * n) & ((1 << width) - 1) for n in range(count)]
        with m.If(self.write):
            m.d.sync += next_place.eq(next_place.rotate_left(1))
        for n in range(count):
            with m.If(place[n]):
                kept = ((1 << width) - 1) & ~foreign[n]
                m.d.sync += whole[width * n : width * (n + 1)].eq(beat & kept)

        # Whether something is where nothing should be: in groups of bits, then in all.
        wrong = Signal(width)
        for bit in range(width):
            where = [place[n] for n in range(count) if foreign[n] >> bit & 1]
            m.d.comb += wrong[bit].eq(beat[bit] & Cat(where).any())
        found = Signal((width + GROUP - 1) // GROUP)
        m.d.sync += [
            found.eq(Cat(wrong[bit : bit + GROUP].any() for bit in range(0, width, GROUP))),
            self.reserved.eq(self.reserved | found.any()),
        ]
        with m.If(self.clear):
            m.d.sync += [next_place.eq(1), found.eq(0), self.reserved.eq(0)]
            m.d.sync += [asked.eq(0), place.eq(0)]
        return m
