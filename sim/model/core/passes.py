# SPDX-License-Identifier: Apache-2.0
"""Cycles of a pass, and what they were spent on."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from csp_hw.control import CHECK_CYCLES, SETTLE_CYCLES
from csp_hw.core import FETCH_DEPTH, MAP_DEPTH, TABLE_DEPTHS
from csp_hw.datapath import ENTRY_BYTES, PARAM_BYTES
from csp_hw.descriptor import DESCRIPTOR_BYTES, Kind
from sim.cosim.core.jobs import Timing
from sim.model.core.bursts import EARLY, runs_of
from sim.model.core.front import Converter, Front, Spent
from sim.model.core.memory import Times, chain
from sim.model.core.reader import Bounded, Client, Listed, ReadPort, Waiting
from sim.model.core.results import DrainTimes, PoolerTimes, Residual
from sim.model.core.writer import WritePort
from sim.program.passes import Pass

TABLES, MAPS, RESULTS = "wgt", "act", "res"


@dataclasses.dataclass(frozen=True, kw_only=True)
class PassCycles:
    """Cycles of a pass.

    Parameters
    ----------
    cycles : int
        From descriptor to descriptor; a start takes one more for all of its passes.
    engine : int
        In which the engine was at work.
    spent : Spent
    """

    cycles: int
    engine: int
    spent: Spent


class _Words:
    """Beats of a table that are cut into words which always have room, or enter a store."""

    def __init__(self, ratio: int, bounds: Times | None = None) -> None:
        self._ratio = ratio
        self._bounds = bounds
        self._taken, self._loaded = EARLY, EARLY
        self.words: list[int] = []

    def __call__(self, offers: list[int]) -> list[int]:
        taken = []
        for offer in offers:
            time = max(offer, self._taken + 1, self._loaded + 1)
            left = self.words[-1] if self.words else EARLY
            self._loaded = max(time, left)
            self._taken = time
            word = self._loaded
            for _ in range(self._ratio):
                word += 1
                if self._bounds is not None and len(self.words) < len(self._bounds):
                    word = max(word, int(self._bounds[len(self.words)]))
                self.words.append(word)
            taken.append(time)
        return taken


class _Plain:
    """Beats that are taken as they come, none before its bound."""

    def __init__(self, bounds: Times) -> None:
        self._bounds = bounds.tolist()
        self._times: list[int] = []

    def __call__(self, offers: list[int]) -> list[int]:
        times = self._times
        first = len(times)
        for number, offer in enumerate(offers, first):
            times.append(max(offer, self._bounds[number], times[-1] + 1 if number else EARLY))
        return times[first:]


def pass_cycles(step: Pass, timing: Timing | Mapping[str, Timing]) -> PassCycles:
    """Give the cycles of a pass."""
    config, fields = step.config, step.fields
    cols = config.cols
    ports = dict.fromkeys((TABLES, MAPS, RESULTS), timing) if isinstance(timing, Timing) else timing
    beats = DESCRIPTOR_BYTES // cols
    # The descriptor.
    fetch = Client([(0, beats)], 1, FETCH_DEPTH, cols)
    ReadPort([fetch], ports[TABLES], cols).run(lambda: fetch.known == beats)
    start = fetch.taken(beats - 1) + CHECK_CYCLES
    write = WritePort(runs_of(step.output), start + 2, ports[RESULTS], cols)
    pool = PoolerTimes(fields, start + 2, write)
    if step.kind is Kind.CONVOLVE:
        front, pool, write = _converge(step, start, ports)
        spent, engine = front.spent, front.idle - (start + 2)
        rest = max(front.idle, front.feeder_idle, pool.end())
    else:
        source = Waiting(runs_of(step.input), start + 2, MAP_DEPTH, cols)
        port = ReadPort([source], ports[MAPS], cols)
        for number in range(source.total):
            port.run(lambda number=number: source.count > number)
            source.take(1, pool.take(source.arrived(number)))
        spent, engine = Spent(), 0
        rest = pool.end()
    last = max(write.end() + 1, rest) + 1
    return PassCycles(cycles=last + SETTLE_CYCLES + 1, engine=engine, spent=spent)


def _converge(step: Pass, start: int, ports: Mapping[str, Timing]):
    """Model a convolution: what the tables' port brings depends on what is taken, and back."""
    entry_bounds = count_bounds = weight_bounds = None
    before = None
    for _ in range(100):
        arrivals = _tables(step, start, ports[TABLES], entry_bounds, count_bounds, weight_bounds)
        loaded, entries, counts, weights = arrivals
        told = [list(part) for part in (entries, counts, weights)]
        if told == before:
            return front, pool, write
        before = told
        front, pool, write = _datapath(step, start, ports, arrivals)
        entry_bounds, count_bounds, weight_bounds = _bounds(step, front)
    raise AssertionError("no end")


def _bounds(step: Pass, front: Front):
    config, fields = step.config, step.fields
    converter = front._entries
    loads = converter.loads
    entry = np.full(len(converter.taken), EARLY, dtype=np.int64)
    entry[1:] = np.array(loads[:-1]) + 1
    found = []
    for sent, depth, resident, enter in (
        (front.count_reads, config.count_words, fields["counts_resident"], front._counts),
        (front.weight_reads, config.weight_words, fields["weights_resident"], front._weights),
    ):
        if resident or len(sent) <= depth:
            found.append(None)
            continue
        sent_ = np.array(sent, dtype=np.int64)
        earliest = enter + 1
        earliest[8:] = np.maximum(earliest[8:], sent_[:-8] + 1)
        reads = chain(earliest)
        bound = np.full(len(sent), EARLY, dtype=np.int64)
        bound[depth:] = reads[:-depth] + 1
        found.append(bound)
    return entry, found[0], found[1]


def _tables(step: Pass, start: int, timing: Timing, entry_bounds, count_bounds, weight_bounds):
    config, fields = step.config, step.fields
    cols = config.cols
    parts = {name: -(-len(data) // cols) for name, data in step.data.items()}
    times = {"counts": "counts_resident", "weights": "weights_resident"}
    words = {
        "params": _Words(max(1, cols // PARAM_BYTES)),
        "counts": _Words(cols // config.lookahead, count_bounds),
    }
    leave = dict(words)
    if entry_bounds is not None:
        leave["entries"] = _Plain(entry_bounds)
    if weight_bounds is not None:
        leave["weights"] = _Plain(weight_bounds)
    clients = {}
    for name, depth in TABLE_DEPTHS.items():
        key = "tiles" if name == "entries" else name
        repeat = 1
        if name in times and not fields[times[name]]:
            repeat = fields["tiles"]
        offset = fields[f"{key}_offset"] // cols
        runs = [(offset, parts[key])] * repeat if parts[key] else []
        if name in leave:
            clients[name] = Listed(runs, start + 1, depth, cols, leave[name])
        else:
            clients[name] = Client(runs, start + 1, depth, cols)
    idle = Client([], 0, FETCH_DEPTH, cols)
    ReadPort([idle, *clients.values()], timing, cols).run(lambda: False)
    assert all(one.known == one.total for one in clients.values())
    gathers = PARAM_BYTES // cols
    loaded = clients["params"].taken(clients["params"].total - 1) + 1 if gathers > 1 else words["params"].words[-1]
    return (
        loaded,
        clients["entries"].offers(),
        np.array(words["counts"].words, dtype=np.int64),
        clients["weights"].all_taken(),
    )


def _datapath(step: Pass, start: int, ports: Mapping[str, Timing], arrivals):
    config, fields = step.config, step.fields
    cols = config.cols
    loaded, entries, counts, weights = arrivals
    write = WritePort(runs_of(step.output), start + 2, ports[RESULTS], cols)
    pool = PoolerTimes(fields, start + 2, write)
    source = Bounded(runs_of(step.input), start + 2, MAP_DEPTH, cols)
    port = ReadPort([source], ports[MAPS], cols)
    residual = None
    if step.residual is not None:
        client = Waiting(runs_of(step.residual), start + 2, MAP_DEPTH, cols)
        residual = Residual(ReadPort([client], ports[RESULTS], cols), client)
    drain = DrainTimes(config, fields, loaded=loaded, begin=start + 2, pool=pool, residual=residual)
    front = Front(
        step,
        start,
        entries=Converter(cols // ENTRY_BYTES, entries),
        counts=counts,
        weights=weights,
        port=port,
        client=source,
        drain=drain,
    )
    front.run()
    return front, pool, write
