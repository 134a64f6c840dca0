# SPDX-License-Identifier: Apache-2.0
"""What a model of an accelerator gives for a layer, and what all of them reckon alike."""

import dataclasses
import enum
import functools
from collections.abc import Iterable, Mapping

import numpy as np
import numpy.typing as npt

from csp_algo.errors import CspError
from sim.model.constants import Constants
from sim.workloads.catalogue import Work


class Part(enum.StrEnum):
    """What energy is spent on."""

    MAC = "mac"
    REGISTER = "register"
    BUFFER = "buffer"
    ACCUMULATOR = "accumulator"
    #: Finding operands that are not zero: inner join, index.
    JOIN = "join"
    #: Bringing results to where they belong.
    ROUTE = "route"
    OTHER = "other"
    #: Units with nothing to multiply.
    IDLE = "idle"
    DRAM = "dram"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Traffic:
    """Bytes to and from DRAM.

    Parameters
    ----------
    weights, inputs, outputs : float
        Each once, as it is stored.
    refetched : float
        Inputs again, for all passes over the filters but the first, if no chip's memory keeps them.
    """

    weights: float
    inputs: float
    outputs: float
    refetched: float = 0.0

    def bytes(self, *, refetch: bool) -> float:
        """Give all bytes, with or without those that are fetched again."""
        return self.weights + self.inputs + self.outputs + (self.refetched if refetch else 0.0)

    def scaled(self, factor: int) -> "Traffic":
        """Give that of several equal layers."""
        values = dataclasses.asdict(self)
        return Traffic(**{name: factor * value for name, value in values.items()})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cost:
    """What a layer, all its repeats together, costs on an accelerator.

    Parameters
    ----------
    name : str
    cycles : float
        Whole ones where they were counted, expectations where they were reckoned.
    units : int
        Multipliers.
    useful : float
        Unit-cycles with a product of two operands that are not zero.
    core : mapping of Part to pJ
        Energy of the chip.
    traffic : Traffic
    constants : Constants

    Raises
    ------
    CspError
        More unit-cycles are useful than there are.
    """

    name: str
    cycles: float
    units: int
    useful: float
    core: Mapping[Part, float]
    traffic: Traffic
    constants: Constants

    def __post_init__(self) -> None:
        if self.useful > self.cycles * self.units * (1 + 1e-9):
            raise CspError(
                f"{self.name}: {self.useful:g} useful of {self.cycles * self.units:g} unit-cycles"
            )

    @property
    def idle(self) -> float:
        """Unit-cycles without such a product."""
        return self.cycles * self.units - self.useful

    @property
    def utilisation(self) -> float:
        """Share of the unit-cycles that is useful; 0 if there are none."""
        return self.useful / (self.cycles * self.units) if self.cycles else 0.0

    def energy(self, *, refetch: bool = False) -> dict[Part, float]:
        """Give the energy by part, pJ, DRAM included."""
        dram = self.constants.dram_byte * self.traffic.bytes(refetch=refetch)
        return {**self.core, Part.DRAM: dram}

    def total(self, *, refetch: bool = False) -> float:
        """Give all energy, pJ."""
        return sum(self.energy(refetch=refetch).values())


def together(name: str, costs: Iterable[Cost]) -> Cost:
    """Add the costs of layers that run one after the other on one accelerator.

    Raises
    ------
    CspError
        There are none, or they are not of one accelerator.
    """
    costs = list(costs)
    if len({(cost.units, cost.constants) for cost in costs}) != 1:
        raise CspError(f"{name}: costs of one accelerator with one setting are needed")
    core: dict[Part, float] = {}
    for cost in costs:
        for part, value in cost.core.items():
            core[part] = core.get(part, 0.0) + value
    return Cost(
        name=name,
        cycles=sum(cost.cycles for cost in costs),
        units=costs[0].units,
        useful=sum(cost.useful for cost in costs),
        core=core,
        traffic=Traffic(
            weights=sum(cost.traffic.weights for cost in costs),
            inputs=sum(cost.traffic.inputs for cost in costs),
            outputs=sum(cost.traffic.outputs for cost in costs),
            refetched=sum(cost.traffic.refetched for cost in costs),
        ),
        constants=costs[0].constants,
    )


@functools.cache
def live_share(padding: int, size: int, kernel: int, stride: int, out: int) -> float:
    """Give which share of the taps of one axis of all windows lies inside the map."""
    places = np.arange(out)[:, None] * stride + np.arange(kernel) - padding
    return float(((places >= 0) & (places < size)).mean())


def useful_products(work: Work) -> float:
    """Give the expected products of two operands that are not zero; padding is zero."""
    geometry = work.shape.geometry
    if geometry.dilation != (1, 1):
        raise CspError(f"{work.shape.name}: dilated kernels are not modelled")
    share = 1.0
    for axis in (0, 1):
        share *= live_share(
            geometry.padding[axis],
            geometry.in_shape[axis],
            geometry.kernel[axis],
            geometry.stride[axis],
            geometry.out_shape[axis],
        )
    return work.effective * share


@functools.lru_cache(maxsize=4096)
def expected_groups(trials: int, probability: float, size: int, *, least: int = 0) -> float:
    """Give E[max(least, ceil(X / size))] for X binomial: cycles that X operands take, size each.

    Parameters
    ----------
    trials : int
    probability : float
    size : int
    least : int
    """
    if probability in (0.0, 1.0):
        return float(max(least, -(-round(trials * probability) // size)))
    mass = _binomial(trials, probability)
    groups = np.maximum(least, -(-np.arange(trials + 1) // size))
    return float(mass @ groups)


def _binomial(trials: int, probability: float) -> npt.NDArray[np.float64]:
    """Give the probabilities of 0 … n, through logarithms, since the factorials are huge."""
    logs = np.concatenate(([0.0], np.cumsum(np.log(np.arange(1, trials + 1)))))
    k = np.arange(trials + 1)
    exponent = logs[-1] - logs - logs[::-1]
    exponent += k * np.log(probability) + (trials - k) * np.log1p(-probability)
    return np.asarray(np.exp(exponent))


def compressed(elements: int, density: float, index_bits: float) -> float:
    """Give the bytes of int8 elements without zeros, with an index for each one that is there."""
    return elements * density * (8 + index_bits) / 8


def bitmapped(elements: int, density: float) -> float:
    """Give the bytes of int8 elements without zeros, with one bit for each place."""
    return elements * (density + 1 / 8)


def map_sizes(work: Work) -> tuple[int, int]:
    """Give the elements of the input and of the output map."""
    geometry = work.shape.geometry
    return int(np.prod(geometry.in_shape)), int(np.prod(geometry.out_shape))
