# SPDX-License-Identifier: Apache-2.0
"""A group of processing elements, which share the registers of operands and control."""

import itertools
from collections.abc import Iterable

from amaranth import Cat, Module, Mux, Shape, Signal, Value, signed, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from csp_hw.config import ACC_SHIFT_BITS, ACTIVATION_BITS, WEIGHT_BITS, CspConfig
from csp_hw.pe.control import control_layout, gated, register_control
from csp_hw.pe.element import (
    FOLLOWERS,
    Datapath,
    ElementSignature,
    Given,
    ProcessingElement,
    element_layout,
)
from csp_hw.util import place

#: Verilog modules of a PE, which is also a group of one, and of a group of several.
PE_MODULE, GROUP_MODULE = "csp_pe", "csp_group"

#: Flags of which there is one for each row.
BY_ROW = ("fetch0", "fetch1", "fetched0", "fetched1", "nonzero", "nonzero_before")


def group_module(config: CspConfig) -> str:
    """Give the Verilog module of a group."""
    return PE_MODULE if config.share == 1 else GROUP_MODULE


def group_parts(config: CspConfig) -> dict[str, wiring.Component]:
    """Give the Verilog modules of a hierarchical group, by name."""
    inside = {} if config.share == 1 else {PE_MODULE: ProcessingElement(config, hierarchical=True)}
    return {**inside, group_module(config): Group(config, hierarchical=True)}


def several(shape: Shape, count: int) -> Shape:
    """Give the shape of so many values side by side; a single one keeps its own."""
    return shape if count == 1 else unsigned(count * shape.width)


class GroupSignature(wiring.Signature):
    """Ports of a group; :class:`Group` explains them."""

    def __init__(self, config: CspConfig):
        share, control = config.share, control_layout(config)
        activations = several(signed(ACTIVATION_BITS), share)
        weights = several(signed(WEIGHT_BITS), share)
        sums = several(signed(config.acc_bits), share)
        count = range(config.share * config.cols + 1)
        super().__init__(
            {
                "acc_shift": In(ACC_SHIFT_BITS),
                "acc_shift_right": Out(ACC_SHIFT_BITS),
                "activation": In(activations),
                "activation_right": Out(activations),
                "nonzero": In(share),
                "nonzero_right": Out(share),
                "control": In(control),
                "control_right": Out(control),
                "weight": In(weights),
                "weight_below": Out(weights),
                "drain": In(sums),
                "drain_below": Out(sums),
                "saturated": In(count),
                "saturated_right": Out(count),
            }
        )


class Followers:
    """Flags a cycle after others: one register each, whoever asks for it."""

    def __init__(self, m: Module):
        self._m = m
        self._registers: dict[str, Signal] = {}

    def __call__(self, name: str, flag: Value) -> Signal:
        """Give the register of a name, which follows a flag, or one for each row."""
        if name not in self._registers:
            self._registers[name] = register = Signal(len(flag), name=name)
            self._m.d.sync += register.eq(flag)
        return self._registers[name]


class Group(wiring.Component):
    """``share`` × ``share`` PEs that do the same in the same cycle.

    Activations and control enter at the left and move right, weights and drained words enter above
    and move down, all a group a cycle. What all PEs of the group, of one of its rows or of one of
    its columns would hold alike stands here, once. Of several PEs each is a submodule. A single one
    is built into the group, which then is a PE.

    With clock gates (``CspConfig.clock_gates``) only flags are clocked in every cycle. Every other
    register is clocked when it takes something that counts, and keeps it: an activation that is not
    zero, a weight of a product, an address with its access, a drained word as it passes.

    Reset clears the flags and the count of saturations.

    Parameters
    ----------
    config : CspConfig
    hierarchical : bool
        See :class:`csp_hw.array.Array`.

    Members
    -------
    acc_shift : In(4), Out
        t, constant while products of a layer are here; it is taken with ``control.add``, so the
        right neighbour has it a cycle later.
    activation, nonzero, control : In, Out
        From the left neighbour, one cycle later to the right one; an activation and a ``nonzero``
        for each row. ``nonzero`` says that there is a product whose activation is not 0; otherwise
        the activation does not count, nor move on.
    weight : In, Out
        For each column, from above, one cycle later below, where ``control.valid`` says that it
        makes a product.
    drain : In, Out
        For each column, where ``control.shift`` is set, a word from above or, with ``take``, one of
        the group's own, one cycle later below.
    saturated : In, Out
        Number of saturations among the PEs to the left in the same wavefront, and with these. A
        product's saturation shows five cycles after stage 0, and counts only there.
    """

    def __init__(self, config: CspConfig, *, hierarchical: bool = False):
        self.config = config
        super().__init__(GroupSignature(config))
        #: The single PE, or several, row by row; none if those are instances.
        self.elements: list = []
        if config.share == 1:
            self.elements = [Datapath(config, hierarchical=hierarchical)]
        elif not hierarchical:
            self.elements = [ProcessingElement(config) for _ in range(config.share**2)]

    def elaborate(self, platform):
        m = Module()
        config, share = self.config, self.config.share
        control = register_control(m, self.control, config)
        acc_shift = Signal.like(self.acc_shift, reset_less=True)
        activation = Signal.like(self.activation, reset_less=True)
        weight = Signal.like(self.weight, reset_less=True)
        drained = Signal.like(self.drain, reset_less=True)
        saturated = Signal.like(self.saturated)
        follow = Followers(m)
        nonzero = follow("nonzero", self.nonzero)
        follow("nonzero_before", nonzero)

        # What is handed on.
        for row in range(share):
            with gated(m, config, self.nonzero[row]):
                m.d.sync += _part(activation, row, share).eq(_part(self.activation, row, share))
        with gated(m, config, self.control.valid):
            m.d.sync += weight.eq(self.weight)
        with gated(m, config, self.control.add):
            m.d.sync += acc_shift.eq(self.acc_shift)
        m.d.comb += [
            self.acc_shift_right.eq(acc_shift),
            self.control_right.eq(control),
            self.activation_right.eq(activation),
            self.nonzero_right.eq(nonzero),
            self.weight_below.eq(weight),
        ]

        if share == 1:
            given = Given(self.activation, self.nonzero, self.weight, acc_shift, control)
            word, overflow, wrote = self.elements[0].build(m, given, follow)
            words, overflows = [[word]], overflow
        else:
            words, overflows, wrote = self._place(m, control, acc_shift, follow)

        # Saturations of this wavefront.
        with gated(m, config, wrote):
            m.d.sync += saturated.eq(self.saturated + overflows)
        m.d.comb += self.saturated_right.eq(saturated)

        # The drain takes a word of one row.
        with gated(m, config, control.shift):
            for col in range(share):
                moved = _part(self.drain, col, share)
                for row in range(share):
                    moved = Mux(control.take[row], words[row][col], moved)
                m.d.sync += _part(drained, col, share).eq(moved)
        m.d.comb += self.drain_below.eq(drained)
        return m

    def _place(self, m: Module, control: data.View, acc_shift: Signal, follow: Followers):
        """Place the PEs; give their words by row and column, saturations, whether they wrote."""
        share, signature = self.config.share, ElementSignature(self.config)
        wrote = control.write0 | control.write1
        followed = {"fetched0": control.fetch0, "fetched1": control.fetch1, "added": control.add}
        followed |= {"settled": wrote, "nonzero": self.nonzero}
        followers = {name: follow(name, flag) for name, flag in followed.items()}
        followers["nonzero_before"] = follow("nonzero_before", followers["nonzero"])
        fields = element_layout(self.config).members
        words, overflows = [], []

        # The PEs, row by row.
        for row, col in itertools.product(range(share), repeat=2):
            element = self.elements[row * share + col] if self.elements else None
            word = Signal(signed(self.config.acc_bits), name=f"word_{row}_{col}")
            overflow = Signal(name=f"overflow_{row}_{col}")
            wires = {
                "activation": _part(self.activation, row, share),
                "nonzero": self.nonzero[row],
                "weight": _part(self.weight, col, share),
                "acc_shift": acc_shift,
                "control": _of_row(control, fields, row),
                "followers": _of_row(followers, FOLLOWERS, row),
                "word": word,
                "overflow": overflow,
            }
            m.submodules[f"pe_{row}_{col}"] = place(m, signature, wires, PE_MODULE, element)
            words.append(word)
            overflows.append(overflow)
        rows = [words[row * share : (row + 1) * share] for row in range(share)]
        return rows, sum(overflows), wrote


def _of_row(flags, names: Iterable[str], row: int) -> Value:
    """Give some flags and fields as the PEs of a row see them."""
    return Cat(flags[name][row] if name in BY_ROW else flags[name] for name in names)


def _part(value: Value, number: int, count: int) -> Value:
    """Give one of several values side by side."""
    return value if count == 1 else value.word_select(number, len(value) // count)
