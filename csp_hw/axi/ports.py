# SPDX-License-Identifier: Apache-2.0
"""What the memory ports speak of: loops, runs, bursts, faults."""

import enum

from amaranth import unsigned
from amaranth.lib import data
from amaranth.utils import exact_log2

#: An offset into a window of memory, in bytes.
OFFSET_BITS = 32
#: The size of a window, and any place in it or at its end: 2^32 is one.
SIZE_BITS = OFFSET_BITS + 1
#: Beats of a run.
RUN_BITS = 24
#: Turns of a loop.
LOOP_BITS = 16
#: AXI4: a burst has at most 256 beats and does not cross a page.
LENGTH_BITS = 8
PAGE_BYTES = 4096


class Fault(enum.IntEnum):
    """Why a memory port gave up; the first reason stays until reset."""

    NONE = 0
    RANGE = 1  # a run was not wholly in its window, or not aligned to beats: nothing of it moved
    BUS = 2  # the memory answered otherwise than OKAY


def run_layout() -> data.StructLayout:
    """Give a run: ``beats`` beats from byte ``offset`` of the window; ``last`` of its command."""
    return data.StructLayout(
        {"offset": unsigned(OFFSET_BITS), "beats": unsigned(RUN_BITS), "last": unsigned(1)}
    )


def loop_layout() -> data.StructLayout:
    """Give a command that stands for count1 · count2 runs; see :class:`csp_hw.axi.loops`."""
    return data.StructLayout(
        {
            "offset": unsigned(OFFSET_BITS),
            "beats": unsigned(RUN_BITS),
            "count1": unsigned(LOOP_BITS),
            "pitch1": unsigned(OFFSET_BITS),
            "count2": unsigned(LOOP_BITS),
            "pitch2": unsigned(OFFSET_BITS),
        }
    )


def burst_layout(data_bytes: int) -> data.StructLayout:
    """Give a burst: its first beat's number in the window, and its beats less one."""
    return data.StructLayout(
        {
            "at": unsigned(OFFSET_BITS - exact_log2(data_bytes)),
            "length": unsigned(LENGTH_BITS),
        }
    )
