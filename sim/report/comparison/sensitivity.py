# SPDX-License-Identifier: Apache-2.0
"""How cycles and energy of CSP-H change with one parameter at a time, all energies with DRAM's."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence

from csp_algo.errors import CspError
from csp_hw.config import ConfigError
from sim.model.constants import Constants
from sim.peers import csp_h
from sim.peers.base import Cost, Part, together
from sim.peers.csp_h import CspH
from sim.workloads.catalogue import Workload

#: Energies of a bit of DRAM, pJ: the range of the constant.
DRAM_BITS = (4.0, 6.0, 8.0, 12.0, 16.0, 20.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Point:
    """What a network costs with one value; none, and a reason, if it cannot be built or run."""

    value: int
    cycles: float | None = None
    energy: float | None = None
    reason: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sweep:
    """One parameter, its unit, the value that stands everywhere else, and what others give."""

    name: str
    unit: str
    usual: int
    points: tuple[Point, ...]

    @property
    def base(self) -> Point:
        """The point of the usual value."""
        return next(point for point in self.points if point.value == self.usual)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Parameter:
    """A parameter of CSP-H or of its use, and how to set it."""

    name: str
    unit: str
    values: tuple[int, ...]
    read: Callable[[CspH], int]
    build: Callable[[CspH, int], CspH]


def _built(field: str, scale: int = 1) -> tuple[Callable[[CspH], int], Callable[[CspH, int], CspH]]:
    """Give how to read and set a field of the hardware's configuration, in units of ``scale``."""

    def read(config: CspH) -> int:
        return int(getattr(config.core.config, field)) // scale

    def build(config: CspH, value: int) -> CspH:
        hardware = config.core.config.replace(**{field: value * scale})
        return dataclasses.replace(config, core=dataclasses.replace(config.core, config=hardware))

    return read, build


def _shaped(config: CspH, rows: int) -> CspH:
    """Give an array with other rows, and columns for as many elements."""
    hardware = config.core.config.replace(rows=rows, cols=config.core.elements // rows)
    return dataclasses.replace(config, core=dataclasses.replace(config.core, config=hardware))


def _parameters() -> Iterator[Parameter]:
    """Give all of them."""

    def hardware(name: str, unit: str, field: str, *values: int, scale: int = 1) -> Parameter:
        read, build = _built(field, scale)
        return Parameter(name=name, unit=unit, values=values, read=read, build=build)

    yield Parameter(
        name="truncation period T",
        unit="taps",
        values=(1, 2, 4, 8, 16, 32),
        read=lambda config: config.period or config.core.config.max_period,
        build=lambda config, value: dataclasses.replace(config, period=value),
    )
    yield hardware("interleaved pixels I, at most", "pixels", "max_interleave", 1, 2, 4, 8, 16)
    yield hardware("depth of the accumulation buffer", "sums", "depth", 32, 64, 128, 256, 512)
    yield hardware("width of a partial sum", "bits", "acc_bits", 16, 20, 24, 28, 32)
    yield hardware("line buffer", "KiB", "line_bytes", 64, 128, 256, 512, 1024, scale=1024)
    yield hardware("weight buffer", "KiB", "weight_bytes", 64, 128, 256, 512, 1024, scale=1024)
    yield hardware("counts looked at in a cycle", "counts", "lookahead", 4, 8, 16, 32)
    yield Parameter(
        name="rows of the array, as many elements",
        unit="rows",
        values=(16, 32, 64),
        read=lambda config: config.core.config.rows,
        build=_shaped,
    )
    yield Parameter(
        name="batch",
        unit="images",
        values=(1, 2, 4, 8, 16),
        read=lambda config: config.images,
        build=lambda config, value: dataclasses.replace(config, images=value),
    )


PARAMETERS = tuple(_parameters())


def sweep(
    network: Workload, parameter: Parameter, config: CspH, constants: Constants, *, seed: int = 0
) -> Sweep:
    """Give a network's cycles and energy for each value of a parameter, one image."""
    usual = parameter.read(config)
    points = []
    for value in sorted({*parameter.values, usual}):
        try:
            built = parameter.build(config, value)
            costs = csp_h.network_costs(network, config=built, constants=constants, seed=seed)
        except (ConfigError, CspError) as error:
            points.append(Point(value=value, reason=str(error)))
            continue
        whole = together(network.name, costs)
        points.append(Point(value=value, cycles=whole.cycles, energy=whole.total(refetch=True)))
    return Sweep(name=parameter.name, unit=parameter.unit, usual=usual, points=tuple(points))


def dram(totals: Mapping[str, Cost], bits: Sequence[float] = DRAM_BITS) -> dict[str, list[float]]:
    """Give everyone's energy, pJ, refetches included, for each energy of a bit of DRAM."""
    found = {}
    for key, cost in totals.items():
        core = sum(value for part, value in cost.core.items() if part is not Part.DRAM)
        moved = 8 * cost.traffic.bytes(refetch=True)
        found[key] = [core + bit * moved for bit in bits]
    return found
