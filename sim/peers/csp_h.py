# SPDX-License-Identifier: Apache-2.0
"""CSP-H, the core of this project with 32 × 32 PEs, on the same work as its peers.

A layer is a network of one layer for the core's own compiler: its passes, tiles and beats are what
the hardware would be asked for. Counts are those of the cascade that SparTen's model multiplies;
zeros of activations are expectations, padding exact. :mod:`sim.model.actions` counts,
:mod:`sim.model.energy` gives the energy.

Cycles are a bound, not a measurement: products, or the scan of the counts where that takes a tile
longer; drains; beats of each port; first data and last drain. What the bound leaves out is
measured in ``docs/measurements.md``. Another model of cycles can be given.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

import numpy as np

from csp_algo.errors import check_int
from csp_hw.map_memory import BANKS
from sim.cosim.core.jobs import Timing
from sim.model import actions
from sim.model.actions import Actions
from sim.model.bound import pass_bound, tile_drains
from sim.model.constants import Constants
from sim.model.energy import Component, Core, energy
from sim.model.sram import Memory, at_least
from sim.peers.base import Cost, Part, Traffic, map_sizes
from sim.program.compiler import compile_network
from sim.program.passes import Pass
from sim.program.program import Program
from sim.workloads.catalogue import Work, Workload
from sim.workloads.network import network

#: A bank of a memory of weights, which is not in the hardware but may be assumed.
BANK = Memory(bytes=1024 * 1024, width_bits=256)

#: What each component is in the terms of all accelerators.
PARTS = {
    Component.MAC: Part.MAC,
    Component.OPERANDS: Part.REGISTER,
    Component.RUN: Part.REGISTER,
    Component.SUM: Part.REGISTER,
    Component.CONTROL: Part.REGISTER,
    Component.HELD: Part.REGISTER,
    Component.ACCUMULATOR: Part.ACCUMULATOR,
    Component.EDGE: Part.ROUTE,
    Component.DRAIN: Part.ROUTE,
    Component.SKIP: Part.JOIN,
    Component.ROW_BUFFER: Part.BUFFER,
    Component.RUN_BUFFER: Part.BUFFER,
    Component.LINE_BUFFER: Part.BUFFER,
    Component.FEEDER: Part.ROUTE,
    Component.WEIGHT_BUFFER: Part.BUFFER,
    Component.PORTS: Part.BUFFER,
    Component.MEMORY: Part.BUFFER,
    Component.OUTPUT: Part.OTHER,
    Component.GATED: Part.IDLE,
    Component.IDLE: Part.IDLE,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class CspH:
    """The accelerator, and how it is used.

    What the core's map memory keeps is assumed: a layer knows of no graph, so a map of all images
    stays if it is at most half of it. On ResNet-50's graph the compiler's places agree with that
    for 2 MiB and one image (``tests/sim/test_kept.py``).

    Parameters
    ----------
    core : Core
        With a map memory if its configuration has one.
    period : int, optional
        T, if not the largest.
    images : int
        Computed together; a cost is that of one of them.
    compressed : bool
        Maps lie in DRAM as a bit mask and the bytes that are not zero, where that is less. The
        hardware has them whole, channels padded to beats.
    weights_kept : bool
        Weights and counts come from a memory on the chip instead of DRAM.
    pools_fused : bool
        A map that is pooled before it is read is written as it is read. The core does so; the
        works say nothing of pooling, and SparTen's model writes maps as they are.
    timing : Timing
        Of the memory.
    cycles : callable, optional
        Gives the cycles of a pass, instead of :func:`bound_cycles`.
    """

    core: Core = dataclasses.field(default_factory=Core)
    period: int | None = None
    images: int = 1
    compressed: bool = False
    weights_kept: bool = False
    pools_fused: bool = False
    timing: Timing = dataclasses.field(default_factory=Timing)
    cycles: Callable[[Pass, Timing], float] | None = None

    def __post_init__(self) -> None:
        check_int("images", self.images, 1, 1 << 16)


@dataclasses.dataclass(frozen=True, kw_only=True)
class CspCost(Cost):
    """What a layer costs, with what the core did for it.

    Parameters
    ----------
    actions : Actions
    components : mapping of Component to pJ
        Energy of the chip; ``core`` is the same by part.
    """

    actions: Actions
    components: Mapping[Component, float]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Place:
    """Where a layer stands in its network.

    Parameters
    ----------
    first, last : bool
        It reads the network's input, writes its output.
    read : int, optional
        Elements that the next layer reads of what this one writes, if they are fewer.
    """

    first: bool = False
    last: bool = False
    read: int | None = None


def cost(
    work: Work,
    *,
    config: CspH | None = None,
    constants: Constants | None = None,
    place: Place | None = None,
    seed: int = 0,
) -> CspCost:
    """Give what a layer costs, for one image.

    Parameters
    ----------
    work : Work
    config : CspH, optional
    constants : Constants, optional
    place : Place, optional
        In its network; in the middle if not given.
    seed : int
        Of the counts.

    Raises
    ------
    CspError
        The core cannot compute the layer.
    """
    config = config or CspH()
    return priced(work, counted(work, config, seed=seed), config, constants, place)


class Counted(NamedTuple):
    """What the core does for one image, and in how many cycles."""

    actions: Actions
    cycles: float


def counted(work: Work, config: CspH, *, seed: int = 0) -> Counted:
    """Count what a layer asks for; how its energy is reckoned does not matter.

    Raises
    ------
    CspError
        The core cannot compute the layer.
    """
    built = config.core.config
    made = network(work, cols=built.cols, period=config.period or built.max_period, seed=seed)
    program = compile_network(made, built, config.images)
    clock = config.cycles or bound_cycles
    factor = work.shape.repeat / config.images
    done = actions.together(_counts(program, work)).scaled(factor)
    return Counted(done, factor * sum(clock(step, config.timing) for step in program.passes))


def priced(
    work: Work,
    done: Counted,
    config: CspH,
    constants: Constants | None = None,
    place: Place | None = None,
) -> CspCost:
    """Give what a layer costs that was counted; see :func:`cost`."""
    constants = constants or Constants()
    core = config.core
    traffic, kept = divided(_stored(work, done.actions, config), work, config, place)
    components = energy(done.actions, done.cycles, core, constants)
    components[Component.MEMORY] = kept_energy(kept, config, constants)
    return CspCost(
        name=work.shape.name,
        cycles=done.cycles,
        units=core.elements,
        useful=done.actions.useful - done.actions.gated,
        core=by_part(components),
        traffic=traffic,
        constants=constants,
        actions=done.actions,
        components=components,
    )


def network_costs(
    network_: Workload,
    *,
    config: CspH | None = None,
    constants: Constants | None = None,
    seed: int = 0,
) -> list[CspCost]:
    """Give the costs of a network's layers, each in its place; see :func:`cost`."""
    return [
        cost(work, config=config, constants=constants, place=place, seed=seed)
        for work, place in zip(network_.works, places(network_), strict=True)
    ]


def places(network_: Workload) -> list[Place]:
    """Give where each layer stands; its successor is taken for who reads it, if it can be."""
    works = network_.works
    found = []
    for number, work in enumerate(works):
        read = None
        if number + 1 < len(works) and _reads(works[number + 1], work):
            read = map_sizes(works[number + 1])[0]
        pooled = read is not None and read < map_sizes(work)[1]
        found.append(
            Place(
                first=number == 0,
                last=number == len(works) - 1,
                read=read if pooled else None,
            )
        )
    return found


def _reads(reader: Work, work: Work) -> bool:
    """Whether a layer may read what another one writes: as many channels, or all flattened."""
    channels, filters = reader.shape.geometry.in_shape[2], work.shape.geometry.filters
    flattened = reader.shape.linear and not work.shape.linear
    return channels == filters or (flattened and channels % filters == 0)


def divided(
    stored: Traffic, work: Work, config: CspH, place: Place | None
) -> tuple[Traffic, Traffic]:
    """Give what moves to and from DRAM, and what a memory on the chip takes its place for.

    Parameters
    ----------
    stored : Traffic
        Of one image, if all were in DRAM.
    work : Work
    config : CspH
        Of it, what is kept where.
    place : Place, optional
    """
    place = place or Place()
    sizes = dataclasses.asdict(stored)
    kept = dict.fromkeys(sizes, 0.0)
    if config.pools_fused and place.read is not None:
        sizes["outputs"] *= place.read / map_sizes(work)[1]
    if config.weights_kept:
        kept["weights"], sizes["weights"] = sizes["weights"], 0.0
    for name, end in (("inputs", place.first), ("outputs", place.last)):
        each = config.images * sizes[name] / work.shape.repeat
        if not end and each <= config.core.config.map_bytes / 2:
            kept[name], sizes[name] = sizes[name], 0.0
    if kept["inputs"]:
        sizes["refetched"] = 0.0
    return Traffic(**sizes), Traffic(**kept)


def kept_energy(kept: Traffic, config: CspH, constants: Constants) -> float:
    """Give the energy of memories on the chip instead of DRAM, pJ; weights are only read."""
    weights = BANK.read(kept.weights, constants)
    built = config.core.config
    if not built.map_bytes:
        return weights
    bank = at_least(built.map_bytes // (BANKS * built.cols), 8 * built.cols)
    return weights + bank.read(kept.inputs, constants) + bank.write(kept.outputs, constants)


def _stored(work: Work, done: Actions, config: CspH) -> Traffic:
    """Give what would move if all were in DRAM."""
    cols, geometry = config.core.config.cols, work.shape.geometry
    shares = dict.fromkeys(("inputs", "outputs"), 1.0)
    if config.compressed:
        channels = {"inputs": geometry.in_shape[2], "outputs": geometry.filters}
        for name, density in (("inputs", work.inputs), ("outputs", work.outputs)):
            filled = channels[name] / (cols * -(-channels[name] // cols))
            shares[name] = min(1.0, density * filled + 1 / 8)
    return Traffic(
        weights=cols * done.weight_beats,
        inputs=cols * (done.input_beats + done.residual_beats) * shares["inputs"],
        outputs=cols * done.result_beats * shares["outputs"],
    )


def bound_cycles(step: Pass, timing: Timing) -> float:
    """Give the fewest cycles of a pass, with the scan of its counts."""
    bound, schedule = pass_bound(step, timing), step.schedule
    if schedule is None:
        return bound.cycles
    words = schedule.counts() != 0
    scan = int(np.maximum(words.sum(axis=1), 1).sum())
    sizes = np.array([tile.interleave for tile in schedule.tiles], dtype=np.int64)
    computes = np.array([sizes * schedule.steps, np.maximum(sizes * schedule.steps, scan)])
    left = tile_drains(schedule)[::-1].cumsum()[::-1]
    plain, scanned = (computes.cumsum(axis=1) + left).max(axis=1).tolist()
    return dataclasses.replace(bound, array=bound.array + scanned - plain).cycles


def by_part(components: Mapping[Component, float]) -> dict[Part, float]:
    """Give energies in the terms of all accelerators."""
    core: dict[Part, float] = {}
    for component, value in components.items():
        core[PARTS[component]] = core.get(PARTS[component], 0.0) + value
    return core


def by_component(costs: Iterable[CspCost]) -> dict[Component, float]:
    """Add up the components' energies of layers."""
    total = dict.fromkeys(Component, 0.0)
    for each in costs:
        for component, value in each.components.items():
            total[component] += value
    return total


def _counts(program: Program, work: Work) -> Iterator[Actions]:
    """Count each pass, over a map with real zeros or with as many as are expected."""
    if work.zeros is None:
        for step in program.passes:
            yield actions.count_expected(step, work.inputs)
        return
    shape = (program.images, *work.zeros.inputs.shape)
    memory = program.memory(np.broadcast_to(work.zeros.inputs.astype(np.uint8), shape))
    for step in program.passes:
        schedule = step.schedule
        zeros = None if schedule is None else schedule.zeros(program.read(step, memory))
        yield actions.count(step, zeros)
