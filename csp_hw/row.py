# SPDX-License-Identifier: Apache-2.0
"""One row of groups of the systolic array."""

from amaranth import Const, Module, Mux, Shape, Signal, signed, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from csp_hw.config import ACC_SHIFT_BITS, ACTIVATION_BITS, WEIGHT_BITS, CspConfig
from csp_hw.pe.control import control_layout, gated, register_control
from csp_hw.pe.group import Group, GroupSignature, group_module, several
from csp_hw.util import delayed, one_hot, place

#: Ports of a group that meet its right neighbour's, as ``…_right``.
RIGHTWARD = ("acc_shift", "activation", "nonzero", "control", "saturated")


def drain_layout(config: CspConfig) -> data.StructLayout:
    """Give a request to drain one entry of one row."""
    return data.StructLayout(
        {
            "valid": unsigned(1),
            "row": range(max(config.rows, 2)),
            "bank": unsigned(1),
            "address": range(config.half_depth),
        }
    )


def row_number(config: CspConfig) -> range:
    """Give the shape of the number of a row of groups."""
    return range(max(config.group_rows, 2))


class RowEdge(wiring.Component):
    """The left edge of a row of groups: hands control to it and, a cycle later, to the next one.

    A drain request for one of its rows borrows the read port of the bank that it names. The request
    and the products' control go down together, so a request follows the last write of its tile in
    every row by the distance at which both entered.

    Members
    -------
    row : In
        This row's number, constant.
    control, drain : In
        From the row above, and ``…_below`` to the row below.
    control_right : Out
        To the row's first group.
    """

    def __init__(self, config: CspConfig):
        self.config = config
        control, drain = control_layout(config), drain_layout(config)
        super().__init__(
            {
                "row": In(row_number(config)),
                "control": In(control),
                "control_below": Out(control),
                "control_right": Out(control),
                "drain": In(drain),
                "drain_below": Out(drain),
            }
        )

    def elaborate(self, platform):
        m = Module()
        control = register_control(m, self.control, self.config)
        drain = self.drain_below
        m.d.sync += drain.eq(self.drain)

        share = self.config.share
        inside = share.bit_length() - 1
        row = drain.row[:inside]  # of the group
        mine = Signal()
        m.d.comb += [
            mine.eq(drain.valid & (drain.row[inside:] == self.row)),
            self.control_below.eq(control),
            self.control_right.eq(control),
        ]
        with m.If(mine & ~drain.bank):
            m.d.comb += [
                self.control_right.fetch0.eq(one_hot(Const(1), row, share)),
                self.control_right.read0.eq(drain.address),
            ]
        with m.If(mine & drain.bank):
            m.d.comb += [
                self.control_right.fetch1.eq(one_hot(Const(1), row, share)),
                self.control_right.read1.eq(drain.address),
            ]

        # The word read is in its register two cycles after its address.
        take, take_bank = (
            delayed(m, field, 2, name)
            for name, field in (("take", one_hot(mine, row, share)), ("take_bank", drain.bank))
        )
        shift = control.shift  # once taken, a word goes down row after row
        for taken in take:
            shift = taken | shift
        m.d.comb += [
            self.control_below.shift.eq(shift),
            self.control_right.shift.eq(shift),
            self.control_right.take.eq(take),
            self.control_right.take_bank.eq(take_bank),
        ]
        return m


class RowSignature(wiring.Signature):
    """Ports of a row; :class:`Row` explains them."""

    def __init__(self, config: CspConfig):
        # Plain vectors rather than structs: Verilog would spell out every field in every row.
        control, drain = control_layout(config).size, drain_layout(config).size
        weights, sums = config.cols * WEIGHT_BITS, config.cols * config.acc_bits
        super().__init__(
            {
                "row": In(row_number(config)),
                "acc_shift": In(ACC_SHIFT_BITS),
                "acc_shift_below": Out(ACC_SHIFT_BITS),
                "activation": In(several(signed(ACTIVATION_BITS), config.share)),
                "nonzero": In(config.share),
                "control": In(control),
                "control_below": Out(control),
                "drain": In(drain),
                "drain_below": Out(drain),
                "weights": In(weights),
                "weights_below": Out(weights),
                "sums": In(sums),
                "sums_below": Out(sums),
                "saturations": In(range(config.rows * config.cols + 1)),
                "saturations_below": Out(range(config.rows * config.cols + 1)),
            }
        )


class Row(wiring.Component):
    """The left edge of a row of groups, and the groups.

    Parameters
    ----------
    config : CspConfig
    hierarchical : bool
        See :class:`csp_hw.array.Array`.

    Members
    -------
    row : In
        This row's number, constant.
    acc_shift : In(4), Out
        t, constant while products of a layer are here; a cycle later to the row below.
    activation, nonzero : In
        Of each row of the groups, a cycle before its product's control enters the first group;
        whether it counts: there is a product, and the activation is not 0.
    control, drain, weights, sums, saturations : In
        From the row above, and ``…_below`` to the row below, a cycle later. ``sums`` are the
        drain registers of all columns, ``saturations`` those of one wavefront so far.
    """

    def __init__(self, config: CspConfig, *, hierarchical: bool = False):
        self.config = config
        self.hierarchical = hierarchical
        super().__init__(RowSignature(config))

    def elaborate(self, platform):
        m = Module()
        share = self.config.share
        signature, module = GroupSignature(self.config), group_module(self.config)
        m.submodules.edge = edge = RowEdge(self.config)
        m.d.comb += [
            edge.row.eq(self.row),
            edge.control.eq(self.control),
            edge.drain.eq(self.drain),
            self.control_below.eq(edge.control_below),
            self.drain_below.eq(edge.drain_below),
        ]

        def wire(port: str, col: int) -> Signal:
            width = Shape.cast(signature.members[port].shape).width
            return Signal(width, name=f"{port}_{col}")

        # The groups from left to right, each with its part of the words from above.
        acc_shift = Signal.like(self.acc_shift, reset_less=True)
        with gated(m, self.config, edge.control.add):
            m.d.sync += acc_shift.eq(self.acc_shift)
        m.d.comb += self.acc_shift_below.eq(acc_shift)
        left = (
            acc_shift,
            self.activation,
            self.nonzero,
            edge.control_right.as_value(),
            Const(0),
        )
        for col in range(self.config.group_cols):
            right = {f"{port}_right": wire(f"{port}_right", col) for port in RIGHTWARD}
            wires = {
                "weight": self.weights.word_select(col, share * WEIGHT_BITS),
                "weight_below": self.weights_below.word_select(col, share * WEIGHT_BITS),
                "drain": self.sums.word_select(col, share * self.config.acc_bits),
                "drain_below": self.sums_below.word_select(col, share * self.config.acc_bits),
                **dict(zip(RIGHTWARD, left, strict=True)),
                **right,
            }
            group = None if self.hierarchical else Group(self.config)
            name = f"{module.removeprefix('csp_')}_{col}"
            m.submodules[name] = place(m, signature, wires, module, group)
            left = tuple(right.values())

        # The right edge adds up the wavefront's saturations, row by row. The last group's count
        # stays until the next wavefront's.
        *_, control, saturated = left
        control = control_layout(self.config)(control)
        counted = Signal()
        m.d.sync += [
            counted.eq(control.write0 | control.write1),
            self.saturations_below.eq(self.saturations + Mux(counted, saturated, 0)),
        ]
        return m
