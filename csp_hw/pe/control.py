# SPDX-License-Identifier: Apache-2.0
"""Control of a PE, computed once at the array's left edge instead of in every PE.

Each field reaches a PE in the very cycle in which its stage uses it (``STAGE`` says which), so a PE
stores every control bit once, to hand it to its right neighbour, and delays none.
"""

import enum

from amaranth import unsigned
from amaranth.lib import data

from csp_hw.config import CspConfig


class Older(enum.IntEnum):
    """Where an older partial sum comes from; bit 1: not from a bank, bit 0: from which of two."""

    BANK0 = 0
    BANK1 = 1
    SUM = 2  # written three cycles after this product's predecessor: not yet readable
    SUM_DELAYED = 3


class Addend(enum.IntEnum):
    """What a run is added to."""

    ZERO = 0  # first touch of the entry in its tile
    WORD = 1
    SUM_NEXT = 2  # the sum being computed in this cycle
    SUM = 3


#: Cycles after the operands' arrival in a PE (S0) in which it uses a field.
STAGE = {
    "read0": 0,
    "read1": 0,
    "valid": 1,
    "last": 1,
    "older": 1,
    "add": 2,
    "addend": 2,
    "write0": 4,
    "write1": 4,
    "write_address": 4,
}
#: Stage from which forwarding is not needed: a write at stage 4 is readable from stage 5 on.
FORWARD_DISTANCE = STAGE["write_address"]


def control_layout(config: CspConfig) -> data.StructLayout:
    """Give the control that moves right with the activations.

    Fields
    ------
    read0, read1
        Read address of each bank; the bank that does not compute serves the drain.
    valid, last
        A product is added to the run register; it is its run's last.
    older, addend
        An :class:`Older` and an :class:`Addend`: the entry's latest value wherever it stands.
    add
        The run goes to the adder.
    write0, write1, write_address
        The sum is written to a bank.
    take, take_bank
        The word read for the drain enters this row's drain registers.
    """
    address = range(config.half_depth)
    return data.StructLayout(
        {
            "read0": address,
            "read1": address,
            "valid": unsigned(1),
            "last": unsigned(1),
            "older": unsigned(2),
            "add": unsigned(1),
            "addend": unsigned(2),
            "write0": unsigned(1),
            "write1": unsigned(1),
            "write_address": address,
            "take": unsigned(1),
            "take_bank": unsigned(1),
        }
    )
