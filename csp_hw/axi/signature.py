# SPDX-License-Identifier: Apache-2.0
"""AXI4, AXI4-Lite and AXI4-Stream as streams, one a channel, and as flat ports of a Verilog top.

Inside, a channel is a stream whose payload holds what changes: its rules (a word on offer neither
changes nor is withdrawn, and does not wait for ``ready``) are AXI's. Outside, it has the names
that AXI gives it, such as ``m_axi_act_araddr``, and the signals that are constant here:
bursts increment by whole beats, normal bufferable memory (cache 0b0011), protection 0, ID 0.
"""

import enum

from amaranth import Module, Value, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from csp_hw.axi.ports import LENGTH_BITS

ADDRESS_BITS = 64
LITE_ADDRESS_BITS = 12
LITE_BYTES = 4
RESPONSE_BITS = 2
INCREMENT = 1
BUFFERABLE = 0b0011
#: The widest bus that AXI knows is 1,024 bits.
MOST_BYTES = 128


class Response(enum.IntEnum):
    """Answer to an access."""

    OKAY = 0
    SLVERR = 2
    DECERR = 3


def _check(data_bytes: int) -> None:
    if not 1 <= data_bytes <= MOST_BYTES or data_bytes & (data_bytes - 1):
        raise ValueError(f"data_bytes must be a power of two up to {MOST_BYTES}, not {data_bytes}")


def _channels(layouts: dict[str, dict[str, int]]) -> dict[str, wiring.Member]:
    """Give the members of a manager: it sends addresses and data to write, the rest comes back."""
    flows = {"ar": Out, "aw": Out, "w": Out, "r": In, "b": In, "t": Out}
    return {
        channel: flows[channel](
            stream.Signature(
                data.StructLayout({name: unsigned(width) for name, width in fields.items()})
            )
        )
        for channel, fields in layouts.items()
    }


def _address_constants(data_bytes: int) -> dict[str, tuple[int, int]]:
    return {
        "id": (1, 0),
        "size": (3, exact_log2(data_bytes)),
        "burst": (2, INCREMENT),
        "cache": (4, BUFFERABLE),
        "prot": (3, 0),
    }


class ReadSignature(wiring.Signature):
    """The read channels of a manager.

    Parameters
    ----------
    data_bytes : int
        Bytes of a beat; a power of two.

    Members
    -------
    ar : Out(stream)
        ``addr``, ``len``.
    r : In(stream)
        ``data``, ``resp``, ``last``.
    """

    def __init__(self, data_bytes: int):
        _check(data_bytes)
        self.constants = {"ar": _address_constants(data_bytes), "r": {"id": (1, 0)}}
        super().__init__(
            _channels(
                {
                    "ar": {"addr": ADDRESS_BITS, "len": LENGTH_BITS},
                    "r": {"data": 8 * data_bytes, "resp": RESPONSE_BITS, "last": 1},
                }
            )
        )


class WriteSignature(wiring.Signature):
    """The write channels of a manager.

    Parameters
    ----------
    data_bytes : int
        Bytes of a beat; a power of two.

    Members
    -------
    aw : Out(stream)
        ``addr``, ``len``.
    w : Out(stream)
        ``data``, ``strb``, ``last``.
    b : In(stream)
        ``resp``.
    """

    def __init__(self, data_bytes: int):
        _check(data_bytes)
        self.constants = {"aw": _address_constants(data_bytes), "b": {"id": (1, 0)}}
        super().__init__(
            _channels(
                {
                    "aw": {"addr": ADDRESS_BITS, "len": LENGTH_BITS},
                    "w": {"data": 8 * data_bytes, "strb": data_bytes, "last": 1},
                    "b": {"resp": RESPONSE_BITS},
                }
            )
        )


class LiteSignature(wiring.Signature):
    """AXI4-Lite as a manager sees it: 32 bits of data, 4 KiB of addresses.

    Members
    -------
    aw, ar : Out(stream)
        ``addr``.
    w : Out(stream)
        ``data``, ``strb``.
    b : In(stream)
        ``resp``.
    r : In(stream)
        ``data``, ``resp``.
    """

    def __init__(self):
        self.constants = {"aw": {"prot": (3, 0)}, "ar": {"prot": (3, 0)}}
        super().__init__(
            _channels(
                {
                    "aw": {"addr": LITE_ADDRESS_BITS},
                    "w": {"data": 8 * LITE_BYTES, "strb": LITE_BYTES},
                    "b": {"resp": RESPONSE_BITS},
                    "ar": {"addr": LITE_ADDRESS_BITS},
                    "r": {"data": 8 * LITE_BYTES, "resp": RESPONSE_BITS},
                }
            )
        )


class PacketSignature(wiring.Signature):
    """AXI4-Stream as a sender sees it; a packet ends with ``last``.

    Parameters
    ----------
    data_bytes : int
        Bytes of a beat; a power of two.
    strobes : bool
        Has ``strb`` and ``keep``. A byte without its strobe keeps its place, but means nothing; a
        beat that keeps no byte only ends its packet.

    Members
    -------
    t : Out(stream)
        ``data``, ``strb`` and ``keep`` if there, ``last``.
    """

    def __init__(self, data_bytes: int, *, strobes: bool = False):
        _check(data_bytes)
        self.constants = {}
        kinds = {"strb": data_bytes, "keep": data_bytes} if strobes else {}
        super().__init__(_channels({"t": {"data": 8 * data_bytes, **kinds, "last": 1}}))


def flat_members(prefix: str, signature: wiring.Signature) -> dict[str, wiring.Member]:
    """Give the ports of a top by AXI's names: ``{prefix}_araddr`` and so on.

    Parameters
    ----------
    prefix : str
        Such as ``m_axi_act``.
    signature : Signature
        One of this file, flipped for a subordinate.

    Returns
    -------
    dict of str to Member
        For the signature of the top, which :func:`connect_flat` connects.
    """
    members = {}
    for channel, member in signature.members.items():
        name, flow = f"{prefix}_{channel}", member.flow
        for field, where in member.signature.members["payload"].shape:
            members[f"{name}{field}"] = flow(where.shape)
        for field, (width, _) in signature.constants.get(channel, {}).items():
            members[f"{name}{field}"] = flow(width)
        members[f"{name}valid"] = flow(1)
        members[f"{name}ready"] = flow.flip()(1)
    return members


def connect_flat(
    m: Module, top: wiring.Component, prefix: str, interface, *, held: Value | None = None
) -> None:
    """Connect ports that :func:`flat_members` named to the interface of a block inside.

    Parameters
    ----------
    m : Module
        Gets the connections.
    top : Component
        Has the ports.
    prefix : str
    interface : interface object
        A block's; its signature, as the block has it, gave the ports. Constant signals that come
        in are not looked at.
    held : Value, optional
        The block is in its reset, or about to be: nothing is transferred.
    """

    def unless_held(flag: Value) -> Value:
        return flag if held is None else flag & ~held

    signature = interface.signature
    for channel, member in signature.members.items():
        name, inner = f"{prefix}_{channel}", getattr(interface, channel)
        constants = signature.constants.get(channel, {})
        outward = member.flow is Out
        valid = unless_held(inner.valid) if outward else inner.valid
        pairs = [(getattr(top, f"{name}valid"), valid)]
        for field, _ in inner.payload.shape():
            pairs.append((getattr(top, f"{name}{field}"), inner.payload[field]))
        if outward:
            pairs += [(getattr(top, f"{name}{k}"), value) for k, (_, value) in constants.items()]
        ready = getattr(top, f"{name}ready")
        m.d.comb += [outer.eq(wire) if outward else wire.eq(outer) for outer, wire in pairs]
        m.d.comb += inner.ready.eq(ready) if outward else ready.eq(unless_held(inner.ready))
