# SPDX-License-Identifier: Apache-2.0
"""Energy of the core: registers of the Verilog, sums by hand, and what each change changes."""

import dataclasses
import re

import numpy as np
import pytest
from amaranth.back import verilog

from csp_algo.errors import CspError
from csp_hw.config import BufferStyle, preset
from csp_hw.output import OutputColumn
from csp_hw.pe.accumulation.regbin import bins
from csp_hw.pe.group import group_module, group_parts
from csp_hw.pe.multiplier import Multiplier
from sim.model.actions import Actions
from sim.model.constants import Constants, Setting
from sim.model.energy import (
    COLUMN_BITS,
    Component,
    Core,
    ElementBits,
    accumulation,
    energy,
)
from sim.model.sram import access, at_least

MID = Constants()
BIG = preset("csp_h_32x32")
ELEMENTS = 1024
#: Each PE has all of its registers.
ALONE = Core(config=Core().config.replace(share=1))
NONE = np.zeros(7)
ONE = np.array([1.0, 0, 0, 0, 0, 0, 0])
BIT = 0.0104
#: Of which 60 % multiply, 2 runs a PE, one word of a bank.
TEN_STEPS = Actions(
    issued=10,
    slots=10 * ELEMENTS,
    multiplied=6 * ELEMENTS,
    accumulated=7 * ELEMENTS,
    runs=2 * ELEMENTS,
    written=NONE,
    read=ONE * ELEMENTS,
    drained=NONE,
)


def flip_flops(text):
    """Add up the bits of what each module of a Verilog text assigns at a clock's edge.

    Gives all of them, and those that keep what they have unless something is assigned.
    """
    total = enabled = 0
    for module in text.split("endmodule"):
        clocked = dict(
            re.findall(
                r"^\s*(?:if \(.*\) |else )?([\\\w$.]+)\s*<= ([^;]*?)\s*;", module, re.MULTILINE
            )
        )
        for width, name in re.findall(
            r"^\s*(?:output |input )?reg (?:\[(\d+):0\] )?([\\\w$.]+)\s*(?:= [^;]*)?;",
            module,
            re.MULTILINE,
        ):
            if name in clocked:
                total += int(width or 0) + 1
                keeps = rf"^\s*{re.escape(clocked[name])}\s*= {re.escape(name)}\s*;"
                enabled += (int(width or 0) + 1) * bool(re.search(keeps, module, re.MULTILINE))
    return total, enabled


@pytest.mark.parametrize("share", [1, 2, 4])
@pytest.mark.parametrize("name", ["tiny_4x4", "csp_h_32x32"])
def test_bits_of_a_pe_are_those_of_its_verilog(name, share):
    config = preset(name).replace(style=BufferStyle.REGBIN, share=share)
    bits = ElementBits.of(Core(config=config))
    entries = config.depth * config.acc_bits
    elements = share**2
    total = enabled = 0
    modules = {**group_parts(config), "multiplier": Multiplier()}
    for module, component in modules.items():
        found = flip_flops(verilog.convert(component, name=module))
        times = 1 if module == group_module(config) else elements
        total, enabled = total + times * found[0], enabled + times * found[1]
    assert total == elements * (bits.all + entries)
    assert enabled == elements * (bits.enabled + entries)


def test_bits_of_an_output_column_are_those_of_its_verilog():
    dut = OutputColumn(BIG)
    parameters = dut.signature.members["filter"].shape
    column, _ = flip_flops(verilog.convert(dut))
    # Besides: the word of sums, and the parameters that were read.
    assert column + BIG.acc_bits + parameters.size == COLUMN_BITS


def test_elements_by_hand():
    """Ten steps of which 60 % multiply, 2 runs a PE, one word of a bank, and twelve cycles."""
    core = ALONE
    actions = TEN_STEPS
    found = energy(actions, 12, core, MID)
    assert found[Component.MAC] == pytest.approx(0.54 * 6 * ELEMENTS)
    assert found[Component.GATED] == pytest.approx(0.5 * 0.54 * 4 * ELEMENTS)
    operands = 8 * 10 + (9 + 9 + 8) * 6
    assert found[Component.OPERANDS] == pytest.approx(BIT * operands * ELEMENTS)
    assert found[Component.RUN] == pytest.approx(BIT * (16 * 6 + 21 * 7) * ELEMENTS)
    # Run done, shifted, addend; three sums; a word in two registers.
    adder, sums = 21 + 22 + 24, 3 * 24
    words = (adder + sums) * 2 + 2 * 24
    assert found[Component.SUM] == pytest.approx(BIT * words * ELEMENTS)
    # Two flags that follow zeros; five a run; two a word.
    flips = 2 * (2 * 4 + 5 * 2 + 2 * 1)
    control = (6 + 3) * 2 + 6
    assert found[Component.CONTROL] == pytest.approx(BIT * (control + flips) * ELEMENTS)
    # Flags; t and saturations once a run.
    flags, still = 15, 4 + 6 + 1
    kept = flags * 10 - flips + still * 2
    assert found[Component.HELD] == pytest.approx(0.5 * BIT * kept * ELEMENTS)
    idle = 0.54 + BIT * flags
    assert found[Component.IDLE] == pytest.approx(0.5 * idle * 2 * ELEMENTS)

    without = energy(actions, 12, dataclasses.replace(ALONE, enables=False), MID)
    # All but the multiplier's operands, the run and its way to the adder.
    every = 8 + 9 + 16 + sums + 9 + still + 25 + 2 * (48 + 6)
    new = 8 * 10 + (9 + 16) * 6 + sums * 2 + 48 + control + still * 2
    more = kept + every * 10 - new + 21 * 3
    assert without[Component.HELD] == pytest.approx(0.5 * BIT * more * ELEMENTS)
    idle += BIT * every
    assert without[Component.IDLE] == pytest.approx(0.5 * idle * 2 * ELEMENTS)
    same = set(Component) - {Component.HELD, Component.IDLE}
    assert all(without[component] == found[component] for component in same)

    both = energy(actions, 12, dataclasses.replace(ALONE, one_bank=False), MID)
    more = 2 * 2 - 1
    words += 2 * 24 * more
    assert both[Component.SUM] == pytest.approx(BIT * words * ELEMENTS)
    changed = control + 6 * more + flips + 2 * 2 * more
    assert both[Component.CONTROL] == pytest.approx(BIT * changed * ELEMENTS)

    free = energy(actions, 12, dataclasses.replace(ALONE, gated_free=True), MID)
    assert free[Component.GATED] == 0
    ungated = energy(actions, 12, dataclasses.replace(ALONE, gating=False), MID)
    assert ungated[Component.MAC] == pytest.approx(0.54 * 10 * ELEMENTS)
    assert ungated[Component.RUN] == pytest.approx(BIT * (16 + 21) * 10 * ELEMENTS)
    assert ungated[Component.GATED] == 0


def test_what_a_group_shares_by_hand():
    """The same in groups of 4 × 4, and a word drained of each of 32 rows' PEs."""
    core = Core()
    assert core.config.share == 4
    actions = dataclasses.replace(TEN_STEPS, drained=ONE * ELEMENTS, sums=32)
    found = energy(actions, 12, core, MID)
    alone = energy(actions, 12, ALONE, MID)
    operands = 8 / 4 * 10 + (9 / 4 + 9 + 8) * 6
    assert found[Component.OPERANDS] == pytest.approx(BIT * operands * ELEMENTS)
    # Of 64 groups each takes an address for all its PEs once, and for each of its rows once.
    groups = ELEMENTS / 16
    control = groups * ((6 + 3) * 2 + 6 * (1 + 4))
    # Four rows of a group have flags of operands and words, and 16 PEs those of runs.
    flips = 2 * (groups * 4 * (2 * 4 + 2 * 2) + groups * 5 * 2)
    assert found[Component.CONTROL] == pytest.approx(BIT * (control + flips))
    flags, still = groups * (8 + 7 * 4), groups * (4 + 8 + 16)
    kept = flags * 10 - flips + still * 2
    assert found[Component.HELD] == pytest.approx(0.5 * BIT * kept)
    idle = 0.54 * ELEMENTS + BIT * flags
    assert found[Component.IDLE] == pytest.approx(0.5 * idle * 2)
    # Each column of a group waits for the groups on its left, each row for those above.
    skew = 4 * sum(range(8)) * (9 + 1) + 32 * 9 + 4 * sum(range(1, 9)) * 8
    edge = (skew + 8 * (8 + 7 * 4)) * 10 + 8 * control / groups
    assert found[Component.EDGE] == pytest.approx(BIT * edge)
    # A sum passes 4.5 groups and waits 3.5 cycles, with a bit for each four columns; the round trip
    # is 29 cycles.
    queue, drained = at_least(32, 768), 32 * 96
    moved = BIT * (24 + 1 / 4) * 32 * 8 * 32
    drain = moved + queue.write(drained, MID) + queue.read(drained, MID)
    assert found[Component.DRAIN] == pytest.approx(drain)
    same = set(Component) - {
        Component.OPERANDS,
        Component.CONTROL,
        Component.HELD,
        Component.IDLE,
        Component.EDGE,
        Component.DRAIN,
    }
    assert all(found[component] == alone[component] for component in same)


def test_register_bins_by_hand():
    written = np.array([8, 4, 2, 0, 0, 0, 1.0])
    read = np.array([7, 3, 1, 0, 0, 0, 0.0])
    drained = np.array([1, 1, 1, 0, 0, 0, 0.0])
    actions = Actions(written=written, read=read, drained=drained, runs=written.sum())
    sizes = np.array([1, 1, 2, 4, 8, 16, 32])
    assert sizes.tolist() == [len(entries) for entries in bins(BIG.half_depth)]
    # A bin that takes a sum clocks all others it has.
    wanted = 24 * BIT * (read + drained + written * (1 + 0.5 * (sizes - 1)))
    np.testing.assert_allclose(accumulation(actions, Core(), MID), wanted)
    both = 24 * BIT * (2 * written - read)
    np.testing.assert_allclose(accumulation(actions, Core(one_bank=False), MID), wanted + both)


def test_a_memory_is_the_other_style():
    core = Core(config=BIG)
    actions = Actions(
        written=np.array([8, 4.0, 0, 0, 0, 0, 0]), read=ONE, drained=NONE + 1, runs=12
    )
    # 64 sums of 24 bits: the smallest in the table has 1 KB.
    each = access(1024, 24, MID)
    (found,) = accumulation(actions, core, MID)
    assert found == pytest.approx(12 * each.write + (1 + 7) * each.read)


def test_buffers_by_hand():
    actions = Actions(
        written=NONE,
        read=NONE,
        drained=NONE,
        row_written=3,
        row_read=5,
        line_written=7,
        line_read=2,
        line_turned=1,
        weights_written=11,
        weights_read=13,
        weights_once=4,
        results=2,
        sums=3,
        input_beats=1,
        result_beats=2,
    )
    found = energy(actions, 1, Core(), MID)
    row, line = access(32768, 256, MID), access(16384, 256, MID)
    assert found[Component.ROW_BUFFER] == pytest.approx(3 * row.write + 5 * row.read)
    # A word of activations needs 32 banks, which are read if its address is another one.
    assert found[Component.LINE_BUFFER] == pytest.approx(7 * line.write + 32 * line.read)
    again = energy(actions, 1, Core(line_hold=False), MID)
    assert again[Component.LINE_BUFFER] == pytest.approx(7 * line.write + 2 * 32 * line.read)
    # 32 bytes twice, 4 and 1 of them, three stages of rotation and two of a queue, in 32 banks.
    new = 2 * 256 * 1 + 8 * (4 + 1 + 3 + 2) * 2
    assert found[Component.FEEDER] == pytest.approx(BIT * 32 * new)
    assert again[Component.FEEDER] == pytest.approx(BIT * 32 * (new + 0.5 * 2 * 256))
    large = access(512 * 1024, 256, MID)
    assert found[Component.WEIGHT_BUFFER] == pytest.approx(11 * large.write + 13 * large.read)
    passed = energy(actions, 1, Core(bypass=True), MID)
    assert passed[Component.WEIGHT_BUFFER] == pytest.approx(7 * large.write + 9 * large.read)
    queue = access(4096, 256, MID)
    assert found[Component.PORTS] == pytest.approx(3 * (queue.write + queue.read))
    assert found[Component.OUTPUT] == pytest.approx(2 * 32 * (3.1 + BIT * COLUMN_BITS))
    # A sum goes 16.5 rows down on average and waits 15.5 cycles for the last column's.
    alone = energy(actions, 1, ALONE, MID)
    queue = access(16384, 768, MID)
    drain = 3 * (BIT * 25 * 32 * 32 + queue.write + queue.read)
    assert alone[Component.DRAIN] == pytest.approx(drain, rel=0.05)


def test_settings_are_in_order_and_steps_need_cycles():
    actions = Actions(
        issued=10,
        slots=10 * ELEMENTS,
        multiplied=6 * ELEMENTS,
        runs=2 * ELEMENTS,
        written=NONE + 1,
        read=NONE,
        drained=NONE,
        row_read=10,
    )
    totals = [
        sum(energy(actions, 20, Core(), Constants(setting=setting)).values()) for setting in Setting
    ]
    assert totals == sorted(totals)
    assert set(energy(actions, 20, Core(), MID)) == set(Component)
    with pytest.raises(CspError, match=r"^10 steps do not fit into 9 cycles$"):
        energy(actions, 9, Core(), MID)


def test_what_could_be_built_otherwise_never_costs_more():
    rng = np.random.default_rng(1)
    steps = 100
    actions = Actions(
        written=rng.integers(0, 50, 7) * ELEMENTS,
        read=NONE,
        drained=NONE,
        **{
            field.name: float(rng.integers(1, 50))
            for field in dataclasses.fields(Actions)
            if field.name not in ("written", "read", "drained")
        },
    )
    slots = steps * ELEMENTS
    changes = {"issued": steps, "slots": slots, "multiplied": slots / 3, "runs": slots / 9}
    changes |= {"accumulated": slots / 2.5}
    changes |= {"line_read": 40, "line_turned": 10, "weights_once": 1}
    actions = dataclasses.replace(actions, **changes)
    before = sum(energy(actions, 150, Core(), MID).values())
    for change in (
        {"bypass": True},
        {"gated_free": True},
        {"config": Core().config.replace(share=8)},
        {"run_bits": 17},
    ):
        assert sum(energy(actions, 150, Core(**change), MID).values()) < before, change
    worse = [{name: False} for name in ("gating", "enables", "one_bank", "line_hold")]
    for change in (*worse, {"config": ALONE.config}):
        assert sum(energy(actions, 150, Core(**change), MID).values()) > before, change


def test_memories_that_the_table_does_not_know():
    assert at_least(1024, 256).bytes == 32768
    assert at_least(64, 24).bytes == 1024
    with pytest.raises(CspError, match="no memory of 4 words of 4 bits or more"):
        at_least(4, 4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"run_bits": 15}, "run_bits"),
        ({"run_bits": 22}, "run_bits"),
    ],
)
def test_cores_that_cannot_be(change, message):
    with pytest.raises(CspError, match=message):
        Core(**change)
