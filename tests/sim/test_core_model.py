# SPDX-License-Identifier: Apache-2.0
"""Parts of the core's cycle model against what they stand for, cycle by cycle."""

import numpy as np
import pytest

from csp_algo.geometry import Geometry
from csp_algo.network import Input, Network
from csp_hw.config import preset
from sim.model.core import front, issue, reader, results
from sim.model.core.memory import Bucket, Recent, chain
from sim.model.core.passes import pass_cycles
from sim.model.core.taps import RESOLVED, Resolver, groups_of
from sim.model.core.walk import axis_costs
from sim.program.compiler import compile_network
from tests.cosim.test_core_cycles import random_timing, timing_of
from tests.cosim.test_core_networks import random_task
from tests.sim.networks import random_config
from tests.strategies import random_layer


def naive_beats(bursts, beat, rate):
    """Move bursts (earliest cycle, beats) as memory.v does: credit grows and is capped."""
    credit, times = beat + rate - 1, []
    cycle = 0
    for earliest, beats in bursts:
        cycle = max(cycle, 0)
        for _ in range(beats):
            while cycle < earliest or credit < beat:
                credit = min(credit + rate, beat + rate - 1)
                cycle += 1
            times.append(cycle)
            credit = min(credit - beat + rate, beat + rate - 1)
            cycle += 1
    return times


@pytest.mark.parametrize("seed", range(20))
def test_rate(seed):
    rng = np.random.default_rng(seed)
    beat = int(rng.choice([4, 8, 32]))
    rate = int(rng.integers(1, beat + 1))
    bucket = Bucket(beat, rate)
    earliest = np.cumsum(rng.integers(1, 40, 12)).tolist()
    bursts = [(time, int(rng.integers(1, 17))) for time in earliest]
    expected = naive_beats(bursts, beat, rate)
    found = []
    for time, beats in bursts:
        flow = bucket.flow(max(time, found[-1] + 1 if found else 0), beats)
        found += [flow.at(number) for number in range(beats)]
    assert found == expected


def test_chain():
    rng = np.random.default_rng(1)
    for _ in range(50):
        earliest = rng.integers(0, 30, 20)
        after = int(rng.integers(0, 30))
        expected = []
        for time in earliest:
            after = max(int(time), after + 1)
            expected.append(after)
        assert chain(earliest, expected[0] - 1).tolist() == expected


def test_recent():
    rng = np.random.default_rng(2)
    size, recent = 7, Recent(7)
    everything = list(recent.before(size))
    for _ in range(200):
        wanted = int(rng.integers(1, size + 1))
        assert recent.before(wanted).tolist() == everything[-size:][:wanted]
        if rng.random() < 0.5:
            values = rng.integers(0, 100, int(rng.integers(0, 300)))
            recent.extend(values)
            everything += values.tolist()
        else:
            value, count = (int(one) for one in rng.integers(0, 30, 2))
            recent.fill(value, count)
            everything += [value] * count


def naive_resolver(earliest, room, last):
    """Step a pipeline of three stages that stands still as a whole; give both times of each tap."""
    taken, left = [], []
    stages = [None] * RESOLVED
    cycle = last + 1
    while len(left) < len(earliest):
        tap = stages[-1]
        advances = tap is None or room[tap] <= cycle
        if advances:
            if tap is not None:
                left.append(cycle)
            following = None
            if len(taken) < len(earliest) and earliest[len(taken)] <= cycle:
                following = len(taken)
                taken.append(cycle)
            stages = [following, *stages[:-1]]
        cycle += 1
    return taken, left


@pytest.mark.parametrize("seed", range(50))
def test_resolver(seed):
    rng = np.random.default_rng(seed)
    taps = 40
    earliest = np.cumsum(rng.choice([1, 1, 1, 2, 5], taps))
    room = np.repeat(np.cumsum(rng.integers(0, 30, taps // 4)), 4) - int(rng.integers(0, 40))
    expected = naive_resolver(earliest.tolist(), room.tolist(), -1)
    resolver = Resolver(-1)
    taken, left = [], []
    while len(taken) < taps:
        some = slice(len(taken), len(taken) + int(rng.integers(1, 9)))
        times = resolver.block(earliest[some], room[some])
        taken += times[0].tolist()
        left += times[1].tolist()
    assert (taken, left) == expected


@pytest.mark.parametrize("seed", range(30))
def test_lanes(seed):
    rng = np.random.default_rng(seed)
    stride, dilation, padding, kernel = (int(rng.integers(low, 5)) for low in (1, 1, 0, 1))
    size, count = int(rng.integers(1, 20)), 12
    places = np.arange(count)[:, None] * stride + np.arange(kernel) * dilation - padding
    enter = np.diff(np.count_nonzero(places >= 0, axis=1))
    leave = np.diff(np.count_nonzero(places >= size, axis=1))
    expected = [1, *np.maximum(1, np.maximum(enter, leave)).tolist()]
    assert axis_costs(count, stride, dilation, padding, kernel, size).tolist() == expected


#: What tells many cycles at once, and what is told one by one without it.
SHORTCUTS = {
    "_at_once": (issue, lambda *_: False),
    "_ramp": (results.DrainTimes, lambda *_: False),
    "_try": (results.DrainTimes, lambda *_: None),
    "_repeat": (reader.ReadPort, lambda *_: False),
    "groups_of": (front, lambda blocks, config: [groups_of([one], config)[0] for one in blocks]),
}


def counted(monkeypatch):
    """Count how often each shortcut was taken."""
    taken = dict.fromkeys(SHORTCUTS, 0)

    def wrap(name, function):
        def wrapped(*arguments):
            result = function(*arguments)
            if name == "groups_of":
                taken[name] += any(len(group.blocks) > 1 for group in result)
            else:
                taken[name] += result is not None and result is not False
            return result

        return wrapped

    for name, (where, _) in SHORTCUTS.items():
        monkeypatch.setattr(where, name, wrap(name, getattr(where, name)))
    return taken


def steps_of(rng):
    """Give passes of random networks on random cores, and of layers that are large for them."""
    for number in range(40):
        config = preset("tiny_4x4") if number % 2 else random_config(rng)
        yield from ((config, step) for step in random_task(rng, config).program.passes)
    for name, shape, filters, kernel in (
        ("tiny_4x4", (40, 40, 8), 16, 3),
        ("csp_8x8", (28, 28, 24), 64, 3),
        ("csp_h_32x32", (28, 28, 96), 256, 1),
        ("csp_h_32x32", (7, 7, 256), 512, 3),
    ):
        config = preset(name)
        geometry = Geometry(
            in_shape=shape,
            filters=filters,
            kernel=(kernel, kernel),
            padding=(kernel // 2,) * 4,
        )
        layer = random_layer(
            rng, cols=config.cols, period=config.max_period, case="mixed", geometry=geometry
        )
        source = Input(name="input", shape=shape, dtype=layer.dtype, scale=1.0)
        network = Network(
            name=name, input=source, nodes=(layer,), cols=config.cols, period=config.max_period
        )
        yield from ((config, step) for step in compile_network(network, config, 1).passes)


def test_shortcuts_change_nothing(monkeypatch):
    rng = np.random.default_rng(5)
    cases = []
    for config, step in steps_of(rng):
        cases.append((step, random_timing(rng, config.cols)))
        cases.append((step, timing_of(20, 1, config.cols)))
    with monkeypatch.context() as patch:
        taken = counted(patch)
        found = [pass_cycles(step, timing) for step, timing in cases]
    assert min(taken.values()) > 10, taken
    for name, (where, without) in SHORTCUTS.items():
        monkeypatch.setattr(where, name, without)
    for (step, timing), cycles in zip(cases, found, strict=True):
        assert pass_cycles(step, timing) == cycles, (step.title, timing)
    assert len(cases) > 300
