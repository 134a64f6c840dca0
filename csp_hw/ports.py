# SPDX-License-Identifier: Apache-2.0
"""Payloads of the engine's streams, all derived from the one configuration."""

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
            "tiles": unsigned(TILE_BITS),
            "chunks": unsigned(COUNT_BITS),  # K
            "period": range(config.max_period + 1),  # T
            "acc_shift": unsigned(ACC_SHIFT_BITS),  # t
            "signed": unsigned(1),  # activations are int8, else uint8
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
