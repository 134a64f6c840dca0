# SPDX-License-Identifier: Apache-2.0
"""A core that is given wrong things: a program in memory, broken copies of its passes, a judge."""

import collections
import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from csp_algo.errors import CspError
from csp_algo.geometry import Geometry
from csp_algo.integers import ActDtype
from csp_algo.network import AvgPool, Concat, Input, MaxPool, Network, Residual
from csp_hw.axi.ports import LOCAL_OFFSET
from csp_hw.descriptor import DESCRIPTOR_BYTES, Kind, pack, unpack
from csp_hw.register_map import ErrorCode
from sim import execute
from sim.cosim.core.jobs import BASE, CoreJob, CoreOutcome, Timing, WriteOrder
from sim.cosim.core.process import run_core_jobs
from sim.cosim.core.protocol import RACE
from sim.program.plan import Choices
from tests.strategies import random_activations, random_layer

INT8, UINT8, INT32 = ActDtype.INT8, ActDtype.UINT8, ActDtype.INT32
CHANNELS = ("ar", "r", "aw", "w", "b", "registers")
MANAGERS = ("wgt", "act", "res")
ORDERS = tuple(WriteOrder)
#: What a pass says it moves, by the register that counts it.
BEATS = {
    "ACTIVATION_BEATS": "input_beats",
    "WEIGHT_PORT_BEATS": "weight_beats",
    "RESIDUAL_BEATS": "residual_beats",
    "RESULT_BEATS": "result_beats",
}
READS = ("STATUS", "ERROR_LAYER", "ERROR_DETAIL", "LAYER_COUNT", *BEATS)
#: Where a pass reads or writes, by the names of a descriptor's fields.
TABLES = ("params", "tiles", "counts", "weights")
MAPS = ("input", "add", "output")
#: CONTROL.abort, with the interrupt enabled.
ABORT = 0b110
#: Cycles in which all is over, whatever happens: some 50,000 of the program when memory is slow,
#: and what docs/core.md promises of errors.
PATIENCE = 100_000
#: TIMEOUT, unless an attack says otherwise.
LIMIT = 0x4000
#: What docs/core.md promises: cycles that a pass may stand still, at least, …
DEAD = 4096
#: … cycles that the memory has to answer after an error, …
ANSWERS = 16_384
#: … and cycles from a cause to the interrupt when nothing is on the bus.
SOON = 32


def small_network(config):
    """Give a network with convolutions, a residual, both kinds of pooling and int32."""
    rng = np.random.default_rng(1)

    def layer(name, source, shape, filters, kernel, dtype, *, signed, stride=1):
        geometry = Geometry(
            in_shape=shape,
            filters=filters,
            kernel=(kernel, kernel),
            padding=(kernel // 2,) * 4,
            stride=(stride, stride),
        )
        return random_layer(
            rng,
            cols=config.cols,
            period=4,
            case="mixed",
            geometry=geometry,
            acc_bits=config.acc_bits,
            signed=signed,
            name=name,
            source=source,
            dtype=dtype,
        )

    add = layer("add", "conv", (4, 5, 9), 9, 3, INT8, signed=True)
    average = AvgPool(
        name="average",
        input="add",
        kernel=(3, 3),
        stride=(2, 2),
        padding=(1, 1, 1, 1),
        shift=12,
        count_include_pad=False,
    )
    nodes = (
        layer("conv", "input", (4, 5, 6), 9, 3, INT8, signed=False),
        dataclasses.replace(add, residual=Residual(input="conv", mult=40000, shift=16)),
        Concat(name="both", inputs=("conv", "add")),
        layer("down", "both", (4, 5, 18), 6, 3, UINT8, signed=True, stride=2),
        MaxPool(name="max", input="down", kernel=(2, 2), stride=(1, 1)),
        average,
        layer("logits", "max", (1, 2, 6), 5, 1, INT32, signed=False),
    )
    start = Input(name="input", shape=(4, 5, 6), dtype=UINT8, scale=1.0)
    return Network(name="small", input=start, nodes=nodes, cols=config.cols, period=4)


#: Its passes: without and with residual, with a pooling behind it, a pooling alone, int32.
PLAIN, ADDED, POOLED, POOL, LOGITS = range(5)


def small_task(config):
    """Give that network for two images; maps on the chip are not copied."""
    network = small_network(config)
    images = random_activations(np.random.default_rng(2), (2, *network.input.shape), UINT8)
    task = execute.Task.make(network, config, images, Choices())
    kinds = [step.kind for step in task.program.passes]
    assert kinds == [Kind.CONVOLVE] * 3 + [Kind.POOL, Kind.CONVOLVE]
    return task


@dataclasses.dataclass(frozen=True, kw_only=True)
class Attack:
    """A run of some descriptors, one of which is broken.

    Parameters
    ----------
    name : str
    descriptors : int
    layer : int
        Number of the broken one.
    low, high : int
        Bytes low … high - 1 are what it may write.
    codes : set of ErrorCode or None, optional
        What may come of it; None is none. Anything if not given, but not nothing.
    detail : int, optional
    options : mapping
        More of the job.
    silent : bool
        The memory falls silent: only a reset helps.
    late : bool
        The memory answers so late that the error is told before: ``busy`` falls behind it.
    abort : int, optional
        Software asks for the end after so many cycles.
    cut : int, optional
        Reset comes after so many cycles.
    patience : int, optional
        Cycles for which nobody wonders; then software asks for the end.
    """

    name: str
    descriptors: int
    layer: int
    low: int
    high: int
    codes: frozenset = frozenset()
    detail: int | None = None
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    silent: bool = False
    late: bool = False
    abort: int | None = None
    cut: int | None = None
    patience: int | None = None

    @property
    def spoils(self):
        """Whether only a reset helps, or there was one."""
        return self.silent or self.late or self.cut is not None


class Seen(NamedTuple):
    """What came of an attack.

    Parameters
    ----------
    attack : Attack
    code : ErrorCode or None
    late : int
        Cycles from the cause to the interrupt: from the write that aborts, from the first answer of
        the memory that was not OKAY, else from the last one in which anything moved on a port.
    """

    attack: Attack
    code: ErrorCode | None
    late: int


class Bed:
    """A memory that holds a program, and behind it what is broken."""

    def __init__(self, task, *, size=1 << 17):
        self.task = task
        self.steps = task.program.passes
        self.config = task.program.config
        self.memory = np.zeros(size, dtype=np.uint8)
        memory = task.program.memory(task.inputs)
        self.memory[: len(memory)] = memory
        self.used = len(memory)

    @property
    def window(self):
        """Bytes of the window, which is the whole memory."""
        return len(self.memory)

    @property
    def longest(self):
        """Cycles in which the core computes any of the passes: all that it issues and moves."""
        return max(
            step.input_beats
            + step.weight_beats
            + step.residual_beats
            + step.result_beats
            + (step.schedule.issued if step.schedule else 0)
            for step in self.steps
        )

    def table(self, number, name):
        """Give the bytes of a table of a pass."""
        offset, _ = self.area(number, name)
        return self.memory[offset : offset + len(self.steps[number].data[name])]

    def store(self, data, alignment=64):
        """Give data a place."""
        offset = -(-self.used // alignment) * alignment
        self.used = offset + len(data)
        assert self.used <= len(self.memory)
        self.memory[offset : self.used] = np.frombuffer(bytes(data), dtype=np.uint8)
        return offset

    def raw(self, number):
        """Give the descriptor of a pass."""
        offset = self.task.program.descriptors[number]
        return self.memory[offset : offset + DESCRIPTOR_BYTES].tobytes()

    def fields(self, number):
        """Give all fields of a pass."""
        return unpack(self.raw(number))

    def areas(self, number):
        """Give the names of what a pass reads and writes in memory."""
        fields = self.fields(number)
        tables = TABLES if fields["kind"] == Kind.CONVOLVE else ()
        maps = [name for name in MAPS if name != "add" or fields["residual"]]
        return [*tables, *(name for name in maps if fields[f"{name}_offset"] < LOCAL_OFFSET)]

    def area(self, number, name):
        """Give the place and the bytes of an area, as whole beats."""
        step, fields = self.steps[number], self.fields(number)
        if name in TABLES:
            size = len(step.data[name])
        else:
            loops = {"input": step.input, "add": step.residual, "output": step.output}[name]
            size = loops.end - loops.offset
        return fields[f"{name}_offset"], size + -size % self.config.cols

    def private(self, number, name):
        """Give an area of a pass a place of its own: the fields that say so, and its bytes."""
        offset, size = self.area(number, name)
        place = self.store(self.memory[offset : offset + size].tobytes())
        changes = {f"{name}_offset": place}
        if name == "output":
            changes |= {"output_low": place, "output_high": place + size}
        return changes, place, size

    def attack(self, name, number, changes=(), *, raw=None, alone=True, codes=(), **options):
        """Give a pass broken: with other fields, or another descriptor; alone or in the program."""
        broken = pack(self.fields(number) | dict(changes)) if raw is None else raw
        table = [self.raw(step) for step in range(len(self.steps))]
        table[number] = broken
        if alone:
            table, options["options"] = [broken], {"count": 1, **options.get("options", {})}
        fields = unpack(broken)
        return Attack(
            name=f"{name} of pass {number}",
            descriptors=self.store(b"".join(table), DESCRIPTOR_BYTES),
            layer=0 if alone else number,
            low=fields["output_low"],
            high=fields["output_high"],
            codes=frozenset(codes),
            **options,
        )

    def whole(self, name, **options):
        """Give the program itself, disturbed from outside; it may write what it always does."""
        low, high = self.guard
        given = {"layer": 0, "descriptors": self.task.program.descriptors[0]}
        return Attack(name=name, **given | {"low": low, "high": high} | options)

    # --- Jobs -------------------------------------------------------------------------------------

    def start(self, descriptors, **options):
        """Give the job that runs as many descriptors as the program has."""
        writes = [
            ("BASE_LOW", BASE & 0xFFFF_FFFF),
            ("BASE_HIGH", BASE >> 32),
            ("SIZE_LOW", self.window),
            ("TIMEOUT", options.pop("limit", LIMIT)),
            ("COUNT", options.pop("count", len(self.steps))),
            ("DESCRIPTORS", descriptors),
            ("STATUS", execute.CLEAR),
            ("CONTROL", execute.START),
        ]
        return self.only(writes, **options)

    def only(self, writes, **options):
        """Give a job that goes on after another one."""
        given = {"writes": writes, "reads": READS, "reset": False, "timeout": PATIENCE}
        return CoreJob(**given | {"strict": False} | options)

    def good(self, **options):
        """Give the job that runs the program itself."""
        return self.start(self.task.program.descriptors[0], **options)

    def runs(self, attack, options):
        """Give the jobs of an attack, each with the method of Judge that looks at its outcome."""
        start = attack.descriptors
        abort = [("CONTROL", ABORT)]
        if attack.cut is not None:
            yield Judge.paused, self.start(start, **options, wait=attack.cut)
        elif attack.abort is not None:
            yield Judge.paused, self.start(start, **options, wait=attack.abort)
            yield Judge.attack, self.only(abort, **_regions(options))
        elif attack.patience is not None:
            options = {**options, "timeout": attack.patience, "give_up": True}
            yield Judge.paused, self.start(start, **options)
            yield Judge.given_up, self.only(abort, **_regions(options))
        else:
            yield Judge.attack, self.start(start, **options)
        if attack.late:  # no reset: the memory stays slow
            yield Judge.answered, self.only([], wait=1 << 16, regions=())
            yield Judge.good, self.good(limit=1 << 17, timeout=1 << 21)

    def first(self, rng):
        """Give the first job of a process, the program itself in a slow memory or a fast one."""
        return self.good(reset=True, image=self.memory, guard=self.guard, **random_stress(rng))

    @property
    def guard(self):
        """Bytes of memory that any pass of the program may write."""
        fields = [self.fields(number) for number in range(len(self.steps))]
        fields = [each for each in fields if each["output_low"] < LOCAL_OFFSET]
        low = min(each["output_low"] for each in fields)
        return low, max(each["output_high"] for each in fields)


class Judge:
    """Follows the memory from job to job, and fails when it should."""

    def __init__(self, bed, *, races=False):
        self.bed = bed
        self.races = races
        self.memory = None
        self.final = None
        self.ranges = []  # written since the memory was looked at
        self.found = []

    def good(self, outcome, attack):
        """Look at a run of the program, after an attack or nothing."""
        name = attack.name if attack else "nothing"
        self.rules(outcome, name)
        bed, status = self.bed, outcome.registers["STATUS"]
        assert status == 0b1010, f"{name}: STATUS is {status:#x} after the next run"
        promised = {key: sum(getattr(s, beats) for s in bed.steps) for key, beats in BEATS.items()}
        promised["LAYER_COUNT"] = len(bed.steps)
        assert {key: outcome.registers[key] for key in promised} == promised, name
        (memory,) = outcome.memory
        size = bed.task.program.size
        if self.final is None:
            differ = bed.task.program.mismatches(memory, bed.task.values)
            assert not any(differ.values()), differ
            self.final, self.memory = memory[:size].copy(), memory
        assert np.array_equal(memory[:size], self.final), f"{name}: the next run differs"
        self.unchanged(outcome.memory, name, [(0, size)])

    def attack(self, outcome, attack):
        """Look at a run that went wrong, and note what came of it."""
        self.rules(outcome, attack.name)
        status, name = outcome.registers["STATUS"], attack.name
        code = error_of(outcome)
        busy = attack.silent or attack.late
        assert status & 0b1111 == (0b1100 if code else 0b1010) | busy, (name, status)
        assert not attack.codes or code in attack.codes, (name, code)
        steps = self.bed.steps
        if code is not None:
            layer, done = outcome.registers["ERROR_LAYER"], outcome.registers["LAYER_COUNT"]
            assert layer == done, name
            assert attack.abort is not None or layer == attack.layer, name
            detail = attack.detail or 0
            if attack.detail is not None or code is not ErrorCode.DESCRIPTOR:
                assert outcome.registers["ERROR_DETAIL"] == detail, name
        ranges = [(attack.low, attack.high)]
        if code is None:  # the passes behind it worked on what it has written
            ranges += [(s.fields["output_low"], s.fields["output_high"]) for s in steps]
        self.unchanged(outcome.memory, name, ranges)
        self.found.append(self.seen(outcome, attack, code))

    def paused(self, outcome, attack):
        """Look at a run that goes on; it is looked at again if it has already ended."""
        if outcome.irq and attack.patience is not None:
            self.attack(outcome, attack)
            return
        self.rules(outcome, attack.name)
        self.unchanged(outcome.memory, attack.name, [(attack.low, attack.high)])
        if attack.cut is not None:
            self.found.append(Seen(attack, None, 0))

    def given_up(self, outcome, attack):
        """Look at the end of a run of which software had enough, if it had not ended before."""
        if not self.found or self.found[-1].attack is not attack:
            self.attack(outcome, attack)

    def answered(self, outcome, attack):
        """Look at a core that was told of an error and waited for the memory."""
        self.rules(outcome, attack.name)
        assert not outcome.registers["STATUS"] & 1, f"{attack.name}: still busy"

    def seen(self, outcome, attack, code):
        """Measure how late an error is told, and fail if docs/core.md promises more."""
        late = outcome.quiet
        if code is ErrorCode.ABORTED:
            late = outcome.cycles
        elif code is ErrorCode.BUS:
            first = [port.error_cycle for port in outcome.traffic.values() if port.errors]
            late = outcome.finished - min(first)
        bound = self.bound(attack, code)
        assert code is None or late <= bound, f"{attack.name}: {code!r} after {late} cycles"
        return Seen(attack, code, late)

    def bound(self, attack, code):
        """Give the cycles that docs/core.md promises.

        When the cause was there is known for ABORTED, BUS and DESCRIPTOR. Others come when the core
        has worked off what it was given: after the last word on a port it works for another pass at
        most. Those that wait until nothing is on the bus wait for no answer of the memory.
        """
        config = self.bed.config
        dead = max(DEAD, 4 * config.rows * config.depth)
        waits = {
            ErrorCode.TIMEOUT: attack.options.get("limit", LIMIT),
            ErrorCode.STREAM_SHORT: dead,
            ErrorCode.STREAM_LONG: dead,
        }
        told = (ErrorCode.ABORTED, ErrorCode.BUS, ErrorCode.DESCRIPTOR)
        quiet = (ErrorCode.STREAM_SHORT, ErrorCode.STREAM_LONG, ErrorCode.DESCRIPTOR)
        work = 0 if code in told else self.bed.longest
        return waits.get(code, 0) + (0 if code in quiet else ANSWERS) + SOON + work

    def rules(self, outcome, name):
        """Fail if a rule of AXI or of the bench was broken."""
        broken = {rule for fault in outcome.faults for rule in fault.rules}
        assert broken <= ({RACE} if self.races else set()), (name, outcome.faults)
        assert not outcome.responses, name

    def unchanged(self, memory, name, ranges=()):
        """Compare the memory, if it was looked at, with what it was the last time."""
        self.ranges += ranges
        if memory:
            changed = memory[0] != self.memory
            for low, high in self.ranges:
                changed[low:high] = False
            where = np.flatnonzero(changed)
            assert not len(where), f"{name}: {len(where)} bytes from {where[0]} on have changed"
            self.memory, self.ranges = memory[0], []


def _regions(options):
    return {name: options[name] for name in ("regions",) if name in options}


def error_of(outcome: CoreOutcome) -> ErrorCode | None:
    """Give the error that STATUS tells."""
    status = outcome.registers["STATUS"]
    return ErrorCode(status >> 8 & 0x1F) if status >> 2 & 1 else None


def random_stress(rng):
    """Give stalls, and the timing of each port of a memory."""
    most = float(rng.choice([0, 0, 0.3, 0.7]))
    timing = {
        port: Timing(
            read_latency=int(rng.choice([1, 5, 40])),
            write_latency=int(rng.choice([1, 20])),
            read_rate=int(rng.choice([1, 4, 4, 4])),
            write_rate=int(rng.choice([1, 4, 4, 4])),
            outstanding=int(rng.choice([1, 16, 16])),
            order=ORDERS[rng.integers(len(ORDERS))],
        )
        for port in MANAGERS
    }
    return {
        "stalls": {channel: float(rng.choice([0, most])) for channel in CHANNELS},
        "timing": timing,
        "seed": int(rng.integers(1 << 30)),
    }


def withstand(bed, built, attacks, rng, *, fresh=16, every=1, races=False):
    """Run attacks, and the program itself after each; give what came of them.

    Whether the core is clean is also told by the next attack: its error must be its own.

    Parameters
    ----------
    bed : Bed
        What the memory holds must be complete.
    built : CoreBuild
    attacks : sequence of Attack
    rng : Generator
    fresh : int
        After so many attacks a reset brings another stress; all else goes on without one.
    every : int
        The memory is looked at, and the program itself run, after so many attacks only.
    races : bool
        A pass may read what it writes.
    """
    assert attacks
    judge, plan = Judge(bed, races=races), collections.deque()

    def jobs():
        yield from planned(None, [(Judge.good, bed.first(rng))])
        for number, attack in enumerate(attacks):
            last = number % every == every - 1 or number == len(attacks) - 1
            options = dict(attack.options) | ({} if last else {"regions": ()})
            if {"inject", "timing", "reset"} & set(options) or number % fresh == fresh - 1:
                options = {"reset": True, **random_stress(rng)} | options
                options["guard"] = union(bed.guard, (attack.low, attack.high))
            yield from planned(attack, bed.runs(attack, options))
            if attack.spoils:
                stress = {"reset": True, "guard": bed.guard, **random_stress(rng)}
                yield from planned(attack, [(Judge.good, bed.good(**stress))])
            elif last:
                yield from planned(attack, [(Judge.good, bed.good())])

    def planned(attack, runs):
        for look, run in runs:
            plan.append((look, attack))
            yield run

    attack = None
    try:
        for outcome in run_core_jobs(built, jobs()):
            look, attack = plan.popleft()
            look(judge, outcome, attack)
    except CspError as error:
        raise AssertionError(f"{attack and attack.name}, or what follows: {error}") from error
    assert len(judge.found) == len(attacks)
    return judge.found


def union(one, other):
    """Give the smallest range that holds two."""
    return min(one[0], other[0]), max(one[1], other[1])
