# SPDX-License-Identifier: Apache-2.0
"""The processing element: what each has of its own; :mod:`csp_hw.pe.group` has the rest."""

from collections.abc import Callable
from typing import NamedTuple

from amaranth import Cat, Const, Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from csp_hw.config import ACC_SHIFT_BITS, ACTIVATION_BITS, WEIGHT_BITS, CspConfig
from csp_hw.pe.accumulation import create_bank
from csp_hw.pe.control import Addend, control_layout, gated
from csp_hw.pe.multiplier import (
    MULTIPLIER_MODULE,
    PRODUCT_BITS,
    Multiplier,
    MultiplierSignature,
)
from csp_hw.util import place

#: Flags that follow others by a cycle, alike in all PEs of a row of a group.
FOLLOWERS = ("nonzero", "nonzero_before", "fetched0", "fetched1", "added", "settled")
#: Fields of a group's control that its PEs have no use for.
OF_THE_GROUP = ("valid", "shift", "take")


def element_layout(config: CspConfig) -> data.StructLayout:
    """Give the control of one PE of a group: of its row, and what the group's registers hold."""
    fields = control_layout(config.replace(share=1)).members
    return data.StructLayout(
        {name: field for name, field in fields.items() if name not in OF_THE_GROUP}
    )


class ElementSignature(wiring.Signature):
    """Ports of a PE; :class:`ProcessingElement` explains them."""

    def __init__(self, config: CspConfig):
        super().__init__(
            {
                "activation": In(signed(ACTIVATION_BITS)),
                "nonzero": In(1),
                "weight": In(signed(WEIGHT_BITS)),
                "acc_shift": In(ACC_SHIFT_BITS),
                "control": In(element_layout(config)),
                "followers": In(data.StructLayout(dict.fromkeys(FOLLOWERS, unsigned(1)))),
                "word": Out(signed(config.acc_bits)),
                "overflow": Out(1),
            }
        )


class Given(NamedTuple):
    """What a PE is given by its group, as ports of :class:`ProcessingElement`."""

    activation: Value
    nonzero: Value
    weight: Value
    acc_shift: Value
    control: data.View


class Datapath:
    """Multiply an activation by a weight; add a run of products to one of ``depth`` partial sums.

    ``acc[e] ← sat(acc[e] + rhu(run, t))``, one product a cycle without a bubble, whatever the
    order of entries: a value still on its way to the buffer is forwarded as ``control`` says.

    All is rigidly timed. Stages, counted from the cycle in which the operand registers hold
    the operands:

    == ==========================================================================================
    0  multiply, unless the activation is zero; the read address goes to a bank
    1  product register; add to the run; the bank's word arrives
    2  run complete; shift right by t (its last bit out is the rounding carry); choose the addend:
       a bank's word, or a younger sum on its way there
    3  add, saturate
    4  sum register; write
    == ==========================================================================================

    The multiplier has operand registers of its own, beside those that hand activation and weight
    on. They take only what makes a product: while activations are zero nothing in it toggles.

    With clock gates (``CspConfig.clock_gates``) only flags are clocked in every cycle. Every other
    register is clocked when it takes something that counts, and keeps it: product and run where the
    activation is not zero, sums and the way to them once a run, a bank's word when one is read. The
    sum's registers, from which forwarding takes, follow each other: each takes a value in the cycle
    after the one before it did.

    Reset clears the run. All other registers hold what no flag says to be valid, and do without it.

    Parameters
    ----------
    config : CspConfig
    hierarchical : bool
        Instantiate the multiplier as a Verilog module, so that a technology's own can be put in
        its place; see :mod:`csp_hw.pe.multiplier`.
    """

    def __init__(self, config: CspConfig, *, hierarchical: bool = False):
        self.config = config
        self.multiplier = None if hierarchical else Multiplier()

    def build(
        self, m: Module, given: Given, follow: Callable[[str, Value], Value]
    ) -> tuple[Value, Value, Value]:
        """Build it into a module: a PE's own, or that of a group that is a single PE.

        Parameters
        ----------
        m : Module
        given : Given
        follow : callable
            Gives one of ``FOLLOWERS``, by its name and the flag that it follows.

        Returns
        -------
        tuple of Value
            ``word``, ``overflow``, and whether the sum of stage 4 is written.
        """
        m.submodules.bank0 = bank0 = create_bank(self.config)
        m.submodules.bank1 = bank1 = create_bank(self.config)

        acc = signed(self.config.acc_bits)
        run_bits = self.config.run_bits
        control = given.control
        multiplied = Signal(signed(PRODUCT_BITS))
        product = Signal(signed(PRODUCT_BITS), reset_less=True)
        run = Signal(signed(run_bits))
        run_next = Signal(signed(run_bits))
        run_done = Signal(signed(run_bits), reset_less=True)
        word0 = Signal(acc, reset_less=True)
        word1 = Signal(acc, reset_less=True)
        shifted = Signal(signed(run_bits + 1), reset_less=True)  # bit 0 is the rounding carry
        addend = Signal(acc, reset_less=True)
        total = Signal(signed(max(self.config.acc_bits, run_bits) + 1))
        overflow = Signal()
        overflow_seen = Signal(reset_less=True)
        sum_next = Signal(acc)
        sum_now = Signal(acc, reset_less=True)
        sum_older = Signal(acc, reset_less=True)
        sum_oldest = Signal(acc, reset_less=True)

        # Stages 0 and 1: product and run. The run register is zero between runs, and only a run's
        # last sum moves on, so that the shifter below toggles once a run.
        nonzero = follow("nonzero", given.nonzero)
        nonzero_before = follow("nonzero_before", nonzero)
        operands = {
            "enable": given.nonzero,
            "activation": given.activation,
            "weight": given.weight,
            "product": multiplied,
        }
        m.submodules.multiplier = place(
            m, MultiplierSignature(), operands, MULTIPLIER_MODULE, self.multiplier
        )
        with gated(m, self.config, nonzero):
            m.d.sync += product.eq(multiplied)
        # Without a product of this cycle the register has an older one.
        masked = product & nonzero_before.replicate(PRODUCT_BITS).as_signed()
        m.d.comb += run_next.eq(run + masked)
        with gated(m, self.config, nonzero_before | control.last):
            m.d.sync += run.eq(Mux(control.last, 0, run_next))
        with m.If(control.last):
            m.d.sync += run_done.eq(run_next)

        # A block RAM answers late in the cycle: its word goes straight to a register.
        for bank, fetch, address, fetched, word in (
            (bank0, control.fetch0, control.read0, "fetched0", word0),
            (bank1, control.fetch1, control.read1, "fetched1", word1),
        ):
            m.d.comb += [bank.read_enable.eq(fetch), bank.read_address.eq(address)]
            with gated(m, self.config, follow(fetched, fetch)):
                m.d.sync += word.eq(bank.read_data)

        # Stage 2: rhu(run, t) is (2·run >> t) with its lowest bit as the carry.
        with m.If(control.add):
            m.d.sync += shifted.eq(Cat(Const(0, 1), run_done).as_signed() >> given.acc_shift)
            with m.Switch(control.addend):
                with m.Case(Addend.ZERO):
                    m.d.sync += addend.eq(0)
                for source, value in (
                    (Addend.BANK0, word0),
                    (Addend.BANK1, word1),
                    (Addend.SUM_NEXT, sum_next),
                    (Addend.SUM_NOW, sum_now),
                    (Addend.SUM_OLDER, sum_older),
                    (Addend.SUM_OLDEST, sum_oldest),
                ):
                    with m.Case(source):
                        m.d.sync += addend.eq(value)

        # Stage 3: one adder, whose lowest bit turns the carry into a carry-in.
        carry = shifted[0]
        high = total[acc.width - 1 :]  # all alike if the total fits
        m.d.comb += [
            total.eq((shifted + Cat(carry, addend).as_signed()) >> 1),
            overflow.eq(high.any() & ~high.all()),
            sum_next.eq(total),
        ]
        with m.If(overflow):
            m.d.comb += sum_next.eq(Cat((~total[-1]).replicate(acc.width - 1), total[-1]))
        # A sum moves on in the cycle after it came: positions, by which it is forwarded, stay true.
        wrote = Signal()
        m.d.comb += wrote.eq(control.write0 | control.write1)
        added, settled = follow("added", control.add), follow("settled", wrote)
        with gated(m, self.config, added):
            m.d.sync += [sum_now.eq(sum_next), overflow_seen.eq(overflow)]
        with gated(m, self.config, wrote):
            m.d.sync += sum_older.eq(sum_now)
        with gated(m, self.config, settled):
            m.d.sync += sum_oldest.eq(sum_older)

        # Stage 4: write.
        m.d.comb += [
            bank0.write_enable.eq(control.write0),
            bank1.write_enable.eq(control.write1),
            bank0.write_address.eq(control.write_address),
            bank1.write_address.eq(control.write_address),
            bank0.write_data.eq(sum_now),
            bank1.write_data.eq(sum_now),
        ]
        return Mux(control.take_bank, word1, word0), overflow_seen, wrote


class ProcessingElement(wiring.Component):
    """A :class:`Datapath` as a module: one PE of a group of several.

    Parameters
    ----------
    config : CspConfig
    hierarchical : bool
        See :class:`Datapath`.

    Members
    -------
    activation, nonzero, weight : In
        As they enter the group. ``nonzero`` says that there is a product whose activation is not
        0; otherwise the operands do not count.
    acc_shift, control : In
        From the group's registers: t, and what this PE is to do.
    followers : In
        ``FOLLOWERS``, from the group's registers.
    word : Out
        Of the bank that ``take_bank`` names, the one read last.
    overflow : Out
        The sum of stage 4 saturated.
    """

    def __init__(self, config: CspConfig, *, hierarchical: bool = False):
        super().__init__(ElementSignature(config))
        self.datapath = Datapath(config, hierarchical=hierarchical)

    def elaborate(self, platform):
        m = Module()
        given = Given(self.activation, self.nonzero, self.weight, self.acc_shift, self.control)
        word, overflow, _ = self.datapath.build(m, given, lambda name, _: self.followers[name])
        m.d.comb += [self.word.eq(word), self.overflow.eq(overflow)]
        return m
