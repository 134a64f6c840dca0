# SPDX-License-Identifier: Apache-2.0
"""Parts of the core's cycle model against what they stand for, cycle by cycle."""

import numpy as np
import pytest

from csp_algo.geometry import Geometry
from csp_algo.network import Input, Network
from csp_hw.config import preset
from sim.cosim.core.jobs import Timing
from sim.model.core import front, issue, reader, results, writer
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
    "_again": (front.Front, lambda *_: False),
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


def read_map(seed):
    """Read runs through a port as they may leave; give when each beat leaves."""
    rng = np.random.default_rng(seed)
    beat, at, runs = 32, 0, []
    while at < 4000:
        each = int(rng.choice([1, 1, 16, 16, 40]))
        for _ in range(int(rng.integers(100, 900)) // each):
            runs.append((at, each))
            at += each
        at += int(rng.choice([0, 0, 3]))
    timing = Timing(
        read_latency=int(rng.choice([1, 7, 20, 90])),
        read_rate=int(rng.choice([beat, beat, beat, 40, 12])),
        outstanding=int(rng.choice([1, 2, 5, 16])),
    )
    several = int(rng.choice([1, 16]))  # beats, so that places end with a burst, too
    begin = int(rng.integers(0, 50))
    client = reader.Bounded(runs, begin, 64, beat, sliced=bool(rng.integers(2)))
    port = reader.ReadPort([client], timing, beat)
    below, since = 0, 0
    if rng.random() < 0.5:
        # Beats leave as if they came at some pace, but it is that of their bounds.
        below, since, pace = int(rng.choice([0, 8])), 200, int(rng.choice([16, 20, 60]))
        for _ in range(12):
            below, since = below + 16, since + pace
            client.allow(below, since)
            port.run(lambda below=below: client.known >= below)
    while below < client.total:
        below += several * (int(rng.choice([1, 30, 64, 160, 500])) // several + 1)
        below = min(client.total, below)
        # Some wait for a place for long, and some just as long as they would have taken anyway.
        last = client.taken(client.known - 1) if client.known else begin
        since = max(since, last + int(rng.choice([-200, 1, 2, 17, 30, 400])))
        client.allow(below, since)
        if rng.random() < 0.9:
            port.run(lambda below=below: client.known >= below)
    port.run(lambda: False)
    return [client.taken(number) for number in range(client.total)]


@pytest.mark.parametrize("seed", range(60))
def test_bursts_that_repeat(seed, monkeypatch):
    found = read_map(seed)
    monkeypatch.setattr(reader.ReadPort, "_repeat", lambda *_: False)
    assert read_map(seed) == found


def drain_tiles(seed):
    """Drain tiles; give the last request and all that is known of each, and the last answer."""
    rng = np.random.default_rng(seed)
    config = preset(str(rng.choice(["tiny_4x4", "csp_8x8", "csp_h_32x32"])))
    chunks = int(rng.integers(1, 9))
    lanes = [int(rng.integers(1, 9)) for _ in range(30)]
    beat = config.cols
    timing = Timing(
        write_latency=int(rng.choice([1, 20, 90])),
        write_rate=int(rng.choice([beat, beat, beat, beat - 1, beat // 2])),
        outstanding=int(rng.choice([1, 2, 16])),
    )
    port = writer.WritePort([(0, sum(lanes) * chunks)], 2, timing, beat)
    pool = results.PoolerTimes({}, 2, port)
    # What waits for parameters is late, and nothing behind is in the way.
    loaded = int(rng.choice([9, 150, 200, 300]))
    drain = results.DrainTimes(
        config, {"chunks": chunks, "out": 0}, loaded=loaded, begin=2, pool=pool, residual=None
    )
    time, told = int(rng.integers(0, 99)), []
    for count in lanes:
        last = drain.tile(time, np.ones(count, dtype=bool))
        told.append((last, drain.idle))
        # Often it is in the way of the next one.
        time = max(time, last - int(rng.choice([0, 3, 40]))) + int(rng.choice([1, 1, 30, 90]))
    return told, pool.end(), port.end()


@pytest.mark.parametrize("seed", range(60))
def test_a_ramp_of_results(seed, monkeypatch):
    found = drain_tiles(seed)
    monkeypatch.setattr(results.DrainTimes, "_ramp", lambda *_: False)
    monkeypatch.setattr(results.DrainTimes, "_try", lambda *_: None)
    assert drain_tiles(seed) == found
