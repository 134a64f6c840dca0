# SPDX-License-Identifier: Apache-2.0
"""The ports of AXI4-Stream against lists: runs, packets, what is wrong with them, stopping."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from csp_hw.axi.meter import RunMeter
from csp_hw.axi.packet_reader import PacketReader
from csp_hw.axi.packet_writer import PacketWriter
from tests.csp_hw.bench import Sink, Source, chance, rng_of, simulate

BYTES = 4
EVERY = (1 << BYTES) - 1
gaps = st.tuples(*3 * [st.sampled_from((0.0, 0.6))])
#: Commands: the beats of their runs. The last run of one is never empty.
commands = st.lists(
    st.tuples(st.lists(st.integers(0, 3), max_size=3), st.integers(1, 6)), min_size=1, max_size=4
)


def runs_of(command):
    *first, last = command
    runs = [{"offset": 0, "beats": beats, "last": 0} for beats in first]
    return [*runs, {"offset": 0, "beats": last, "last": 1}]


def flat(drawn):
    """Give the commands as lists of runs' beats."""
    return [[*first, last] for first, last in drawn]


def packets_of(each, drawn):
    """Give the beats of each packet."""
    return [n for command in drawn for n in (command if each else [sum(command)]) if n]


def beats_of(packets):
    """Give beats, numbered, and where packets end."""
    beats = [{"last": int(n == size - 1)} for size in packets for n in range(size)]
    return [{"data": 0x0101 * number, **beat} for number, beat in enumerate(beats)]


def read(dut, runs, beats, count, gap=(0.0, 0.0, 0.0), seed=0):
    """Send runs and beats; give what left, and the source of the beats."""
    commands = Source(dut.runs, runs, gap=gap[0], seed=seed)
    source = Source(dut.axi.t, beats, gap=gap[1], seed=seed + 1)
    sink = Sink(dut.o, count, gap=gap[2], seed=seed)
    found = {}

    async def watch(ctx):
        await sink.run(ctx)
        found.update({name: ctx.get(getattr(dut, name)) for name in ("short", "long", "due")})

    simulate(dut, watch, background=[commands.run, source.run])
    return sink, source, found


@given(drawn=commands, each=st.booleans(), gap=gaps, seed=st.integers(0, 9))
@settings(max_examples=30)
def test_packets_in(drawn, each, gap, seed):
    drawn = flat(drawn)
    dut = PacketReader(BYTES, each=each)
    runs = [run for command in drawn for run in runs_of(command)]
    beats = beats_of(packets_of(each, drawn))
    sink, _, found = read(dut, runs, beats, len(beats), gap, seed)
    assert sink.words == [beat["data"] for beat in beats]
    assert found == {"short": 0, "long": 0, "due": 0}


def test_a_beat_a_cycle():
    dut = PacketReader(BYTES)
    sink, source, _ = read(dut, 20 * runs_of([1, 2, 1]), beats_of(20 * [4]), 80)
    assert sink.cycles[-1] - sink.cycles[0] == 79
    assert sink.cycles[0] - source.cycles[0] == 2


def test_beats_wait_for_their_run():
    dut = PacketReader(BYTES)
    sink, source, found = read(dut, runs_of([3]), beats_of([3, 4]), 3)
    assert len(sink.words) == 3
    assert 3 < len(source.cycles) < 8
    assert found == {"short": 0, "long": 0, "due": 0}


@pytest.mark.parametrize("each", [False, True])
@pytest.mark.parametrize(("wrong", "name"), [(-1, "short"), (1, "long")])
def test_a_packet_of_wrong_length(each, wrong, name):
    dut = PacketReader(BYTES, each=each)
    packets = packets_of(each, [[2, 3]])
    packets[-1] += wrong
    _, _, found = read(dut, runs_of([2, 3]), beats_of([*packets, 4]), 5)
    assert (found[name], found["due"]) == (1, 0)
    assert not found["short"] or name == "short"


def test_each_run_or_all_of_them():
    """What is right for the one is wrong for the other."""
    for each in (False, True):
        dut = PacketReader(BYTES, each=each)
        _, _, found = read(dut, runs_of([2, 3]), beats_of(packets_of(not each, [[2, 3]])), 5)
        assert (found["short"], found["long"]) == ((0, 1) if each else (1, 0))


def test_dropped_beats():
    """In each cycle with ``drop`` a beat is taken, and never seen again."""
    dut = PacketReader(BYTES)
    beats = beats_of([40])
    source = Source(dut.axi.t, beats)
    sink = Sink(dut.o, 3)
    first = []

    async def dropper(ctx):
        ctx.set(dut.drop, 1)
        for _ in range(10):
            await ctx.tick()
        ctx.set(dut.drop, 0)
        first.append(len(source.cycles))
        await Source(dut.runs, runs_of([3])).run(ctx)

    simulate(dut, sink.run, background=[source.run, dropper])
    assert first[0] >= 9
    assert sink.words == [beat["data"] for beat in beats[first[0] :][:3]]


def test_waiting():
    dut = PacketReader(BYTES)
    seen = []

    async def look(ctx):
        ctx.set(dut.runs.payload, {"offset": 0, "beats": 2, "last": 1})
        ctx.set(dut.runs.valid, 1)
        for cycle in range(12):
            ctx.set(dut.axi.t.payload, {"data": 7, "last": int(cycle > 6)})
            ctx.set(dut.axi.t.valid, int(cycle in (4, 7)))
            ctx.set(dut.o.ready, int(cycle != 6))
            _, _, waiting, due = await ctx.tick().sample(dut.waiting, dut.due)
            seen.append((waiting, due))
            ctx.set(dut.runs.valid, 0)

    simulate(dut, look)
    # Due from cycle 1 on; the first beat is there from cycle 6 on, and is taken in cycle 7.
    assert seen == [(0, 0), *5 * [(1, 1)], *2 * [(0, 1)], (1, 1), (0, 1), (0, 0), (0, 0)]


# --- Out ------------------------------------------------------------------------------------------


def sent(packets, strobe=EVERY):
    """Give the beats of packets as they leave."""
    common = {"strb": strobe, "keep": EVERY}
    return [
        {"data": number, "last": last, **common}
        for number, last in enumerate(beat["last"] for beat in beats_of(packets))
    ]


@given(drawn=commands, gap=gaps, strobe=st.integers(0, EVERY), seed=st.integers(0, 9))
@settings(max_examples=30)
def test_packets_out(drawn, gap, strobe, seed):
    drawn = flat(drawn)
    dut = PacketWriter(BYTES)
    runs = [run for command in drawn for run in runs_of(command)]
    expected = sent(packets_of(False, drawn), strobe)
    sink = Sink(dut.axi.t, len(expected), gap=gap[2], seed=seed)

    async def watch(ctx):
        ctx.set(dut.strobe, strobe)
        await sink.run(ctx)
        assert ctx.get(dut.idle)
        assert ctx.get(dut.quiet)

    # One beat that nobody has asked for stays where it is.
    source = Source(dut.i, range(len(expected) + 1), gap=gap[1], seed=seed + 1)
    commands = Source(dut.runs, runs, gap=gap[0], seed=seed)
    simulate(dut, watch, background=[commands.run, source.run])
    assert sink.words == expected
    assert len(source.cycles) == len(expected)


def test_a_beat_a_cycle_out():
    dut = PacketWriter(BYTES)
    sink = Sink(dut.axi.t, 80)
    source = Source(dut.i, range(80))
    commands = Source(dut.runs, 20 * runs_of([1, 2, 1]))
    simulate(dut, sink.run, background=[commands.run, source.run])
    assert sink.cycles[-1] - sink.cycles[0] == 79
    assert sink.cycles[0] - source.cycles[0] == 1


@pytest.mark.parametrize("gap", [0.0, 0.7])
@pytest.mark.parametrize("after", range(0, 24, 3))
def test_stop_ends_the_packet(after, gap):
    """Whole packets, then what had left of one, ended by a beat of no bytes; then it is quiet."""
    dut = PacketWriter(BYTES)
    words = []
    quiet = []

    async def watch(ctx):
        rng = rng_of(after, 7)
        ctx.set(dut.strobe, EVERY)
        held = None
        for cycle in range(after + 60):
            ctx.set(dut.stop, int(cycle >= after))
            ready = int(cycle > after + 40 or not chance(rng, gap))
            ctx.set(dut.axi.t.ready, ready)
            _, _, valid, beat, is_quiet = await ctx.tick().sample(
                dut.axi.t.valid, dut.axi.t.payload, dut.quiet
            )
            beat = {name: int(beat[name]) for name in ("data", "strb", "keep", "last")}
            assert held in (None, beat)
            held = beat if valid and not ready else None
            if valid and ready:
                words.append(beat)
            quiet.append(is_quiet)

    source = Source(dut.i, range(1000), gap=gap, seed=after)
    commands = Source(dut.runs, 100 * runs_of([2, 3]))
    simulate(dut, watch, background=[commands.run, source.run])
    assert quiet[-1]
    whole = len([word for word in words if word["keep"]])
    assert [word["data"] for word in words[:whole]] == list(range(whole))
    assert [word["last"] for word in words[:whole]] == [int(n % 5 == 4) for n in range(whole)]
    ends = [{"strb": 0, "keep": 0, "last": 1}] if whole % 5 else []
    assert [{key: word[key] for key in ("strb", "keep", "last")} for word in words[whole:]] == ends


def test_meter():
    """Runs of two, none and one; take whenever a beat is due."""
    dut = RunMeter()
    runs = [{"offset": 0, "beats": n, "last": int(n == 1)} for n in (2, 0, 1)]
    steps = [
        {"runs_payload": runs[0], "valid": 1, "take": 0},
        {"runs_payload": runs[1], "valid": 1, "take": 1},
        {"runs_payload": runs[1], "valid": 1, "take": 1},
        {"runs_payload": runs[2], "valid": 1, "take": 0},
        {"runs_payload": runs[2], "valid": 0, "take": 1},
        {"runs_payload": runs[2], "valid": 0, "take": 0},
    ]
    seen = []

    async def player(ctx):
        for step in steps:
            ctx.set(dut.runs.payload, step["runs_payload"])
            ctx.set(dut.runs.valid, step["valid"])
            ctx.set(dut.take, step["take"])
            _, _, *values = await ctx.tick().sample(dut.due, dut.ends, dut.last, dut.runs.ready)
            seen.append(tuple(map(int, values)))

    simulate(dut, player)
    due = [values[0] for values in seen]
    assert due == [0, 1, 1, 0, 1, 0]
    assert [values[1:3] for values in seen if values[0]] == [(0, 0), (1, 0), (1, 1)]
    assert [values[3] for values in seen] == [1, 0, 1, 1, 1, 1]
