# SPDX-License-Identifier: Apache-2.0
"""Control of a PE, computed once at the array's left edge instead of in every PE.

Each field reaches a PE in the very cycle in which its stage uses it (``STAGE`` says which), so a PE
stores every control bit once, to hand it to its right neighbour, and delays none.
"""

import enum

from amaranth import Module, Signal, unsigned
from amaranth.lib import data

from csp_hw.config import CspConfig


class Addend(enum.IntEnum):
    """What a run is added to: the latest value of its entry, wherever it stands."""

    ZERO = 0  # first touch of the entry in its tile
    BANK0 = 2
    BANK1 = 3
    SUM_NEXT = 4  # of the product one cycle ago: just being computed
    SUM_NOW = 5  # two cycles ago
    SUM_OLDER = 6
    SUM_OLDEST = 7  # four cycles ago: being written, not yet readable


#: Cycles after the operands' arrival in a PE (S0) in which it uses a field.
STAGE = {
    "read0": 0,
    "read1": 0,
    "valid": 1,
    "last": 1,
    "add": 2,
    "addend": 2,
    "write0": 4,
    "write1": 4,
    "write_address": 4,
}
#: Stage from which forwarding is not needed: a write at stage 4 is readable from stage 5 on.
FORWARD_DISTANCE = STAGE["write_address"]


#: What may hold anything while no flag says that it counts; it needs no reset.
DATA = ("read0", "read1", "addend", "write_address", "take_bank")


def control_layout(config: CspConfig) -> data.StructLayout:
    """Give the control that moves right with the activations.

    Fields
    ------
    read0, read1
        Read address of each bank; the bank that does not compute serves the drain.
    valid, last
        A product is added to the run register; it is its run's last.
    add, addend
        The run goes to the adder, together with an :class:`Addend`.
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
            "add": unsigned(1),
            "addend": unsigned(3),
            "write0": unsigned(1),
            "write1": unsigned(1),
            "write_address": address,
            "take": unsigned(1),
            "take_bank": unsigned(1),
        }
    )


def register_control(m: Module, control: data.View, config: CspConfig) -> data.View:
    """Give control a cycle later. Only flags are reset."""
    registered = Signal(control_layout(config), name="control")
    for field in control_layout(config).members:
        register = Signal.like(control[field], name=f"{field}_registered", reset_less=field in DATA)
        m.d.sync += register.eq(control[field])
        m.d.comb += registered[field].eq(register)
    return registered
