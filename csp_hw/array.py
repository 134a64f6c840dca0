# SPDX-License-Identifier: Apache-2.0
"""The systolic array: ``rows`` × ``cols`` processing elements in groups, with skewed edges."""

from amaranth import Cat, Const, Module, Shape, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from csp_hw.config import ACC_SHIFT_BITS, ACTIVATION_BITS, WEIGHT_BITS, CspConfig
from csp_hw.pe.control import FORWARD_DISTANCE, control_layout
from csp_hw.pe.group import group_parts
from csp_hw.row import Row, RowSignature, drain_layout, row_number
from csp_hw.util import delayed, own_resets, place

#: Verilog module of a row of groups, instantiated once for each in the array.
ROW_MODULE = "csp_row"

#: Ports of a row that meet those of the row below, as ``…_below``.
DOWNWARD = ("acc_shift", "control", "drain", "weights", "sums", "saturations")


def parts(config: CspConfig) -> dict[str, wiring.Component]:
    """Give the Verilog modules that a hierarchical array instantiates, by name.

    All but the multiplier, for which a technology may have one of its own.
    """
    return {
        **group_parts(config),
        ROW_MODULE: Row(config, hierarchical=True),
    }


class Array(wiring.Component):
    """``rows`` × ``cols`` PEs, in groups of ``share`` × ``share``.

    Activations and control enter at the left and move right, weights enter above and move down,
    one group a cycle; the skew is made here, so all inputs of a cycle belong together, and so do
    all partial sums of a cycle.

    Parameters
    ----------
    config : CspConfig
    hierarchical : bool
        Instantiate rows and PEs as the Verilog modules that :func:`parts` gives, each elaborated
        once, so that a large array is a small text. Amaranth's simulator needs real submodules.

    Members
    -------
    acc_shift : In(4)
        t, constant during a layer.
    activations : In
        One activation a row; 0 for a dead lane.
    weights : In
        One weight a column.
    control : In
        See :mod:`csp_hw.pe.control`; ``shift``, ``take`` and ``take_bank`` are made inside.
    drain : In
        One entry of one row to be drained; at least ``DRAIN_DISTANCE`` cycles after the last
        product of its tile.
    zeros : Out
        Of each row: the activation that entered in the cycle before is 0.
    sums : Out
        The drained partial sums of all columns, ``drain_latency(config)`` cycles after ``drain``.
    saturations : Out
        Saturations of one wavefront, so that adding up every cycle's counts all of them.
    """

    #: Cycles from a tile's last product to its first drain request.
    DRAIN_DISTANCE = FORWARD_DISTANCE + 1
    #: Cycles that its reset outlasts that of what is around it, at most.
    RESET_STAGES = 8

    def __init__(self, config: CspConfig, *, hierarchical: bool = False):
        self.config = config
        self.hierarchical = hierarchical
        super().__init__(
            {
                "acc_shift": In(ACC_SHIFT_BITS),
                "activations": In(data.ArrayLayout(signed(ACTIVATION_BITS), config.rows)),
                "weights": In(data.ArrayLayout(signed(WEIGHT_BITS), config.cols)),
                "control": In(control_layout(config)),
                "drain": In(drain_layout(config)),
                "zeros": Out(config.rows),
                "sums": Out(data.ArrayLayout(signed(config.acc_bits), config.cols)),
                "saturations": Out(range(config.rows * config.cols + 1)),
            }
        )

    @staticmethod
    def drain_latency(config: CspConfig) -> int:
        """Give the cycles from ``drain`` to ``sums``."""
        return config.group_rows + config.group_cols + 3

    def elaborate(self, platform):
        m = Module()
        config, share = self.config, self.config.share
        signature = RowSignature(config)

        # Left and top edge: each row's activation waits for its control, which goes down a group a
        # cycle; each column's weight waits for the activations to reach it. Whether there is
        # something to multiply is seen here, once for all PEs of a row.
        entered = Signal.like(self.activations, reset_less=True)
        valid = Signal()
        m.d.sync += [entered.eq(self.activations), valid.eq(self.control.valid)]
        m.d.comb += self.zeros.eq(Cat(activation == 0 for activation in entered))
        activations = [
            delayed(m, activation, row // share, f"activation_{row}", reset_less=True)
            for row, activation in enumerate(entered)
        ]
        nonzero = [
            delayed(m, valid & ~zero, row // share, f"nonzero_{row}")
            for row, zero in enumerate(self.zeros)
        ]
        weights = Cat(
            delayed(m, weight, col // share + 1, f"weight_{col}", reset_less=True)
            for col, weight in enumerate(self.weights)
        )

        # All rows enter their reset together: a product in one is a product for those below.
        size = -(-config.group_rows // self.RESET_STAGES)
        resets = own_resets(m, "rows", -(-config.group_rows // size))

        # The rows of groups, from top to bottom.
        control, drain = self.control.as_value(), self.drain.as_value()
        above = (self.acc_shift, control, drain, weights, Const(0), Const(0))
        for row in range(config.group_rows):
            below = {
                f"{port}_below": Signal(
                    Shape.cast(signature.members[port].shape).width, name=f"{port}_{row}"
                )
                for port in DOWNWARD
            }
            wires = {
                "row": Const(row, Shape.cast(row_number(config))),
                "activation": Cat(activations[row * share : (row + 1) * share]),
                "nonzero": Cat(nonzero[row * share : (row + 1) * share]),
                **dict(zip(DOWNWARD, above, strict=True)),
                **below,
            }
            part = None if self.hierarchical else Row(config)
            placed = place(m, signature, wires, ROW_MODULE, part)
            m.submodules[f"row_{row}"] = resets[row // size](placed)
            above = tuple(below.values())

        # Bottom edge: each column's sum waits for the last column's.
        *_, sums, saturations = above
        for col in range(config.cols):
            drained = sums.word_select(col, config.acc_bits)
            wait = config.group_cols - 1 - col // share
            waited = delayed(m, drained, wait, f"sum_{col}", reset_less=True)
            m.d.comb += self.sums[col].eq(waited)
        m.d.comb += self.saturations.eq(saturations)
        return m
