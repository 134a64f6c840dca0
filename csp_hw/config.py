# SPDX-License-Identifier: Apache-2.0
"""The parameter object that fixes an accelerator at build time, and its presets."""

import dataclasses
import enum
import json
from typing import Any

#: A tap's count is one byte, so a layer has at most 255 chunks.
COUNT_BITS = 8
#: A layer has at most 65,535 taps.
TAP_BITS = 16
#: Longest run of products that the run register holds exactly.
PERIOD_LIMIT = 32
#: Activations are int8 or uint8: nine signed bits hold both.
ACTIVATION_BITS = 9
WEIGHT_BITS = 8
#: Run shift t, 0 … 15.
ACC_SHIFT_BITS = 4
#: Requantisation: z = rhu(v · mult, shift), mult uint16, 0 ≤ shift ≤ 47, bias int32.
MULT_BITS = 16
SHIFT_BITS = 6
BIAS_BITS = 32


class ConfigError(ValueError):
    """A parameter of the hardware is out of range."""


class BufferStyle(enum.Enum):
    """How a PE keeps its partial sums; both styles obey one contract.

    The style says also what a clock enable is. In an ASIC it is a clock gate, so what need not be
    clocked is not. On an FPGA it is one more wire, and registers with different ones cannot share
    a slice: without some twenty of them a PE is smaller and faster (docs/measurements.md).
    """

    MEMORY = "memory"  # FPGA: block or LUT RAM, one memory a bank
    REGBIN = "regbin"  # ASIC: bins of 1, 1, 2, 4 … registers, each with its own clock enable


def _power_of_two(value: int) -> bool:
    return value > 0 and value & (value - 1) == 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class CspConfig:
    """Build-time parameters of one accelerator.

    Parameters
    ----------
    rows, cols : int
        PEs down and across the array; ``cols`` is also the filters of a chunk. ``cols`` is a
        multiple of four, so that an int32 result fills whole words.
    depth : int
        Partial sums that a PE holds (both banks together); a power of two.
    max_period : int
        Largest truncation period T; a power of two, at most 32.
    max_interleave : int
        Largest number I of interleaved pixels a PE works on; a power of two.
    acc_bits : int
        Width B of a partial sum in bits, 8 … 32.
    style : BufferStyle
        Accumulation buffer: ``memory`` for FPGA, ``regbin`` for ASIC.
    lookahead : int
        Counts L that the skip controller reads a cycle; a power of two.
    row_blocks : int
        Blocks F of T · I activations that the row buffer of each row holds; a power of two.
    line_bytes : int
        Line buffer: bytes of input maps, ``rows`` banks together; a power of two.
    weight_bytes, count_bytes : int
        Weight and count buffer: a layer that fits is read from memory once; powers of two.
    pool_words : int
        Words of ``cols`` partial results in a line of the pooler; a power of two.
    share : int
        PEs share the registers of operands and control in groups of ``share`` × ``share``; a power
        of two that divides ``rows`` and ``cols``. For ASICs: wires are longer.
    map_bytes : int
        Map memory: bytes of maps that stay in ``csp_core`` between passes. A power of two from
        8 KiB on; 0: there is none.

    Raises
    ------
    ConfigError
        A value is out of range; the message names the field and the value.
    """

    rows: int
    cols: int
    depth: int
    max_period: int
    max_interleave: int
    acc_bits: int = 24
    style: BufferStyle = BufferStyle.MEMORY
    lookahead: int
    row_blocks: int = 4
    line_bytes: int = 4096
    weight_bytes: int = 4096
    count_bytes: int = 1024
    pool_words: int = 64
    share: int = 1
    map_bytes: int = 0

    def __post_init__(self) -> None:
        limits = {
            "rows": (1, 64),
            "cols": (4, 64),
            "depth": (4, 512),
            "max_period": (1, PERIOD_LIMIT),
            "max_interleave": (1, 32),
            "acc_bits": (8, 32),
            "lookahead": (1, 64),
            "row_blocks": (2, 16),
            "line_bytes": (256, 1 << 24),
            "weight_bytes": (256, 1 << 24),
            "count_bytes": (128, 1 << 16),
            "pool_words": (4, 4096),
            "share": (1, 8),
        }
        if type(self.map_bytes) is not int or self.map_bytes:
            limits["map_bytes"] = (1 << 13, 1 << 24)
        for name, (low, high) in limits.items():
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool):
                raise ConfigError(f"{name} must be an integer, not {value!r}")
            if not low <= value <= high:
                none = "0 or " if name == "map_bytes" else ""
                raise ConfigError(f"{name} must be {none}{low} … {high}, not {value}")
        for name in limits:
            free = name in ("rows", "cols", "acc_bits")
            if not free and not _power_of_two(getattr(self, name)):
                raise ConfigError(f"{name} must be a power of two, not {getattr(self, name)}")
        if self.cols % 4:
            raise ConfigError(f"cols must be a multiple of 4, not {self.cols}")
        for name in ("rows", "cols"):
            if getattr(self, name) % self.share:
                raise ConfigError(
                    f"share must divide {name}, {getattr(self, name)}, but is {self.share}"
                )
        if not isinstance(self.style, BufferStyle):
            raise ConfigError(f"style must be a BufferStyle, not {self.style!r}")

    @property
    def clock_gates(self) -> bool:
        """Whether registers of a PE are clocked only when what they take counts."""
        return self.style is BufferStyle.REGBIN

    @property
    def group_rows(self) -> int:
        """Groups of PEs down the array."""
        return self.rows // self.share

    @property
    def group_cols(self) -> int:
        """Groups of PEs across the array."""
        return self.cols // self.share

    @property
    def half_depth(self) -> int:
        """Entries of one bank; also of a tile's half when drain and compute overlap."""
        return self.depth // 2

    @property
    def run_bits(self) -> int:
        """Bits of an exact run: max_period products of at most 255 · 127 in magnitude."""
        return (self.max_period * 255 * 127).bit_length() + 1

    @property
    def row_words(self) -> int:
        """Words of the row buffer, each of ``rows`` activations."""
        return self.row_blocks * self.max_period * self.max_interleave

    @property
    def run_words(self) -> int:
        """Words of the run buffer, each of ``cols`` weights."""
        return self.row_blocks * self.max_period

    @property
    def line_words(self) -> int:
        """Words of ``cols`` bytes in each of the ``rows`` banks of the line buffer."""
        return self.line_bytes // (self.rows * self.cols)

    @property
    def weight_words(self) -> int:
        """Words of ``cols`` weights that the weight buffer holds."""
        return self.weight_bytes // self.cols

    @property
    def count_words(self) -> int:
        """Words of L counts that the count buffer holds."""
        return self.count_bytes // self.lookahead

    def check_core(self) -> None:
        """Refuse what an engine may have but a whole core may not.

        Raises
        ------
        ConfigError
            rows or cols is no power of two, there is one row only, L exceeds cols, or the line
            buffer has not a word of ``cols`` bytes in each bank.
        """
        for name in ("rows", "cols"):
            if not _power_of_two(getattr(self, name)):
                raise ConfigError(
                    f"{name} of a core must be a power of two, not {getattr(self, name)}"
                )
        if self.rows < 2:
            raise ConfigError(f"rows of a core must be at least 2, not {self.rows}")
        if self.lookahead > self.cols:
            raise ConfigError(f"lookahead {self.lookahead} of a core exceeds cols {self.cols}")
        if not self.line_words:
            raise ConfigError(
                f"line_bytes of a core must be at least rows · cols, {self.rows * self.cols}, "
                f"not {self.line_bytes}"
            )

    def overlaps(self, chunks: int, interleave: int) -> bool:
        """Whether a tile of K chunks and I pixels drains while the next one computes."""
        return chunks * interleave <= self.half_depth

    def replace(self, **changes: Any) -> "CspConfig":
        """Give a copy with some fields changed."""
        return dataclasses.replace(self, **changes)

    def to_json(self) -> str:
        """Give the fields as JSON, the form of config.json."""
        fields = {**dataclasses.asdict(self), "style": self.style.value}
        return json.dumps(fields, indent=2)


KIB = 1024
PRESETS = {
    "tiny_4x4": CspConfig(
        rows=4,
        cols=4,
        depth=16,
        max_period=8,
        max_interleave=4,
        lookahead=4,
        line_bytes=4 * KIB,
        weight_bytes=4 * KIB,
        count_bytes=1 * KIB,
        pool_words=64,
    ),
    "csp_8x8": CspConfig(
        rows=8,
        cols=8,
        depth=128,
        max_period=16,
        max_interleave=8,
        lookahead=8,
        line_bytes=32 * KIB,
        weight_bytes=32 * KIB,
        count_bytes=8 * KIB,
        pool_words=256,
    ),
    "csp_h_32x32": CspConfig(
        rows=32,
        cols=32,
        depth=128,
        max_period=32,
        max_interleave=8,
        lookahead=16,
        line_bytes=512 * KIB,
        weight_bytes=512 * KIB,
        count_bytes=64 * KIB,
        pool_words=512,
        share=4,
    ),
}


def preset(name: str) -> CspConfig:
    """Give a named configuration.

    Raises
    ------
    ConfigError
        There is no such preset; the message lists those that exist.
    """
    if name not in PRESETS:
        raise ConfigError(f"unknown preset {name!r}; there are: {', '.join(PRESETS)}")
    return PRESETS[name]
