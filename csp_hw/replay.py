# SPDX-License-Identifier: Apache-2.0
"""A ring of words that are read again and again before they are released."""

from amaranth import Module, Signal
from amaranth.lib import memory, stream, wiring
from amaranth.lib.wiring import In, Out


class ReplayBuffer(wiring.Component):
    """Keep the words of a stream until they are released, oldest first.

    The row buffer (activations of the blocks at work) and the run buffer (weights of the runs at
    work) are both of this kind. It takes one word a cycle while fewer than ``depth`` are kept.

    Parameters
    ----------
    shape
        Shape of a word.
    depth : int
        Words kept; a power of two.

    Members
    -------
    i : In(stream)
    available : Out
        Words kept; a word counts from the cycle after its transfer.
    offset : In
        Word to read, counted from the oldest; less than ``available``.
    data : Out
        That word, two cycles later: a block RAM answers late in the cycle, so its word goes
        straight to a register.
    release : In
        Number of oldest words to release in this cycle; a word read in this cycle may be one.
    """

    def __init__(self, shape, depth: int):
        if depth < 2 or depth & (depth - 1):
            raise ValueError(f"depth must be a power of two, not {depth}")
        self.shape = shape
        self.depth = depth
        super().__init__(
            {
                "i": In(stream.Signature(shape)),
                "available": Out(range(depth + 1)),
                "offset": In(range(depth)),
                "data": Out(shape),
                "release": In(range(depth + 1)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.store = store = memory.Memory(shape=self.shape, depth=self.depth, init=[])
        write, read = store.write_port(), store.read_port()
        write_at = Signal(range(self.depth))
        oldest = Signal(range(self.depth))
        do_write = self.i.valid & self.i.ready
        data = Signal(self.shape, reset_less=True)

        m.d.comb += [
            self.i.ready.eq(~self.available[-1]),  # which is depth itself, a power of two
            write.addr.eq(write_at),
            write.data.eq(self.i.payload),
            write.en.eq(do_write),
            read.addr.eq(oldest + self.offset),
            self.data.eq(data),
        ]
        m.d.sync += [
            data.eq(read.data),
            write_at.eq(write_at + do_write),
            oldest.eq(oldest + self.release),
            self.available.eq(self.available + do_write - self.release),
        ]
        return m
