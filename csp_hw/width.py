# SPDX-License-Identifier: Apache-2.0
"""From beats of a memory port to narrower or wider words."""

from amaranth import Cat, Module, Mux, Shape, Signal, Value
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out


class WidthConverter(wiring.Component):
    """Cut beats into words, low bits first.

    Throughput: one word a cycle, also from one beat to the next; a word is on offer in the cycle
    after its beat was taken, if all before it have left. There is no combinational path between
    ``o.ready`` and ``i.ready``: a second beat is taken while the first one leaves.

    Parameters
    ----------
    beat, word
        Shapes; a beat is a whole number of words wide.

    Members
    -------
    i : In(stream)
        Beats.
    o : Out(stream)
        Words.
    """

    def __init__(self, beat, word):
        wide, narrow = Shape.cast(beat).width, Shape.cast(word).width
        if narrow == 0 or wide == 0 or wide % narrow:
            raise ValueError(f"a beat of {wide} bits does not consist of words of {narrow} bits")
        self.ratio = wide // narrow
        self._narrow = narrow
        super().__init__({"i": In(stream.Signature(beat)), "o": Out(stream.Signature(word))})

    def elaborate(self, platform):
        m = Module()
        beat = Value.cast(self.i.payload)
        next_beat = Signal(len(beat), reset_less=True)
        next_valid = Signal()
        words = Signal(len(beat), reset_less=True)
        # Words that follow the one on offer.
        more = Signal(range(max(self.ratio, 2)))
        free = Signal()
        m.d.comb += [
            self.i.ready.eq(~next_valid),
            self.o.payload.eq(words[: self._narrow]),
            free.eq(~self.o.valid | (self.o.ready & (more == 0))),
        ]
        with m.If(self.i.valid & self.i.ready):
            m.d.sync += [next_beat.eq(beat), next_valid.eq(~free)]
        with m.If(free):
            m.d.sync += [
                words.eq(beat),
                more.eq(self.ratio - 1),
                self.o.valid.eq(self.i.valid | next_valid),
            ]
            with m.If(next_valid):
                m.d.sync += [words.eq(next_beat), next_valid.eq(0)]
        with m.Elif(self.o.ready):
            m.d.sync += [words.eq(words >> self._narrow), more.eq(more - 1)]
        return m


class WidthGather(wiring.Component):
    """Put beats together to words, the first one lowest.

    Throughput: one beat a cycle; a word is on offer in the cycle after its last beat was taken.

    Parameters
    ----------
    beat, word
        Shapes; a word is a whole number of beats wide, at least two.

    Members
    -------
    i : In(stream)
        Beats.
    o : Out(stream)
        Words.
    """

    def __init__(self, beat, word):
        narrow, wide = Shape.cast(beat).width, Shape.cast(word).width
        if narrow == 0 or wide % narrow or wide < 2 * narrow:
            raise ValueError(f"a word of {wide} bits does not consist of beats of {narrow} bits")
        self.ratio = wide // narrow
        super().__init__({"i": In(stream.Signature(beat)), "o": Out(stream.Signature(word))})

    def elaborate(self, platform):
        m = Module()
        beat = Value.cast(self.i.payload)
        word = Signal(len(Value.cast(self.o.payload)), reset_less=True)
        missing = Signal(range(self.ratio), init=self.ratio - 1)
        m.d.comb += [self.o.payload.eq(word), self.i.ready.eq(~self.o.valid | self.o.ready)]
        with m.If(self.i.ready):
            m.d.sync += self.o.valid.eq(self.i.valid & (missing == 0))
        with m.If(self.i.valid & self.i.ready):
            m.d.sync += [
                word.eq(Cat(word[len(beat) :], beat)),
                missing.eq(Mux(missing == 0, self.ratio - 1, missing - 1)),
            ]
        return m
