# SPDX-License-Identifier: Apache-2.0
"""The processing element."""

from amaranth import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from csp_hw.config import ACC_SHIFT_BITS, ACTIVATION_BITS, WEIGHT_BITS, CspConfig
from csp_hw.pe.accumulation import create_bank
from csp_hw.pe.control import Addend, control_layout, gated, register_control
from csp_hw.pe.multiplier import (
    MULTIPLIER_MODULE,
    PRODUCT_BITS,
    Multiplier,
    MultiplierSignature,
)
from csp_hw.util import place


class ElementSignature(wiring.Signature):
    """Ports of a PE; :class:`ProcessingElement` explains them."""

    def __init__(self, config: CspConfig):
        control = control_layout(config)
        count = range(config.cols + 1)
        super().__init__(
            {
                "acc_shift": In(ACC_SHIFT_BITS),
                "acc_shift_right": Out(ACC_SHIFT_BITS),
                "activation": In(signed(ACTIVATION_BITS)),
                "activation_right": Out(signed(ACTIVATION_BITS)),
                "nonzero": In(1),
                "nonzero_right": Out(1),
                "control": In(control),
                "control_right": Out(control),
                "weight": In(signed(WEIGHT_BITS)),
                "weight_below": Out(signed(WEIGHT_BITS)),
                "drain": In(signed(config.acc_bits)),
                "drain_below": Out(signed(config.acc_bits)),
                "saturated": In(count),
                "saturated_right": Out(count),
            }
        )


class ProcessingElement(wiring.Component):
    """Multiply an activation by a weight; add a run of products to one of ``depth`` partial sums.

    ``acc[e] ← sat(acc[e] + rhu(run, t))``, one product a cycle without a bubble, whatever the
    order of entries: a value still on its way to the buffer is forwarded as ``control`` says.

    All ports are rigidly timed. Stages, counted from the cycle in which the operand registers hold
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
    register is clocked when it takes something that counts, and keeps it: activation, product and
    run where the activation is not zero, sums and the way to them once a run, a bank's word when
    one is read, a drained word as it passes. The sum's registers, from which forwarding takes,
    follow each other: each takes a value in the cycle after the one before it did.

    Reset clears the flags, the run and the count of saturations. All other registers hold what no
    flag says to be valid, and do without it.

    Parameters
    ----------
    config : CspConfig
    hierarchical : bool
        Instantiate the multiplier as a Verilog module, so that a technology's own can be put in
        its place; see :mod:`csp_hw.pe.multiplier`.

    Members
    -------
    acc_shift : In(4), Out
        t, constant while products of a layer are here; it is taken with ``control.add``, so the
        right neighbour has it a cycle later.
    activation, nonzero, control : In, Out
        From the left neighbour, one cycle later to the right one. ``nonzero`` says that there is a
        product whose activation is not 0; otherwise the activation does not count, nor move on.
    weight : In, Out
        From above, one cycle later below, where ``control.valid`` says that it makes a product.
    drain : In, Out
        Where ``control.shift`` is set, a word from above or, with ``take``, this PE's own, one
        cycle later below.
    saturated : In, Out
        Number of saturations among the PEs to the left in the same wavefront, and with this one.
        A product's saturation shows five cycles after stage 0, and counts only there.
    """

    def __init__(self, config: CspConfig, *, hierarchical: bool = False):
        self.config = config
        super().__init__(ElementSignature(config))
        self.multiplier = None if hierarchical else Multiplier()

    def elaborate(self, platform):
        m = Module()
        m.submodules.bank0 = bank0 = create_bank(self.config)
        m.submodules.bank1 = bank1 = create_bank(self.config)

        acc = signed(self.config.acc_bits)
        run_bits = self.config.run_bits
        control = register_control(m, self.control, self.config)
        acc_shift = Signal.like(self.acc_shift, reset_less=True)
        activation = Signal(signed(ACTIVATION_BITS), reset_less=True)
        nonzero = Signal()
        nonzero_before = Signal()
        weight = Signal(signed(WEIGHT_BITS), reset_less=True)
        multiplied = Signal(signed(PRODUCT_BITS))
        product = Signal(signed(PRODUCT_BITS), reset_less=True)
        run = Signal(signed(run_bits))
        run_next = Signal(signed(run_bits))
        run_done = Signal(signed(run_bits), reset_less=True)
        fetched0 = Signal()
        fetched1 = Signal()
        word0 = Signal(acc, reset_less=True)
        word1 = Signal(acc, reset_less=True)
        shifted = Signal(signed(run_bits + 1), reset_less=True)  # bit 0 is the rounding carry
        addend = Signal(acc, reset_less=True)
        total = Signal(signed(max(self.config.acc_bits, run_bits) + 1))
        overflow = Signal()
        overflow_seen = Signal(reset_less=True)
        added = Signal()
        settled = Signal()
        sum_next = Signal(acc)
        sum_now = Signal(acc, reset_less=True)
        sum_older = Signal(acc, reset_less=True)
        sum_oldest = Signal(acc, reset_less=True)
        drained = Signal(acc, reset_less=True)
        saturated = Signal.like(self.saturated)

        m.d.sync += [nonzero.eq(self.nonzero), nonzero_before.eq(nonzero)]
        with gated(m, self.config, self.nonzero):
            m.d.sync += activation.eq(self.activation)
        with gated(m, self.config, self.control.valid):
            m.d.sync += weight.eq(self.weight)
        with gated(m, self.config, self.control.add):
            m.d.sync += acc_shift.eq(self.acc_shift)
        m.d.comb += [
            self.acc_shift_right.eq(acc_shift),
            self.control_right.eq(control),
            self.activation_right.eq(activation),
            self.nonzero_right.eq(nonzero),
            self.weight_below.eq(weight),
        ]

        # Stages 0 and 1: product and run. The run register is zero between runs, and only a run's
        # last sum moves on, so that the shifter below toggles once a run.
        operands = {
            "enable": self.nonzero,
            "activation": self.activation,
            "weight": self.weight,
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
            (bank0, control.fetch0, control.read0, fetched0, word0),
            (bank1, control.fetch1, control.read1, fetched1, word1),
        ):
            m.d.comb += [bank.read_enable.eq(fetch), bank.read_address.eq(address)]
            m.d.sync += fetched.eq(fetch)
            with gated(m, self.config, fetched):
                m.d.sync += word.eq(bank.read_data)

        # Stage 2: rhu(run, t) is (2·run >> t) with its lowest bit as the carry.
        with m.If(control.add):
            m.d.sync += shifted.eq(Cat(Const(0, 1), run_done).as_signed() >> acc_shift)
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
        m.d.sync += [added.eq(control.add), settled.eq(wrote)]
        with gated(m, self.config, added):
            m.d.sync += [sum_now.eq(sum_next), overflow_seen.eq(overflow)]
        with gated(m, self.config, wrote):
            m.d.sync += sum_older.eq(sum_now)
        with gated(m, self.config, settled):
            m.d.sync += sum_oldest.eq(sum_older)

        # Stage 4: write, and count this wavefront's saturations.
        m.d.comb += [
            bank0.write_enable.eq(control.write0),
            bank1.write_enable.eq(control.write1),
            bank0.write_address.eq(control.write_address),
            bank1.write_address.eq(control.write_address),
            bank0.write_data.eq(sum_now),
            bank1.write_data.eq(sum_now),
        ]
        with gated(m, self.config, wrote):
            m.d.sync += saturated.eq(self.saturated + overflow_seen)
        m.d.comb += self.saturated_right.eq(saturated)

        with gated(m, self.config, control.shift):
            own = Mux(control.take_bank, word1, word0)
            m.d.sync += drained.eq(Mux(control.take, own, self.drain))
        m.d.comb += self.drain_below.eq(drained)
        return m
