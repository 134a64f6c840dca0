# SPDX-License-Identifier: Apache-2.0
"""A register in a stream that cuts all paths from one side to the other."""

from amaranth import Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

#: Words that a slice holds.
SLICE = 2


class RegisterSlice(wiring.Component):
    """Hand words on a cycle later, so that no path leads through from one side to the other.

    Throughput: one word a cycle. Two places take turns, so that a late ``o.ready`` turns one bit
    and enables no register of a word.

    Parameters
    ----------
    shape
        Of a word.

    Members
    -------
    i : In(stream)
    o : Out(stream)
    """

    def __init__(self, shape):
        self.shape = shape
        super().__init__({"i": In(stream.Signature(shape)), "o": Out(stream.Signature(shape))})

    def elaborate(self, platform):
        m = Module()
        places = [Signal(self.shape, name=f"place_{n}", reset_less=True) for n in range(SLICE)]
        write_at, read_at = Signal(), Signal()
        ready = Signal(init=1)
        do_take, do_give = Signal(), Signal()
        m.d.comb += [
            self.i.ready.eq(ready),
            do_take.eq(self.i.valid & ready),
            do_give.eq(self.o.valid & self.o.ready),
            self.o.payload.eq(Mux(read_at, places[1], places[0])),
        ]
        m.d.sync += [
            write_at.eq(write_at ^ do_take),
            read_at.eq(read_at ^ do_give),
            self.o.valid.eq(do_take | (self.o.valid & ~(do_give & ready))),
            ready.eq(~self.o.valid | do_give | (ready & ~do_take)),
        ]
        for n, place in enumerate(places):
            # What is not valid may enter a free place: it is overwritten.
            with m.If(ready & (write_at == n)):
                m.d.sync += place.eq(self.i.payload)
        return m
