# SPDX-License-Identifier: Apache-2.0
"""Read-modify-write hazards of the accumulation buffer, resolved once for the whole array."""

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from csp_hw.config import CspConfig
from csp_hw.issue import product_layout
from csp_hw.pe.control import FORWARD_DISTANCE, Addend, control_layout


class HazardUnit(wiring.Component):
    """Turn products into PE control.

    A sum is written four stages after its run's last product arrives, so a run that meets the same
    entry 1 to 4 cycles later must take it on its way: from the adder or from one of the sum's three
    registers. All PEs do the same a little later, so the comparison is made here and handed on.

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

        # What was issued d cycles ago, and whether that ended its run, in before[d - 1] and
        # last[d - 1]; the last one is just being written.
        before, last = [], Signal(FORWARD_DISTANCE)
        meets = []
        newer = product
        m.d.sync += last.eq(Cat(product.last, last))
        for distance in range(1, FORWARD_DISTANCE + 1):
            older = Signal(product_layout(self.config), name=f"before_{distance}", reset_less=True)
            m.d.sync += [older.bank.eq(newer.bank), older.word.eq(newer.word)]
            same = (older.bank == product.bank) & (older.word == product.word)
            meets.append(last[distance - 1] & same)
            before.append(older)
            newer = older

        addend = Signal(Addend)
        addend_delayed = Signal(Addend, reset_less=True)
        m.d.comb += addend.eq(Mux(product.bank, Addend.BANK1, Addend.BANK0))
        sums = (Addend.SUM_NEXT, Addend.SUM_NOW, Addend.SUM_OLDER, Addend.SUM_OLDEST)
        for meet, source in reversed(list(zip(meets, sums, strict=True))):  # the youngest wins
            with m.If(meet):
                m.d.comb += addend.eq(source)
        with m.If(product.fresh):
            m.d.comb += addend.eq(Addend.ZERO)

        written = before[FORWARD_DISTANCE - 1]
        m.d.sync += [
            control.last.eq(product.last),
            addend_delayed.eq(addend),
            control.addend.eq(addend_delayed),
            control.add.eq(last[0]),
        ]
        needs_word = product.last & ~product.fresh
        m.d.comb += [
            control.valid.eq(product.valid),
            control.fetch0.eq((needs_word & ~product.bank).replicate(self.config.share)),
            control.fetch1.eq((needs_word & product.bank).replicate(self.config.share)),
            control.read0.eq(product.word),
            control.read1.eq(product.word),
            control.write0.eq(last[-1] & ~written.bank),
            control.write1.eq(last[-1] & written.bank),
            control.write_address.eq(written.word),
        ]
        return m
