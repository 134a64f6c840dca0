# SPDX-License-Identifier: Apache-2.0
"""Energy and speed of CSP-H over SparTen: what the ratio is, is made of, and what would change it.

    python benchmarks/energy.py [--networks alexnet,resnet50] [--setting mid] [--again]

Ratios above 1 are in CSP-H's favour; both have 1,024 multipliers, SparTen GB-H. SparTen's
simulation takes minutes; its counts stay in ``build/sparten.json`` and serve for all settings, and
``--again`` makes them anew. `OPENBLAS_NUM_THREADS=1` for one thread.
"""

import argparse
import dataclasses
import functools
import itertools
import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from csp_hw.config import BufferStyle
from csp_hw.pe.accumulation.regbin import bins
from sim.model import constants as cited
from sim.model.constants import Constants, Setting
from sim.model.energy import Component, accumulation
from sim.peers import csp_h, sparten
from sim.peers.base import Part, Traffic, bitmapped, map_sizes, together
from sim.peers.csp_h import Counted, CspCost, CspH
from sim.peers.sparten import Balance, SparTen, SparTenCost
from sim.report.comparison import chain
from sim.report.comparison.levers import LEVERS, Kind, asking, built, core
from sim.workloads.catalogue import SHAPES, Work, Workload, workload
from sim.workloads.operands import Pruning, operands

KEPT = Path("build/sparten.json")


@functools.cache
def network(name: str) -> Workload:
    return workload(name)


class SparTens:
    """SparTen's costs of networks, simulated once."""

    def __init__(self, *, again: bool) -> None:
        self._found: dict[str, Any] = {}
        if KEPT.is_file() and not again:
            self._found = json.loads(KEPT.read_text())

    def cost(self, name: str, pruning: Pruning, constants: Constants) -> SparTenCost:
        """Give the cost of a network, simulated if it has not been."""
        key = f"{name} {pruning}"
        if key not in self._found:
            start = time.perf_counter()
            self._found[key] = dict(_simulated(network(name), pruning))
            KEPT.parent.mkdir(exist_ok=True)
            KEPT.write_text(json.dumps(self._found, indent=1))
            took = time.perf_counter() - start
            print(f"simulated SparTen, {key}: {took:.0f} s", file=sys.stderr, flush=True)
        fields = dict(self._found[key][Balance.GB_H])
        fields["traffic"] = Traffic(**fields["traffic"])
        bare = SparTenCost(core={}, constants=constants, balance=Balance.GB_H, **fields)
        return sparten.with_constants(bare, constants)


def _simulated(network_: Workload, pruning: Pruning) -> Iterator[tuple[str, dict[str, Any]]]:
    """Give the counts of a network for each balancing."""
    layers = [
        sparten.simulate(work, operands(work, pruning), config=SparTen()) for work in network_.works
    ]
    for balance in Balance:
        costs = [costs[balance] for costs in layers]
        fields = dataclasses.asdict(sparten.network_cost(network_.name, costs))
        yield (
            balance,
            {
                key: value
                for key, value in fields.items()
                if key not in ("core", "constants", "balance")
            },
        )


@functools.lru_cache(maxsize=4096)
def _counted(work: Work, key: CspH) -> Counted:
    return csp_h.counted(work, key)


def csp_costs(name: str, config: CspH, constants: Constants) -> list[CspCost]:
    """Give the layers' costs; what is counted alike is counted once."""
    plain = asking(config)
    works = network(name).works
    return [
        csp_h.priced(work, _counted(work, plain), config, constants, place)
        for work, place in zip(works, csp_h.places(network(name)), strict=True)
    ]


def sparten_energy(name: str, cost: SparTenCost, config: CspH, *, refetch: bool) -> float:
    """Give SparTen's energy where it keeps in memory what CSP-H does; it compresses anyway."""
    total = sum(cost.core.values())
    works = network(name).works
    for work, place in zip(works, csp_h.places(network(name)), strict=True):
        sizes = map_sizes(work)
        once = Traffic(
            weights=bitmapped(work.shape.weights, work.weights) / config.images,
            inputs=bitmapped(sizes[0], work.inputs),
            outputs=bitmapped(sizes[1], work.outputs),
        ).scaled(work.shape.repeat)
        moved, kept = csp_h.divided(once, work, config, place)
        total += cost.constants.dram_byte * moved.bytes(refetch=False)
        total += csp_h.kept_energy(kept, config, cost.constants)
    return total + refetch * cost.constants.dram_byte * cost.traffic.refetched


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ratios:
    """Of all networks: SparTen's energy over CSP-H's, and its cycles over CSP-H's.

    ``energy`` has SparTen as it is, and a batch for both; ``alike`` lets it keep what CSP-H keeps;
    ``chip`` is without any DRAM.
    """

    energy: list[float]
    alike: list[float]
    chip: list[float]
    speed: list[float]


def ratios(
    names: Sequence[str],
    spartens: SparTens,
    config: CspH,
    setting: Setting,
    *,
    pruning: Pruning = Pruning.UNSTRUCTURED,
    refetch: bool = False,
) -> Ratios:
    """Give the ratios of all networks."""
    constants = Constants(setting=setting)
    found = Ratios(energy=[], alike=[], chip=[], speed=[])
    alone = CspH(images=config.images)
    for name in names:
        other = spartens.cost(name, pruning, constants)
        own = together(name, csp_costs(name, config, constants))
        total = own.total(refetch=refetch)
        found.energy.append(sparten_energy(name, other, alone, refetch=refetch) / total)
        found.alike.append(sparten_energy(name, other, config, refetch=refetch) / total)
        found.chip.append(sum(other.core.values()) / sum(own.core.values()))
        found.speed.append(other.cycles / own.cycles)
    return found


def row(title: str, values: Sequence[float], more: str = "") -> None:
    cells = " ".join(f"{value:8.2f}" for value in values)
    print(f"  {title:44} {cells}   {np.mean(values):8.2f}{more}")


def head(title: str, names: Sequence[str], more: str = "") -> None:
    cells = " ".join(f"{name[:8]:>8}" for name in names)
    print(f"\n  {title:44} {cells}       mean{more}")


def tell_sources() -> None:
    print("constants: low / mid / high")
    for name in ("MAC", "REGISTER_BIT", "SRAM_FACTOR", "DRAM_BIT", "REQUANTISE", "IDLE_SHARE"):
        constant = getattr(cited, name)
        values = " / ".join(f"{value:g}" for value in constant.values)
        print(f"  {name.lower():14} {values} {constant.unit}: {constant.source}")


def tell_ratios(names: Sequence[str], spartens: SparTens) -> None:
    """Give the hardware as it is."""
    config = CspH()
    head("SparTen's energy / CSP-H's, the core as it is", names)
    for pruning in (Pruning.UNSTRUCTURED, Pruning.CASCADE):
        for refetch in (False, True):
            for setting in Setting:
                found = ratios(names, spartens, config, setting, pruning=pruning, refetch=refetch)
                fetch = "inputs refetched" if refetch else "no refetch"
                row(f"{pruning}, {fetch}, {setting}", found.energy)
    for setting in Setting:
        found = ratios(names, spartens, config, setting)
        row(f"unstructured, chips without DRAM, {setting}", found.chip)
    style = built(config, style=BufferStyle.MEMORY)
    found = ratios(names, spartens, style, Setting.MID)
    row("unstructured, no refetch, mid; style memory", found.energy)
    head("SparTen's cycles / CSP-H's", names)
    for pruning in (Pruning.UNSTRUCTURED, Pruning.CASCADE):
        row(str(pruning), ratios(names, spartens, config, Setting.MID, pruning=pruning).speed)


def tell_components(names: Sequence[str], setting: Setting) -> None:
    """Give pJ for each product of two operands that are not zero."""
    config, constants = CspH(), Constants(setting=setting)
    head(f"pJ a useful product, CSP-H, {setting}", names)
    costs = {name: csp_costs(name, config, constants) for name in names}
    useful = {name: sum(cost.useful for cost in costs[name]) for name in names}
    for component in Component:
        values = [csp_h.by_component(costs[name])[component] / useful[name] for name in names]
        if any(values):
            row(component, values)
    for kind in ("weights", "inputs", "outputs"):
        moved = [
            constants.dram_byte * sum(getattr(cost.traffic, kind) for cost in costs[name])
            for name in names
        ]
        row(
            f"DRAM, {kind}",
            [value / useful[name] for value, name in zip(moved, names, strict=True)],
        )
    row(
        "together",
        [sum(cost.total() for cost in costs[name]) / useful[name] for name in names],
    )
    if config.core.config.style is BufferStyle.REGBIN:
        print("    accumulation buffer by bin:")
        sizes = [len(entries) for entries in bins(config.core.config.half_depth)]
        each = {
            name: np.sum(
                [accumulation(cost.actions, config.core, constants) for cost in costs[name]], axis=0
            )
            for name in names
        }
        for number, size in enumerate(sizes):
            row(f"bin {number}, {size} sums", [each[name][number] / useful[name] for name in names])


def tell_sparten(names: Sequence[str], spartens: SparTens, setting: Setting) -> None:
    """Give pJ for each product of two operands that are not zero."""
    constants = Constants(setting=setting)
    head(f"pJ a useful product, SparTen GB-H, unstructured, {setting}", names)
    others = {name: spartens.cost(name, Pruning.UNSTRUCTURED, constants) for name in names}
    for part in Part:
        values = [others[name].energy().get(part, 0.0) / others[name].useful for name in names]
        if any(values):
            row(part, values)
    row("together", [cost.total() / cost.useful for cost in others.values()])


#: What the hardware has, changed; the last one is an assumption.
PARAMETERS: dict[str, Callable[[CspH], CspH]] = {
    "T = 16": lambda c: dataclasses.replace(c, period=16),
    "T = 8": lambda c: dataclasses.replace(c, period=8),
    "T = 8, registers as narrow as that": lambda c: built(c, max_period=8),
    "I at most 1": lambda c: built(c, max_interleave=1),
    "I at most 4": lambda c: built(c, max_interleave=4),
    "I at most 16": lambda c: built(c, max_interleave=16),
    "depth 64": lambda c: built(c, depth=64),
    "depth 256": lambda c: built(c, depth=256),
    "gated multipliers cost nothing": lambda c: core(c, gated_free=True),
}


def tell_levers(names: Sequence[str], spartens: SparTens, setting: Setting) -> None:
    """Give each lever alone, ranked, then all of them one on top of the other."""
    base = CspH()

    def mean(config: CspH) -> float:
        return float(np.mean(ratios(names, spartens, config, setting).energy))

    def line(title: str, config: CspH) -> None:
        found = ratios(names, spartens, config, setting)
        row(
            title,
            found.energy,
            f"  {np.mean(found.alike):6.2f} {np.mean(found.chip):6.2f} {np.mean(found.speed):6.2f}",
        )

    more = "   alike   chip  speed"
    alone = {kind: {each.name: each.pull for each in LEVERS if each.kind is kind} for kind in Kind}
    for title, each in (*alone.items(), ("parameters and assumptions", PARAMETERS)):
        head(f"{title}, each alone, {setting}", names, more)
        line("the core as it is", base)
        for name in sorted(each, key=lambda name: -mean(each[name](base))):
            line(name, each[name](base))
    head(f"built, one after the other, {setting}", names, more)
    tell_built(line)
    head(f"one after the other, {setting}", names, more)
    config = base
    line("the core as it is", config)
    for kind in (Kind.HARDWARE, Kind.MEMORY):
        rest = {each.name: each.pull for each in LEVERS if each.kind is kind and not each.weaker}
        while rest:
            best = max(rest, key=lambda name: mean(rest[name](config)))
            if mean(rest[best](config)) <= mean(config):
                break
            config = rest.pop(best)(config)
            line(f"+ {best}", config)
        for name, pull in rest.items():
            line(f"  (not taken: {name})", pull(config))
        for other, refetch in itertools.product(Setting, (False, True)):
            found = ratios(names, spartens, config, other, refetch=refetch)
            row(f"all so far, {other}{', refetch' * refetch}", found.energy)
    print(f"  mean ratio, all together: {mean(base):.2f} → {mean(config):.2f}")


def tell_built(line: Callable[[str, CspH], None]) -> None:
    """Give what is built, all taken away, then put back one after the other."""
    built_ones = [each for each in LEVERS if each.kind is Kind.BUILT]
    title = "all that is built taken away"
    for number in range(len(built_ones) + 1):
        missing = built_ones[number:]
        machine = functools.reduce(lambda machine, each: each.pull(machine), missing, CspH())
        line(title, machine)
        title = f"no longer: {missing[0].name}" if missing else ""


def tell_chain(names: Sequence[str], spartens: SparTens, setting: Setting) -> None:
    """Give the factors whose product is the ratio, from SparTen to CSP-H."""
    constants = Constants(setting=setting)
    factors: dict[str, list[float]] = {}
    for name in names:
        unstructured, cascade = (
            spartens.cost(name, pruning, constants)
            for pruning in (Pruning.UNSTRUCTURED, Pruning.CASCADE)
        )
        own = together(name, csp_costs(name, CspH(), constants))
        for step in chain.energy(unstructured, cascade, own)[1:]:
            factors.setdefault(step.name, []).append(step.factor or 1.0)
    head(f"factors from SparTen to CSP-H, {setting}", names)
    for step, values in factors.items():
        row(step, values)
    refetched, *others = factors.values()
    row(
        "product without the first: no refetch",
        [math.prod(each) for each in zip(*others, strict=True)],
    )
    every = zip(refetched, *others, strict=True)
    row("product of all: inputs refetched", [math.prod(each) for each in every])


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--networks", default="all", help=f"of {','.join(SHAPES)}, or all")
    parser.add_argument("--setting", default=Setting.MID, type=Setting, choices=list(Setting))
    parser.add_argument("--again", action="store_true", help="simulate SparTen again")
    options = parser.parse_args()
    names = list(SHAPES) if options.networks == "all" else options.networks.split(",")
    if strangers := set(names) - SHAPES.keys():
        parser.error(f"no network {min(strangers)!r}; there are {', '.join(SHAPES)}")
    spartens = SparTens(again=options.again)
    tell_sources()
    tell_ratios(names, spartens)
    tell_sparten(names, spartens, options.setting)
    tell_components(names, options.setting)
    tell_chain(names, spartens, options.setting)
    tell_levers(names, spartens, options.setting)
    return 0


if __name__ == "__main__":
    sys.exit(main())
