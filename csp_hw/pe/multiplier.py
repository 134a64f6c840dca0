# SPDX-License-Identifier: Apache-2.0
"""The multiplier of a PE with its operand registers; a synthesiser maps it, or ECP5's own."""

from amaranth import Cat, ClockSignal, Const, Instance, Module, ResetSignal, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from csp_hw.config import ACTIVATION_BITS, WEIGHT_BITS

#: Verilog module of the multiplier, instantiated once in a PE.
MULTIPLIER_MODULE = "csp_multiplier"
PRODUCT_BITS = 16  # −128 … 255 × −127 … 127

#: Width of an ECP5 multiplier's operands.
ECP5_BITS = 18


class MultiplierSignature(wiring.Signature):
    """Ports of a multiplier; :class:`Multiplier` explains them."""

    def __init__(self):
        super().__init__(
            {
                "enable": In(1),
                "activation": In(signed(ACTIVATION_BITS)),
                "weight": In(signed(WEIGHT_BITS)),
                "product": Out(signed(PRODUCT_BITS)),
            }
        )


class Multiplier(wiring.Component):
    """Multiply what the operand registers hold.

    Members
    -------
    enable : In(1)
        The operands are taken; otherwise the registers keep theirs, and nothing toggles.
    activation, weight : In
    product : Out(signed(16))
        Of the registers.
    """

    def __init__(self):
        super().__init__(MultiplierSignature())
        self.held_activation = Signal(signed(ACTIVATION_BITS))
        self.held_weight = Signal(signed(WEIGHT_BITS))

    def elaborate(self, platform):
        m = Module()
        with m.If(self.enable):
            m.d.sync += [
                self.held_activation.eq(self.activation),
                self.held_weight.eq(self.weight),
            ]
        m.d.comb += self.product.eq(self.held_activation * self.held_weight)
        return m


class Ecp5Multiplier(wiring.Component):
    """The same as a MULT18X18D of Lattice's ECP5, whose input registers hold the operands.

    Yosys infers the multiplier but leaves its registers unused: a wire more between flip-flops in
    the logic and a multiplier that is far away.

    The four multipliers of a block share four enables and four resets, so no more than one of each
    is used here, and none is a constant: nextpnr gives a block's free enables to its other
    multipliers, which would then hold this one. For the same reason the product is registered
    outside.
    """

    def __init__(self):
        super().__init__(MultiplierSignature())

    def elaborate(self, platform):
        m = Module()
        product = Signal(signed(2 * ECP5_BITS))
        ports = {"i_CLK0": ClockSignal(), "i_CE0": self.enable, "i_RST0": ResetSignal()}
        parameters = {
            "p_REG_OUTPUT_CLK": "NONE",
            "p_REG_PIPELINE_CLK": "NONE",
            "p_GSR": "DISABLED",
            "p_RESETMODE": "SYNC",
        }
        for side, operand in (("A", self.activation), ("B", self.weight)):
            parameters[f"p_REG_INPUT{side}_CLK"] = "CLK0"
            parameters[f"p_REG_INPUT{side}_CE"] = "CE0"
            parameters[f"p_REG_INPUT{side}_RST"] = "RST0"
            ports[f"i_SIGNED{side}"] = Const(1)
            ports[f"i_SOURCE{side}"] = Const(0)  # the operand's port, not a neighbour's
            wide = Cat(operand, operand[-1].replicate(ECP5_BITS - len(operand)))
            ports |= {f"i_{side}{bit}": wide[bit] for bit in range(ECP5_BITS)}
        ports |= {f"o_P{bit}": product[bit] for bit in range(2 * ECP5_BITS)}
        m.submodules.multiplier = Instance("MULT18X18D", **parameters, **ports)
        m.d.comb += self.product.eq(product)
        return m
