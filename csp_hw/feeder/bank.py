# SPDX-License-Identifier: Apache-2.0
"""One bank of the line buffer: its memory, and the way of a byte out of its word."""

from amaranth import Cat, Module, Signal, unsigned
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out

from csp_hw.config import CspConfig
from csp_hw.feeder.layouts import address_bits

#: Verilog module of a bank, instantiated rows times.
BANK_MODULE = "csp_line_bank"
#: Bits of a byte's number that one stage of its selection uses.
SELECT_BITS = 3
#: Words from which a bank is a block RAM.
BLOCK_RAM_WORDS = 64


def chunks(bits: int, size: int) -> list[tuple[int, int]]:
    """Give the ranges of bits that each stage uses, from the lowest."""
    return [(low, min(low + size, bits)) for low in range(0, bits, size)]


def selections(config: CspConfig) -> list[tuple[int, int]]:
    """Give the bits of a byte's number that each stage of its selection uses."""
    return chunks((config.cols - 1).bit_length(), SELECT_BITS)


class BankSignature(wiring.Signature):
    """Ports of a bank; :class:`LineBank` explains them."""

    def __init__(self, config: CspConfig):
        super().__init__(
            {
                "write": In(1),
                "write_address": In(address_bits(config)),
                "write_word": In(8 * config.cols),
                "read": In(1),
                "read_address": In(address_bits(config)),
                "select": In((config.cols - 1).bit_length()),
                "o": Out(8),
            }
        )


class LineBank(wiring.Component):
    """Words with one write and one read port; of the word that is read, one byte.

    Latency: 2 cycles from ``read_address`` to the word, and one for each of :func:`selections`. A
    word stays until another one is read.

    Members
    -------
    write, write_address, write_word : In
        A word to be written.
    read, read_address : In
        The memory is read.
    select : In
        Number of the byte; the bits of each stage a cycle before it needs them: of the first one a
        cycle after ``read_address``. So each bank has registers of its own for them.
    o : Out
        The byte.
    """

    def __init__(self, config: CspConfig):
        self.config = config
        super().__init__(BankSignature(config))

    def elaborate(self, platform):
        m = Module()
        config = self.config
        # Read without a clock and then registered: Yosys makes block RAM of both together, and
        # believes `no_rw_check` only in this form. A block RAM answers late, so its words go
        # straight to registers.
        attrs = {"no_rw_check": 1}
        if config.line_words >= BLOCK_RAM_WORDS:
            attrs["ram_style"] = "block"
        m.submodules.store = store = memory.Memory(
            shape=data.ArrayLayout(unsigned(8), config.cols),
            depth=config.line_words,
            init=[],
            attrs=attrs,
        )
        write, read = store.write_port(), store.read_port(domain="comb")
        fetched = Signal(store.shape, reset_less=True)
        word = Signal(store.shape, reset_less=True)
        m.d.comb += [
            write.addr.eq(self.write_address),
            write.data.eq(self.write_word),
            write.en.eq(self.write),
            read.addr.eq(self.read_address),
        ]
        follows = Signal()
        m.d.sync += follows.eq(self.read)
        with m.If(self.read):
            m.d.sync += fetched.eq(read.data)
        with m.If(follows):
            m.d.sync += word.eq(fetched)

        select = Signal.like(self.select, reset_less=True)
        m.d.sync += select.eq(self.select)

        # Stage after stage, groups of candidates become one each.
        candidates = [word[byte] for byte in range(config.cols)]
        for low, high in selections(config):
            size = 1 << (high - low)
            reduced = []
            for first in range(0, len(candidates), size):
                chosen = Signal(8, name=f"byte_{low}_{first}", reset_less=True)
                layout = data.ArrayLayout(unsigned(8), size)
                group = Signal(layout, name=f"bytes_{low}_{first}")
                m.d.comb += group.eq(Cat(candidates[first : first + size]))
                m.d.sync += chosen.eq(group[select[low:high]])
                reduced.append(chosen)
            candidates = reduced
        m.d.comb += self.o.eq(candidates[0])
        return m
