# SPDX-License-Identifier: Apache-2.0
"""What the blocks of the feeder tell each other."""

from amaranth import Shape, signed, unsigned
from amaranth.lib import data

from csp_hw.config import CspConfig
from csp_hw.ports import DILATION_BITS, EXTENT_BITS, GROUP_BITS, KERNEL_BITS

#: A tap's offset from the window's origin, −31 … 10 · 7, and the next tap's.
OFFSET_BITS = 8


def row_bits(config: CspConfig) -> int:
    """Give the bits of a row's number: the rotation of a tap, and where groups begin in l."""
    return config.rows.bit_length() - 1


def address_bits(config: CspConfig) -> int:
    """Give the bits of an address in a bank; no ring has slots of more bits."""
    return config.line_words.bit_length() - 1


def number_shape(config: CspConfig) -> Shape:
    """Give the shape of a number l, also of one before the map or after it."""
    return signed(GROUP_BITS + row_bits(config) + 2)


def lane_slots(config: CspConfig) -> int:
    """Give the groups of rows whose windows are kept: two of the largest tiles."""
    return 2 * config.max_interleave


def window_layout() -> data.StructLayout:
    """Give which taps along one axis lie in the map: first … stop − 1."""
    return data.StructLayout({"first": unsigned(KERNEL_BITS), "stop": unsigned(KERNEL_BITS)})


def origin_layout() -> data.StructLayout:
    """Give an axis as seen by the window at its beginning.

    Fields
    ------
    window
        The taps inside the map.
    before
        Where tap ``first − 1`` lies, a negative number; anything if there is none.
    room
        Positions from tap ``stop − 1`` to the map's last one; anything if there is none.
    """
    return data.StructLayout(
        {
            "window": window_layout(),
            "before": signed(OFFSET_BITS),
            "room": signed(EXTENT_BITS + 2),
        }
    )


def axis_layout() -> data.StructLayout:
    """Give the geometry of one axis as the walk over its windows needs it."""
    return data.StructLayout(
        {
            "stride": unsigned(3),  # 1, 2 or 4
            "dilation": unsigned(DILATION_BITS),
            "origin": origin_layout(),
        }
    )


def constants_layout(config: CspConfig) -> data.StructLayout:
    """Give what follows from the geometry of a pass.

    Fields
    ------
    ring_mask
        Ones for the bits of a slot.
    image_step
        Numbers l of an image, lines · pitch.
    near
        Where the next tile starts to read, plus the size of the ring, less its base.
    far
        Where a tile's last lane reads last, less the lane's own number.
    y, x
        The axes.
    """
    return data.StructLayout(
        {
            "ring_mask": unsigned(address_bits(config)),
            "image_step": unsigned(2 * EXTENT_BITS),
            "near": number_shape(config),
            "far": number_shape(config),
            "y": axis_layout(),
            "x": axis_layout(),
        }
    )


def place_layout(config: CspConfig) -> data.StructLayout:
    """Give where a kernel's row (or column) lies, both modulo what an address can tell.

    Fields
    ------
    offset
        Distance in numbers l.
    word
        First word of its phase.
    """
    return data.StructLayout(
        {
            "offset": unsigned(address_bits(config) + row_bits(config)),
            "word": unsigned(address_bits(config)),
        }
    )


def tap_layout(config: CspConfig) -> data.StructLayout:
    """Give a tap with its place in the line buffer.

    Fields
    ------
    offset
        From a lane's number l to that of the position it reads; modulo the largest ring.
    word
        Address of the phase's word in slot 0.
    byte, r, s, empty
        As in :func:`csp_hw.ports.position_layout`.
    block_end, tile_end
        The last of its block, of its tile.
    """
    return data.StructLayout(
        {
            "offset": unsigned(address_bits(config) + row_bits(config)),
            "word": unsigned(address_bits(config)),
            "byte": range(config.cols),
            "r": unsigned(KERNEL_BITS),
            "s": unsigned(KERNEL_BITS),
            "empty": unsigned(1),
            "block_end": unsigned(1),
            "tile_end": unsigned(1),
        }
    )


def walk_layout(config: CspConfig) -> data.StructLayout:
    """Give a tile for the walker.

    Fields
    ------
    gap
        Groups between it and the tile before.
    apart
        There are some.
    interleave
        I
    """
    return data.StructLayout(
        {
            "gap": unsigned(GROUP_BITS),
            "apart": unsigned(1),
            "interleave": range(config.max_interleave + 1),
        }
    )


def span_layout(config: CspConfig) -> data.StructLayout:
    """Give a tile for the reader.

    Fields
    ------
    slot
        Its first group, modulo the largest ring.
    interleave
        I
    need
        Positions below this number must be there before the tile starts.
    limit
        Positions from this number on would overwrite what it reads.
    """
    return data.StructLayout(
        {
            "slot": unsigned(address_bits(config)),
            "interleave": range(config.max_interleave + 1),
            "need": number_shape(config),
            "limit": number_shape(config),
        }
    )


def request_layout(config: CspConfig) -> data.StructLayout:
    """Give the request of one activation word.

    Fields
    ------
    valid
        There is one; the other fields but ``release`` do not matter otherwise.
    slot
        That of the lanes' own group.
    lanes
        Where their windows are kept.
    offset, word, byte, r, s
        Of the tap.
    release
        No later request is for this group of lanes.
    """
    tap = tap_layout(config)
    return data.StructLayout(
        {
            "valid": unsigned(1),
            "slot": unsigned(address_bits(config)),
            "lanes": range(lane_slots(config)),
            **{name: tap.members[name] for name in ("offset", "word", "byte", "r", "s")},
            "release": unsigned(1),
        }
    )


def store_layout(config: CspConfig) -> data.StructLayout:
    """Give a word to write into the line buffer: one bank of ``banks``, none if zero."""
    return data.StructLayout(
        {
            "banks": unsigned(config.rows),
            "address": unsigned(address_bits(config)),
            "word": unsigned(8 * config.cols),
        }
    )
