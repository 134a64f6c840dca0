# SPDX-License-Identifier: Apache-2.0
"""Requantisation of a sum: multiply, shift, round, saturate."""

from amaranth import Cat, Module, Mux, Signal, signed, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from csp_hw.config import MULT_BITS, SHIFT_BITS
from csp_hw.util import delayed

#: v is multiplied in two parts: its low bits, unsigned, and the rest. Both fit one side of an
#: 18 × 18 signed multiplier.
LOW_BITS = 17
#: Cycles from a value and its factor to z.
SCALER_LATENCY = 6
#: Shifts are by an even number of bits: 16 times 0 … 2, 8 times 0 or 1, then 2 times 0 … 3.
COARSE = range(3)
FINE_BITS = 2


def factor_layout() -> data.StructLayout:
    """Give what a value is multiplied by: mult · 2^(1 - shift % 2), and shift // 2."""
    return data.StructLayout({"mult": unsigned(MULT_BITS + 1), "half": unsigned(SHIFT_BITS - 1)})


def factor(mult, shift) -> dict:
    """Give the fields of a factor: an odd shift costs a bit of the multiplier, no multiplexer."""
    return {"mult": Mux(shift[0], mult, mult << 1), "half": shift[1:]}


def uniform(bits):
    """Whether all bits are the same."""
    return bits.all() | ~bits.any()


def saturated(value, *, is_unsigned, relu):
    """Give the byte of a signed value: int8, not below 0 if ``relu``, or uint8."""
    sign, top = value[-1], value[7:-1]
    fits = Mux(sign, top.all() & ~(relu | is_unsigned), ~(top[1:].any() | (top[0] & ~is_unsigned)))
    limit = Cat((~sign).replicate(7), Mux(is_unsigned, ~sign, sign & ~relu))
    return Mux(fits, value[:8], limit)


class Scaler(wiring.Component):
    """z = rhu(v · mult, shift), saturated to ``bits`` bits: a pipeline without stalls.

    rhu(x, s) = (x + 2^(s-1)) >> s, and x for s = 0. It is computed as y = 2x >> s, (y + 1) >> 1.
    With s = 2h + b, y = v · (mult · 2^(1-b)) >> 2h.

    Latency: SCALER_LATENCY; a new value every cycle.

    Parameters
    ----------
    value_bits : int
    bits : int
    steady : bool
        ``factor.half`` is constant while the pipeline is at work.

    Members
    -------
    value : In
        From a register, as it is the input of multipliers.
    factor : In
        See :func:`factor`.
    z : Out
    """

    def __init__(self, value_bits: int, bits: int, *, steady: bool = False):
        self.bits = bits
        self.steady = steady
        super().__init__(
            {
                "value": In(signed(value_bits)),
                "factor": In(factor_layout()),
                "z": Out(signed(bits)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        mult_bits = len(self.factor.mult)
        high_bits = len(self.value) - LOW_BITS + mult_bits
        product_bits = LOW_BITS + high_bits
        # Bits of y that count, and those that the last shift needs.
        y_bits = self.bits + 1
        coarse_bits = y_bits + 2 * (2**FINE_BITS - 1)

        def register(shape, name):
            return Signal(shape, name=name, reset_less=True)

        # v · mult = high · 2^17 + low
        low = register(unsigned(LOW_BITS + mult_bits), "low")
        high = register(signed(high_bits), "high")
        m.d.sync += [
            low.eq(self.value[:LOW_BITS] * self.factor.mult),
            high.eq(self.value[LOW_BITS:].as_signed() * self.factor.mult),
        ]
        product = register(signed(product_bits), "product")
        m.d.sync += product.eq(Cat(low[:LOW_BITS], (high + low[LOW_BITS:])[:high_bits]))
        half = delayed(m, self.factor.half, 1 if self.steady else 2, "half", reset_less=True)

        # Of the first shift only the low bits are kept, and whether the others are copies of the
        # sign.
        by_16 = Signal(signed(coarse_bits + 8))
        fits_16 = Signal()
        coarse = register(signed(coarse_bits), "coarse")
        fits = register(1, "fits")
        sign_c = register(1, "sign_c")
        fine_c = half[:FINE_BITS] if self.steady else register(unsigned(FINE_BITS), "fine_c")
        with m.Switch(half[FINE_BITS + 1 :]):
            for n in COARSE:
                with m.Case(n) if n != COARSE[-1] else m.Default():
                    at = min(16 * n + len(by_16), product_bits) - 1
                    m.d.comb += [by_16.eq(product >> 16 * n), fits_16.eq(uniform(product[at:]))]
        with m.If(half[FINE_BITS]):
            m.d.sync += [coarse.eq(by_16 >> 8), fits.eq(fits_16)]
        with m.Else():
            m.d.sync += [coarse.eq(by_16), fits.eq(fits_16 & uniform(by_16[coarse_bits - 1 :]))]
        m.d.sync += sign_c.eq(product[-1])
        if not self.steady:
            m.d.sync += fine_c.eq(half)

        # Shift by the rest.
        fine = register(unsigned(y_bits - 1), "fine")
        over = register(1, "over")
        sign_f = register(1, "sign_f")
        m.d.sync += [fine.eq(coarse >> (fine_c << 1)), sign_f.eq(sign_c)]
        with m.Switch(fine_c):
            for n in range(2**FINE_BITS):
                with m.Case(n):
                    m.d.sync += over.eq(~(fits & uniform(coarse[y_bits - 1 + 2 * n :])))

        # Saturate y; the largest one as well, since it would be rounded up.
        clipped = register(signed(y_bits), "clipped")
        limited = over | (~sign_f & fine[1:].all())
        m.d.sync += [
            clipped.eq(Cat(Mux(limited, Cat(0, (~sign_f).replicate(y_bits - 2)), fine), sign_f)),
        ]
        z = register(signed(self.bits), "z_rounded")
        m.d.sync += z.eq((clipped + 1) >> 1)
        m.d.comb += self.z.eq(z)
        return m
