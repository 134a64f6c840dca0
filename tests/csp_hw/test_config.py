# SPDX-License-Identifier: Apache-2.0
"""The configuration: what it accepts, refuses and derives; the layouts that follow from it."""

import dataclasses
import json

import pytest

from csp_hw import ports
from csp_hw.config import (
    PERIOD_LIMIT,
    PRESETS,
    BufferStyle,
    ConfigError,
    CspConfig,
    preset,
)

TINY = PRESETS["tiny_4x4"]
LIMITS = {
    "rows": (1, 64),
    "cols": (4, 64),
    "depth": (4, 512),
    "max_period": (1, 32),
    "max_interleave": (1, 32),
    "acc_bits": (8, 32),
    "lookahead": (1, 64),
    "row_blocks": (2, 16),
}
POWERS = ("depth", "max_period", "max_interleave", "lookahead", "row_blocks")


@pytest.mark.parametrize("name", LIMITS)
def test_limits(name):
    low, high = LIMITS[name]
    for value in (low, high):
        assert getattr(TINY.replace(**{name: value}), name) == value
    for value in (low - 1, high + 1, -low):
        with pytest.raises(ConfigError) as error:
            TINY.replace(**{name: value})
        assert str(error.value) == f"{name} must be {low} … {high}, not {value}"


@pytest.mark.parametrize("name", LIMITS)
@pytest.mark.parametrize("value", [True, 8.0, "8", None])
def test_not_an_integer(name, value):
    with pytest.raises(ConfigError) as error:
        TINY.replace(**{name: value})
    assert str(error.value) == f"{name} must be an integer, not {value!r}"


@pytest.mark.parametrize("name", POWERS)
def test_powers_of_two(name):
    low, high = LIMITS[name]
    for value in range(low, high + 1):
        if value.bit_count() == 1:
            TINY.replace(**{name: value})
        else:
            with pytest.raises(ConfigError) as error:
                TINY.replace(**{name: value})
            assert str(error.value) == f"{name} must be a power of two, not {value}"


def test_map_memory():
    assert TINY.map_bytes == 0
    for value in (0, 1 << 13, 1 << 24):
        assert TINY.replace(map_bytes=value).map_bytes == value
    for value in (-1, 1, (1 << 13) - 1, (1 << 24) + 1):
        with pytest.raises(ConfigError) as error:
            TINY.replace(map_bytes=value)
        assert str(error.value) == f"map_bytes must be 0 or 8192 … 16777216, not {value}"
    with pytest.raises(ConfigError, match=r"^map_bytes must be a power of two, not 12288$"):
        TINY.replace(map_bytes=12288)
    for value in (False, 0.0, 8192.0, "8", None):
        with pytest.raises(ConfigError, match=f"^map_bytes must be an integer, not {value!r}$"):
            TINY.replace(map_bytes=value)


def test_cols_hold_whole_words_of_int32():
    for cols in range(4, 65):
        if cols % 4 == 0:
            assert TINY.replace(cols=cols).cols == cols
        else:
            with pytest.raises(ConfigError, match=f"^cols must be a multiple of 4, not {cols}$"):
                TINY.replace(cols=cols)


@pytest.mark.parametrize("name", ["rows", "cols"])
def test_share_divides(name):
    groups = TINY.replace(rows=8, cols=12, share=4)
    assert (groups.group_rows, groups.group_cols) == (2, 3)
    with pytest.raises(ConfigError) as error:
        TINY.replace(**{"rows": 8, "cols": 8, name: 20, "share": 8})
    assert str(error.value) == f"share must divide {name}, 20, but is 8"


@pytest.mark.parametrize("style", ["memory", None, 0])
def test_style(style):
    with pytest.raises(ConfigError) as error:
        TINY.replace(style=style)
    assert str(error.value) == f"style must be a BufferStyle, not {style!r}"


def test_errors_are_value_errors():
    assert issubclass(ConfigError, ValueError)


def test_frozen_and_keyword_only():
    with pytest.raises(dataclasses.FrozenInstanceError):
        TINY.rows = 8
    with pytest.raises(TypeError):
        CspConfig(4, 4, 16, 8, 4, 4)
    assert TINY.replace(rows=5) != TINY
    assert TINY.rows == 4
    assert hash(TINY.replace()) == hash(TINY)


def test_presets():
    # rows, cols, depth, T, I, L as in the table of the design, and share.
    table = {
        "tiny_4x4": (4, 4, 16, 8, 4, 4, 1),
        "csp_8x8": (8, 8, 128, 16, 8, 8, 1),
        "csp_h_32x32": (32, 32, 128, 32, 8, 16, 4),
    }
    assert list(PRESETS) == list(table)
    for name, expected in table.items():
        found = preset(name)
        assert found is PRESETS[name]
        sizes = (found.rows, found.cols, found.depth, found.max_period, found.max_interleave)
        assert (*sizes, found.lookahead, found.share) == expected
        assert (found.acc_bits, found.style, found.row_blocks) == (24, BufferStyle.MEMORY, 4)


def test_unknown_preset():
    with pytest.raises(ConfigError) as error:
        preset("csp_9x9")
    assert str(error.value) == (
        "unknown preset 'csp_9x9'; there are: tiny_4x4, csp_8x8, csp_h_32x32"
    )


def test_derived_sizes():
    config = TINY.replace(depth=32, max_period=8, max_interleave=2, row_blocks=4)
    assert config.half_depth == 16
    assert config.row_words == 4 * 8 * 2
    assert config.run_words == 4 * 8


@pytest.mark.parametrize("period", [1, 2, 4, 8, 16, 32])
def test_run_register_is_exact_and_no_wider(period):
    bits = TINY.replace(max_period=period).run_bits
    # Weight −128 is never made by our quantiser, but a reader of int8 could meet it.
    for activation in (-128, 255):
        for weight in (-128, -127, 127):
            run = period * activation * weight
            assert -(1 << (bits - 1)) <= run < 1 << (bits - 1)
    assert period * 255 * 127 >= 1 << (bits - 2)
    assert bits <= 21
    assert period <= PERIOD_LIMIT


def test_overlaps():
    # 2 · K · I ≤ depth
    for chunks in range(1, 17):
        for interleave in (1, 2, 3, 4):
            assert TINY.overlaps(chunks, interleave) == (2 * chunks * interleave <= 16)


def test_json():
    config = TINY.replace(style=BufferStyle.REGBIN)
    fields = json.loads(config.to_json())
    assert fields.pop("style") == "regbin"
    assert CspConfig(**fields, style=BufferStyle.REGBIN) == config


def fields_of(layout):
    """Give the position and width of each field."""
    return {name: (field.offset, field.width) for name, field in layout}


def test_layouts_of_the_ports():
    # Bit positions are the contract with whatever drives the streams.
    assert fields_of(ports.layer_layout(TINY)) == {
        "taps": (0, 16),
        "position_words": (16, 16),
        "kernel_w": (32, 4),
        "tiles": (36, 24),
        "chunks": (60, 8),
        "last_filters": (68, 3),
        "period": (71, 4),
        "acc_shift": (75, 4),
        "signed": (79, 1),
        "residual": (80, 24),
        "relu": (104, 1),
        "out": (105, 2),
    }
    assert fields_of(ports.residual_layout()) == {
        "enabled": (0, 1),
        "signed": (1, 1),
        "mult": (2, 16),
        "shift": (18, 6),
    }
    assert fields_of(ports.filter_layout()) == {"bias": (0, 32), "mult": (32, 16), "shift": (48, 6)}
    assert fields_of(ports.tile_layout(TINY)) == {"interleave": (0, 3), "live": (3, 16)}
    assert fields_of(ports.sums_layout(TINY)) == {
        "acc": (0, 96),
        "chunk": (96, 4),
        "live": (100, 1),
    }
    for layout, words in [
        (ports.counts_layout(TINY), TINY.lookahead),
        (ports.weights_layout(TINY), TINY.cols),
        (ports.activations_layout(TINY), TINY.rows),
        (ports.results_layout(TINY), TINY.cols),
    ]:
        assert [(field.offset, field.width) for _, field in layout] == [
            (8 * n, 8) for n in range(words)
        ]
    assert [int(kind) for kind in ports.OutputType] == [0, 1, 2]
    assert ports.OutputType.INT8 == 0
    assert ports.OutputType.UINT8 == 1
    assert ports.OutputType.INT32 == 2


def test_narrowest_layouts():
    narrow = CspConfig(rows=1, cols=4, depth=4, max_period=1, max_interleave=1, lookahead=1)
    layers = fields_of(ports.layer_layout(narrow))
    assert layers["period"][1] == 1
    assert fields_of(ports.tile_layout(narrow)) == {"interleave": (0, 1), "live": (1, 1)}
    assert ports.counts_layout(narrow).size == 8
    assert ports.activations_layout(narrow).size == 8


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rows": 3}, "rows of a core must be a power of two, not 3"),
        ({"cols": 12}, "cols of a core must be a power of two, not 12"),
        ({"rows": 1}, "rows of a core must be at least 2, not 1"),
        ({"lookahead": 8}, "lookahead 8 of a core exceeds cols 4"),
        (
            {"rows": 32, "cols": 16, "line_bytes": 256},
            "line_bytes of a core must be at least rows · cols, 512, not 256",
        ),
    ],
)
def test_what_only_an_engine_can_have(changes, message):
    config = TINY.replace(**changes)
    with pytest.raises(ConfigError) as error:
        config.check_core()
    assert str(error.value) == message


def test_the_smallest_line_buffer_of_a_core():
    TINY.replace(rows=32, cols=16, line_bytes=512).check_core()
