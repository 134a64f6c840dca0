# SPDX-License-Identifier: Apache-2.0
"""What the Verilog around the engine and the Python inside the simulator have agreed upon."""

from collections.abc import Mapping

#: Cycles between two visits of Python, and beats of a buffer; a power of two.
WINDOW = 32
#: Bits of the numbers of beats that the two sides exchange.
POSITION_BITS = 16
CYCLE_BITS = 32
#: Input streams in the order of the status word; ``results`` follows them.
SOURCES = ("layer", "params", "tiles", "counts", "weights", "activations", "residual")
SINK = "results"
STREAMS = (*SOURCES, SINK)

#: Environment of the simulator: file descriptors of the pipes of orders (in) and messages (out).
ORDERS, MESSAGES = "CSP_BENCH_ORDERS", "CSP_BENCH_MESSAGES"
#: Cycles without a beat on any stream after which the engine is taken to hang.
PATIENCE = "CSP_BENCH_PATIENCE"
#: The engine's counters from the least bit on: name:bits, separated by commas.
COUNTERS = "CSP_BENCH_COUNTERS"


def status_fields() -> dict[str, tuple[int, int]]:
    """Give (offset, width) of each field of the status word.

    ``cycle``
        Clock edges since reset.
    ``started``, ``finished``
        ``cycle`` when the latest layer command was taken, and when the latest result was.
    ``quiet``
        Cycles since a beat moved on any stream.
    ``valid``, ``ready``
        One bit a stream.
    ``broken``
        A result was withdrawn or changed before it was taken.
    ``idle``
        The engine's output.
    ``{stream}``
        Beats that a source has taken from its buffers, or results that were stored, modulo 2^16.
    """
    widths = dict.fromkeys(("cycle", "started", "finished", "quiet"), CYCLE_BITS)
    widths |= {"valid": len(STREAMS), "ready": len(STREAMS), "broken": 1, "idle": 1}
    widths |= dict.fromkeys(STREAMS, POSITION_BITS)
    return placed(widths)


def placed(widths: Mapping[str, int]) -> dict[str, tuple[int, int]]:
    """Give (offset, width) of fields that follow each other, low bits first."""
    fields = {}
    offset = 0
    for name, width in widths.items():
        fields[name] = (offset, width)
        offset += width
    return fields
