# SPDX-License-Identifier: Apache-2.0
"""The processing element against integers, with the control that `bench.controls` derives.

It is a group of one PE; what larger groups compute is seen in the array.
"""

import itertools
import re

import pytest
from amaranth.hdl import Fragment

from csp_hw.config import PRESETS, BufferStyle
from csp_hw.pe.control import TAKEN_WITH, control_layout
from csp_hw.pe.group import Group
from tests.csp_hw.bench import (
    FLAGS,
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

CONFIG = PRESETS["tiny_4x4"].replace(max_period=32)
#: Flags of which a group has one for each row.
BY_ROW = ("nonzero", "fetch0", "fetch1", "take")
#: A sum may be read this many cycles after its run's last product.
READABLE = 5
#: When a register may be clocked: a flag at the ports, and how many cycles later.
CLOCKED = {
    "activation": {"nonzero": 0},
    "held_activation": {"nonzero": 0},
    "held_weight": {"nonzero": 0},
    "weight": {"valid": 0},
    "product": {"nonzero": 1},
    "run": {"nonzero": 2, "last": 1},
    "run_done": {"last": 1},
    "acc_shift": {"add": 0},
    "addend_registered": {"add": 0},
    "shifted": {"add": 1},
    "addend": {"add": 1},
    "sum_now": {"add": 2},
    "overflow_seen": {"add": 2},
    "sum_older": {"write0": 1, "write1": 1},
    "sum_oldest": {"write0": 2, "write1": 2},
    "saturated": {"write0": 1, "write1": 1},
    "write_address_registered": {"write0": 0, "write1": 0},
    "read0_registered": {"fetch0": 0},
    "bank0.read_data": {"fetch0": 1},
    "word0": {"fetch0": 2},
    "read1_registered": {"fetch1": 0},
    "bank1.read_data": {"fetch1": 1},
    "word1": {"fetch1": 2},
    "take_bank_registered": {"take": 0},
    "drained": {"shift": 1},
}


class Scenario:
    """Runs and drains for one PE, and what must come out.

    ``run`` appends a run's products; ``idle`` a pause; ``drain`` reads a place in the cycle of the
    last product appended. What control says where nothing depends on it is noise.
    """

    def __init__(self, config, acc_shift, seed=0):
        self.config, self.acc_shift = config, acc_shift
        self.rng = rng_of(seed)
        self.cycle = []  # of (product or None, activation, weight)
        self.acc = {}  # place -> sum
        self.ended = {}  # place -> cycle in which its latest run ended
        self.drains = {}  # cycle -> (place, sum)
        self.saturated = set()  # cycles

    def run(self, bank, word, operands, *, fresh=None, gap=0.0):
        """Multiply and add up pairs of activation and weight; ``fresh`` None: if never met."""
        place = bank, word
        fresh = place not in self.acc if fresh is None else fresh
        for number, (activation, weight) in enumerate(operands):
            while chance(self.rng, gap):
                self.idle()
            last = number == len(operands) - 1
            product = {"bank": bank, "word": word, "last": int(last), "fresh": int(fresh)}
            self.cycle.append((product, activation, weight))
        self.ended[place] = len(self.cycle) - 1
        total = rhu(sum(a * w for a, w in operands), self.acc_shift)
        total += 0 if fresh else self.acc[place]
        self.acc[place] = sat(total, self.config.acc_bits)
        if self.acc[place] != total:
            self.saturated.add(len(self.cycle) - 1)

    def idle(self, cycles=1):
        for _ in range(cycles):
            self.cycle.append((None, between(self.rng, -128, 255), between(self.rng, -127, 127)))

    def may_drain(self, place):
        """Say whether the current cycle's read port and the latest write allow to drain."""
        now = len(self.cycle) - 1
        product = self.cycle[now][0]
        free = product is None or product["bank"] != place[0]
        return place in self.acc and free and now - self.ended[place] >= READABLE

    def drain(self, bank, word):
        assert self.may_drain((bank, word))
        self.drains[len(self.cycle) - 1] = ((bank, word), self.acc[bank, word])

    def noise(self, name):
        top = {"addend": 7}.get(name, self.config.half_depth - 1)
        return between(self.rng, 0, top)

    def steps(self):
        """Give the inputs of every cycle."""
        self.idle(8)
        config, cycles = self.config, len(self.cycle)
        limit = 1 << (config.acc_bits - 1)
        steps = []
        for at in controls([product for product, _, _ in self.cycle], cycles):
            for name, value in at.items():
                at[name] = self.noise(name) if value is None else value
            steps.append(
                {
                    "acc_shift": self.acc_shift if at["add"] else between(self.rng, 0, 15),
                    "control": {
                        **at,
                        "shift": int(chance(self.rng, 0.3)),
                        "take": 0,
                        "take_bank": between(self.rng, 0, 1),
                    },
                    "drain": between(self.rng, -limit, limit - 1),
                    "saturated": between(self.rng, 0, config.cols - 1),
                }
            )
        for cycle, ((bank, word), _) in self.drains.items():
            steps[cycle]["control"].update({f"fetch{bank}": 1, f"read{bank}": word})
            steps[cycle + 2]["control"].update(shift=1, take=1, take_bank=bank)
        for step, (product, activation, weight) in zip(steps, self.cycle, strict=True):
            nonzero = int(product is not None and activation != 0)
            step.update(activation=activation, nonzero=nonzero, weight=weight)
        return steps

    def play(self):
        """Run it, compare everything that comes out and give what counts of it."""
        steps = self.steps()
        seen = play(Group(self.config), steps, ["drain_below", "saturated_right"])
        drained = saturated = 0
        trace = []
        for n in range(2, len(steps)):
            # The control that a register followed came two cycles ago.
            control = steps[n - 2]["control"]
            shifts, wrote = control["shift"], control["write0"] or control["write1"]
            if shifts:
                # Its address arrives, its word does, it is registered, it joins the chain.
                drained = self.drains.get(n - 4, (None, steps[n - 1]["drain"]))[1]
            if wrote:
                saturated = steps[n - 1]["saturated"] + int(n - 6 in self.saturated)
            # With clock gates registers keep what came last.
            if shifts or self.config.clock_gates:
                assert seen[n]["drain_below"] == drained, f"cycle {n}"
            if wrote or self.config.clock_gates:
                assert seen[n]["saturated_right"] == saturated, f"cycle {n}"
            trace.append((shifts and drained, wrote and saturated))
        return trace

    def drain_all(self):
        """Drain every place, one a cycle."""
        self.idle(READABLE)
        for bank, word in sorted(self.acc):
            self.drain(bank, word)
            self.idle()


def operand(rng):
    """Give an activation and a weight, often extreme."""
    activation = pick(rng, [0, 1, -1, 255, -128, between(rng, -128, 255)])
    return activation, pick(rng, [0, 1, -1, 127, -127, between(rng, -127, 127)])


def random_scenario(config, acc_shift, seed, *, runs=70):
    """Short and long runs at few places, with drains of the other bank between."""
    rng = rng_of(seed, config.acc_bits, acc_shift)
    scenario = Scenario(config, acc_shift, seed)
    bank = 0
    for _ in range(runs):
        bank ^= chance(rng, 0.1)
        word = between(rng, 0, min(2, config.half_depth - 1))
        length = pick(rng, [1, 1, 1, 2, config.max_period, between(rng, 1, config.max_period)])
        fresh = True if chance(rng, 0.1) else None
        operands = [operand(rng) for _ in range(length)]
        scenario.run(bank, word, operands, fresh=fresh, gap=pick(rng, [0, 0, 0.3]))
        other = (1 - bank, between(rng, 0, config.half_depth - 1))
        if scenario.may_drain(other):
            scenario.drain(*other)
    scenario.drain_all()
    return scenario


def registers(fragment, path=""):
    """Give the flip-flops of an elaborated component by name, a shared one by row, too."""
    found = {}
    for statement in fragment.statements.get("sync", ()):
        for signal in statement._lhs_signals():
            parts = len(signal) // 9 if signal.name == "activation" else 1
            width = len(signal) // parts
            for row in range(parts):
                place = f"{path}{row}." if parts > 1 else path
                found[place + signal.name] = signal[row * width : (row + 1) * width]
    for inside, name, *_ in fragment.subfragments:
        prefix = {"multiplier": ""}.get(name, f"{name}.".removeprefix("pe_"))
        found |= registers(inside, path + prefix)
    return found


def grouped(scenario):
    """Give the inputs of a group whose first PE has a scenario's operands; others have their own.

    Each drained word is that of some row.
    """
    share, rng = scenario.config.share, scenario.rng
    steps = scenario.steps()
    for step, (product, activation, _) in zip(steps, scenario.cycle, strict=True):
        activations = [activation, *(operand(rng)[0] for _ in range(share - 1))]
        counts = [product is not None and value != 0 for value in activations]
        step.update(activation=joined(activations, 9), nonzero=joined(counts, 1))
        step.update(weight=joined([operand(rng)[1] for _ in range(share)], 8))
        for bank in range(2):
            step["control"][f"fetch{bank}"] *= (1 << share) - 1
    for cycle, ((bank, _), _) in scenario.drains.items():
        row = between(rng, 0, share - 1)
        steps[cycle]["control"][f"fetch{bank}"] = 1 << row
        steps[cycle + 2]["control"]["take"] = 1 << row
    return steps


def joined(values, bits):
    """Give some values side by side."""
    return sum((value & (1 << bits) - 1) << n * bits for n, value in enumerate(values))


@pytest.mark.parametrize("share", [1, 2])
def test_no_register_is_clocked_without_a_reason(share):
    """All but flags keep what they have unless they take something that counts, whatever comes."""
    config = CONFIG.replace(style=BufferStyle.REGBIN, acc_bits=12, max_period=8, depth=8)
    config = config.replace(share=share)
    group = Group(config)
    dut = Fragment.get(group, None)
    watched = registers(dut)
    entries = {name for name in watched if re.search(r"bank\d\.entry\d$", name)}
    assert len(entries) == share**2 * config.depth
    flags = {f"{flag}_registered" for flag in (*FLAGS, "shift", "take")}
    flags |= {"nonzero", "nonzero_before", "fetched0", "fetched1", "added", "settled"}
    places = {name: re.fullmatch(r"(?:(\d)(?:_\d)?\.)?(.*)", name).groups() for name in watched}
    assert {base for _, base in places.values()} == CLOCKED.keys() | flags | {
        places[name][1] for name in entries
    }
    scenario = random_scenario(config, 3, 1)
    steps = scenario.steps() if share == 1 else grouped(scenario)
    changed = {name: set() for name in watched}

    async def bench(ctx):
        for cycle, step in enumerate(steps):
            for name, value in step.items():
                ctx.set(getattr(group, name), value)
            before = {name: ctx.get(signal) for name, signal in watched.items()}
            await ctx.tick()
            for name, signal in watched.items():
                if ctx.get(signal) != before[name]:
                    changed[name].add(cycle)

    def given(step, flag, row):
        value = step.get(flag, step["control"].get(flag))
        return value >> int(row) & 1 if row is not None and flag in BY_ROW else value

    simulate(dut, bench)
    looked = 0
    for name, (row, base) in places.items():
        if base not in CLOCKED:
            continue
        clocked = {
            n + later
            for flag, later in CLOCKED[base].items()
            for n, step in enumerate(steps)
            if given(step, flag, row)
        }
        assert changed[name] <= clocked, f"{name} without a reason"
        assert len(clocked) < 0.9 * len(steps)
        assert changed[name], f"{name} is never clocked"
        looked += 1
    assert looked == len(watched) - len(entries) - len(flags)


@pytest.mark.parametrize("share", [1, 2, 4])
@pytest.mark.parametrize("style", BufferStyle)
def test_neighbours_get_everything_a_cycle_later(style, share):
    """Where there are clock gates, only what counts."""
    config = CONFIG.replace(style=style, share=share)
    group = Group(config)
    rng = rng_of(3)
    # Of a group of one, operands are signed.
    low = {name: (1 << bits - 1) * (share == 1) for name, bits in (("a", 9), ("w", 8))}
    steps = [
        {
            "activation": between(rng, 0, (1 << 9 * share) - 1) - low["a"],
            "nonzero": between(rng, 0, (1 << share) - 1),
            "weight": between(rng, 0, (1 << 8 * share) - 1) - low["w"],
            "acc_shift": between(rng, 0, 15),
            "control": {
                name: between(rng, 0, (1 << field.width) - 1)
                for name, field in control_layout(config)
            },
        }
        for _ in range(60)
    ]
    names = {name: f"{name}_right" for name in ("activation", "nonzero", "acc_shift", "control")}
    names["weight"] = "weight_below"
    seen = play(group, steps, names.values())
    taken = [0, 0]
    for before, after in itertools.pairwise(range(60)):
        given, control = steps[before], steps[before]["control"]
        kept = seen[before]
        taken_with = {"nonzero": True, "acc_shift": control["add"], "weight": control["valid"]}
        for name, counts in taken_with.items():
            wanted = given[name] if counts or not config.clock_gates else kept[names[name]]
            assert seen[after][names[name]] == wanted, f"{name} in cycle {after}"
        for row in range(share):
            counts = given["nonzero"] >> row & 1 or not config.clock_gates
            wanted = given["activation"] if counts else kept["activation_right"]
            found = seen[after]["activation_right"]
            assert (found ^ wanted) >> 9 * row & 511 == 0, f"row {row} in cycle {after}"
        for name, value in control.items():
            counts = name not in TAKEN_WITH or any(control[flag] for flag in TAKEN_WITH[name])
            wanted = value if counts or not config.clock_gates else kept["control_right"][name]
            assert seen[after]["control_right"][name] == wanted, f"{name} in cycle {after}"
            taken[counts] += 1
    assert min(taken) > 60


def test_the_multiplier_rests_while_activations_are_zero():
    # Weights change all the time; after the last activation that is not zero nothing toggles.
    rng = rng_of(8)
    dut = Group(CONFIG)
    multiplier = dut.elements[0].multiplier
    changes = 0

    async def bench(ctx):
        nonlocal changes
        expected = {"activation": 0, "weight": 0}
        for number in range(300):
            weight = between(rng, -127, 127)
            zero = number % 100 < 40 or chance(rng, 0.7)
            activation = 0 if zero else pick(rng, [1, 255, -128, between(rng, 1, 255)])
            ctx.set(dut.activation, activation)
            ctx.set(dut.weight, weight)
            ctx.set(dut.nonzero, not zero)
            ctx.set(dut.control.valid, 1)
            await ctx.tick()
            before = expected
            expected = before if zero else {"activation": activation, "weight": weight}
            held = {
                "activation": ctx.get(multiplier.held_activation),
                "weight": ctx.get(multiplier.held_weight),
            }
            assert held == expected, f"cycle {number}"
            assert ctx.get(dut.weight_below) == weight
            changes += before != expected

    simulate(dut, bench)
    assert changes > 30


@pytest.mark.parametrize("style", BufferStyle)
@pytest.mark.parametrize(("acc_bits", "depth"), [(8, 4), (12, 16), (16, 4), (24, 16), (32, 8)])
def test_random(style, acc_bits, depth):
    config = CONFIG.replace(style=style, acc_bits=acc_bits, depth=depth, max_period=8)
    acc_shift = {8: 7, 12: 3, 16: 0, 24: 1, 32: 0}[acc_bits]
    scenario = random_scenario(config, acc_shift, depth)
    scenario.play()
    assert bool(scenario.saturated) == (acc_bits < 24)
    assert min(scenario.drains) < len(scenario.cycle) // 2, "nothing drained while computing"


@pytest.mark.parametrize("acc_shift", [5, 10, 15])
def test_shift(acc_shift):
    random_scenario(CONFIG.replace(acc_bits=16, max_period=8), acc_shift, 5, runs=30).play()


@pytest.mark.parametrize("acc_shift", range(16))
def test_halves_round_up(acc_shift):
    # Sums around every half and whole multiple of 2^t near zero, each into its own fresh entry.
    config = CONFIG.replace(acc_bits=24, depth=64)
    scenario = Scenario(config, acc_shift)
    word = 0
    for multiple in (-3, -2, -1, 0, 1, 2, 3):
        for offset in (-1, 0, 1):
            total = (multiple << acc_shift) // 2 + offset
            high, low = divmod(total, 127)
            operands = [(min(high, 255), 127), (low, 1)]
            high -= min(high, 255)
            while high > 0:
                operands.append((min(high, 255), 127))
                high -= min(high, 255)
            while operands[0][0] < -128:
                operands = [(operands[0][0] + 128, 127), (-128, 127), *operands[1:]]
            assert sum(a * w for a, w in operands) == total
            assert len(operands) <= 32
            scenario.run(word & 1, word >> 1, operands)
            word += 1
    scenario.drain_all()
    scenario.play()
    if acc_shift:
        values = {value for _, value in scenario.drains.values()}
        assert {-1, 0, 1, 2} <= values


@pytest.mark.parametrize("style", BufferStyle)
@pytest.mark.parametrize("distance", range(1, 9))
def test_same_entry_again_after(style, distance):
    # Runs of one product at the same place, `distance` cycles apart, other places between.
    config = CONFIG.replace(style=style, max_period=1, acc_bits=16)
    scenario = Scenario(config, 0)
    for n in range(12):
        scenario.run(0, 3, [(n + 1, 7)])
        for other in range(distance - 1):
            scenario.run(0, other % 3, [(100, -n)])
    scenario.idle()
    scenario.drain_all()
    scenario.play()
    assert scenario.acc[0, 3] == 7 * 78


@pytest.mark.parametrize("style", BufferStyle)
def test_same_entry_every_cycle_with_bubbles(style):
    # K = I = T = 1, as the issuer emits it when activations come with gaps.
    config = CONFIG.replace(style=style, max_period=1, max_interleave=1, depth=4, acc_bits=12)
    for gap in (0.0, 0.3, 0.7):
        scenario = Scenario(config, 2, seed=4)
        rng = rng_of(9)
        for _ in range(80):
            scenario.run(0, 0, [operand(rng)], gap=gap)
        scenario.drain_all()
        scenario.play()


@pytest.mark.parametrize("acc_bits", [8, 12, 16, 24, 32])
@pytest.mark.parametrize("operands", [(255, 127), (255, -127), (-128, -127), (-128, 127)])
def test_longest_runs_of_extremes(acc_bits, operands):
    # 32 products at the limits, then again until a narrow sum sits at its own limit.
    scenario = Scenario(CONFIG.replace(acc_bits=acc_bits), 0)
    scenario.run(1, 0, [operands] * 32)
    scenario.run(0, 1, [operands])
    scenario.run(1, 0, [operands] * 32)
    scenario.drain_all()
    scenario.play()
    total = 64 * operands[0] * operands[1]
    assert scenario.acc[1, 0] == sat(total, acc_bits)
    assert len(scenario.saturated) == {8: 3, 12: 3, 16: 2}.get(acc_bits, 0)


def test_largest_run_with_the_largest_shift():
    for acc_bits in (8, 32):
        scenario = Scenario(CONFIG.replace(acc_bits=acc_bits), 15)
        for word, activation in enumerate((255, -128)):
            for weight in (127, -127):
                scenario.run(0, word, [(activation, weight)] * 32)
        scenario.drain_all()
        scenario.play()


@pytest.mark.parametrize("weight", [-128, 127])
def test_weight_minus_128_is_exact_too(weight):
    # Our quantiser stops at −127, but the stream is int8.
    scenario = Scenario(CONFIG, 0)
    for activation in (255, -128):
        scenario.run(0, 0, [(activation, weight)] * 32, fresh=True)
        scenario.idle(READABLE)
        scenario.drain(0, 0)
    scenario.play()


def test_limits_do_not_count_as_saturations():
    # Landing exactly on a limit is no saturation; one more is.
    for sign in (1, -1):
        scenario = Scenario(CONFIG.replace(acc_bits=8), 0)
        limit = 127 if sign > 0 else 128
        scenario.run(0, 0, [(limit, sign)])
        assert not scenario.saturated
        scenario.run(0, 0, [(0, sign)])
        assert not scenario.saturated
        scenario.run(0, 0, [(1, sign)])
        assert len(scenario.saturated) == 1
        scenario.run(0, 0, [(1, -sign)])
        assert len(scenario.saturated) == 1
        scenario.drain_all()
        scenario.play()


@pytest.mark.parametrize("style", BufferStyle)
def test_stale_entries_do_not_matter_to_a_fresh_run(style):
    config = CONFIG.replace(style=style, acc_bits=16)
    scenario = Scenario(config, 0)
    for tile in range(3):
        for word in range(4):
            scenario.run(tile & 1, word, [(50 + word, 100), (1, 1)], fresh=True)
            scenario.run(tile & 1, word, [(1, -word)])
    scenario.drain_all()
    scenario.play()


def test_both_styles_give_the_same_trace():
    for seed in range(2):
        traces = []
        for style in BufferStyle:
            config = CONFIG.replace(style=style, acc_bits=12, max_period=4)
            traces.append(random_scenario(config, 3, seed).play())
        assert traces[0] == traces[1]
