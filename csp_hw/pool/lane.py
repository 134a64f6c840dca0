# SPDX-License-Identifier: Apache-2.0
"""One lane of a reducer: what is computed of its values."""

from amaranth import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out

#: Maxima are of unsigned bytes.
BYTE = 8
#: Entries that a lane keeps itself: a row of LUT RAM on an ECP5.
RECENT_WORDS = 16


class LaneSignature(wiring.Signature):
    """Ports of a lane; :class:`ReducerLane` explains them."""

    def __init__(self, *, value_bits: int, sum_bits: int, kept_bits: int, inverts: bool = False):
        self.value_bits = value_bits
        self.sum_bits = sum_bits
        self.kept_bits = kept_bits
        self.inverts = inverts
        self.state_bits = max(sum_bits, 2 * kept_bits)
        super().__init__(
            {
                "maximum": In(1),
                "overlaps": In(1),
                "three": In(1),
                "found": In(self.state_bits),
                "low": In(1),
                "read": In(range(RECENT_WORDS)),
                "same": In(1),
                "fresh": In(1),
                "write": In(range(RECENT_WORDS)),
                "enable": In(1),
                "value": In(signed(value_bits)),
                "state": Out(self.state_bits),
                "result": Out(signed(sum_bits)),
            }
        )


class ReducerLane(wiring.Component):
    """Add a value to what is kept of its entry, or keep the last two of overlapping windows.

    The only loop of a reducer is here, from the state through the adder to the state. Entries
    below RECENT_WORDS, which may come again soon, are kept in LUT RAM.

    For maxima all values, but not sums and results, are inverted, -1 - x: then one adder
    adds or compares.

    Members
    -------
    maximum, overlaps, three : In(1)
        As for :class:`csp_hw.pool.reduce.Reducer`.
    found : In
        What block RAM keeps of the entry, two cycles before ``value``, as are
    low : In(1)
        The entry is one of those kept here.
    fresh : In(1)
        A window begins that overlaps no other one: 0 counts.
    read : In
        Where the entry is kept here, a cycle before ``value``, as is
    same : In(1)
        The step before was of the same entry: its state counts, not what is kept.
    write, enable : In
        Where the state is kept, with ``value``.
    value : In
    state : Out
        What is to be kept from now on, a cycle later.
    result : Out
        Of the window that ends with the value, two cycles later; a maximum that is inverted,
        if ``inverts``.
    """

    def __init__(self, **widths: int):
        super().__init__(LaneSignature(**widths))

    def elaborate(self, platform):
        m = Module()
        bits = self.signature
        attrs = {"no_rw_check": 1, "ram_style": "distributed"}
        m.submodules.recent = recent = memory.Memory(
            shape=bits.state_bits, depth=RECENT_WORDS, init=[], attrs=attrs
        )
        write, read = recent.write_port(), recent.read_port(domain="comb")

        def register(shape, name):
            return Signal(shape, name=name, reset_less=True)

        # What holds for a layer or a step reaches much, so each lane has its own.
        maximum, overlaps, low, fresh, forward = (
            register(1, f"{name}_here")
            for name in ("maximum", "overlaps", "low", "fresh", "forward")
        )
        inverted = register(1, "inverted")
        # What joins the state first: the value, the last but one, or nothing: 0 or, inverted, -1.
        takes_value, takes_kept = register(1, "takes_value"), register(1, "takes_kept")
        m.d.sync += [
            maximum.eq(self.maximum),
            overlaps.eq(self.overlaps),
            takes_value.eq(~self.overlaps | (self.maximum & ~self.three)),
            takes_kept.eq(self.overlaps & (self.three | self.maximum)),
            low.eq(self.low),
            fresh.eq(self.fresh),
            forward.eq(self.same & ~fresh),
            inverted.eq(self.maximum & self.overlaps),
        ]

        # Block RAM is slow to answer: once more in a register.
        again = register(bits.state_bits, "again")
        kept = register(bits.state_bits, "kept")
        m.d.comb += read.addr.eq(self.read)
        m.d.sync += [again.eq(self.found), kept.eq(Mux(fresh, 0, Mux(low, read.data, again)))]

        state = register(bits.state_bits, "state_here")
        result = register(signed(bits.sum_bits), "result_here")
        pair = register(signed(bits.sum_bits), "pair")
        newest = register(signed(max(bits.kept_bits, BYTE + 1)), "newest")
        base = Signal(bits.state_bits)
        last, last_but_one = (base.word_select(n, bits.kept_bits).as_signed() for n in range(2))
        left = Signal(signed(bits.sum_bits))
        right = Signal(signed(max(bits.value_bits, bits.kept_bits)))
        nothing = maximum.replicate(len(newest)).as_signed()
        m.d.comb += [
            base.eq(Mux(forward, state, kept)),
            left.eq(base ^ inverted.replicate(bits.kept_bits)),
            self.state.eq(state),
            self.result.eq(result),
            write.addr.eq(self.write),
            write.en.eq(self.enable),
        ]
        with m.If(overlaps):
            m.d.comb += left[bits.kept_bits :].eq(
                (last[-1] ^ inverted).replicate(bits.sum_bits - bits.kept_bits)
            )
        with m.Switch(Cat(takes_value, takes_kept)):
            with m.Case(0b01):
                m.d.comb += right.eq(self.value)
            with m.Case(0b10):
                m.d.comb += right.eq(last_but_one)
            with m.Case(0b11):
                m.d.comb += right.eq(-1)
        joined = self._join(maximum, left, right)
        following = Mux(overlaps, Cat(self.value[: bits.kept_bits], last), joined)
        # The newest of overlapping values is added a step later.
        m.d.comb += write.data.eq(following)
        m.d.sync += [
            state.eq(following),
            pair.eq(joined),
            newest.eq(Mux(overlaps, self.value, nothing)),
            result.eq(self._join(maximum, pair, newest, inverts=bits.inverts)),
        ]
        return m

    def _join(self, maximum, left, right, *, inverts=False):
        """Give the sum or the maximum of two values, of which for a maximum one is inverted."""
        bits = self.signature.sum_bits
        # left + right or left - (-1 - right), whose sign says which is larger.
        total = (Cat(maximum, left).as_signed() + Cat(maximum, right).as_signed())[1 : bits + 1]
        larger = Cat(Mux(total[-1], ~right[:BYTE], left[:BYTE]), Const(0, bits - BYTE))
        return Mux(maximum, ~larger if inverts else larger, total)
