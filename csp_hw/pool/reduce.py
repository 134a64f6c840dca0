# SPDX-License-Identifier: Apache-2.0
"""Sums or maxima of windows along one axis."""

import itertools

from amaranth import Cat, Module, Mux, Signal, signed, unsigned
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out

from csp_hw.util import delayed

#: Values follow what is said of them by so many cycles, in which what is kept is read.
VALUE_DELAY = 3
#: Results follow by so many.
LATENCY = 5
#: Steps after which something kept can be read again; before, it is on its way.
DISTANCES = range(1, 5)
#: Maxima are of unsigned bytes.
BYTE = 8
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

    def __init__(self, *, lanes: int, entries: int, value_bits: int, sum_bits: int, kept_bits: int):
        self.lanes = lanes
        self.entries = entries
        self.value_bits = value_bits
        self.sum_bits = sum_bits
        self.kept_bits = kept_bits
        self.state_bits = max(sum_bits, 2 * kept_bits)
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
        word = data.ArrayLayout(unsigned(self.state_bits), self.lanes)
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
        states = [register(f"state_{n}") for n in range(3)]
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

        # 3: the only loop is here, from the state through the adder to the state. 4: write; add the
        # newest of overlapping values.
        m.d.comb += [
            write.en.eq(valids[4]),
            write.addr.eq(entries[4]),
            write.data.eq(states[0]),
        ]
        for lane in range(self.lanes):
            base = Signal(self.state_bits, name=f"base_{lane}")
            pair = Signal(signed(self.sum_bits), name=f"pair_{lane}", reset_less=True)
            newest = Signal(signed(self.kept_bits), name=f"newest_{lane}", reset_less=True)
            value = self.values[lane]
            last, last_but_one = (base.word_select(n, self.kept_bits).as_signed() for n in range(2))
            left = Mux(self.overlaps, last, base[: self.sum_bits].as_signed())
            right = Mux(self.overlaps, Mux(self.three, last_but_one, 0), value)
            joined = self._join(left, right)
            m.d.comb += base.eq(Mux(forward, states[0][lane], kept[lane]))
            m.d.sync += [
                pair.eq(joined),
                newest.eq(Mux(self.overlaps, value, 0)),
                states[0][lane].eq(Mux(self.overlaps, Cat(value[: self.kept_bits], last), joined)),
                self.results[lane].eq(self._join(pair, newest)),
            ]
        return m

    def _join(self, left, right):
        """Give the sum or the maximum of two values."""
        left_byte, right_byte = left[:BYTE], right[:BYTE]
        larger = Mux(left_byte > right_byte, left_byte, right_byte)
        return Mux(self.maximum, larger, left + right)
