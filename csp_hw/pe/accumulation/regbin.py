# SPDX-License-Identifier: Apache-2.0
"""A bank as register bins of 1, 1, 2, 4 … partial sums, each with its own clock enable.

A pruned layer touches low entries far more often than high ones (a cascade keeps prefixes), so the
later bins, which hold most of the registers, rarely wake. Hanson et al., "Cascading Structured
Pruning", ISCA 2022, doi 10.1145/3470496.3527419.
"""

import itertools

from amaranth import Const, Module, Signal, signed
from amaranth.lib import wiring

from csp_hw.config import CspConfig
from csp_hw.pe.accumulation.bank import BankSignature


def bins(half_depth: int) -> list[range]:
    """Give the entries of each bin of a bank: 0, 1, 2 … 3, 4 … 7 and so on."""
    edges = [0] + [1 << n for n in range(half_depth.bit_length())]
    return [range(low, high) for low, high in itertools.pairwise(edges)]


class RegBinBank(wiring.Component):
    """See :mod:`csp_hw.pe.accumulation` for the contract."""

    def __init__(self, config: CspConfig):
        self.config = config
        super().__init__(BankSignature(config))

    def elaborate(self, platform):
        m = Module()
        word = signed(self.config.acc_bits)
        found = Const(0, word)

        # Each bin: its enable wakes its registers, its select lets the word read pass.
        for number, entries in enumerate(bins(self.config.half_depth)):
            offset_bits = len(entries).bit_length() - 1
            tag = entries.start >> offset_bits
            enable = Signal(name=f"bin{number}_enable")
            select = Signal(name=f"bin{number}_select")
            chosen = Signal(word, name=f"bin{number}_word")
            stored = [Signal(word, name=f"entry{entry}", reset_less=True) for entry in entries]
            m.d.comb += [
                enable.eq(self.write_enable & (self.write_address >> offset_bits == tag)),
                select.eq(self.read_address >> offset_bits == tag),
            ]
            with m.If(enable):
                for entry, register in zip(entries, stored, strict=True):
                    with m.If(self.write_address == entry):
                        m.d.sync += register.eq(self.write_data)
            with m.If(select):
                for entry, register in zip(entries, stored, strict=True):
                    with m.If(self.read_address == entry):
                        m.d.comb += chosen.eq(register)
            found |= chosen

        with m.If(self.read_enable):
            m.d.sync += self.read_data.eq(found)
        return m
