# SPDX-License-Identifier: Apache-2.0
"""The layer descriptor: what software tells the core about one pass, in one table.

A pass is a layer, one group or some of its filters, or a pooling. The table below is the only
place that knows where a field lies; software packs a descriptor with :func:`pack`, the core reads
the same layout.
"""

import enum
from collections.abc import Iterator, Mapping

from amaranth import unsigned
from amaranth.lib import data

from csp_hw.config import ACC_SHIFT_BITS, COUNT_BITS, MULT_BITS, SHIFT_BITS, TAP_BITS
from csp_hw.ports import (
    DILATION_BITS,
    EXTENT_BITS,
    IMAGE_BITS,
    KERNEL_BITS,
    PAD_BITS,
    POOL_COVER,
    STRIDE_BITS,
    TILE_BITS,
    WINDOW_BITS,
)

#: Bytes of a descriptor; it lies at a multiple of its size.
DESCRIPTOR_BYTES = 256
WORD_BITS = 32
OFFSET_BITS = 32
BEAT_BITS = 24
LOOP_BITS = 16
RING_BITS = 5
STROBE_BITS = 64
POOL_MULTS = POOL_COVER**2


class Kind(enum.IntEnum):
    """What a pass does."""

    CONVOLVE = 0
    POOL = 1


def _loops(name: str) -> list[list[tuple[str, int]]]:
    """Give the words that say where a map lies: count2 × count1 runs of beats."""
    return [
        [(f"{name}_offset", OFFSET_BITS)],
        [(f"{name}_beats", BEAT_BITS)],
        [(f"{name}_count1", LOOP_BITS), (f"{name}_count2", LOOP_BITS)],
        [(f"{name}_pitch1", OFFSET_BITS)],
        [(f"{name}_pitch2", OFFSET_BITS)],
    ]


#: The fields of each 32-bit word, low bits first. What is not named is zero.
WORDS: list[list[tuple[str, int]]] = [
    [
        ("kind", 2),
        ("signed", 1),
        ("relu", 1),
        ("out", 2),
        ("residual", 1),
        ("residual_signed", 1),
        ("weights_resident", 1),
        ("counts_resident", 1),
        ("pool", 2),
        ("acc_shift", ACC_SHIFT_BITS),
        ("period", 6),
        ("chunks", COUNT_BITS),
    ],
    [("taps", TAP_BITS), ("position_words", TAP_BITS)],
    [("tiles", TILE_BITS), ("last_filters", 7)],
    [("weight_words", BEAT_BITS), ("ring_bits", RING_BITS)],
    [("count_beats", BEAT_BITS), ("kernel_h", KERNEL_BITS), ("kernel_w", KERNEL_BITS)],
    [("beats", 16), ("images", IMAGE_BITS)],
    [
        ("height", EXTENT_BITS),
        ("width", EXTENT_BITS),
        ("stride_y", STRIDE_BITS),
        ("stride_x", STRIDE_BITS),
    ],
    [
        ("out_height", EXTENT_BITS),
        ("out_width", EXTENT_BITS),
        ("dilation_y", DILATION_BITS),
        ("dilation_x", DILATION_BITS),
    ],
    [("lines", EXTENT_BITS), ("pitch", EXTENT_BITS)],
    [
        ("pad_top", PAD_BITS),
        ("pad_left", PAD_BITS),
        ("residual_shift", SHIFT_BITS),
        ("residual_mult", MULT_BITS),
    ],
    [("params_offset", OFFSET_BITS)],
    [("tiles_offset", OFFSET_BITS)],
    [("counts_offset", OFFSET_BITS)],
    [("weights_offset", OFFSET_BITS)],
    *_loops("input"),
    *_loops("add"),
    *_loops("output"),
    [("output_low", OFFSET_BITS)],
    [("output_high", OFFSET_BITS)],
    [("strobe_low", STROBE_BITS // 2)],
    [("strobe_high", STROBE_BITS // 2)],
    [("pool_height", EXTENT_BITS), ("pool_width", EXTENT_BITS)],
    [
        ("pool_kernel_h", WINDOW_BITS),
        ("pool_kernel_w", WINDOW_BITS),
        ("pool_stride_h", WINDOW_BITS),
        ("pool_stride_w", WINDOW_BITS),
    ],
    [
        ("pool_pad_top", PAD_BITS),
        ("pool_pad_left", PAD_BITS),
        ("pool_pad_bottom", PAD_BITS),
        ("pool_pad_right", PAD_BITS),
        ("pool_shift", SHIFT_BITS),
    ],
    [("pool_words", 16), ("pool_signed", 1)],
    *[
        [(f"pool_mult_{n}", MULT_BITS) for n in range(first, min(first + 2, POOL_MULTS))]
        for first in range(0, POOL_MULTS, 2)
    ],
]


def _placed() -> Iterator[tuple[str, int, int]]:
    """Give name, first bit and width of each field."""
    for number, word in enumerate(WORDS):
        bit = number * WORD_BITS
        for name, width in word:
            yield name, bit, width
            bit += width


#: First bit and width of each field.
FIELDS: dict[str, tuple[int, int]] = {name: (bit, width) for name, bit, width in _placed()}


def descriptor_layout() -> data.FlexibleLayout:
    """Give the layout of a descriptor's 2,048 bits."""
    fields = {name: data.Field(unsigned(width), bit) for name, (bit, width) in FIELDS.items()}
    return data.FlexibleLayout(8 * DESCRIPTOR_BYTES, fields)


def reserved_bits() -> int:
    """Give the mask of the bits that belong to no field."""
    used = sum(((1 << width) - 1) << bit for bit, width in FIELDS.values())
    return ~used & ((1 << 8 * DESCRIPTOR_BYTES) - 1)


def pack(fields: Mapping[str, int]) -> bytes:
    """Give a descriptor; fields that are not given are 0.

    Raises
    ------
    ValueError
        There is no such field, or its value does not fit; the message names both.
    """
    whole = 0
    for name, value in fields.items():
        if name not in FIELDS:
            raise ValueError(f"a descriptor has no field {name}")
        bit, width = FIELDS[name]
        if not 0 <= value < 1 << width:
            raise ValueError(f"{name} must be 0 … {(1 << width) - 1}, not {value}")
        whole |= int(value) << bit
    return whole.to_bytes(DESCRIPTOR_BYTES, "little")


def unpack(descriptor: bytes) -> dict[str, int]:
    """Give all fields of a descriptor."""
    whole = int.from_bytes(descriptor, "little")
    return {name: whole >> bit & ((1 << width) - 1) for name, (bit, width) in FIELDS.items()}
