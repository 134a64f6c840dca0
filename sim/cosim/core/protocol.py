# SPDX-License-Identifier: Apache-2.0
"""What the Verilog around the core and the Python on both sides have agreed upon."""

import enum
from collections.abc import Sequence

from sim.cosim.protocol import CYCLE_BITS, placed

#: Names of the memory's ports in the environment of the simulator, separated by commas.
PORTS = "CSP_BENCH_PORTS"
#: The files of memory.v, in the folder in which the simulator runs.
LOAD, DUMP = "load.bin", "dump.bin"

#: Channels of a port of the memory.
CHANNELS = ("ar", "r", "aw", "w", "b")
#: Of 256 cycles those in which a channel stands still.
STALL_STEPS = 256
#: Bursts that a port of the memory takes before it has answered, of reads and of writes.
MOST_OUTSTANDING = 16
#: Rules that memory.v watches, in its order.
RULES = (
    "valid was withdrawn or what was on offer changed",
    "a burst is not INCR",
    "a burst's beats are not whole words",
    "an address is not aligned to beats",
    "a burst crosses 4 KiB",
    "an access lies outside of the memory",
    "unknown bits (x or z)",
    "WLAST is not at the last beat",
    "a write outside of the guarded region",
    "a read and a write to the same place are on their way together",
    "valid during reset",
)
HELD, BURST, SIZE, ALIGNED, PAGE, OUTSIDE, UNKNOWN, LAST, GUARD, RACE, RESET = RULES
#: Rules that driver.v watches, in its order.
ANSWER_RULES = (
    "an answer was withdrawn or changed",
    "an answer without a question",
    "unknown bits (x or z)",
    "an answer during reset",
)
ANSWER_HELD, UNASKED, ANSWER_UNKNOWN, ANSWER_RESET = ANSWER_RULES


class Response(enum.IntEnum):
    """Of AXI; EXOKAY is not used."""

    OKAY = 0
    SILENCE = 1  # of the memory: it never answers
    SLVERR = 2
    DECERR = 3
    LOST = 4  # of the driver: nothing came


class Command(enum.IntEnum):
    """Of the driver."""

    WAIT = 0
    WRITE = 1
    READ = 2


#: Settings of a port with their widths.
PORT_SETTINGS = {
    "read_latency": 16,
    "write_latency": 16,
    "read_rate": 8,
    "write_rate": 8,
    "outstanding": 5,
    "data_first": 1,
    "address_first": 1,
    **{f"{channel}_stall": 8 for channel in CHANNELS},
}
#: What a port of the memory counts and notes.
PORT_STATUS = {
    "read_bursts": 32,
    "read_beats": 32,
    "write_bursts": 32,
    "write_beats": 32,
    "errors": 32,
    "error_cycle": CYCLE_BITS,
    "faults": 16,
    "fault_cycle": CYCLE_BITS,
    "fault_address": 64,
}

Fields = dict[str, tuple[int, int]]


def settings_fields(ports: Sequence[str]) -> Fields:
    """Give (offset, width) of each field of the settings, written during reset.

    Those of memory.v by their names there, those of a port as ``{port}_{name}``, and

    ``driver_stall``
        For the channels of the registers.
    ``halt``
        Whether waiting ends when a rule is broken.
    """
    widths = dict.fromkeys(
        ("base", "size", "guard_low", "guard_high", "inject_low", "inject_high", "seed"), 64
    )
    widths |= {"inject": 2, "inject_reads": 1, "inject_writes": 1, "driver_stall": 8, "halt": 1}
    return placed(widths | _each(ports, PORT_SETTINGS))


def order_fields() -> Fields:
    """Give (offset, width) of each field of an order to driver.v, which names them."""
    return placed(
        {
            "order": 1,
            "command": 2,
            "address": 12,
            "data": 32,
            "strobe": 4,
            "deadline": CYCLE_BITS,
            "for_irq": 1,
        }
    )


def file_fields() -> Fields:
    """Give (offset, width) of each field of an order to read or write a file; see memory.v."""
    return placed({"load": 1, "dump": 1, "tell": 1, "first": 32, "count": 32})


def status_fields(ports: Sequence[str]) -> Fields:
    """Give (offset, width) of each field of the status word.

    Those of memory.v and driver.v by their names there, those of a port as ``{port}_{name}``, and

    ``answer_faults``
        ``faults`` of driver.v.
    ``{channel}_valid``, ``{channel}_ready``
        A bit a port.
    """
    widths = {
        "irq": 1,
        "failed": 1,
        "response": 3,
        "answer_faults": len(ANSWER_RULES),
        "result": 32,
        **dict.fromkeys(("cycle", "quiet", "started", "finished"), CYCLE_BITS),
    }
    for channel in CHANNELS:
        widths |= {f"{channel}_valid": len(ports), f"{channel}_ready": len(ports)}
    return placed(widths | _each(ports, PORT_STATUS))


def packed(fields: Fields, values: dict[str, int]) -> int:
    """Give a word of some fields; the others are 0."""
    whole = 0
    for name, value in values.items():
        offset, width = fields[name]
        assert 0 <= value < 1 << width, (name, value)
        whole |= value << offset
    return whole


def unpacked(fields: Fields, whole: int) -> dict[str, int]:
    """Give all fields of a word."""
    return {name: whole >> offset & ((1 << width) - 1) for name, (offset, width) in fields.items()}


def _each(ports: Sequence[str], widths: dict[str, int]) -> dict[str, int]:
    """Give the widths of fields of all ports: the same field of all ports is one vector."""
    return {f"{port}_{name}": width for name, width in widths.items() for port in ports}
