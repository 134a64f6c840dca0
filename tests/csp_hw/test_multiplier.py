# SPDX-License-Identifier: Apache-2.0
"""The multiplier against integers, and ECP5's own against it, with a model of a MULT18X18D."""

import pytest
from amaranth import Cat, Elaboratable, Module, Signal, Value

from csp_hw.pe import multiplier
from csp_hw.pe.multiplier import Ecp5Multiplier, Multiplier
from tests.csp_hw.bench import between, chance, pick, play, rng_of


class Mult18x18d(Elaboratable):
    """As Lattice's technical note FPGA-TN-02205 describes it, as far as it is used here."""

    def __init__(self, kind, **ports):
        assert kind == "MULT18X18D"
        self.parameters = {name[2:]: ports[name] for name in ports if name.startswith("p_")}
        self.inputs = {name[2:]: ports[name] for name in ports if name.startswith("i_")}
        self.outputs = {name[2:]: ports[name] for name in ports if name.startswith("o_")}

    def elaborate(self, _platform):
        m = Module()
        parameters, inputs = dict(self.parameters), dict(self.inputs)
        assert parameters.pop("REG_OUTPUT_CLK") == parameters.pop("REG_PIPELINE_CLK") == "NONE"
        assert parameters.pop("GSR") == "DISABLED"
        assert parameters.pop("RESETMODE") == "SYNC"
        inputs.pop("CLK0")
        used = set()
        operands = []
        for side in "AB":
            assert parameters.pop(f"REG_INPUT{side}_CLK") == "CLK0"
            enable, reset = (parameters.pop(f"REG_INPUT{side}_{what}") for what in ("CE", "RST"))
            used |= {enable, reset}
            bits = Cat(inputs.pop(f"{side}{bit}") for bit in range(18))
            assert Value.cast(inputs.pop(f"SOURCE{side}")).value == 0
            register = Signal(18)
            with m.If(inputs[enable]):
                m.d.sync += register.eq(bits)
            with m.If(inputs[reset]):
                m.d.sync += register.eq(0)
            sign = register[-1] & inputs.pop(f"SIGNED{side}")
            operands.append(Cat(register, sign).as_signed())
        assert not parameters
        # No constant: nextpnr may hand unused enables and resets to another multiplier.
        assert set(inputs) == used
        assert used == {"CE0", "RST0"}
        product = operands[0] * operands[1]
        m.d.comb += [
            Value.cast(self.outputs[f"P{bit}"]).eq(product[bit]) for bit in range(len(self.outputs))
        ]
        assert len(self.outputs) == 36
        return m


def steps():
    rng = rng_of(1)
    extremes = [(255, 127), (255, -128), (-256, 127), (-256, -127), (-1, -1), (0, -127), (1, 0)]
    given = []
    for number in range(600):
        activation, weight = pick(rng, extremes)
        if number >= 100:
            activation, weight = between(rng, -256, 255), between(rng, -128, 127)
        enable = 1 if number < 100 else int(chance(rng, 0.7))
        given.append({"enable": enable, "activation": activation, "weight": weight})
    return given


def expected():
    product, products = 0, []
    for step in steps():
        products.append(product)
        if step["enable"]:
            product = step["activation"] * step["weight"]
            product = (product + (1 << 15)) % (1 << 16) - (1 << 15)
    return products


@pytest.mark.parametrize("kind", [Multiplier, Ecp5Multiplier])
def test_product_of_what_was_taken(kind, monkeypatch):
    monkeypatch.setattr(multiplier, "Instance", Mult18x18d)
    seen = [at["product"] for at in play(kind(), steps(), ["product"])]
    assert seen == expected()
