# SPDX-License-Identifier: Apache-2.0
"""The accumulation buffer's bank, in two styles behind one contract.

Contract: ``half_depth`` partial sums of ``acc_bits``. A word written in cycle n is seen by reads
whose address is given in cycle n + 1 or later; a read of the same entry in cycle n gives either the
old word or nothing sensible, so whoever reads must forward. Data follow the address by one cycle,
and stay until a word is read again.
"""

from csp_hw.config import BufferStyle, CspConfig
from csp_hw.pe.accumulation.bank import BankSignature
from csp_hw.pe.accumulation.memory import MemoryBank
from csp_hw.pe.accumulation.regbin import RegBinBank

__all__ = ["BankSignature", "MemoryBank", "RegBinBank", "create_bank"]


def create_bank(config: CspConfig) -> MemoryBank | RegBinBank:
    """Give one bank in the configuration's style."""
    style = {BufferStyle.MEMORY: MemoryBank, BufferStyle.REGBIN: RegBinBank}[config.style]
    return style(config)
