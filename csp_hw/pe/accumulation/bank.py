# SPDX-License-Identifier: Apache-2.0
"""Ports that every style of bank has."""

from amaranth import signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from csp_hw.config import CspConfig


class BankSignature(wiring.Signature):
    """One read and one write port.

    Members
    -------
    read_enable : In(1)
    read_address : In(range(half_depth))
    read_data : Out(signed(acc_bits))
        One cycle after the address; it stays until the next word is read.
    write_enable, write_address, write_data : In
    """

    def __init__(self, config: CspConfig):
        super().__init__(
            {
                "read_enable": In(1),
                "read_address": In(range(config.half_depth)),
                "read_data": Out(signed(config.acc_bits)),
                "write_enable": In(1),
                "write_address": In(range(config.half_depth)),
                "write_data": In(signed(config.acc_bits)),
            }
        )
