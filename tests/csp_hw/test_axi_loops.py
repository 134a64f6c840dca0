# SPDX-License-Identifier: Apache-2.0
"""Loops of addresses against two nested loops; the queue against a list."""

import gc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from csp_hw.axi.loops import LoopAddress
from csp_hw.axi.queue import Queue
from tests.csp_hw.bench import between, pass_through, pick, rng_of


def runs_of(command):
    """Give the runs of a command."""
    runs = [
        {
            "offset": (command["offset"] + n2 * command["pitch2"] + n1 * command["pitch1"]) % 2**32,
            "beats": command["beats"],
            "last": 0,
        }
        for n2 in range(command["count2"])
        for n1 in range(command["count1"])
    ]
    runs[-1]["last"] = 1
    return runs


def check_loops(commands, gaps=(0.0, 0.0), seed=0):
    dut = LoopAddress()
    expected = [run for command in commands for run in runs_of(command)]
    source, sink = pass_through(
        dut, dut.i, commands, dut.o, len(expected), constants={}, gaps=gaps, seed=seed
    )
    assert sink.words == expected
    return source, sink


word32 = st.one_of(st.integers(0, 2**32 - 1), st.integers(0, 5), st.just(2**32 - 1))
command = st.fixed_dictionaries(
    {
        "offset": word32,
        "beats": st.integers(0, 2**24 - 1),
        "count1": st.integers(1, 5),
        "pitch1": word32,
        "count2": st.integers(1, 5),
        "pitch2": word32,
    }
)


@given(
    commands=st.lists(command, min_size=1, max_size=4),
    gaps=st.tuples(*2 * [st.sampled_from((0.0, 0.6))]),
    seed=st.integers(0, 99),
)
def test_any(commands, gaps, seed):
    check_loops(commands, gaps, seed)


@pytest.mark.parametrize("counts", [(700, 1), (1, 700)])
def test_long_loops(counts):
    one = {
        "offset": 12_345,
        "beats": 1,
        "count1": counts[0],
        "pitch1": 0xFFFF_FF00,  # backwards
        "count2": counts[1],
        "pitch2": 24,
    }
    check_loops([one])


def test_a_run_a_cycle():
    rng = rng_of(2)
    commands = [
        {
            "offset": 8 * n,
            "beats": n,
            "count1": pick(rng, (1, 2, 3)),
            "pitch1": 64,
            "count2": pick(rng, (1, 2)),
            "pitch2": 4096,
        }
        for n in range(40)
    ]
    source, sink = check_loops(commands)
    first = source.cycles[0] + 1
    assert sink.cycles == list(range(first, first + len(sink.words)))


@pytest.mark.parametrize("depth", [-2, 0, 1, 3, 6])
@pytest.mark.filterwarnings("ignore::amaranth.hdl.UnusedElaboratable")
def test_depth_of_a_queue(depth):
    with pytest.raises(ValueError, match=f"^depth must be a power of two, not {depth}$"):
        Queue(8, depth)
    gc.collect()  # what was refused is never elaborated, and says so when it goes


@pytest.mark.parametrize("depth", [2, 4, 16])
@pytest.mark.parametrize("gaps", [(0.0, 0.0), (0.6, 0.0), (0.0, 0.6), (0.4, 0.4)])
def test_queue(depth, gaps):
    dut = Queue(8, depth, room=depth + 2)
    words = [between(rng_of(depth), 0, 255) for _ in range(100)]
    source, sink = pass_through(dut, dut.i, words, dut.o, 100, constants={}, gaps=gaps)
    assert sink.words == words
    if gaps == (0.0, 0.0):
        assert sink.cycles == list(range(source.cycles[0] + 2, source.cycles[0] + 102))


@pytest.mark.parametrize("room", [3, 5, 6])
def test_queue_holds_as_many_as_it_has_room_for(room):
    dut = Queue(8, 4, room=room)
    source, sink = pass_through(dut, dut.i, range(30), dut.o, 30, constants={}, gaps=(0.0, 0.95))
    assert sink.cycles[0] > source.cycles[0] + room
    assert source.cycles[:room] == list(range(source.cycles[0], source.cycles[0] + room))
    for word, left in zip(source.cycles[room:], sink.cycles, strict=False):
        assert word == left + 2
