# SPDX-License-Identifier: Apache-2.0
"""Sums or maxima of windows along one axis."""

import itertools

from amaranth import Cat, Module, Signal, signed, unsigned
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out

from csp_hw.pool.lane import LaneSignature, ReducerLane
from csp_hw.util import delayed, part

#: Values follow what is said of them by so many cycles, in which what is kept is read.
VALUE_DELAY = 3
#: Results follow by so many.
LATENCY = 5
#: Steps after which something kept can be read again; before, it is on its way.
DISTANCES = range(1, 5)
#: Entries from which they are kept in block RAM.
BLOCK_RAM_WORDS = 32


class Reducer(wiring.Component):
    """Reduce windows of values that come one after the other for each of some entries.

    Windows that do not overlap are reduced as they come: a partial result is kept, which begins
    anew with each window. Overlapping windows have two or three values: the last two are kept.

    A step takes a cycle; the same entry may come again in the next one.

    Parameters
    ----------
    lanes : int
        Values side by side.
    entries : int
        A power of two.
    value_bits : int
        Of a signed value; of a maximum only the low 8 bits count, unsigned.
    sum_bits : int
        Of a signed result.
    kept_bits : int
        Of a signed value in overlapping windows.
    module : str, optional
        Instantiate the lanes as this Verilog module, a :class:`csp_hw.pool.lane.ReducerLane`.

    Members
    -------
    maximum, overlaps, three : In(1)
        Maxima rather than sums; windows overlap; those have three values. Constant.
    valid, begins, entry : In
        A step: values of an entry come in VALUE_DELAY cycles; they begin a window.
    values : In
    results : Out
        The window that ends with the values, LATENCY cycles after what was said of them; or
        something else if none ends.
    """

    def __init__(
        self,
        *,
        lanes: int,
        entries: int,
        value_bits: int,
        sum_bits: int,
        kept_bits: int,
        module: str | None = None,
    ):
        self.lanes = lanes
        self.entries = entries
        self.widths = {"value_bits": value_bits, "sum_bits": sum_bits, "kept_bits": kept_bits}
        self.module = module
        super().__init__(
            {
                "maximum": In(1),
                "overlaps": In(1),
                "three": In(1),
                "valid": In(1),
                "begins": In(1),
                "entry": In(range(entries)),
                "values": In(data.ArrayLayout(signed(value_bits), lanes)),
                "results": Out(data.ArrayLayout(signed(sum_bits), lanes)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        word = data.ArrayLayout(unsigned(LaneSignature(**self.widths).state_bits), self.lanes)
        # An entry that is read while it is written is taken from the registers behind the adder.
        attrs = {"no_rw_check": 1}
        if self.entries >= BLOCK_RAM_WORDS:
            attrs["ram_style"] = "block"
        m.submodules.store = store = memory.Memory(
            shape=word, depth=self.entries, init=[], attrs=attrs
        )
        write, read = store.write_port(), store.read_port(domain="comb")

        def register(name):
            return Signal(word, name=name, reset_less=True)

        # 0: read. Which of the last steps had the same entry?
        valids, entries = [self.valid], [self.entry]
        for distance in DISTANCES:
            valids.append(delayed(m, valids[-1], 1, f"valid_{distance}"))
            entries.append(delayed(m, entries[-1], 1, f"entry_{distance}"))
        same = Signal(len(DISTANCES))
        fresh = Signal()
        found = register("found")
        m.d.comb += read.addr.eq(self.entry)
        m.d.sync += [
            found.eq(read.data),
            same.eq(Cat(valids[d] & (entries[d] == self.entry) for d in DISTANCES)),
            fresh.eq(self.begins & ~self.overlaps),
        ]

        # 1: block RAM is slow to answer.
        again = register("again")
        same_again = Signal.like(same)
        fresh_again = Signal()
        m.d.sync += [again.eq(found), same_again.eq(same), fresh_again.eq(fresh)]

        # 2: what is on its way since 2, 3 or 4 steps; 0, which adds nothing, if a window begins.
        states = [Signal(word, name="state_0"), *(register(f"state_{n}") for n in (1, 2))]
        kept = register("kept")
        forward = Signal()
        m.d.sync += [
            kept.eq(again),
            forward.eq(same_again[0] & ~fresh_again),
            *(newer.eq(older) for older, newer in itertools.pairwise(states)),
        ]
        for distance, state in zip((4, 3, 2), reversed(states), strict=True):
            with m.If(same_again[distance - 1]):
                m.d.sync += kept.eq(state)
        with m.If(fresh_again):
            m.d.sync += kept.eq(0)

        # 3: the lanes, with the only loop. 4: write; add the newest of overlapping values.
        m.d.comb += [
            write.en.eq(valids[4]),
            write.addr.eq(entries[4]),
            write.data.eq(states[0]),
        ]
        for number in range(self.lanes):
            inside = None if self.module else ReducerLane(**self.widths)
            signature = LaneSignature(**self.widths)
            lane = part(m, f"lane_{number}", signature, self.module, inside)
            m.d.comb += [
                lane.maximum.eq(self.maximum),
                lane.overlaps.eq(self.overlaps),
                lane.three.eq(self.three),
                lane.forward.eq(forward),
                lane.kept.eq(kept[number]),
                lane.value.eq(self.values[number]),
                states[0][number].eq(lane.state),
                self.results[number].eq(lane.result),
            ]
        return m
