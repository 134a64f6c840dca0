# SPDX-License-Identifier: Apache-2.0
"""The page of a comparison: one file, no script, nothing loaded from elsewhere."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import jinja2

from sim.model import area, constants, sram
from sim.model.constants import Quantity, Setting
from sim.model.energy import Component
from sim.peers import csp_h
from sim.peers.base import Cost, Part
from sim.peers.sparten import SparTenCost
from sim.report import page
from sim.report.comparison import sensitivity, svg
from sim.report.comparison.accelerators import OURS, RIVAL, RIVAL_CASCADE
from sim.report.comparison.record import Comparison, NetworkRecord
from sim.report.comparison.roofline import Roof
from sim.report.comparison.sensitivity import Point, Sweep
from sim.report.comparison.svg import Axis, Bar, Series, Slice
from sim.tables import read_table

#: Parts of the energy, in the order in which bars are stacked, and what they are called.
PARTS = {
    Part.MAC: "multipliers",
    Part.REGISTER: "registers",
    Part.ACCUMULATOR: "accumulation buffers",
    Part.BUFFER: "buffers",
    Part.JOIN: "finding operands",
    Part.ROUTE: "routing",
    Part.OTHER: "other",
    Part.IDLE: "idle units",
    Part.DRAM: "DRAM",
}
#: What binds a layer, and the colour of it.
LIMITS = {"compute": 0, "drain": 1, "inputs": 4, "tables": 3, "residual": 6, "results": 2}
#: Those whose energy is drawn over that of DRAM.
DRAM_SHOWN = (OURS, RIVAL, RIVAL_CASCADE, "dense", "scnn", "cambricon-x", "cambricon-s", "diannao")
MILLI = 1e9  # pJ in a mJ


def always_busy(network: NetworkRecord, cost: Cost) -> float:
    """Give the cycles of as many multipliers as that are busy all the time with all products."""
    return network.macs / cost.units


def energy_bars(record: Comparison, network: NetworkRecord) -> str:
    """Draw everyone's energy by part; behind it, faint, what refetched inputs add."""
    rows = []
    for one in record.shown(network):
        cost = network.totals[one.key]
        parts = cost.energy()
        slices = [
            Slice(
                value=parts.get(part, 0.0) / MILLI,
                colour=colour,
                title=f"{one.title}: {name} {svg.number(parts.get(part, 0.0) / MILLI)} mJ",
            )
            for colour, (part, name) in enumerate(PARTS.items())
        ]
        more = (cost.total(refetch=True) - cost.total()) / MILLI
        colour = list(PARTS).index(Part.DRAM)
        slices.append(
            Slice(
                value=more,
                colour=colour,
                title=f"{one.title}: inputs fetched again {svg.number(more)} mJ",
                faint=True,
            )
        )
        total = svg.number(cost.total() / MILLI)
        end = f"{total} … {svg.number(cost.total(refetch=True) / MILLI)}" if more else total
        rows.append(Bar(name=one.title, slices=tuple(slices), end=end, strong=one.key == OURS))
    return svg.bars(rows, label=f"Energy of {network.name} by part", unit="mJ an image")


def cycles(cost: Cost) -> float:
    """Give the cycles of a layer or network."""
    return cost.cycles


def energy(cost: Cost) -> float:
    """Give its energy, pJ, inputs fetched again where the accelerator does."""
    return cost.total(refetch=True)


def speed_bars(record: Comparison, network: NetworkRecord) -> str:
    """Draw everyone's speed over an array that is always busy."""
    rows = []
    for colour, one in enumerate(record.shown(network)):
        cost = network.totals[one.key]
        speed = always_busy(network, cost) / cost.cycles
        family = 0 if one.key == OURS else 4 if one.key.startswith("sparten") else 7
        title = f"{one.title}: {svg.number(cost.cycles / 1e6)} M cycles"
        rows.append(
            Bar(
                name=one.title,
                slices=(Slice(value=speed, colour=family, title=title),),
                end=f"{svg.number(speed)} ×",
                strong=not colour,
            )
        )
    return svg.bars(rows, label=f"Speed on {network.name}", unit="× always busy")


def layer_chart(record: Comparison, network: NetworkRecord) -> str | None:
    """Draw SparTen over CSP-H, cycles and energy, layer by layer; nothing without SparTen."""
    if not network.compared:
        return None
    speed, energy, titles = [], [], []
    for index, layer in enumerate(network.layers):
        ours, rival = layer.costs[OURS], layer.costs[RIVAL]
        speed.append((float(index), rival.cycles / ours.cycles))
        energy.append((float(index), rival.total(refetch=True) / ours.total(refetch=True)))
        titles.append(layer.name)
    ratios = [value for _, value in (*speed, *energy)]
    name = f"{record.title(RIVAL)} / CSP-H; dashed: equal"
    up = svg.logarithmic(name, [*ratios, 1.0])
    count = len(network.layers)
    step = -(-count * 7 * max(len(title) for title in titles) // svg.WIDTH)
    across = Axis(
        label="layer",
        low=-0.6,
        high=count - 0.4,
        ticks=tuple((float(i), titles[i]) for i in range(0, count, step)),
    )
    return svg.chart(
        [
            Series(
                name=name,
                points=tuple(points),
                colour=colour,
                titles=tuple(
                    f"{title}: {name} {svg.number(value)} ×"
                    for title, (_, value) in zip(titles, points, strict=True)
                ),
                line=False,
            )
            for name, points, colour in (("cycles", speed, 0), ("energy", energy, 2))
        ],
        across,
        up,
        label=f"SparTen over CSP-H in each layer of {network.name}",
        marks=(1.0,),
    )


@dataclasses.dataclass(frozen=True)
class _Ridge:
    """A roof over the layers: what x is, and what it is multiplied with."""

    label: str
    slope: float
    name: str


def roofs(record: Comparison, network: NetworkRecord) -> list[str]:
    """Draw the layers under the roofs of the busiest port and of the drain."""
    hardware = record.config.core.config
    rate = record.config.timing.read_rate or hardware.cols
    ridges = {
        "per_byte": _Ridge("products / byte of the busiest port", rate, f"{rate} B a cycle"),
        "per_sum": _Ridge(
            "products / sum that is drained", hardware.cols, f"{hardware.cols} sums a cycle"
        ),
    }
    return [_roof(record, network, field, ridge) for field, ridge in ridges.items()]


def _roof(record: Comparison, network: NetworkRecord, field: str, ridge: _Ridge) -> str:
    flat = record.config.core.elements
    points = [(getattr(layer.roof, field), layer.roof.rate) for layer in network.layers]
    across = svg.logarithmic(ridge.label, [*(x for x, _ in points), flat / ridge.slope])
    up = svg.logarithmic("products / cycle", [*(y for _, y in points), flat])
    knee = flat / ridge.slope
    first = max(across.low, up.low / ridge.slope)
    roof = ((first, first * ridge.slope), (knee, float(flat)), (across.high, float(flat)))
    series = [Series(name="roof", points=roof, colour=8, dashed=True)]
    for limit, colour in LIMITS.items():
        members = [layer for layer in network.layers if layer.roof.limit == limit]
        if members:
            series.append(
                Series(
                    name=limit,
                    points=tuple((getattr(one.roof, field), one.roof.rate) for one in members),
                    colour=colour,
                    titles=tuple(_roof_title(one.name, one.roof, field) for one in members),
                    line=False,
                )
            )
    label = f"Layers of {network.name} under {ridge.name}"
    return svg.chart(series, across, up, label=label, width=512, height=330)


def _roof_title(name: str, roof: Roof, field: str) -> str:
    return (
        f"{name}: {roof.limit} binds, {svg.number(roof.rate)} products a cycle, "
        f"x = {svg.number(getattr(roof, field))}"
    )


def binding(network: NetworkRecord) -> list[tuple[str, int, float]]:
    """Give for each path that binds how many layers it binds, and their share of the cycles."""
    whole = network.totals[OURS].cycles
    found = []
    for limit in LIMITS:
        members = [layer.roof for layer in network.layers if layer.roof.limit == limit]
        if members:
            share = sum(roof.cycles for roof in members) / whole
            found.append((limit, len(members), share))
    return found


def unit_cycles(
    record: Comparison, network: NetworkRecord
) -> list[tuple[str, tuple[float, float, float, float]]]:
    """Give shares of SparTen's unit-cycles: useful, barrier, no filter, cluster done."""
    found = []
    for one in record.shown(network):
        cost = network.totals[one.key]
        if isinstance(cost, SparTenCost):
            whole = cost.cycles * cost.units
            parts = (cost.useful, cost.barrier, cost.unused, cost.clusters)
            useful, barrier, unused, clusters = (part / whole for part in parts)
            found.append((one.title, (useful, barrier, unused, clusters)))
    return found


def components(network: NetworkRecord) -> list[tuple[Component, float]]:
    """Give the energy of CSP-H's components, pJ, the largest first; those that take any."""
    found = network.ours.components.items()
    return sorted(((name, value) for name, value in found if value), key=lambda item: -item[1])


def chip(network: NetworkRecord) -> float:
    """Give the energy of CSP-H without DRAM, pJ."""
    return sum(network.ours.core.values())


def sweep_chart(sweep: Sweep) -> str:
    """Draw cycles and energy over the values of a parameter, the usual value's being 1."""
    known = [
        (float(index), point)
        for index, point in enumerate(sweep.points)
        if point.cycles is not None and point.energy is not None
    ]
    lines: dict[str, list[tuple[float, float]]] = {"cycles": [], "energy": []}
    for place, point in known:
        for name, points in lines.items():
            points.append((place, relative(sweep, point, name)))
    highest = max((y for points in lines.values() for _, y in points), default=1.0)
    across = Axis(
        label=sweep.unit,
        low=-0.3,
        high=len(sweep.points) - 0.7,
        ticks=tuple((float(i), f"{point.value}") for i, point in enumerate(sweep.points)),
    )
    return svg.chart(
        [
            Series(
                name=name,
                points=tuple(points),
                colour=colour,
                titles=tuple(
                    f"{point.value} {sweep.unit}: {name} {svg.number(y)} ×"
                    for (_, point), (_, y) in zip(known, points, strict=True)
                ),
            )
            for colour, (name, points) in zip((0, 2), lines.items(), strict=True)
        ],
        across,
        svg.linear(f"× that of {sweep.usual}", max(1.2, highest), most=4),
        label=f"Cycles and energy over {sweep.name}",
        width=330,
        height=210,
    )


def relative(sweep: Sweep, point: Point, name: str) -> float:
    """Give a point's cycles or energy over those of the usual value."""
    return float(getattr(point, name) / getattr(sweep.base, name))


def dram_chart(record: Comparison, network: NetworkRecord) -> str:
    """Draw everyone's energy over that of a bit of DRAM."""
    keys = [key for key in DRAM_SHOWN if key in network.totals]
    found = sensitivity.dram({key: network.totals[key] for key in keys})
    bits = sensitivity.DRAM_BITS
    series = [
        Series(
            name=record.title(key),
            points=tuple((bit, value / MILLI) for bit, value in zip(bits, values, strict=True)),
            colour=DRAM_SHOWN.index(key),
            titles=tuple(
                f"{record.title(key)}: {svg.number(value / MILLI)} mJ at {bit:g} pJ a bit"
                for bit, value in zip(bits, values, strict=True)
            ),
        )
        for key, values in found.items()
    ]
    across = Axis(
        label="pJ for a bit of DRAM",
        low=bits[0] - 0.5,
        high=bits[-1] + 0.5,
        ticks=tuple((bit, f"{bit:g}") for bit in bits),
    )
    energies = [value / MILLI for values in found.values() for value in values]
    name = "mJ an image, logarithmic; inputs fetched again where an accelerator does"
    up = svg.logarithmic(name, energies)
    return svg.chart(series, across, up, label=f"Energy of {network.name} over DRAM's", height=320)


def dram_legend(record: Comparison, network: NetworkRecord) -> list[tuple[int, str]]:
    """Give the colours of the lines over DRAM's energy."""
    return [
        (colour, record.title(key))
        for colour, key in enumerate(DRAM_SHOWN)
        if key in network.totals
    ]


def dram_rows(record: Comparison, network: NetworkRecord) -> list[tuple[str, list[float]]]:
    """Give everyone's energy, mJ, for each energy of a bit of DRAM."""
    found = sensitivity.dram(network.totals)
    return [(record.title(key), [value / MILLI for value in row]) for key, row in found.items()]


def quantities() -> Iterator[tuple[str, Quantity]]:
    """Give every constant with its name."""
    for name, value in vars(constants).items():
        if isinstance(value, Quantity):
            yield name.lower().replace("_", " "), value
    for field in dataclasses.fields(constants.SparTenPower):
        name = f"SparTen: {field.name.replace('_', ' ')}"
        yield name, getattr(constants.SPARTEN_POWER, field.name)
    yield "area of a processing element", area.ELEMENT
    yield "the same, partial sums in SRAM", area.MEMORY_ELEMENT
    yield "area of 32 units of SparTen", area.SPARTEN_CLUSTER
    yield "their multipliers and adders", area.SPARTEN_MAC


@dataclasses.dataclass(frozen=True, kw_only=True)
class EqualArea:
    """CSP-H with as many elements as stand on the area of SparTen's units."""

    name: str
    least: float
    elements: float
    most: float


def equal_areas(units: int) -> list[EqualArea]:
    """Give how many elements of CSP-H stand on the area of SparTen, both ways to keep sums."""
    ways = {
        "partial sums in registers": area.ELEMENT,
        "partial sums in SRAM": area.MEMORY_ELEMENT,
    }
    return [
        EqualArea(
            name=name,
            least=area.equal_elements(units, Setting.HIGH, element=element),
            elements=area.equal_elements(units, element=element),
            most=area.equal_elements(units, Setting.LOW, element=element),
        )
        for name, element in ways.items()
    ]


def _environment() -> jinja2.Environment:
    here = Path(__file__).parent
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([here, here.parent]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": svg.number,
        "short": svg.short,
        "exact": lambda value: f"{value:,g}".replace(",", "\u202f"),
        "percent": page.percent,
        "grouped": lambda value: page.grouped(round(value)),
        "dimensions": page.dimensions,
        "enumerated": lambda names: list(enumerate(names)),
    }
    environment.globals |= {
        "PARTS": PARTS,
        "LIMITS": LIMITS,
        "MILLI": MILLI,
        "OURS": OURS,
        "RIVAL": RIVAL,
        "RIVAL_CASCADE": RIVAL_CASCADE,
        "DRAM_BITS": sensitivity.DRAM_BITS,
        "always_busy": always_busy,
        "cycles": cycles,
        "energy": energy,
        "energy_bars": energy_bars,
        "speed_bars": speed_bars,
        "layer_chart": layer_chart,
        "roofs": roofs,
        "binding": binding,
        "unit_cycles": unit_cycles,
        "components": components,
        "chip": chip,
        "part_of": csp_h.PARTS,
        "sweep_chart": sweep_chart,
        "dram_chart": dram_chart,
        "dram_legend": dram_legend,
        "dram_rows": dram_rows,
    }
    return environment


def render(record: Comparison) -> str:
    """Give the page as text."""
    template = _environment().get_template("comparison.html.j2")
    return template.render(
        record=record,
        quantities=list(quantities()),
        sram_source=read_table(sram.TABLE).source,
        areas=equal_areas(record.networks[0].totals[OURS].units),
        sparten_area=area.sparten_unit(record.networks[0].totals[OURS].units),
    )
