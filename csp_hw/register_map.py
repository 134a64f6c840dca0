# SPDX-License-Identifier: Apache-2.0
"""The registers of the core.

Generated from csp_hw/registers.rdl by `make registers`: change it there.
"""

import enum
from typing import NamedTuple


class Access(enum.Enum):
    """How software sees a field."""

    FIXED = "fixed"  # fixed when the core is built
    READ = "read"  # the hardware's value
    WRITE = "write"  # software's value
    PULSE = "pulse"  # writing 1 acts once; reads as 0
    STICKY = "sticky"  # set by the hardware, cleared by writing 1


class BufferStyle(enum.IntEnum):
    """Values of CONFIG2.style."""

    #: RAM, for FPGA.
    MEMORY = 0
    #: Bins of registers, for ASIC.
    REGBIN = 1


class ErrorCode(enum.IntEnum):
    """Values of STATUS.code."""

    #: No error.
    NONE = 0
    #: A field of the descriptor is out of range; ERROR_DETAIL says which check failed.
    DESCRIPTOR = 1
    #: An address lies outside of the memory window or of the layer's output range.
    RANGE = 2
    #: A memory port answered with an error.
    BUS = 3
    #: A stream of the layer ended too early.
    STREAM_SHORT = 4
    #: A stream of the layer went on after its end.
    STREAM_LONG = 5
    #: The layer made no progress for TIMEOUT cycles.
    TIMEOUT = 6
    #: Software asked for it with CONTROL.abort.
    ABORTED = 7
    #: A tile of the list does not fit the buffers, or comes out of order.
    TILES = 8
    #: A tap has more chunks than the layer.
    COUNTS = 9


class Field(NamedTuple):
    """Bits lsb … lsb + width − 1 of a register; without ``reset`` the hardware decides."""

    name: str
    lsb: int
    width: int
    access: Access
    reset: int | None


class Register(NamedTuple):
    """32 bits at a byte offset; those of no field are 0. All can be read, if only as zeros."""

    name: str
    offset: int
    access: str
    fields: tuple[Field, ...]


REGISTERS = (
    Register(
        "ID",
        0x000,
        "r",
        (Field("magic", 0, 32, Access.FIXED, 0x43535031),),
    ),
    Register(
        "VERSION",
        0x004,
        "r",
        (
            Field("minor", 0, 16, Access.FIXED, 0x1),
            Field("major", 16, 16, Access.FIXED, 0),
        ),
    ),
    Register(
        "CONFIG0",
        0x008,
        "r",
        (
            Field("rows", 0, 7, Access.FIXED, None),
            Field("cols", 8, 7, Access.FIXED, None),
            Field("max_period", 16, 6, Access.FIXED, None),
            Field("max_interleave", 24, 6, Access.FIXED, None),
        ),
    ),
    Register(
        "CONFIG1",
        0x00C,
        "r",
        (
            Field("depth", 0, 10, Access.FIXED, None),
            Field("lookahead", 12, 7, Access.FIXED, None),
            Field("row_blocks", 20, 5, Access.FIXED, None),
            Field("pool_words_log2", 28, 4, Access.FIXED, None),
        ),
    ),
    Register(
        "CONFIG2",
        0x010,
        "r",
        (
            Field("acc_bits", 0, 6, Access.FIXED, None),
            Field("style", 7, 1, Access.FIXED, None),
            Field("line_bytes_log2", 8, 5, Access.FIXED, None),
            Field("weight_bytes_log2", 16, 5, Access.FIXED, None),
            Field("count_bytes_log2", 24, 5, Access.FIXED, None),
        ),
    ),
    Register(
        "CONTROL",
        0x020,
        "rw",
        (
            Field("start", 0, 1, Access.PULSE, 0),
            Field("abort", 1, 1, Access.PULSE, 0),
            Field("irq_enable", 2, 1, Access.WRITE, 0),
        ),
    ),
    Register(
        "STATUS",
        0x024,
        "rw",
        (
            Field("busy", 0, 1, Access.READ, None),
            Field("done", 1, 1, Access.STICKY, 0),
            Field("error", 2, 1, Access.STICKY, 0),
            Field("irq_pending", 3, 1, Access.READ, None),
            Field("code", 8, 5, Access.READ, None),
        ),
    ),
    Register(
        "ERROR_LAYER",
        0x028,
        "r",
        (Field("index", 0, 24, Access.READ, None),),
    ),
    Register(
        "ERROR_DETAIL",
        0x02C,
        "r",
        (Field("detail", 0, 16, Access.READ, None),),
    ),
    Register(
        "LAYER",
        0x030,
        "r",
        (Field("index", 0, 24, Access.READ, None),),
    ),
    Register(
        "DESCRIPTORS",
        0x040,
        "rw",
        (Field("offset", 8, 24, Access.WRITE, 0),),
    ),
    Register(
        "COUNT",
        0x044,
        "rw",
        (Field("descriptors", 0, 24, Access.WRITE, 0),),
    ),
    Register(
        "BASE_LOW",
        0x048,
        "rw",
        (Field("address", 12, 20, Access.WRITE, 0),),
    ),
    Register(
        "BASE_HIGH",
        0x04C,
        "rw",
        (Field("address", 0, 32, Access.WRITE, 0),),
    ),
    Register(
        "SIZE_LOW",
        0x050,
        "rw",
        (Field("bytes", 0, 32, Access.WRITE, 0),),
    ),
    Register(
        "SIZE_HIGH",
        0x054,
        "rw",
        (Field("bytes", 0, 1, Access.WRITE, 0),),
    ),
    Register(
        "TIMEOUT",
        0x058,
        "rw",
        (Field("cycles", 0, 32, Access.WRITE, 0x10000),),
    ),
    Register(
        "LAYER_COUNT",
        0x080,
        "r",
        (Field("value", 0, 32, Access.READ, None),),
    ),
    Register(
        "CORE_CYCLES_LOW",
        0x084,
        "r",
        (Field("value", 0, 32, Access.READ, None),),
    ),
    Register(
        "CORE_CYCLES_HIGH",
        0x088,
        "r",
        (Field("value", 0, 32, Access.READ, None),),
    ),
    Register(
        "ACTIVATION_BEATS",
        0x08C,
        "r",
        (Field("value", 0, 32, Access.READ, None),),
    ),
    Register(
        "WEIGHT_PORT_BEATS",
        0x090,
        "r",
        (Field("value", 0, 32, Access.READ, None),),
    ),
    Register(
        "RESIDUAL_BEATS",
        0x094,
        "r",
        (Field("value", 0, 32, Access.READ, None),),
    ),
    Register(
        "RESULT_BEATS",
        0x098,
        "r",
        (Field("value", 0, 32, Access.READ, None),),
    ),
    Register(
        "CYCLES",
        0x100,
        "r",
        (Field("value", 0, 32, Access.READ, None),),
    ),
    Register(
        "ISSUED",
        0x104,
        "r",
        (Field("value", 0, 32, Access.READ, None),),
    ),
    Register(
        "STALLED_TILES",
        0x108,
        "r",
        (Field("value", 0, 32, Access.READ, None),),
    ),
    Register(
        "STALLED_COUNTS",
        0x10C,
        "r",
        (Field("value", 0, 32, Access.READ, None),),
    ),
    Register(
        "STALLED_ACTIVATIONS",
        0x110,
        "r",
        (Field("value", 0, 32, Access.READ, None),),
    ),
    Register(
        "STALLED_WEIGHTS",
        0x114,
        "r",
        (Field("value", 0, 32, Access.READ, None),),
    ),
    Register(
        "STALLED_BANK",
        0x118,
        "r",
        (Field("value", 0, 32, Access.READ, None),),
    ),
    Register(
        "STALLED_DRAIN",
        0x11C,
        "r",
        (Field("value", 0, 32, Access.READ, None),),
    ),
    Register(
        "COUNTS_WORDS",
        0x120,
        "r",
        (Field("value", 0, 32, Access.READ, None),),
    ),
    Register(
        "WEIGHTS_WORDS",
        0x124,
        "r",
        (Field("value", 0, 32, Access.READ, None),),
    ),
    Register(
        "ACTIVATIONS_WORDS",
        0x128,
        "r",
        (Field("value", 0, 32, Access.READ, None),),
    ),
    Register(
        "RESULTS_WORDS",
        0x12C,
        "r",
        (Field("value", 0, 32, Access.READ, None),),
    ),
    Register(
        "SATURATIONS",
        0x130,
        "r",
        (Field("value", 0, 32, Access.READ, None),),
    ),
    Register(
        "USEFUL_MACS_LOW",
        0x134,
        "r",
        (Field("value", 0, 32, Access.READ, None),),
    ),
    Register(
        "USEFUL_MACS_HIGH",
        0x138,
        "r",
        (Field("value", 0, 16, Access.READ, None),),
    ),
    Register(
        "GATED_MACS_LOW",
        0x13C,
        "r",
        (Field("value", 0, 32, Access.READ, None),),
    ),
    Register(
        "GATED_MACS_HIGH",
        0x140,
        "r",
        (Field("value", 0, 16, Access.READ, None),),
    ),
)
