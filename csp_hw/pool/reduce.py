# SPDX-License-Identifier: Apache-2.0
"""Sums or maxima of windows along one axis."""

import itertools

from amaranth import Module, Signal, signed, unsigned
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out

from csp_hw.pool.lane import RECENT_WORDS, LaneSignature, ReducerLane
from csp_hw.util import delayed, part

#: Values follow what is said of them by so many cycles, in which what is kept is read.
VALUE_DELAY = 3
#: Results follow by so many.
LATENCY = 5
#: Cycles from a step to the write of its state in block RAM.
WRITE = 4
#: Entries from which they are kept in block RAM.
BLOCK_RAM_WORDS = 32


class Reducer(wiring.Component):
    """Reduce windows of values that come one after the other for each of some entries.

    Windows that do not overlap are reduced as they come: a partial result is kept, which begins
    anew with each window. Overlapping windows have two or three values: the last two are kept.

    A step takes a cycle; the same entry may come again in the next one if it is one of the first
    RECENT_WORDS, otherwise no earlier than after as many steps: entries come one after the other,
    over and over, so those of a short round are low.

    Parameters
    ----------
    lanes : int
        Values side by side.
    entries : int
        A power of two.
    value_bits : int
        Of a signed value; for maxima they are -1 - x for an unsigned byte x.
    sum_bits : int
        Of a signed result.
    kept_bits : int
        Of a signed value in overlapping windows.
    inverts : bool
        Give maxima as -1 - x, too.
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
        inverts: bool = False,
        module: str | None = None,
    ):
        self.lanes = lanes
        self.entries = entries
        self.widths = {"value_bits": value_bits, "sum_bits": sum_bits, "kept_bits": kept_bits}
        self.widths["inverts"] = inverts
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
        signature = LaneSignature(**self.widths)
        word = data.ArrayLayout(unsigned(signature.state_bits), self.lanes)
        found, states = Signal(word, reset_less=True), Signal(word)

        # 0: read, and compare with the step before.
        valids, entries = [self.valid], [self.entry]
        for age in range(1, WRITE + 1):
            valids.append(delayed(m, valids[-1], 1, f"valid_{age}"))
            entries.append(delayed(m, entries[-1], 1, f"entry_{age}", reset_less=True))
        low = [Signal(name=f"low_{age}", reset_less=True) for age in range(WRITE)]
        same, same_again = (Signal(name=n, reset_less=True) for n in ("same", "same_again"))
        fresh = Signal(reset_less=True)
        m.d.comb += low[0].eq(self.entry < RECENT_WORDS)
        m.d.sync += [
            *(newer.eq(older) for older, newer in itertools.pairwise(low)),
            same.eq(valids[1] & (entries[1] == self.entry)),
            fresh.eq(self.begins & ~self.overlaps),
            same_again.eq(same),
        ]

        # 4: write what the lanes gave in 3.
        if self.entries > RECENT_WORDS:
            # An entry that is read while it is written is one of those that the lanes keep.
            attrs = {"no_rw_check": 1}
            if self.entries >= BLOCK_RAM_WORDS:
                attrs["ram_style"] = "block"
            m.submodules.store = store = memory.Memory(
                shape=word, depth=self.entries, init=[], attrs=attrs
            )
            write, read = store.write_port(), store.read_port(domain="comb")
            m.d.comb += [
                read.addr.eq(self.entry),
                write.en.eq(valids[WRITE]),
                write.addr.eq(entries[WRITE]),
                write.data.eq(states),
            ]
            m.d.sync += found.eq(read.data)

        for number in range(self.lanes):
            inside = None if self.module else ReducerLane(**self.widths)
            lane = part(m, f"lane_{number}", signature, self.module, inside)
            m.d.comb += [
                lane.maximum.eq(self.maximum),
                lane.overlaps.eq(self.overlaps),
                lane.three.eq(self.three),
                lane.found.eq(found[number]),
                lane.low.eq(low[1]),
                lane.read.eq(entries[2]),
                lane.same.eq(same_again),
                lane.fresh.eq(fresh),
                lane.write.eq(entries[VALUE_DELAY]),
                lane.enable.eq(valids[VALUE_DELAY] & low[VALUE_DELAY]),
                lane.value.eq(self.values[number]),
                states[number].eq(lane.state),
                self.results[number].eq(lane.result),
            ]
        return m
