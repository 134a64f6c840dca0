# SPDX-License-Identifier: Apache-2.0
"""Control of the PEs, computed once at the array's left edge instead of in every PE.

Each field reaches a group of PEs in the very cycle in which its stage uses it (``STAGE`` says
which), so a group stores every control bit once, to hand it to its right neighbour. Flags tell
which registers take something; all others keep what they have, and are not clocked
(``TAKEN_WITH``).
"""

import enum

from amaranth import Cat, Module, Signal, ValueLike, unsigned
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
    "valid": 0,
    "fetch0": 0,
    "fetch1": 0,
    "read0": 0,
    "read1": 0,
    "last": 1,
    "add": 2,
    "addend": 2,
    "write0": 4,
    "write1": 4,
    "write_address": 4,
}
#: Stage from which forwarding is not needed: a write at stage 4 is readable from stage 5 on.
FORWARD_DISTANCE = STAGE["write_address"]


#: Fields that count only together with one of some flags: they are taken with them, and need no
#: reset.
TAKEN_WITH = {
    "read0": ("fetch0",),
    "read1": ("fetch1",),
    "addend": ("add",),
    "write_address": ("write0", "write1"),
    "take_bank": ("take",),
}


def control_layout(config: CspConfig) -> data.StructLayout:
    """Give the control that moves right with the activations.

    Fields
    ------
    valid
        There is a product.
    fetch0, fetch1, read0, read1
        A word of a bank is read, by which rows of a group, and its address: a run meets an entry
        that is not fresh, or the drain asks one row for one of the bank that does not compute.
    last
        The product is its run's last.
    add, addend
        The run goes to the adder, together with an :class:`Addend`.
    write0, write1, write_address
        The sum is written to a bank.
    shift, take, take_bank
        The drain registers take a word: that from above, or the one that a row of the group has
        read from a bank.
    """
    rows = unsigned(config.share)
    address = range(config.half_depth)
    return data.StructLayout(
        {
            "valid": unsigned(1),
            "fetch0": rows,
            "fetch1": rows,
            "read0": address,
            "read1": address,
            "last": unsigned(1),
            "add": unsigned(1),
            "addend": unsigned(3),
            "write0": unsigned(1),
            "write1": unsigned(1),
            "write_address": address,
            "shift": unsigned(1),
            "take": rows,
            "take_bank": unsigned(1),
        }
    )


def gated(m: Module, config: CspConfig, counts: ValueLike):
    """Give a context whose registers take what counts; without clock gates, anything else, too."""
    return m.If(counts if config.clock_gates else 1)


def register_control(m: Module, control: data.View, config: CspConfig) -> data.View:
    """Give control a cycle later: flags always, the rest with its flag."""
    registered = Signal(control_layout(config), name="control")
    for field in control_layout(config).members:
        flags = TAKEN_WITH.get(field, ())
        register = Signal.like(
            control[field], name=f"{field}_registered", reset_less=field in TAKEN_WITH
        )
        with gated(m, config, Cat(control[flag] for flag in flags).any() if flags else 1):
            m.d.sync += register.eq(control[field])
        m.d.comb += registered[field].eq(register)
    return registered
