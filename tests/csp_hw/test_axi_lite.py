# SPDX-License-Identifier: Apache-2.0
"""An AXI4-Lite port as single pins."""

import pytest
from amaranth import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from csp_hw.axi_lite import AxiLiteSignature, connect_pins, pins
from tests.csp_hw.bench import between, rng_of, simulate

#: Pin, width, and whether the manager drives it.
PINS = [
    ("awaddr", 12, True),
    ("awprot", 3, True),
    ("awvalid", 1, True),
    ("awready", 1, False),
    ("wdata", 32, True),
    ("wstrb", 4, True),
    ("wvalid", 1, True),
    ("wready", 1, False),
    ("bresp", 2, False),
    ("bvalid", 1, False),
    ("bready", 1, True),
    ("araddr", 12, True),
    ("arprot", 3, True),
    ("arvalid", 1, True),
    ("arready", 1, False),
    ("rdata", 32, False),
    ("rresp", 2, False),
    ("rvalid", 1, False),
    ("rready", 1, True),
]


class Inside(wiring.Component):
    """A port and nothing else."""

    def __init__(self, flow):
        super().__init__({"axi": flow(AxiLiteSignature(12))})

    def elaborate(self, platform):
        del platform
        m = Module()
        m.d.sync += Signal().eq(1)  # the simulator asks for a clock
        return m


class Top(wiring.Component):
    """A port as pins."""

    def __init__(self, flow):
        self.inside = Inside(flow)
        super().__init__(pins(self.inside.axi.signature, "bus"))

    def elaborate(self, platform):
        del platform
        m = Module()
        m.submodules.inside = self.inside
        connect_pins(m, self, "bus", self.inside.axi)
        return m


def inner(axi, name):
    """Give what a pin is inside."""
    channel = "aw" if name.startswith("aw") else "ar" if name.startswith("ar") else name[0]
    stream = getattr(axi, channel)
    rest = name.removeprefix(channel)
    return getattr(stream, rest) if rest in ("valid", "ready") else stream.payload[rest]


@pytest.mark.parametrize(("flow", "manager"), [(In, False), (Out, True)])
def test_pins(flow, manager):
    dut = Top(flow)
    members = dut.signature.members
    assert set(members) == {f"bus_{name}" for name, _, _ in PINS}
    for name, width, driven in PINS:
        member = members[f"bus_{name}"]
        assert len(getattr(dut, f"bus_{name}")) == width
        assert (member.flow is Out) == (driven is manager), name

    async def bench(ctx):
        rng = rng_of(1)
        for _ in range(5):
            for name, width, driven in PINS:
                pin, wire = getattr(dut, f"bus_{name}"), inner(dut.inside.axi, name)
                into, out = (wire, pin) if driven is manager else (pin, wire)
                value = between(rng, 0, (1 << width) - 1)
                ctx.set(into, value)
                assert ctx.get(out) == value
            await ctx.tick()

    simulate(dut, bench)
