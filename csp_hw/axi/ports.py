# SPDX-License-Identifier: Apache-2.0
"""What the memory ports speak of: loops, runs, bursts, faults."""

import enum

from amaranth import Value, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

#: An offset into a window of memory, in bytes.
OFFSET_BITS = 32
#: The size of a window, and any place in it or at its end: 2^32 is one.
SIZE_BITS = OFFSET_BITS + 1
#: Beats of a run.
RUN_BITS = 24
#: Turns of a loop.
LOOP_BITS = 16
#: Offsets from here on are those of a memory on the chip, if there is one: all high bits are 1.
LOCAL_BITS = 25
LOCAL_OFFSET = (1 << OFFSET_BITS) - (1 << LOCAL_BITS)
#: AXI4: a burst has at most 256 beats and does not cross a page.
LENGTH_BITS = 8
PAGE_BYTES = 4096


class Fault(enum.IntEnum):
    """Why a memory port gave up; the first reason stays until reset."""

    NONE = 0
    RANGE = 1  # a run was not wholly in its window, or not aligned to beats: nothing of it moved
    BUS = 2  # the memory answered otherwise than OKAY


def is_local(offset: Value) -> Value:
    """Whether an offset, of which low bits may be missing, is one of a memory on the chip."""
    return offset[LOCAL_BITS - OFFSET_BITS :].all()


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


class LocalReadSignature(wiring.Signature):
    """What a read manager asks a memory on the chip for.

    Parameters
    ----------
    data_bytes : int
        Bytes of a beat.
    local_bytes : int
        Of the memory.

    Members
    -------
    asks : Out(stream)
        Bursts, as :func:`burst_layout` gives them, but counted from the memory's first beat. They
        are always taken: no more are open than a manager has outstanding.
    answers : In(stream)
        Beats, in order; ``last`` of its burst. They are always taken.
    """

    def __init__(self, data_bytes: int, local_bytes: int):
        asks = burst_layout(data_bytes).members | {"at": range(local_bytes // data_bytes)}
        answers = {"data": unsigned(8 * data_bytes), "last": unsigned(1)}
        super().__init__(
            {
                "asks": Out(stream.Signature(data.StructLayout(asks), always_ready=True)),
                "answers": In(stream.Signature(data.StructLayout(answers), always_ready=True)),
            }
        )


class LocalWriteSignature(wiring.Signature):
    """What a write manager has for a memory on the chip.

    Members
    -------
    asks : Out(stream)
        The first beat's number in the memory of each burst; always taken, see above.
    beats : Out(stream)
        ``data``, ``strb``, ``last``, as AXI has them.
    done : In(1)
        A burst is written.
    """

    def __init__(self, data_bytes: int, local_bytes: int):
        at = range(local_bytes // data_bytes)
        beat = {"data": 8 * data_bytes, "strb": data_bytes, "last": 1}
        super().__init__(
            {
                "asks": Out(stream.Signature(at, always_ready=True)),
                "beats": Out(stream.Signature(data.StructLayout(beat))),
                "done": In(1),
            }
        )
