# SPDX-License-Identifier: Apache-2.0
"""Read-modify-write hazards of the accumulation buffer, resolved once for the whole array."""

from amaranth import Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from csp_hw.config import CspConfig
from csp_hw.issue import product_layout
from csp_hw.pe.control import FORWARD_DISTANCE, Addend, Older, control_layout


class HazardUnit(wiring.Component):
    """Turn products into PE control.

    A sum is written four stages after its run's last product arrives, so a run that meets the same
    entry 1 to 4 cycles later must take it on its way: from the adder, from the sum register, or
    into the word register in place of the bank's word. All PEs do the same a little later, so the
    comparison is made here and handed on.

    Members
    -------
    product : In
    control : Out
        Fields of stage 0 belong to the product of this cycle, others follow by their stage.
    """

    def __init__(self, config: CspConfig):
        self.config = config
        super().__init__(
            {
                "product": In(product_layout(config)),
                "control": Out(control_layout(config)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        product, control = self.product, self.control

        # before[d - 1] is what was issued d cycles ago; the last one is just being written.
        before = []
        meets = []
        newer = product
        for distance in range(1, FORWARD_DISTANCE + 1):
            older = Signal(product_layout(self.config), name=f"before_{distance}")
            m.d.sync += [
                older.last.eq(newer.last),
                older.bank.eq(newer.bank),
                older.word.eq(newer.word),
            ]
            meets.append(older.last & (older.bank == product.bank) & (older.word == product.word))
            before.append(older)
            newer = older

        older = Signal(Older)
        addend = Signal(Addend)
        addend_delayed = Signal(Addend)
        m.d.comb += [
            older.eq(Mux(product.bank, Older.BANK1, Older.BANK0)),
            addend.eq(Addend.WORD),
        ]
        with m.If(meets[2]):
            m.d.comb += older.eq(Older.SUM)
        with m.Elif(meets[3]):
            m.d.comb += older.eq(Older.SUM_DELAYED)
        with m.If(product.fresh):
            m.d.comb += addend.eq(Addend.ZERO)
        with m.Elif(meets[0]):
            m.d.comb += addend.eq(Addend.SUM_NEXT)
        with m.Elif(meets[1]):
            m.d.comb += addend.eq(Addend.SUM)

        written = before[FORWARD_DISTANCE - 1]
        m.d.sync += [
            control.valid.eq(product.valid),
            control.last.eq(product.last),
            control.older.eq(older),
            addend_delayed.eq(addend),
            control.addend.eq(addend_delayed),
            control.add.eq(before[0].last),
        ]
        m.d.comb += [
            control.read0.eq(product.word),
            control.read1.eq(product.word),
            control.write0.eq(written.last & ~written.bank),
            control.write1.eq(written.last & written.bank),
            control.write_address.eq(written.word),
        ]
        return m
