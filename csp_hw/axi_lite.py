# SPDX-License-Identifier: Apache-2.0
"""AXI4-Lite as streams, and as the pins that other tools know."""

import enum

from amaranth import Module, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out


class Response(enum.IntEnum):
    """Answer to an access."""

    OKAY = 0
    SLVERR = 2
    DECERR = 3


class AxiLiteSignature(wiring.Signature):
    """An AXI4-Lite port, seen by the manager: a stream for each channel.

    Parameters
    ----------
    addr_bits, data_bits : int
    """

    def __init__(self, addr_bits: int, data_bits: int = 32):
        address = data.StructLayout({"addr": unsigned(addr_bits), "prot": unsigned(3)})
        word = {"data": unsigned(data_bits)}
        response = {"resp": unsigned(2)}
        super().__init__(
            {
                "aw": Out(stream.Signature(address)),
                "w": Out(
                    stream.Signature(
                        data.StructLayout({**word, "strb": unsigned(data_bits // 8)}),
                    )
                ),
                "b": In(stream.Signature(data.StructLayout(response))),
                "ar": Out(stream.Signature(address)),
                "r": In(stream.Signature(data.StructLayout({**word, **response}))),
            }
        )


def pins(signature: wiring.Signature, prefix: str) -> dict[str, wiring.Member]:
    """Give the members of a top that has a port of streams as single pins.

    Each channel is a stream of structures; the pin of a field is named as in ``s_axil_awaddr``, by
    prefix, channel and field, which is what other tools look for.
    """
    members = {}
    for channel, member in signature.members.items():
        forward, backward = (In, Out) if member.flow is In else (Out, In)
        for name, field in member.signature.members["payload"].shape:
            members[f"{prefix}_{channel}{name}"] = forward(field.shape)
        members[f"{prefix}_{channel}valid"] = forward(1)
        members[f"{prefix}_{channel}ready"] = backward(1)
    return members


def connect_pins(m: Module, top: wiring.Component, prefix: str, port) -> None:
    """Connect the pins of a top to the port of a block inside that has the same direction."""
    for channel, member in port.signature.members.items():
        inside = getattr(port, channel)
        wires = {name: inside.payload[name] for name, _ in inside.payload.shape()}
        wires["valid"] = inside.valid
        for name, wire in wires.items():
            pin = getattr(top, f"{prefix}_{channel}{name}")
            m.d.comb += wire.eq(pin) if member.flow is In else pin.eq(wire)
        ready = getattr(top, f"{prefix}_{channel}ready")
        m.d.comb += ready.eq(inside.ready) if member.flow is In else inside.ready.eq(ready)
