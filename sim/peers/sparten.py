# SPDX-License-Identifier: Apache-2.0
"""SparTen (Gondimalla et al., MICRO 2019, doi 10.1145/3352460.3358291), chunk by chunk.

A cluster's units hold one filter each, all at the same chunk of 128 positions, and the chunk of
the input at one window is broadcast to them. A unit joins the two bit masks and multiplies one
pair of non-zero operands a cycle; the next broadcast waits for the slowest unit:

    cycles of a broadcast = start_up + max(schedule, max over units of popcount(filter AND input))

Exact for the masks that are given: nothing of this is drawn or averaged. Work is dealt to
clusters as items (output pixel, group of filters), in this order, equally many contiguous ones
for each; a layer takes as long as its slowest cluster.

Chunks run along the channels of each kernel position (r, s), so the last one may be short
(``packed``: along the channels and columns of a kernel row). A kernel position in the padding is
no chunk and takes no time.

Balancing (from memory of the paper): GB-S sorts the filters by density, and a unit takes two, the
densest with the sparsest, the second with the last but one …; GB-H pairs anew for each chunk,
within the group of 64 filters that GB-S has formed. Missing filters count as empty ones.

Energy: unit-cycles × power of table 4. An idle unit-cycle takes a share of it
(:data:`sim.model.constants.IDLE_SHARE`). The permute network counts with GB-H only. Operands are
in DRAM as bit mask and non-zero bytes.

Simplified: operands always arrive in time; no time for start and end of a layer; outputs are
compressed for nothing; filters are fetched from DRAM once for all clusters.
"""

import dataclasses
import enum
from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import numpy.typing as npt

from csp_algo.errors import CspError, check_int
from csp_algo.geometry import Geometry, patches
from sim.model.constants import SPARTEN_POWER, Constants
from sim.peers.base import Cost, Part, Traffic, bitmapped, together
from sim.workloads.catalogue import Work
from sim.workloads.operands import Operands

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
#: Products counted at once, filters × pixels: they stay in the cache.
_BLOCK = 2**20


class Balance(enum.StrEnum):
    """Which filters share a unit."""

    NONE = "none"
    GB_S = "gb-s"
    GB_H = "gb-h"


@dataclasses.dataclass(frozen=True, kw_only=True)
class SparTen:
    """The accelerator.

    Parameters
    ----------
    clusters, units : int
        32 clusters of 32 units; the clusters' number is from memory.
    chunk : int
        Positions of a bit mask.
    start_up : int
        Cycles of a broadcast before its first product.
    schedule : int
        The fewest cycles from one broadcast to the next, if nobody has anything to multiply.
    packed : bool
        Chunks run along channels and columns of a kernel row.

    Raises
    ------
    CspError
        A number is out of range.
    """

    clusters: int = 32
    units: int = 32
    chunk: int = 128
    start_up: int = 0
    schedule: int = 1
    packed: bool = False

    def __post_init__(self) -> None:
        for name in ("clusters", "units", "chunk"):
            check_int(name, getattr(self, name), 1, 2**16)
        for name in ("start_up", "schedule"):
            check_int(name, getattr(self, name), 0, 2**16)

    @property
    def multipliers(self) -> int:
        """One a unit."""
        return self.clusters * self.units


@dataclasses.dataclass(frozen=True, kw_only=True)
class SparTenCost(Cost):
    """What a layer costs, and where its unit-cycles go.

    Parameters
    ----------
    balance : Balance
    unused : float
        Unit-cycles of units without a filter.
    barrier : float
        Unit-cycles spent waiting for the slowest unit, for the start-up or the schedule.
    clusters : float
        Unit-cycles of clusters that are done before the slowest one.
    """

    balance: Balance
    unused: float
    barrier: float
    clusters: float


def simulate(
    work: Work,
    operands: Operands,
    *,
    config: SparTen | None = None,
    constants: Constants | None = None,
    balances: tuple[Balance, ...] = tuple(Balance),
) -> dict[Balance, SparTenCost]:
    """Give what a layer costs with each balancing, for one image.

    Parameters
    ----------
    work : Work
        Its densities serve for the map that is written; those of operands are in their masks.
    operands : Operands
    config : SparTen, optional
    constants : Constants, optional
    balances : tuple of Balance

    Raises
    ------
    CspError
        The masks do not have the layer's shape.
    """
    config, constants = config or SparTen(), constants or Constants()
    geometry = work.shape.geometry
    wanted = (geometry.groups, geometry.group_filters, geometry.taps)
    if operands.weights.shape != wanted or operands.inputs.shape != geometry.in_shape:
        raise CspError(
            f"{work.shape.name}: masks have shapes {operands.weights.shape} and "
            f"{operands.inputs.shape}, not {wanted} and {geometry.in_shape}"
        )
    useful = 0
    times: dict[Balance, list[Ints]] = {balance: [] for balance in balances}
    filters = dict.fromkeys(balances, 0.0)
    for group, weights in enumerate(operands.weights):
        plans = {balance: _Plan(balance, weights, config) for balance in balances}
        useful += _run(geometry, group, weights, operands.inputs, plans, config)
        for balance, plan in plans.items():
            times[balance].append(plan.times.T.ravel())
            filters[balance] += float(plan.occupied @ plan.times.sum(axis=1))
    return {
        balance: _cost(
            work, operands, config, constants, balance, np.concatenate(items), useful, busy
        )
        for (balance, items), busy in zip(times.items(), filters.values(), strict=True)
    }


def with_constants(cost: SparTenCost, constants: Constants) -> SparTenCost:
    """Give the same work with other constants, without a simulation."""
    core = _core(cost.useful, cost.idle, cost.balance, constants)
    return dataclasses.replace(cost, core=core, constants=constants)


def network_cost(name: str, costs: Iterable[SparTenCost]) -> SparTenCost:
    """Add the costs of layers with one balancing.

    Raises
    ------
    CspError
        There are none, or they are not of one accelerator.
    """
    costs = list(costs)
    whole = together(name, costs)
    if len({cost.balance for cost in costs}) != 1:
        raise CspError(f"{name}: costs with one balancing are needed")
    return SparTenCost(
        **{field.name: getattr(whole, field.name) for field in dataclasses.fields(Cost)},
        balance=costs[0].balance,
        unused=sum(cost.unused for cost in costs),
        barrier=sum(cost.barrier for cost in costs),
        clusters=sum(cost.clusters for cost in costs),
    )


class _Plan:
    """Who computes which filters; collects the time of each item.

    ``order`` [groups, filters a unit, units] names the filters; number M stands for none.
    """

    def __init__(self, balance: Balance, weights: npt.NDArray[np.bool_], config: SparTen) -> None:
        self.balance, self.config = balance, config
        count = len(weights)
        held = 1 if balance is Balance.NONE else 2
        groups = -(-count // (held * config.units))
        order = np.full((groups, held * config.units), count, dtype=np.int64)
        if balance is Balance.NONE:
            order.reshape(-1)[:count] = np.arange(count)
        else:
            ranks = np.argsort(-weights.sum(axis=1, dtype=np.int64), kind="stable")
            _deal(ranks, order)
        self.order = order.reshape(groups, held, config.units)
        self.times = np.zeros((groups, 0), dtype=np.int64)
        #: Units of each group that hold a filter.
        self.occupied = (self.order < count).any(axis=1).sum(axis=1)

    def chunk_order(self, weights: npt.NDArray[np.bool_]) -> Ints:
        """Give the order for one chunk, whose weights are given."""
        if self.balance is not Balance.GB_H:
            return self.order
        density = np.append(weights.sum(axis=1, dtype=np.int64), -1)
        groups, held, units = self.order.shape
        flat = self.order.reshape(groups, held * units)
        ranked = np.take_along_axis(flat, np.argsort(-density[flat], axis=1, kind="stable"), axis=1)
        return _folded(ranked, units)

    def add(self, matches: Floats, order: Ints, live: npt.NDArray[np.bool_], pixels: slice) -> None:
        """Add the time of one chunk's broadcasts; ``matches`` [M + 1, P], the last row is zero."""
        groups, held, units = order.shape
        sums = matches[order[:, 0].ravel()]
        if held == 2:
            sums += matches[order[:, 1].ravel()]
        slowest = sums.reshape(groups, units, -1).max(axis=1)
        took = np.maximum(slowest, self.config.schedule).astype(np.int64) + self.config.start_up
        self.times[:, pixels] += took * live


def _deal(ranks: Ints, order: Ints) -> None:
    """Pair the densest filter with the sparsest one of all, and fill groups with such pairs."""
    groups, places = order.shape
    padded = np.full(groups * places, len(ranks), dtype=np.int64)
    padded[: len(ranks)] = ranks
    pairs = _folded(padded[None], len(padded) // 2)[0]
    units = places // 2
    for group in range(groups):
        order[group] = pairs[:, group * units : (group + 1) * units].ravel()


def _folded(ranked: Ints, units: int) -> Ints:
    """Give [groups, 2, units] from ranks [groups, 2·units]: the first with the last, and so on."""
    return np.stack((ranked[:, :units], ranked[:, : units - 1 : -1]), axis=1)


def _run(
    geometry: Geometry,
    group: int,
    weights: npt.NDArray[np.bool_],
    inputs: npt.NDArray[np.bool_],
    plans: Mapping[Balance, _Plan],
    config: SparTen,
) -> int:
    """Run one group of a convolution, and give its useful products."""
    height, width, _ = geometry.out_shape
    pixels = height * width
    for plan in plans.values():
        plan.times = np.zeros((len(plan.order), pixels), dtype=np.int64)
    count = len(weights)
    block = max(1, min(pixels, _BLOCK // count))
    matches = np.zeros((count + 1, block), dtype=np.float32)
    useful = 0
    for taps, view, live in _chunks(geometry, group, inputs, config):
        chunk = weights[:, taps]
        dense = chunk.astype(np.float32)
        orders = {balance: plan.chunk_order(chunk) for balance, plan in plans.items()}
        useful += int(chunk.sum(axis=0, dtype=np.int64) @ view.sum(axis=0, dtype=np.int64))
        for first in range(0, pixels, block):
            part = slice(first, min(first + block, pixels))
            size = part.stop - part.start
            # Sums of at most 128 ones: exact in float32.
            found = matches[:, :size] if size == block else np.zeros((count + 1, size), np.float32)
            np.matmul(dense, view[part].T.astype(np.float32), out=found[:count])
            for balance, plan in plans.items():
                plan.add(found, orders[balance], live[part], part)
    return useful


def _chunks(
    geometry: Geometry, group: int, inputs: npt.NDArray[np.bool_], config: SparTen
) -> Iterator[tuple[slice, npt.NDArray[np.bool_], npt.NDArray[np.bool_]]]:
    """Give each chunk's taps, its inputs [P, positions], and which pixels have it at all."""
    channels = geometry.group_channels
    top, left, bottom, right = geometry.padding
    own = inputs[:, :, group * channels : (group + 1) * channels]
    pads = ((top, bottom), (left, right))
    padded = np.pad(own, (*pads, (0, 0)))
    inside = np.pad(np.ones((*own.shape[:2], 1), dtype=np.bool_), (*pads, (0, 0)))
    out = geometry.out_shape[:2]
    both = (out, geometry.kernel, geometry.stride, geometry.dilation)
    windows = patches(padded[None], *both)[0]
    lives = patches(inside[None], *both)[0, ..., 0]
    rows, columns = geometry.kernel
    span = columns if config.packed else 1
    for row in range(rows):
        for column in range(0, columns, span):
            places = slice(column, column + span)
            values = windows[:, :, row, places].reshape(out[0] * out[1], span * channels)
            live = lives[:, :, row, places].any(axis=2).ravel()
            start = (row * columns + column) * channels
            for first in range(0, span * channels, config.chunk):
                last = min(first + config.chunk, span * channels)
                yield slice(start + first, start + last), values[:, first:last], live


def _cost(
    work: Work,
    operands: Operands,
    config: SparTen,
    constants: Constants,
    balance: Balance,
    items: Ints,
    useful: int,
    busy: float,
) -> SparTenCost:
    ends = np.concatenate(([0], np.cumsum(items)))
    bounds = np.arange(config.clusters + 1) * len(items) // config.clusters
    cycles = int(np.diff(ends[bounds]).max())
    repeat = work.shape.repeat
    spent = float(ends[-1]) * config.units
    slots = float(cycles) * config.multipliers
    idle = repeat * (slots - useful)
    core = _core(repeat * useful, idle, balance, constants)
    return SparTenCost(
        name=work.shape.name,
        cycles=repeat * cycles,
        units=config.multipliers,
        useful=repeat * useful,
        core=core,
        traffic=_traffic(work, operands, config, balance).scaled(repeat),
        constants=constants,
        balance=balance,
        unused=repeat * (spent - busy),
        barrier=repeat * (busy - useful),
        clusters=repeat * (slots - spent),
    )


def _core(useful: float, idle: float, balance: Balance, constants: Constants) -> dict[Part, float]:
    power = SPARTEN_POWER
    parts = {
        Part.MAC: power.unit_cycle(power.mac),
        Part.JOIN: power.unit_cycle(power.prefix_sum) + power.unit_cycle(power.encoder),
        Part.BUFFER: power.unit_cycle(power.buffers),
        Part.ROUTE: power.unit_cycle(power.permute) if balance is Balance.GB_H else 0.0,
        Part.OTHER: power.unit_cycle(power.other),
    }
    core = {part: useful * energy for part, energy in parts.items()}
    core[Part.IDLE] = idle * constants.idle_share * sum(parts.values())
    return core


def _traffic(work: Work, operands: Operands, config: SparTen, balance: Balance) -> Traffic:
    held = 1 if balance is Balance.NONE else 2
    geometry = work.shape.geometry
    passes = -(-geometry.group_filters // (held * config.units))
    inputs = bitmapped(operands.inputs.size, float(operands.inputs.mean()))
    return Traffic(
        weights=bitmapped(operands.weights.size, float(operands.weights.mean())),
        inputs=inputs,
        outputs=bitmapped(int(np.prod(geometry.out_shape)), work.outputs),
        refetched=(passes - 1) * inputs,
    )
