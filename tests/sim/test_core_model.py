# SPDX-License-Identifier: Apache-2.0
"""Parts of the core's cycle model against what they stand for, cycle by cycle."""

import numpy as np
import pytest

from sim.model.core.memory import Bucket, chain
from sim.model.core.taps import RESOLVED, Resolver
from sim.model.core.walk import axis_costs


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
