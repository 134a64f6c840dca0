# SPDX-License-Identifier: Apache-2.0
"""A core that is given wrong things ends in its error, in time, and works on."""

import numpy as np
import pytest

from csp_hw.config import BufferStyle, preset
from csp_hw.register_map import ErrorCode
from sim import execute
from sim.cosim.core.jobs import Inject, Response, Timing
from sim.cosim.core.process import run_core_jobs
from tests.cosim import attack_lists as lists
from tests.cosim.core_attacks import ABORT, MANAGERS, Bed, Judge, small_task, withstand

CONFIG = preset("tiny_4x4")
#: Another size and the other style of sums.
WIDE = CONFIG.replace(rows=8, cols=8, depth=32, style=BufferStyle.REGBIN)
KIB = 1024
#: The lists of attacks by their names, the memory that they need, and how many of them a routine
#: test leaves out between two that it tries.
LISTS = {
    "descriptors": (lists.descriptors, 512 * KIB, 3),
    "addresses": (lists.addresses, 128 * KIB, 4),
    "streams": (lists.streams, 128 * KIB, 2),
    "tiles": (lists.tile_lists, 64 * KIB, 2),
    "bus": (lists.bus, 128 * KIB, 4),
    "silence": (lists.silence, 64 * KIB, 6),
    "late": (lists.late, 64 * KIB, 0),
}


@pytest.fixture(scope="module")
def built():
    return execute.build(CONFIG)


@pytest.fixture(scope="module")
def task():
    return small_task(CONFIG)


def told(found):
    """Print how many attacks ended how, and the latest of each kind."""
    for code in dict.fromkeys(seen.code for seen in found):
        some = [seen for seen in found if seen.code is code]
        worst = max(some, key=lambda seen: seen.late)
        name = code.name if code else "no error"
        print(f"{name}: {len(some)}, after {worst.late} cycles at most ({worst.attack.name})")


@pytest.mark.parametrize("name", LISTS)
def test_attacks(name, task, built):
    make, size, skip = LISTS[name]
    bed = Bed(task, size=size)
    attacks = list(make(bed))[:: skip + 1]
    told(withstand(bed, built, attacks, np.random.default_rng(1), every=8))


@pytest.mark.soak
@pytest.mark.parametrize("config", [CONFIG, WIDE], ids=["4x4", "8x8"])
@pytest.mark.parametrize("name", LISTS)
def test_all_attacks(name, config):
    make, size, _ = LISTS[name]
    bed = Bed(small_task(config), size=size)
    attacks, rng = list(make(bed)), np.random.default_rng(2)
    every = 8 if name == "descriptors" else 1
    told(withstand(bed, execute.build(config), attacks, rng, fresh=4, every=every))


def interrupted(task, built, seed, each):
    rng = np.random.default_rng(seed)
    for make in (lists.aborts, lists.resets):
        bed = Bed(task, size=256 * KIB)
        told(withstand(bed, built, list(make(bed, rng, each)), rng, fresh=4))


def test_abort_and_reset_at_random_times(task, built):
    interrupted(task, built, 1, 6)


@pytest.mark.soak
def test_abort_and_reset_at_many_times(task, built):
    interrupted(task, built, 2, 100)


def random_attacks(task, built, seed, count):
    rng = np.random.default_rng(seed)
    bed = Bed(task, size=256 * KIB)
    attacks = list(lists.anything(bed, rng, count))
    told(withstand(bed, built, attacks, rng, fresh=4, races=True))


def test_anything(task, built):
    random_attacks(task, built, 1, 60)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(100, 103))
def test_more_of_anything(seed, task, built):
    random_attacks(task, built, seed, 500)


# --- Registers at wrong times ---------------------------------------------------------------------


def followed(bed, built, *jobs, options=None):
    """Run jobs between two runs of the program; give their outcomes."""
    judge = Judge(bed)
    given = {"image": bed.memory, "guard": bed.guard, "reset": True}
    runs = [bed.good(**given), *jobs, bed.good(**options or {})]
    first, *found, last = run_core_jobs(built, runs)
    judge.good(first, None)
    for outcome in found:
        judge.rules(outcome, "a job")
        judge.unchanged(outcome.memory, "a job", [bed.guard])
    judge.good(last, None)
    return found


def code_of(outcome):
    return ErrorCode(outcome.registers["STATUS"] >> 8 & 0x1F)


def test_abort_of_nothing(task, built):
    """It is as if nothing had been written; also together with a start, which counts."""
    bed = Bed(task, size=64 * KIB)
    quiet = {"wait": 10, "regions": ()}
    nothing, again, both = followed(
        bed,
        built,
        bed.only([("STATUS", execute.CLEAR), ("CONTROL", ABORT)], **quiet),
        bed.only([("CONTROL", ABORT)], **quiet),
        bed.only([("CONTROL", ABORT | execute.START)]),
    )
    for outcome in (nothing, again):
        assert outcome.registers["STATUS"] == 0
    assert both.registers["STATUS"] == 0b1010


def test_start_of_what_works(task, built):
    """It is not heeded."""
    bed = Bed(task, size=64 * KIB)
    start = [("CONTROL", execute.START)]
    pause = {"wait": 300, "regions": ()}
    first, second, last = followed(
        bed,
        built,
        bed.good(**pause),
        bed.only(start, **pause),
        bed.only(start),
    )
    assert first.registers["STATUS"] & 0b111 == second.registers["STATUS"] & 0b111 == 0b001
    assert last.registers["STATUS"] == 0b1010
    assert last.registers["LAYER_COUNT"] == len(bed.steps)


def test_abort_twice(task, built):
    bed = Bed(task, size=64 * KIB)
    _, last = followed(
        bed,
        built,
        bed.good(wait=400, regions=()),
        bed.only([("CONTROL", ABORT), ("CONTROL", ABORT)]),
    )
    assert code_of(last) is ErrorCode.ABORTED


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"SIZE_LOW": 0}, ErrorCode.RANGE),
        ({"SIZE_LOW": 255}, ErrorCode.RANGE),
        ({"DESCRIPTORS": 64 * KIB}, ErrorCode.RANGE),
        ({"DESCRIPTORS": (1 << 32) - 256}, ErrorCode.RANGE),
        ({"DESCRIPTORS": 64 * KIB - 256, "COUNT": 2}, ErrorCode.DESCRIPTOR),
        ({"TIMEOUT": 1}, ErrorCode.TIMEOUT),
        ({"TIMEOUT": 10}, ErrorCode.TIMEOUT),
        ({"COUNT": 0}, ErrorCode.NONE),
    ],
)
def test_registers(changes, code, task, built):
    bed = Bed(task, size=64 * KIB)
    bed.memory[-256:] = 0xFF
    job = bed.good()
    writes = [(name, changes.get(name, value)) for name, value in job.writes]
    (outcome,) = followed(bed, built, bed.only(writes))
    assert code_of(outcome) is code
    assert outcome.registers["STATUS"] & 0b111 == (0b100 if code else 0b010)


def test_more_descriptors_than_there_are(task, built):
    """The program, and on until the first one that is none."""
    bed = Bed(task, size=64 * KIB)
    end = bed.task.program.descriptors[-1] + 256
    (outcome,) = followed(bed, built, bed.good(count=(1 << 24) - 1))
    assert outcome.registers["ERROR_LAYER"] == len(bed.steps), end
    assert code_of(outcome) is ErrorCode.DESCRIPTOR


def test_abort_of_what_waits_for_ever(task, built):
    """TIMEOUT is 0 and the memory silent: software is told, and a reset helps."""
    bed = Bed(task, size=64 * KIB)
    changes, place, _ = bed.private(0, "weights")
    attack = bed.attack("silence", 0, changes)
    inject = Inject(low=place, high=place + 4, response=Response.SILENCE)
    silent = bed.start(
        attack.descriptors,
        inject=inject,
        reset=True,
        limit=0,
        guard=bed.guard,
        wait=30_000,
        regions=(),
    )
    waits, last = followed(
        bed, built, silent, bed.only([("CONTROL", ABORT)]), options={"reset": True}
    )
    assert waits.registers["STATUS"] & 0b111 == 0b001
    assert code_of(last) is ErrorCode.ABORTED
    assert last.registers["STATUS"] & 0b111 == 0b101


def test_a_slow_memory_is_no_error(task, built):
    """Nothing moves for longer than a pass may stand still, but the memory owes answers."""
    bed = Bed(task, size=64 * KIB)
    slow = {"act": Timing(read_latency=5000), "res": Timing(write_latency=5000)}
    for port, timing in slow.items():
        timings = dict.fromkeys(MANAGERS, Timing()) | {port: timing}
        run = bed.good(reset=True, timing=timings, timeout=1 << 20, guard=bed.guard)
        (outcome,) = followed(bed, built, run, options={"reset": True})
        assert code_of(outcome) is ErrorCode.NONE
        assert outcome.cycles > 5000
