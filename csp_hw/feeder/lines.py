# SPDX-License-Identifier: Apache-2.0
"""The line buffer: banks, and the way of a byte from its bank to its row."""

from amaranth import Cat, Module, Mux, Signal, unsigned
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out

from csp_hw.config import CspConfig
from csp_hw.feeder.layouts import (
    address_bits,
    request_layout,
    row_bits,
    store_layout,
)
from csp_hw.ports import activations_layout
from csp_hw.util import delayed

#: Bits of a byte's number that one stage of its selection uses, and of a rotation.
SELECT_BITS = 3
ROTATE_BITS = 2
#: Words from which a bank is a block RAM.
BLOCK_RAM_WORDS = 64


def _chunks(bits: int, size: int) -> list[tuple[int, int]]:
    """Give the ranges of bits that each stage uses, from the lowest."""
    return [(low, min(low + size, bits)) for low in range(0, bits, size)]


def latency(config: CspConfig) -> int:
    """Give the cycles from a request to its word."""
    selections = _chunks((config.cols - 1).bit_length(), SELECT_BITS)
    rotations = _chunks(row_bits(config), ROTATE_BITS)
    return 3 + len(selections) + len(rotations)


class LineBuffer(wiring.Component):
    """``rows`` banks of words, each with one write and one read port, and a rotator.

    Row p reads number l + p with l = base + offset, base = 0 mod rows: bank (p + offset) mod rows.
    The banks below the rotation, offset mod rows, therefore belong to the next slot.

    Latency: :func:`latency` cycles. What is stored in the cycle of a request or before is seen by
    it, what is stored two cycles later or after is not; in the cycle between, nothing may be
    stored at an address that the request reads.

    Members
    -------
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

    def __init__(self, config: CspConfig):
        self.config = config
        super().__init__(
            {
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
        here = Signal(bits)
        beyond = Signal(bits)
        below = Signal(rows)
        slot = Signal(bits)
        after = Signal(bits)
        m.d.comb += [slot.eq(request.slot + groups), after.eq(request.slot + groups + 1)]
        m.d.sync += [
            here.eq(request.word | slot & self.ring_mask),
            beyond.eq(request.word | after & self.ring_mask),
            below.eq(Cat(bank < rotation for bank in range(rows))),
        ]

        # Read without a clock and then registered: Yosys makes block RAM of both together, and
        # believes `no_rw_check` only in this form. A block RAM answers late, so its words go
        # straight to registers.
        attrs = {"no_rw_check": 1}
        if config.line_words >= BLOCK_RAM_WORDS:
            attrs["ram_style"] = "block"
        words = []
        for bank in range(rows):
            store = memory.Memory(
                shape=data.ArrayLayout(unsigned(8), config.cols),
                depth=config.line_words,
                init=[],
                attrs=attrs,
            )
            m.submodules[f"bank_{bank}"] = store
            write, read = store.write_port(), store.read_port(domain="comb")
            fetched = Signal(store.shape, name=f"fetched_{bank}", reset_less=True)
            word = Signal(store.shape, name=f"word_{bank}", reset_less=True)
            m.d.comb += [
                write.addr.eq(self.store.address),
                write.data.eq(self.store.word),
                write.en.eq(self.store.banks[bank]),
                read.addr.eq(Mux(below[bank], beyond, here)),
            ]
            m.d.sync += [fetched.eq(read.data), word.eq(fetched)]
            words.append([word[byte] for byte in range(config.cols)])

        # The byte of each bank's word.
        stage = 3
        byte = delayed(m, request.byte, stage, "byte")
        for low, high in _chunks((config.cols - 1).bit_length(), SELECT_BITS):
            reduced = []
            for bank, word in enumerate(words):
                reduced.append([])
                for first in range(0, len(word), 1 << (high - low)):
                    candidates = data.ArrayLayout(unsigned(8), 1 << (high - low))
                    chosen = Signal(8, name=f"byte_{bank}_{low}_{first}")
                    group = Signal(candidates, name=f"bytes_{bank}_{low}_{first}")
                    m.d.comb += group.eq(Cat(word[first : first + candidates.length]))
                    m.d.sync += chosen.eq(group[byte[low:high]])
                    reduced[-1].append(chosen)
            words = reduced
            byte = delayed(m, byte, 1, f"byte_{low}")
            stage += 1

        # The bank of each row; the last stage has the mask.
        word = Cat(word[0] for word in words)
        turn = delayed(m, rotation, stage, "turn")
        for low, high in _chunks(row_bits(config), ROTATE_BITS):
            for bit in range(low, high):
                word = Mux(turn[bit], word.rotate_right(8 << bit), word)
            if high == row_bits(config):
                word &= Cat(bit.replicate(8) for bit in self.mask)
            word = delayed(m, word, 1, f"turned_{low}")
            turn = delayed(m, turn, 1, f"turn_{low}")
        m.d.comb += [
            self.word.eq(word),
            self.valid.eq(delayed(m, request.valid, latency(config), "valid")),
        ]
        return m
