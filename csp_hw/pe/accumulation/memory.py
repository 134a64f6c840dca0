# SPDX-License-Identifier: Apache-2.0
"""A bank as one memory with one read and one write port: block or LUT RAM of an FPGA."""

from amaranth import Module, signed
from amaranth.lib import memory, wiring

from csp_hw.config import CspConfig
from csp_hw.pe.accumulation.bank import BankSignature

#: Words from which a bank is a block RAM: as LUT RAM it would be larger than the rest of a PE.
BLOCK_RAM_WORDS = 32


class MemoryBank(wiring.Component):
    """See :mod:`csp_hw.pe.accumulation` for the contract."""

    def __init__(self, config: CspConfig):
        self.config = config
        super().__init__(BankSignature(config))

    def elaborate(self, platform):
        m = Module()
        # Every collision of a read with a write is forwarded in the PE, so a tool need not build
        # logic that defines its outcome.
        attrs = {"no_rw_check": 1}
        if self.config.half_depth >= BLOCK_RAM_WORDS:
            attrs["ram_style"] = "block"
        m.submodules.store = store = memory.Memory(
            shape=signed(self.config.acc_bits),
            depth=self.config.half_depth,
            init=[],
            attrs=attrs,
        )
        write, read = store.write_port(), store.read_port()
        m.d.comb += [
            read.en.eq(self.read_enable),
            read.addr.eq(self.read_address),
            self.read_data.eq(read.data),
            write.addr.eq(self.write_address),
            write.en.eq(self.write_enable),
            write.data.eq(self.write_data),
        ]
        return m
