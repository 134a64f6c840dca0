# SPDX-License-Identifier: Apache-2.0
"""The line buffer: banks, and the way of a byte from its bank to its row."""

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from csp_hw.config import CspConfig
from csp_hw.feeder.bank import BANK_MODULE, BankSignature, LineBank, chunks, selections
from csp_hw.feeder.layouts import (
    address_bits,
    request_layout,
    row_bits,
    store_layout,
)
from csp_hw.ports import activations_layout
from csp_hw.util import delayed, part

#: Bits of a rotation that one stage uses.
ROTATE_BITS = 2


def latency(config: CspConfig) -> int:
    """Give the cycles from a request to its word."""
    return 3 + len(selections(config)) + len(chunks(row_bits(config), ROTATE_BITS))


class LineBuffer(wiring.Component):
    """``rows`` banks of words, each with one write and one read port, and a rotator.

    Row p reads number l + p with l = base + offset, base = 0 mod rows: bank (p + offset) mod rows.
    The banks below the rotation, offset mod rows, therefore belong to the next slot.

    Taps that follow each other are mostly bytes of one word: the banks are read only if a request
    is for others than the one before, or if something was stored there since.

    Latency: :func:`latency` cycles. What is stored in the cycle of a request or before is seen by
    it, what is stored two cycles later or after is not; in the cycle between, nothing may be
    stored at an address that the request reads.

    Parameters
    ----------
    config : CspConfig
    hierarchical : bool
        Instantiate the banks as the Verilog module ``csp_line_bank``.

    Members
    -------
    begin : In(1)
        A pass begins, before its first request: addresses have another meaning now.
    ring_mask : In
        Ones for the bits of a slot.
    store : In
        A word to write in this cycle.
    request : In
    mask : In
        Rows whose byte counts; a cycle before the word. The others are 0.
    valid : Out(1)
    word : Out
        A byte for each row.
    """

    def __init__(self, config: CspConfig, *, hierarchical: bool = False):
        self.config = config
        self.hierarchical = hierarchical
        super().__init__(
            {
                "begin": In(1),
                "ring_mask": In(address_bits(config)),
                "store": In(store_layout(config)),
                "request": In(request_layout(config)),
                "mask": In(config.rows),
                "valid": Out(1),
                "word": Out(activations_layout(config)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config, request = self.config, self.request
        rows, bits = config.rows, address_bits(config)

        # Addresses in the lanes' slot and in the next one; which banks take the latter.
        rotation, groups = request.offset[: row_bits(config)], request.offset[row_bits(config) :]
        here = Signal(bits, reset_less=True)
        beyond = Signal(bits, reset_less=True)
        below = Signal(rows, reset_less=True)
        slot = Signal(bits)
        after = Signal(bits)
        m.d.comb += [slot.eq(request.slot + groups), after.eq(request.slot + groups + 1)]
        with m.If(request.valid):
            m.d.sync += [
                here.eq(request.word | slot & self.ring_mask),
                beyond.eq(request.word | after & self.ring_mask),
                below.eq(Cat(bank < rotation for bank in range(rows))),
            ]

        # Whether the banks have to be read.
        where = Cat(request.slot, request.offset, request.word)
        before = Signal.like(where, reset_less=True)
        asked = Signal()
        moved = Signal(reset_less=True)
        m.d.sync += asked.eq(request.valid)
        with m.If(request.valid):
            m.d.sync += [before.eq(where), moved.eq(where != before)]
        overwritten = self._overwritten(m, here, beyond, below)
        stale = Signal(init=1)
        read = Signal()
        m.d.comb += read.eq(asked & (moved | stale | overwritten))
        m.d.sync += stale.eq((stale | overwritten) & ~read | self.begin)

        # The bits of a byte's number go where they are needed a cycle before they are.
        stage = 3
        select = []
        for low, high in selections(config):
            select.append(
                delayed(m, request.byte[low:high], stage - 1, f"byte_{low}", reset_less=True)
            )
            stage += 1

        bytes_read = []
        for number in range(rows):
            inside = None if self.hierarchical else LineBank(config)
            bank = part(m, f"bank_{number}", BankSignature(config), BANK_MODULE, inside)
            m.d.comb += [
                bank.write.eq(self.store.banks[number]),
                bank.write_address.eq(self.store.address),
                bank.write_word.eq(self.store.word),
                bank.read.eq(read),
                bank.read_address.eq(Mux(below[number], beyond, here)),
                bank.select.eq(Cat(select)),
            ]
            bytes_read.append(bank.o)

        # The bank of each row; the last stage has the mask.
        word = Cat(bytes_read)
        turn = delayed(m, rotation, stage, "turn", reset_less=True)
        for low, high in chunks(row_bits(config), ROTATE_BITS):
            for bit in range(low, high):
                word = Mux(turn[bit], word.rotate_right(8 << bit), word)
            if high == row_bits(config):
                word &= Cat(bit.replicate(8) for bit in self.mask)
            word = delayed(m, word, 1, f"turned_{low}", reset_less=True)
            turn = delayed(m, turn, 1, f"turn_{low}", reset_less=True)
        m.d.comb += [
            self.word.eq(word),
            self.valid.eq(delayed(m, asked, latency(config) - 1, "valid")),
        ]
        return m

    def _overwritten(self, m: Module, here: Signal, beyond: Signal, below: Signal):
        """Say whether in the cycle before a word was stored where the last request reads."""
        store = self.store
        hits = []
        for name, address, banks in (("here", here, ~below), ("beyond", beyond, below)):
            same = Signal(name=f"same_{name}")
            some = Signal(name=f"some_{name}")
            m.d.sync += [same.eq(store.address == address), some.eq((store.banks & banks).any())]
            hits.append(same & some)
        return hits[0] | hits[1]
