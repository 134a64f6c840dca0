# SPDX-License-Identifier: Apache-2.0
"""The array against a matrix of integers: every PE, every row drained while others compute."""

import re

import pytest
from amaranth.back import rtlil, verilog

from csp_hw import row as row_module
from csp_hw.array import ROW_MODULE, Array, parts
from csp_hw.config import PRESETS, BufferStyle, CspConfig
from csp_hw.pe.group import GROUP_MODULE, PE_MODULE, Group
from tests.csp_hw.bench import (
    between,
    chance,
    controls,
    pick,
    play,
    rhu,
    rng_of,
    sat,
    simulate,
)

CONFIG = PRESETS["tiny_4x4"].replace(rows=3, acc_bits=12, max_period=4)
#: Groups of 2 × 2 and 4 × 4 PEs: several of them, a single one, one row and one column of them.
SHARED = (
    {"share": 2, "rows": 4},
    {"share": 2, "rows": 2, "cols": 8},
    {"share": 4, "rows": 4},
    {"share": 4, "rows": 8},
)
shared = pytest.mark.parametrize("shared", SHARED, ids=lambda c: "-".join(map(str, c.values())))


class Scenario:
    """Runs and drains for the whole array, and what must come out of it."""

    def __init__(self, config, acc_shift, seed=0):
        self.config, self.acc_shift = config, acc_shift
        self.rng = rng_of(seed, config.rows, config.cols)
        self.products = []
        self.activations = []
        self.weights = []
        self.drains = {}  # cycle -> request
        self.sums = {}  # cycle of the request -> sums
        self.acc = {}  # place -> [row][col]
        self.saturations = []  # of each run that saturates anywhere

    def step(self, product, activations, weights):
        self.products.append(product)
        self.activations.append(activations)
        self.weights.append(weights)

    def idle(self, cycles=1):
        for _ in range(cycles):
            self.step(None, *self.operands())

    def operands(self):
        rows, cols = self.config.rows, self.config.cols
        return (
            [pick(self.rng, [0, 255, -128, between(self.rng, -128, 255)]) for _ in range(rows)],
            [pick(self.rng, [0, 127, -127, between(self.rng, -127, 127)]) for _ in range(cols)],
        )

    def run(self, bank, word, length, *, fresh=None, gap=0.0):
        place = bank, word
        fresh = place not in self.acc if fresh is None else fresh
        rows, cols = self.config.rows, self.config.cols
        runs = [[0] * cols for _ in range(rows)]
        for number in range(length):
            while chance(self.rng, gap):
                self.idle()
            activations, weights = self.operands()
            last = int(number == length - 1)
            self.step(
                {"bank": bank, "word": word, "last": last, "fresh": int(fresh)},
                activations,
                weights,
            )
            for row in range(rows):
                for col in range(cols):
                    runs[row][col] += activations[row] * weights[col]
        saturations = 0
        sums = [[0] * cols for _ in range(rows)]
        for row in range(rows):
            for col in range(cols):
                total = rhu(runs[row][col], self.acc_shift)
                total += 0 if fresh else self.acc[place][row][col]
                sums[row][col] = sat(total, self.config.acc_bits)
                saturations += sums[row][col] != total
        self.acc[place] = sums
        if saturations:
            self.saturations.append(saturations)

    def drain(self, cycle, row, bank, word):
        """Read a sum of a tile that is computed, in any cycle from ``Array.DRAIN_DISTANCE`` on."""
        assert cycle not in self.drains
        self.drains[cycle] = {"valid": 1, "row": row, "bank": bank, "address": word}
        self.sums[cycle] = self.acc[bank, word][row]

    def drain_bank(self, bank, start):
        """Drain all of a bank from some cycle on: every row, one request a cycle."""
        cycle = start
        places = sorted(place for place in self.acc if place[0] == bank)
        for _, word in places:
            for row in range(self.config.rows):
                self.drain(cycle, row, bank, word)
                cycle += 1
        return cycle

    def play(self, dut=None):
        latency = Array.drain_latency(self.config)
        while len(self.products) < max(self.drains, default=0) + latency + 8:
            self.idle()
        steps = []
        for n, at in enumerate(controls(self.products, len(self.products))):
            for name, value in at.items():
                at[name] = 0 if value is None else value
            for name in ("fetch0", "fetch1"):  # by all rows of a group
                at[name] *= (1 << self.config.share) - 1
            quiet = {"valid": 0, "row": 0, "bank": n & 1, "address": 0}
            steps.append(
                {
                    "acc_shift": self.acc_shift,
                    "control": at,
                    "activations": self.activations[n],
                    "weights": self.weights[n],
                    "drain": self.drains.get(n, quiet),
                }
            )
        # Nothing comes before the rows have left their reset.
        steps = [{}] * Array.RESET_STAGES + steps
        seen = play(dut or Array(self.config), steps, ["sums", "saturations"])
        seen = seen[Array.RESET_STAGES :]
        for cycle, sums in self.sums.items():
            assert seen[cycle + latency]["sums"] == sums, f"drained in cycle {cycle}"
        counted = [at["saturations"] for at in seen]
        assert [count for count in counted if count] == self.saturations
        return counted


def tiles(config, acc_shift, *, count=2, seed=0, gap=0.0):
    """Tiles in alternate banks; each is drained as early as allowed while the next computes."""
    scenario = Scenario(config, acc_shift, seed)
    free = 0
    for tile in range(count):
        bank = tile & 1
        words = between(scenario.rng, 1, min(config.half_depth, 4))
        for word in range(words):
            length = pick(scenario.rng, [1, config.max_period])
            scenario.run(bank, word, length, fresh=True, gap=gap)
        for _ in range(6):
            word = between(scenario.rng, 0, words - 1)
            scenario.run(bank, word, between(scenario.rng, 1, config.max_period), gap=gap)
        # The other bank was drained long before this one starts again.
        start = max(free, len(scenario.products) - 1 + Array.DRAIN_DISTANCE)
        stale = {place for place in scenario.acc if place[0] == bank and place[1] >= words}
        for place in stale:
            del scenario.acc[place]
        free = scenario.drain_bank(bank, start)
        while len(scenario.products) < free - 6:  # the next tile has seven runs or more
            word = between(scenario.rng, 0, min(config.half_depth, 6) - 1)
            scenario.run(1 - bank, word, between(scenario.rng, 1, 2))
    scenario.idle(Array.DRAIN_DISTANCE)
    return scenario


@pytest.mark.parametrize("config", [CONFIG, *(CONFIG.replace(**each) for each in SHARED[:2])])
def test_every_pe_is_told_what_counts(config, monkeypatch):
    groups = []

    class Recorded(Group):
        def __init__(self, config):
            super().__init__(config)
            groups.append(self)

    monkeypatch.setattr(row_module, "Group", Recorded)
    dut = Array(config)
    rng = rng_of(11)

    async def bench(ctx):
        counted = 0
        entered = [(0, [0] * config.rows)] * 8  # of the cycles before
        await ctx.tick().repeat(8)  # until the resets are over
        for _ in range(100):
            activations = [pick(rng, [0, 0, 1, -128, 255]) for _ in range(config.rows)]
            valid = chance(rng, 0.7)
            ctx.set(dut.activations, activations)
            ctx.set(dut.control.valid, valid)
            await ctx.tick()
            mask = sum((activation == 0) << row for row, activation in enumerate(activations))
            assert ctx.get(dut.zeros) == mask
            entered.append((valid, activations))
            for number, group in enumerate(groups):
                down, right = divmod(number, config.group_cols)
                was_valid, column = entered[-1 - down - right]
                for row in range(config.share):
                    activation = column[down * config.share + row]
                    counts = was_valid and activation != 0
                    assert ctx.get(group.nonzero) >> row & 1 == counts
                    if counts:
                        found = ctx.get(group.activation) >> row * 9 & 511
                        assert found == activation & 511
                    counted += counts
        assert 0.2 < counted / (100 * config.share * len(groups)) < 0.6

    simulate(dut, bench)
    assert len(groups) == config.group_rows * config.group_cols


@pytest.mark.parametrize("style", BufferStyle)
@pytest.mark.parametrize(("rows", "gap"), [(1, 0.4), (3, 0.0)])
def test_tiles_drained_while_the_next_computes(style, rows, gap):
    scenario = tiles(CONFIG.replace(style=style, rows=rows), 3, seed=7, gap=gap)
    computing = {n for n, product in enumerate(scenario.products) if product}
    assert computing & set(scenario.drains)
    scenario.play()
    assert scenario.saturations


@pytest.mark.parametrize("style", BufferStyle)
@shared
def test_groups_drained_while_the_next_tile_computes(style, shared):
    scenario = tiles(CONFIG.replace(style=style, **shared), 3, seed=7, gap=0.2)
    assert {n for n, product in enumerate(scenario.products) if product} & set(scenario.drains)
    scenario.play()
    assert scenario.saturations


@pytest.mark.parametrize("bank", [0, 1])
@pytest.mark.parametrize("share", [1, 2])
def test_a_drain_borrows_the_port_of_its_own_bank_only(bank, share):
    # In every cycle one bank is drained and a sum of the other is read, never at the same word.
    scenario = Scenario(CONFIG.replace(rows=2, acc_bits=16, share=share), 0)
    for word in range(8):
        scenario.run(bank, word, 1)
        scenario.run(1 - bank, word, 1)
    scenario.idle(Array.DRAIN_DISTANCE)
    start = len(scenario.products)
    for n in range(24):
        scenario.run(1 - bank, n % 8, 1)
        scenario.drain(start + n, n % 2, bank, (n + 3) % 8)
    scenario.drain_bank(1 - bank, len(scenario.products) - 1 + Array.DRAIN_DISTANCE)
    scenario.play()


def test_both_styles_saturate_in_the_same_cycles():
    traces = [tiles(CONFIG.replace(style=style, rows=2), 2, seed=3).play() for style in BufferStyle]
    assert traces[0] == traces[1]


def test_smallest():
    config = CspConfig(
        rows=1, cols=4, depth=4, max_period=1, max_interleave=1, lookahead=1, acc_bits=8
    )
    tiles(config, 7, seed=1).play()


def test_eight_columns():
    tiles(CONFIG.replace(rows=2, cols=8), 4, seed=2).play()


def test_same_entry_in_every_cycle():
    # K = I = T = 1
    scenario = Scenario(CONFIG.replace(max_period=1, acc_bits=24), 0)
    for _ in range(30):
        scenario.run(1, 2, 1)
    scenario.drain_bank(1, len(scenario.products) - 1 + Array.DRAIN_DISTANCE)
    scenario.play()


@pytest.mark.parametrize("share", [1, 2, 4])
def test_every_pe_saturates_in_one_wavefront(share):
    config = CONFIG.replace(rows=8, acc_bits=8, share=share)
    scenario = Scenario(config, 0)
    for _ in range(4):
        scenario.step({"bank": 0, "word": 0, "last": 1, "fresh": 1}, [255] * 8, [127] * 4)
    scenario.saturations = [config.rows * config.cols] * 4
    scenario.play()


@pytest.mark.parametrize("share", [1, 2, 4])
def test_rows_do_not_mix(share):
    # Each entry holds something in one row only; all rows of all entries are drained.
    scenario = Scenario(CONFIG.replace(rows=4, acc_bits=16, share=share), 0)
    for row in range(4):
        activations = [10 * (n == row) for n in range(4)]
        scenario.step({"bank": 0, "word": row, "last": 1, "fresh": 1}, activations, [1, 2, 3, 4])
        scenario.acc[0, row] = [[10 * c * (n == row) for c in (1, 2, 3, 4)] for n in range(4)]
    scenario.drain_bank(0, 3 + Array.DRAIN_DISTANCE)
    scenario.play()


def test_drain_latency():
    assert Array.drain_latency(CONFIG) == 3 + 4 + 3
    assert Array.drain_latency(PRESETS["csp_h_32x32"].replace(share=1)) == 67
    assert Array.drain_latency(PRESETS["csp_h_32x32"].replace(share=4)) == 8 + 8 + 3


def ports_of(text, module):
    """Give the ports of a module's Verilog."""
    header = text[text.index(f"module {module}(") :]
    names = header[header.index("(") + 1 : header.index(")")]
    return sorted(name.strip() for name in names.split(","))


def instances_of(text, module):
    """Give what each instance of a module connects: port to expression, by instance."""
    found = {}
    for name, body in re.findall(rf"^\s*{module} (\w+) \((.*?)\);", text, re.MULTILINE | re.DOTALL):
        found[name] = dict(re.findall(r"\.(\w+)\((.*?)\),?\s*$", body, re.MULTILINE))
    return found


# Amaranth's simulator ignores instances: here only that the texts fit each other.
def test_hierarchical_array_instantiates_rows_of_elements():
    config = CONFIG.replace(rows=3)
    modules = {**parts(config), "top": Array(config, hierarchical=True)}
    assert list(modules) == [PE_MODULE, ROW_MODULE, "top"]
    texts = {
        name: verilog.convert(module, name=name, emit_src=False, strip_internal_attrs=True)
        for name, module in modules.items()
    }
    rows = instances_of(texts["top"], ROW_MODULE)
    elements = instances_of(texts[ROW_MODULE], PE_MODULE)
    assert list(rows) == ["row_0", "row_1", "row_2"]
    assert [rows[name]["row"] for name in rows] == ["2'h0", "2'h1", "2'h2"]
    assert list(elements) == ["pe_0", "pe_1", "pe_2", "pe_3"]
    for wires in rows.values():
        assert sorted(wires) == ports_of(texts[ROW_MODULE], ROW_MODULE)
    for wires in elements.values():
        assert sorted(wires) == ports_of(texts[PE_MODULE], PE_MODULE)
    # Nothing of the inside is repeated outside.
    assert "product" in texts[PE_MODULE]
    assert "product" not in texts[ROW_MODULE] + texts["top"]


def test_hierarchical_groups_instantiate_elements():
    config = CONFIG.replace(rows=4, share=2)
    modules = {**parts(config), "top": Array(config, hierarchical=True)}
    assert list(modules) == [PE_MODULE, GROUP_MODULE, ROW_MODULE, "top"]
    texts = {
        name: verilog.convert(module, name=name, emit_src=False, strip_internal_attrs=True)
        for name, module in modules.items()
    }
    found = {
        PE_MODULE: instances_of(texts[GROUP_MODULE], PE_MODULE),
        GROUP_MODULE: instances_of(texts[ROW_MODULE], GROUP_MODULE),
        ROW_MODULE: instances_of(texts["top"], ROW_MODULE),
    }
    assert {name: list(inside) for name, inside in found.items()} == {
        PE_MODULE: ["pe_0_0", "pe_0_1", "pe_1_0", "pe_1_1"],
        GROUP_MODULE: ["group_0", "group_1"],
        ROW_MODULE: ["row_0", "row_1"],
    }
    for name, inside in found.items():
        for wires in inside.values():
            assert sorted(wires) == ports_of(texts[name], name)


def test_flat_array_has_no_instances():
    text = rtlil.convert(Array(CONFIG.replace(rows=1)), emit_src=False)
    assert PE_MODULE not in text
    assert ROW_MODULE not in text
