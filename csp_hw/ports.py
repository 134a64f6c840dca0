# SPDX-License-Identifier: Apache-2.0
"""Payloads of the streams between blocks, all derived from the one configuration."""

import enum

from amaranth import signed, unsigned
from amaranth.lib import data

from csp_hw.config import (
    ACC_SHIFT_BITS,
    BIAS_BITS,
    COUNT_BITS,
    MULT_BITS,
    SHIFT_BITS,
    TAP_BITS,
    WEIGHT_BITS,
    CspConfig,
)

#: A layer has at most 2^24 − 1 tiles.
TILE_BITS = 24
#: Extent of a map in pixels: H and W are 1 … 4,095.
EXTENT_BITS = 12
#: Images of a batch: 1 … 65,535.
IMAGE_BITS = 16
#: A group of rows, so that l = group · rows + row has a few bits more.
GROUP_BITS = 24
#: Kernel sides, 1 … 11.
KERNEL_BITS = 4
KERNEL_LIMIT = 11
#: Padding before the map, 0 … 31, and dilation, 1 … 7.
PAD_BITS = 5
DILATION_BITS = 3
#: Base-2 logarithm of a stride of the feeder: 1, 2 or 4.
STRIDE_BITS = 2
#: Kernel sides and strides of a pooling window, 1 … 63.
WINDOW_BITS = 6
#: Multipliers of an average pool: one for each number of lines and columns of a window that lie
#: inside the map, up to 3 × 3; more count as 3.
POOL_COVER = 3


class OutputType(enum.IntEnum):
    """What the output stage emits for a filter."""

    INT8 = 0
    UINT8 = 1
    INT32 = 2


def layer_layout(config: CspConfig) -> data.StructLayout:
    """Give the command that opens a layer (one group of one convolution)."""
    return data.StructLayout(
        {
            "taps": unsigned(TAP_BITS),  # J
            "position_words": unsigned(TAP_BITS),  # words of counts of one kernel position
            "kernel_w": unsigned(KERNEL_BITS),  # kernel positions of a kernel line
            "tiles": unsigned(TILE_BITS),
            "chunks": unsigned(COUNT_BITS),  # K
            "last_filters": range(config.cols + 1),  # real filters of chunk K − 1, 1 … cols
            "period": range(config.max_period + 1),  # T
            "acc_shift": unsigned(ACC_SHIFT_BITS),  # t
            "signed": unsigned(1),  # activations are int8, else uint8
            "residual": residual_layout(),
            "relu": unsigned(1),
            "out": unsigned(2),  # an OutputType
        }
    )


def filter_layout() -> data.StructLayout:
    """Give the requantisation parameters of one filter."""
    return data.StructLayout(
        {
            "bias": signed(BIAS_BITS),
            "mult": unsigned(MULT_BITS),
            "shift": unsigned(SHIFT_BITS),
        }
    )


def tile_layout(config: CspConfig) -> data.StructLayout:
    """Give the command that opens a tile: I, and bit i·rows + p for each live lane."""
    return data.StructLayout(
        {
            "interleave": range(config.max_interleave + 1),
            "live": unsigned(config.max_interleave * config.rows),
        }
    )


def counts_layout(config: CspConfig) -> data.ArrayLayout:
    """Give one word of the counts stream: L consecutive taps."""
    return data.ArrayLayout(unsigned(COUNT_BITS), config.lookahead)


def tile_counts_layout(config: CspConfig) -> data.StructLayout:
    """Give a word of counts of a layer at work, and whether it is its tile's last one."""
    return data.StructLayout({"counts": counts_layout(config), "last": unsigned(1)})


def weights_layout(config: CspConfig) -> data.ArrayLayout:
    """Give one weight word: a chunk of one tap."""
    return data.ArrayLayout(signed(WEIGHT_BITS), config.cols)


def activations_layout(config: CspConfig) -> data.ArrayLayout:
    """Give one activation word: one tap of one pixel for each row of the array."""
    return data.ArrayLayout(unsigned(8), config.rows)


def sums_layout(config: CspConfig) -> data.StructLayout:
    """Give one drained word: the partial sums of one chunk of one pixel."""
    return data.StructLayout(
        {
            "acc": data.ArrayLayout(signed(config.acc_bits), config.cols),
            "chunk": range(config.depth),
            "live": unsigned(1),
        }
    )


def results_layout(config: CspConfig) -> data.ArrayLayout:
    """Give one result word: ``cols`` bytes."""
    return data.ArrayLayout(unsigned(8), config.cols)


def entry_layout() -> data.StructLayout:
    """Give an entry of a layer's list of tiles: its first group of rows, and I."""
    return data.StructLayout({"group": unsigned(GROUP_BITS), "interleave": unsigned(8)})


def position_layout(config: CspConfig) -> data.StructLayout:
    """Give where a surviving tap lies; ``end`` as in :func:`csp_hw.skip.survivor_layout`.

    Fields
    ------
    r, s
        Kernel position.
    beat, byte
        Its channel among those of the pass is beat · cols + byte.
    empty
        A tile without survivors has this one entry, which is no tap.
    end
        The tile's last.
    """
    return data.StructLayout(
        {
            "r": unsigned(KERNEL_BITS),
            "s": unsigned(KERNEL_BITS),
            "beat": range(config.line_words),
            "byte": range(config.cols),
            "empty": unsigned(1),
            "end": unsigned(1),
        }
    )


def feed_layout(config: CspConfig) -> data.StructLayout:
    """Give the geometry of a pass over a map, as the feeder needs it.

    Fields
    ------
    beats
        Words of a pixel in this pass.
    ring_bits
        The line buffer holds 2^ring_bits slots of ``rows`` positions.
    height, width, out_height, out_width, lines, pitch, images
        See :class:`sim.grid.Grid`.
    stride_y, stride_x
        As base-2 logarithms.
    """
    extent = unsigned(EXTENT_BITS)
    return data.StructLayout(
        {
            "beats": range(config.line_words + 1),
            "ring_bits": range(config.line_words.bit_length()),
            "images": unsigned(IMAGE_BITS),
            "height": extent,
            "width": extent,
            "out_height": extent,
            "out_width": extent,
            "lines": extent,
            "pitch": extent,
            "stride_y": unsigned(STRIDE_BITS),
            "stride_x": unsigned(STRIDE_BITS),
            "dilation_y": unsigned(DILATION_BITS),
            "dilation_x": unsigned(DILATION_BITS),
            "kernel_h": unsigned(KERNEL_BITS),
            "kernel_w": unsigned(KERNEL_BITS),
            "pad_top": unsigned(PAD_BITS),
            "pad_left": unsigned(PAD_BITS),
        }
    )


class PoolKind(enum.IntEnum):
    """What the pooler does."""

    NONE = 0
    MAX = 1
    AVERAGE = 2


def pool_layout(config: CspConfig) -> data.StructLayout:
    """Give a pooling of maps of ``images`` × ``height`` × ``width`` pixels of ``words`` words.

    Windows begin every stride from the first position of the padding on, as long as they end
    within the padding behind the map. A kernel above the stride, where windows overlap, is at
    most 3; if it is ``kernel_h`` of an average, ``kernel_w`` is at most 4.

    Fields
    ------
    kind
        A :class:`PoolKind`.
    signed
        Values are int8, else uint8.
    words
        Words of a pixel; times the windows of a line they are at most ``pool_words``.
    kernel_h, kernel_w, stride_h, stride_w
        Of the window.
    pad_top, pad_left, pad_bottom, pad_right
        Positions around the map, each of which costs a cycle a word; those after it include what
        ceil mode adds.
    mults, shift
        pmult by how many lines and columns of a window lie inside the map, ``mults[(min(lines, 3)
        - 1) * 3 + min(columns, 3) - 1]``, and pshift. So windows that have as many inside must have
        the same divisor: those of a kernel above 3 that loses some but keeps 3 do not, nor, if
        padding is counted, those that lose as many to unequal padding, or to ceil mode.
    """
    extent, window = unsigned(EXTENT_BITS), unsigned(WINDOW_BITS)
    return data.StructLayout(
        {
            "kind": unsigned(2),
            "signed": unsigned(1),
            "words": range(config.pool_words + 1),
            "images": unsigned(IMAGE_BITS),
            "height": extent,
            "width": extent,
            "kernel_h": window,
            "kernel_w": window,
            "stride_h": window,
            "stride_w": window,
            "pad_top": unsigned(PAD_BITS),
            "pad_left": unsigned(PAD_BITS),
            "pad_bottom": unsigned(PAD_BITS),
            "pad_right": unsigned(PAD_BITS),
            "mults": data.ArrayLayout(unsigned(MULT_BITS), POOL_COVER * POOL_COVER),
            "shift": unsigned(SHIFT_BITS),
        }
    )


def residual_layout() -> data.StructLayout:
    """Give how a layer adds a residual: rhu(r · mult, shift), r int8 or uint8."""
    return data.StructLayout(
        {
            "enabled": unsigned(1),
            "signed": unsigned(1),
            "mult": unsigned(MULT_BITS),
            "shift": unsigned(SHIFT_BITS),
        }
    )
