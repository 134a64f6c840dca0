# SPDX-License-Identifier: Apache-2.0
"""Cycles of a pass of the core, and what they were spent on."""

import dataclasses
from collections.abc import Mapping

from csp_algo.errors import CspError
from csp_hw.control import CHECK_CYCLES, SETTLE_CYCLES
from csp_hw.core import FETCH_DEPTH, MAP_DEPTH
from csp_hw.counters import CYCLES, WORDS
from csp_hw.datapath import ENTRY_BYTES
from csp_hw.descriptor import DESCRIPTOR_BYTES, Kind
from csp_hw.map_memory import READ_LATENCY, WRITE_LATENCY
from sim.cosim.core.jobs import Timing, WriteOrder
from sim.model.core.bursts import runs_of
from sim.model.core.front import Front
from sim.model.core.memory import Times
from sim.model.core.reader import Bounded, Client, ReadPort, Waiting
from sim.model.core.results import DrainTimes, PoolerTimes, Residual
from sim.model.core.tables import Tables, bounds_of_entries, bounds_of_store
from sim.model.core.tiles import TileTimes
from sim.model.core.widths import Converter
from sim.model.core.writer import WritePort
from sim.program.loops import Loops
from sim.program.passes import Pass

#: The map memory, which answers in the place of a port's memory.
ON_CHIP = Timing(read_latency=READ_LATENCY, write_latency=WRITE_LATENCY)
#: Ports of the memory: tables, maps, results and residuals.
TABLES, MAPS, RESULTS = PORTS = ("wgt", "act", "res")
#: The cycle in which a descriptor is asked for.
ASK = 1
#: From a descriptor's check to the launch of its pass in the datapath, and from there to the first
#: run of a map.
LAUNCH, LOOPS = 2, 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class PassCycles:
    """Cycles of a pass.

    Parameters
    ----------
    cycles : int
        From the cycle before its descriptor is asked for to that before the next one's; a start
        takes one more than all of its passes, which is what ``CORE_CYCLES`` counts.
    counters : dict of str to int
        Beats of the ports and, of a convolution, what the engine counts but for values: cycles,
        what they were spent on, and words; by the names of the registers in small letters.
    """

    cycles: int
    counters: dict[str, int]


def pass_cycles(step: Pass, timing: Timing | Mapping[str, Timing]) -> PassCycles:
    """Give the cycles of a pass on a memory without stalls at random.

    Parameters
    ----------
    step : Pass
    timing : Timing, or mapping of str to Timing
        Of all ports, or of each of ``PORTS``.

    Raises
    ------
    CspError
        A port of the memory takes writes in an order that is not modelled.
    """
    cols = step.config.cols
    ports = dict.fromkeys(PORTS, timing) if isinstance(timing, Timing) else timing
    if ports[RESULTS].order is not WriteOrder.FREE:
        raise CspError(
            f"the cycle model has no memory that takes {ports[RESULTS].order.value} first"
        )
    counters = {
        "activation_beats": step.input_beats,
        "weight_port_beats": step.weight_beats,
        "residual_beats": step.residual_beats,
        "result_beats": step.result_beats,
    }
    beats = DESCRIPTOR_BYTES // cols
    descriptor = Client([(0, beats)], ASK, FETCH_DEPTH, cols)
    ReadPort([descriptor], ports[TABLES], cols).run(lambda: False)
    start = descriptor.taken(beats - 1) + CHECK_CYCLES + LAUNCH
    if step.kind is Kind.CONVOLVE:
        front, ends = _convolution(step, start, ports)
        counters |= {CYCLES: front.idle - (start + 2), **front.spent, **_words(step)}
    else:
        ends = _pooling(step, start, ports)
    # Both are seen a cycle late.
    last = max(ends) + 1
    return PassCycles(cycles=last + SETTLE_CYCLES + 1, counters=counters)


def _words(step: Pass) -> dict[str, int]:
    schedule = step.schedule
    assert schedule is not None
    pixels = sum(tile.interleave for tile in schedule.tiles)
    moved = (
        len(schedule.tiles) * (schedule.matrix.taps // step.config.lookahead),
        len(schedule.tiles) * schedule.steps,
        pixels * len(schedule.survivors),
        int(schedule.result_words.sum()),
    )
    return dict(zip(WORDS, moved, strict=True))


def _timing(loops: Loops, port: Timing) -> Timing:
    """Give how fast a map is read or written, through a port or on the chip."""
    return ON_CHIP if loops.on_chip else port


def _behind(step: Pass, start: int, ports: Mapping[str, Timing]) -> tuple[PoolerTimes, WritePort]:
    timing = _timing(step.output, ports[RESULTS])
    write = WritePort(runs_of(step.output), start + LOOPS, timing, step.config.cols)
    return PoolerTimes(step.fields, start + 2, write), write


def _pooling(step: Pass, start: int, ports: Mapping[str, Timing]) -> tuple[int, ...]:
    """Give when a pooling alone, and the port of its results, are at rest."""
    cols = step.config.cols
    pool, write = _behind(step, start, ports)
    source = Waiting(runs_of(step.input), start + LOOPS, MAP_DEPTH, cols, sliced=True)
    port = ReadPort([source], _timing(step.input, ports[MAPS]), cols)
    while source.known < source.total:
        if source.known == source.count:
            port.run(lambda: source.count > source.known)
        source.take(1, pool.take(source.arrived(source.known)))
    return pool.end(), write.end() + 1


def _convolution(
    step: Pass, start: int, ports: Mapping[str, Timing]
) -> tuple[Front, tuple[int, ...]]:
    """Model a convolution; give when all is at rest, too.

    What the port of the tables brings depends on what is taken of it, and back. As neither depends
    on anything later, there is one way in which both agree.
    """
    config, fields = step.config, step.fields
    bounds: dict[str, Times] = {}
    while True:
        tables = Tables.of(step, start, ports[TABLES], bounds)
        pool, write = _behind(step, start, ports)
        front, entries = _front(step, start, ports, tables, pool)
        found = {"entries": bounds_of_entries(entries.loads)}
        for name, sent, depth in (
            ("counts", front.counts_sent, config.count_words),
            ("weights", front.weights_sent, config.weight_words),
        ):
            if not fields[f"{name}_resident"] and len(sent) > depth:
                found[name] = bounds_of_store(getattr(tables, name), sent, depth)
        if tables.agree(bounds, found):
            return front, (front.idle, front.feeder_idle, pool.end(), write.end() + 1)
        bounds = found


def _front(
    step: Pass, start: int, ports: Mapping[str, Timing], tables: Tables, pool: PoolerTimes
) -> tuple[Front, Converter]:
    cols = step.config.cols
    source = Bounded(runs_of(step.input), start + LOOPS, MAP_DEPTH, cols, sliced=True)
    residual = None
    if step.residual is not None:
        added = Waiting(runs_of(step.residual), start + LOOPS, MAP_DEPTH, cols)
        timing = _timing(step.residual, ports[RESULTS])
        residual = Residual(ReadPort([added], timing, cols), added)
    drain = DrainTimes(
        step.config,
        step.fields,
        loaded=tables.loaded,
        begin=start + 2,
        pool=pool,
        residual=residual,
    )
    entries = Converter(cols // ENTRY_BYTES, tables.entries.offers())
    port = ReadPort([source], _timing(step.input, ports[MAPS]), cols)
    tiles = TileTimes(step, start, entries, port, source)
    return Front(step, start, tables=tables, tiles=tiles, drain=drain), entries
