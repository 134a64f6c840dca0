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
from collections.abc import Callable, Iterable, Mapping

import numpy as np

from csp_algo.errors import check_int
from sim.cosim.core.jobs import Timing
from sim.model import actions
from sim.model.actions import Actions
from sim.model.bound import pass_bound
from sim.model.constants import Constants
from sim.model.energy import Component, Core, energy
from sim.peers.base import Cost, Part, Traffic
from sim.program.compiler import compile_network
from sim.program.passes import Pass
from sim.workloads.catalogue import Work
from sim.workloads.network import network

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
    Component.OUTPUT: Part.OTHER,
    Component.GATED: Part.IDLE,
    Component.IDLE: Part.IDLE,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class CspH:
    """The accelerator, and how it is used.

    Parameters
    ----------
    core : Core
    period : int, optional
        T, if not the largest.
    images : int
        Computed together; a cost is that of one of them.
    timing : Timing
        Of the memory.
    cycles : callable, optional
        Gives the cycles of a pass, instead of :func:`bound_cycles`.
    """

    core: Core = dataclasses.field(default_factory=Core)
    period: int | None = None
    images: int = 1
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


def cost(
    work: Work, *, config: CspH | None = None, constants: Constants | None = None, seed: int = 0
) -> CspCost:
    """Give what a layer costs, for one image.

    Parameters
    ----------
    work : Work
    config : CspH, optional
    constants : Constants, optional
    seed : int
        Of the counts.

    Raises
    ------
    CspError
        The core cannot compute the layer.
    """
    config, constants = config or CspH(), constants or Constants()
    core, shape = config.core, work.shape
    built = core.config
    period = config.period or built.max_period
    made = network(work, cols=built.cols, period=period, seed=seed)
    passes = compile_network(made, built, config.images).passes
    clock = config.cycles or bound_cycles
    factor = shape.repeat / config.images
    cycles = factor * sum(clock(step, config.timing) for step in passes)
    done = actions.together(_counted(step, work.inputs) for step in passes).scaled(factor)
    components = energy(done, cycles, core, constants)
    return CspCost(
        name=shape.name,
        cycles=cycles,
        units=core.elements,
        useful=done.useful - done.gated,
        core=by_part(components),
        traffic=Traffic(
            weights=built.cols * done.weight_beats,
            inputs=built.cols * (done.input_beats + done.residual_beats),
            outputs=built.cols * done.result_beats,
        ),
        constants=constants,
        actions=done,
        components=components,
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
    each = schedule.matrix.chunks
    lanes = schedule.result_words // (each * schedule.words_per_chunk)
    drains = schedule.result_words + (sizes * schedule.config.rows - lanes) * each
    left = drains[::-1].cumsum()[::-1]
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


def _counted(step: Pass, density: float) -> Actions:
    schedule = step.schedule
    zeros = None if schedule is None else actions.expected_zeros(schedule, density)
    return actions.count(step, zeros)
