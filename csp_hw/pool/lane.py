# SPDX-License-Identifier: Apache-2.0
"""One lane of a reducer: what is computed of its values."""

from amaranth import Cat, Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

#: Maxima are of unsigned bytes.
BYTE = 8


class LaneSignature(wiring.Signature):
    """Ports of a lane; :class:`ReducerLane` explains them."""

    def __init__(self, *, value_bits: int, sum_bits: int, kept_bits: int):
        self.value_bits = value_bits
        self.sum_bits = sum_bits
        self.kept_bits = kept_bits
        self.state_bits = max(sum_bits, 2 * kept_bits)
        super().__init__(
            {
                "maximum": In(1),
                "overlaps": In(1),
                "three": In(1),
                "forward": In(1),
                "kept": In(self.state_bits),
                "value": In(signed(value_bits)),
                "state": Out(self.state_bits),
                "result": Out(signed(sum_bits)),
            }
        )


class ReducerLane(wiring.Component):
    """Add a value to what is kept of its entry, or keep the last two of overlapping windows.

    The only loop of a reducer is here, from the state through the adder to the state.

    Members
    -------
    maximum, overlaps, three : In(1)
        As for :class:`csp_hw.pool.reduce.Reducer`.
    forward : In(1)
        The step before was of the same entry: its state counts, not ``kept``.
    kept : In
        What is kept of the entry.
    value : In
    state : Out
        What is to be kept from now on, a cycle later.
    result : Out
        Of the window that ends with the value, two cycles later.
    """

    def __init__(self, **widths: int):
        super().__init__(LaneSignature(**widths))

    def elaborate(self, platform):
        m = Module()
        bits = self.signature
        state = Signal(bits.state_bits, reset_less=True)
        result = Signal(signed(bits.sum_bits), reset_less=True)
        base = Signal(bits.state_bits)
        pair = Signal(signed(bits.sum_bits), reset_less=True)
        newest = Signal(signed(bits.kept_bits), reset_less=True)
        last, last_but_one = (base.word_select(n, bits.kept_bits).as_signed() for n in range(2))
        left = Mux(self.overlaps, last, base[: bits.sum_bits].as_signed())
        right = Mux(self.overlaps, Mux(self.three, last_but_one, 0), self.value)
        joined = self._join(left, right)
        m.d.comb += [
            base.eq(Mux(self.forward, state, self.kept)),
            self.state.eq(state),
            self.result.eq(result),
        ]
        # The newest of overlapping values is added a step later.
        m.d.sync += [
            pair.eq(joined),
            newest.eq(Mux(self.overlaps, self.value, 0)),
            state.eq(Mux(self.overlaps, Cat(self.value[: bits.kept_bits], last), joined)),
            result.eq(self._join(pair, newest)),
        ]
        return m

    def _join(self, left, right):
        """Give the sum or the maximum of two values."""
        left_byte, right_byte = left[:BYTE], right[:BYTE]
        larger = Mux(left_byte > right_byte, left_byte, right_byte)
        return Mux(self.maximum, larger, left + right)
