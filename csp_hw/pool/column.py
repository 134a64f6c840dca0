# SPDX-License-Identifier: Apache-2.0
"""What requantises a column of pooled sums."""

from amaranth import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from csp_hw.requantise import SCALER_LATENCY, Scaler, factor_layout, saturated
from csp_hw.util import delayed

#: Cycles from a sum and its factor to the result.
COLUMN_LATENCY = 10
#: Bits to which a mean is clipped before it is saturated to either type.
MEAN_BITS = 10


class PoolColumnSignature(wiring.Signature):
    """Ports of a column; :class:`PoolColumn` explains them."""

    def __init__(self, sum_bits: int):
        super().__init__(
            {
                "value": In(sum_bits),
                "factor": In(factor_layout()),
                "is_signed": In(1),
                "invert": In(1),
                "result": Out(8),
            }
        )


class PoolColumn(wiring.Component):
    """rhu(value · mult, shift), saturated to int8 or uint8: a pipeline without stalls.

    Latency: COLUMN_LATENCY from ``value``, one cycle less from ``factor``, of which ``half`` is
    constant while the pipeline is at work.

    Members
    -------
    value : In
        Signed.
    factor : In
        See :func:`csp_hw.requantise.factor`.
    is_signed : In(1)
        Saturate to int8, else to uint8. Constant, as is
    invert : In(1)
        Give the result with its topmost bit inverted.
    result : Out
    """

    def __init__(self, sum_bits: int):
        super().__init__(PoolColumnSignature(sum_bits))

    def elaborate(self, platform):
        m = Module()
        m.submodules.scaler = scaler = Scaler(len(self.value), MEAN_BITS, steady=True)
        # Kept in each column, since they reach much there.
        signed_here, invert_here = (
            Signal(name=name, reset_less=True) for name in ("signed_here", "invert_here")
        )
        value, held = (
            Signal.like(scaler.value, name=name, reset_less=True) for name in ("value", "held")
        )
        scale = Signal.like(self.factor, reset_less=True)
        byte = Signal(8, reset_less=True)
        m.d.sync += [
            signed_here.eq(self.is_signed),
            invert_here.eq(self.invert),
            value.eq(self.value),
            held.eq(value),
            scale.eq(self.factor),
            byte.eq(saturated(scaler.z, is_unsigned=~signed_here, relu=0) ^ (invert_here << 7)),
        ]
        wait = COLUMN_LATENCY - 2 - SCALER_LATENCY - 1
        late = delayed(m, byte, wait, "late", reset_less=True)
        m.d.comb += [
            scaler.value.eq(held),
            scaler.factor.eq(scale),
            self.result.eq(late),
        ]
        return m
