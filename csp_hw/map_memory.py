# SPDX-License-Identifier: Apache-2.0
"""The map memory: maps that stay on the chip between passes."""

from amaranth import Cat, Module, Mux, Signal, unsigned
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from csp_hw.axi.ports import LocalReadSignature, LocalWriteSignature
from csp_hw.axi.queue import Queue
from csp_hw.axi.reader import OUTSTANDING
from csp_hw.config import CspConfig

#: Banks, by the high bits of an offset. An input and a residual in different ones come at once.
BANKS = 4
#: Cycles from a burst's transfer to its first beat.
READ_LATENCY = 5
#: Cycles from a burst's last beat to its being written.
WRITE_LATENCY = 1


class BurstWalk(wiring.Component):
    """Give the beats of bursts one by one.

    One a cycle, also from a burst to the next; the first one two cycles after its burst was on
    offer and three after its transfer.

    Members
    -------
    asks : In(stream)
        Bursts, at most ``OUTSTANDING`` that are not walked over.
    o : Out(stream)
        ``at`` of each beat, and whether it is the ``last`` one of its burst.
    """

    def __init__(self, asks: stream.Signature):
        self.burst = asks.members["payload"].shape
        self.beat = data.StructLayout({"at": self.burst["at"].shape, "last": unsigned(1)})
        super().__init__({"asks": In(asks), "o": Out(stream.Signature(self.beat))})

    def elaborate(self, platform):
        m = Module()
        m.submodules.queue = queue = Queue(self.burst, OUTSTANDING)
        m.d.comb += [
            queue.i.valid.eq(self.asks.valid),
            queue.i.payload.eq(self.asks.payload),
        ]
        burst, beat = queue.o.payload, self.o.payload
        left = Signal(burst.length.shape(), reset_less=True)
        do_step, do_open = Signal(), Signal()
        m.d.comb += [
            do_step.eq(self.o.valid & self.o.ready),
            do_open.eq(queue.o.valid & (~self.o.valid | (do_step & beat.last))),
            queue.o.ready.eq(do_open),
        ]
        with m.If(do_open):
            m.d.sync += [
                self.o.valid.eq(1),
                beat.at.eq(burst.at),
                beat.last.eq(burst.length == 0),
                left.eq(burst.length),
            ]
        with m.Elif(do_step):
            m.d.sync += [
                self.o.valid.eq(~beat.last),
                beat.at.eq(beat.at + 1),
                beat.last.eq(left == 1),
                left.eq(left - 1),
            ]
        return m


class MapMemory(wiring.Component):
    """Keep maps between passes: banks of one read and one write port each.

    Bursts are answered in order. Each reader has a beat a cycle, the first one ``READ_LATENCY``
    cycles after its burst's transfer, unless both want the same bank: then the input waits. A beat
    is taken in each cycle, and can be read from the next cycle but one on; ``done`` comes
    ``WRITE_LATENCY`` after a burst's last one.

    Nothing has a value before it was written, and reset changes none.

    Parameters
    ----------
    config : CspConfig
        With a map memory.

    Members
    -------
    inputs, residual : In(LocalReadSignature)
    results : In(LocalWriteSignature)
    """

    def __init__(self, config: CspConfig):
        self.config = config
        reads = LocalReadSignature(config.cols, config.map_bytes)
        super().__init__(
            {
                "inputs": In(reads),
                "residual": In(reads),
                "results": In(LocalWriteSignature(config.cols, config.map_bytes)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        cols = self.config.cols
        bank_words = self.config.map_bytes // (cols * BANKS)
        word_bits = (bank_words - 1).bit_length()

        # Who reads which word of which bank.
        walks = []
        for name in ("residual", "inputs"):  # the first one is never held back
            asks = getattr(self, name).asks
            m.submodules[name] = walk = BurstWalk(asks.signature)
            m.d.comb += [
                walk.asks.valid.eq(asks.valid),
                walk.asks.payload.eq(asks.payload),
            ]
            walks.append(walk.o)
        first, second = walks
        m.d.comb += [
            first.ready.eq(1),
            second.ready.eq(
                ~first.valid | (first.payload.at[word_bits:] != second.payload.at[word_bits:])
            ),
        ]

        # What is written, a cycle later.
        m.submodules.bursts = bursts = Queue(self.results.asks.payload.shape(), OUTSTANDING)
        beats = self.results.beats
        following = Signal.like(bursts.o.payload, reset_less=True)
        begins = Signal(init=1)
        place = Mux(begins, bursts.o.payload, following)
        take = Signal()
        written_at = Signal.like(following, reset_less=True)
        written = Signal(8 * cols, reset_less=True)
        strobe = Signal(cols)
        m.d.comb += [
            bursts.i.valid.eq(self.results.asks.valid),
            bursts.i.payload.eq(self.results.asks.payload),
            beats.ready.eq(bursts.o.valid),
            take.eq(beats.valid & beats.ready),
            bursts.o.ready.eq(take & beats.payload.last),
        ]
        m.d.sync += [
            written_at.eq(place),
            written.eq(beats.payload.data),
            strobe.eq(Mux(take, beats.payload.strb, 0)),
            self.results.done.eq(take & beats.payload.last),
        ]
        with m.If(take):
            m.d.sync += [begins.eq(beats.payload.last), following.eq(place + 1)]

        # The banks. Only a pass that reads what it writes reads a word while it is written. They
        # are read without a clock and then registered: Yosys makes block RAM of that.
        words = []
        for number in range(BANKS):
            m.submodules[f"bank_{number}"] = bank = memory.Memory(
                shape=unsigned(8 * cols), depth=bank_words, init=[], attrs={"no_rw_check": 1}
            )
            write, read = bank.write_port(granularity=8), bank.read_port(domain="comb")
            wants = Signal(2, name=f"wants_{number}")
            word = Signal(8 * cols, name=f"word_{number}", reset_less=True)
            m.d.comb += [
                wants.eq(
                    Cat(walk.valid & (walk.payload.at[word_bits:] == number) for walk in walks)
                ),
                read.addr.eq(
                    Mux(wants[0], first.payload.at[:word_bits], second.payload.at[:word_bits])
                ),
                write.addr.eq(written_at[:word_bits]),
                write.data.eq(written),
                write.en.eq(Mux(written_at[word_bits:] == number, strobe, 0)),
            ]
            with m.If(wants.any()):
                m.d.sync += word.eq(read.data)
            words.append(word)

        # Block RAM answers late in the cycle: its word goes straight to a register.
        for walk, port in zip(walks, (self.residual, self.inputs), strict=True):
            comes = Signal()
            ends, bank = Signal(reset_less=True), Signal(range(BANKS), reset_less=True)
            m.d.sync += [
                comes.eq(walk.valid & walk.ready),
                ends.eq(walk.payload.last),
                bank.eq(walk.payload.at[word_bits:]),
                port.answers.valid.eq(comes),
                port.answers.payload.last.eq(ends),
            ]
            with m.Switch(bank):
                for number, word in enumerate(words):
                    with m.Case(number):
                        m.d.sync += port.answers.payload.data.eq(word)
        return m
