# SPDX-License-Identifier: Apache-2.0
"""The names of AXI at a top, and that each reaches its channel."""

import pytest
from amaranth import Module
from amaranth.hdl import Shape
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from amaranth.sim import Simulator

from csp_hw.axi.signature import (
    LiteSignature,
    ReadSignature,
    WriteSignature,
    connect_flat,
    flat_members,
)
from tests.csp_hw.bench import between, rng_of

ADDRESS = {"addr": 64, "len": 8, "id": 1, "size": 3, "burst": 2, "cache": 4, "prot": 3}
LITE_ADDRESS = {"addr": 12, "prot": 3}
#: Widths at a manager, and what goes the other way: the channel's answer.
NAMES = {
    ReadSignature: {"ar": ADDRESS, "r": {"data": 128, "resp": 2, "last": 1, "id": 1}},
    WriteSignature: {
        "aw": ADDRESS,
        "w": {"data": 128, "strb": 16, "last": 1},
        "b": {"resp": 2, "id": 1},
    },
    LiteSignature: {
        "aw": LITE_ADDRESS,
        "w": {"data": 32, "strb": 4},
        "b": {"resp": 2},
        "ar": LITE_ADDRESS,
        "r": {"data": 32, "resp": 2},
    },
}
CONSTANTS = {"id": 0, "size": 4, "burst": 1, "cache": 0b0011, "prot": 0}


class Inner(wiring.Component):
    """A block whose port the tests drive and read."""

    def __init__(self, member):
        super().__init__({"bus": member})

    def elaborate(self, _platform):
        return Module()


class Top(wiring.Component):
    """A top with the flat ports of a block inside."""

    def __init__(self, member, prefix):
        self.inner = Inner(member)
        self.prefix = prefix
        super().__init__(flat_members(prefix, self.inner.bus.signature))

    def elaborate(self, _platform):
        m = Module()
        m.submodules.inner = self.inner
        connect_flat(m, self, self.prefix, self.inner.bus)
        return m


def signature_of(kind):
    return kind() if kind is LiteSignature else kind(16)


@pytest.mark.parametrize("kind", NAMES)
@pytest.mark.parametrize("manager", [True, False])
def test_every_port_reaches_its_channel(kind, manager):
    rng = rng_of(1)
    top = Top((Out if manager else In)(signature_of(kind)), "x_axi")
    expected = {}
    for channel, fields in NAMES[kind].items():
        forward = Out if manager == (channel in ("ar", "aw", "w")) else In
        for name, width in {**fields, "valid": 1}.items():
            expected[f"x_axi_{channel}{name}"] = forward, width
        expected[f"x_axi_{channel}ready"] = forward.flip(), 1
    members = top.signature.members
    assert {
        name: (each.flow, Shape.cast(each.shape).width) for name, each in members.items()
    } == expected

    async def check(ctx):
        for channel, fields in NAMES[kind].items():
            port = getattr(top.inner.bus, channel)
            changing = [name for name, _ in port.payload.shape()]
            for name, width in {**fields, "valid": 1, "ready": 1}.items():
                outer = getattr(top, f"x_axi_{channel}{name}")
                outward = expected[f"x_axi_{channel}{name}"][0] is Out
                if name in ("valid", "ready"):
                    inner = getattr(port, name)
                elif name in changing:
                    inner = port.payload[name]
                else:
                    assert name in CONSTANTS
                    assert not outward or ctx.get(outer) == CONSTANTS[name]
                    continue
                for _ in range(3):
                    value = between(rng, 0, 2 ** min(width, 60) - 1) << max(width - 60, 0)
                    ctx.set(inner if outward else outer, value)
                    assert ctx.get(outer if outward else inner) == value

    simulator = Simulator(top)
    simulator.add_testbench(check)
    simulator.run()


@pytest.mark.parametrize("kind", [ReadSignature, WriteSignature])
@pytest.mark.parametrize("data_bytes", [-1, 0, 3, 12, 256])
def test_data_bytes(kind, data_bytes):
    with pytest.raises(
        ValueError, match=f"^data_bytes must be a power of two up to 128, not {data_bytes}$"
    ):
        kind(data_bytes)


@pytest.mark.parametrize(("data_bytes", "size"), [(1, 0), (4, 2), (8, 3), (64, 6), (128, 7)])
def test_size_of_beats(data_bytes, size):
    assert ReadSignature(data_bytes).constants["ar"]["size"] == (3, size)
    assert WriteSignature(data_bytes).constants["aw"]["size"] == (3, size)
