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
from sim.model.energy import Component, Core, accumulation
from sim.peers import csp_h, sparten
from sim.peers.base import Cost, Part, Traffic, bitmapped, map_sizes, together
from sim.peers.csp_h import Counted, CspCost, CspH
from sim.peers.sparten import Balance, SparTen, SparTenCost
from sim.workloads.catalogue import SHAPES, Work, Workload, workload
from sim.workloads.operands import Pruning, operands

KEPT = Path("build/sparten.json")
MIB = 1024 * 1024


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
    plain = CspH(core=Core(config=config.core.config), period=config.period, images=config.images)
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
        total += csp_h.kept_energy(kept, cost.constants)
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
    for pruning in reversed(Pruning):
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
    for pruning in reversed(Pruning):
        row(str(pruning), ratios(names, spartens, config, Setting.MID, pruning=pruning).speed)


def tell_components(names: Sequence[str], setting: Setting, config: CspH, title: str) -> None:
    """Give pJ for each product of two operands that are not zero."""
    constants = Constants(setting=setting)
    head(f"pJ a useful product, {title}, {setting}", names)
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


def core(machine: CspH, **changes: Any) -> CspH:
    return dataclasses.replace(machine, core=dataclasses.replace(machine.core, **changes))


def built(machine: CspH, **changes: Any) -> CspH:
    return core(machine, config=machine.core.config.replace(**changes))


Lever = Callable[[CspH], CspH]
#: What could be built otherwise in the core.
HARDWARE: dict[str, Lever] = {
    "clock enables in the PE": lambda c: core(c, enables=True),
    "operand registers shared by 2 × 2 PEs": lambda c: core(c, shared_rows=2, shared_cols=2),
    "operand registers shared by 4 × 4 PEs": lambda c: core(c, shared_rows=4, shared_cols=4),
    "line buffer read when its address changes": lambda c: core(c, line_hold=True),
    "only the bank at work is read": lambda c: core(c, one_bank=True),
    "weights of one tile pass by their buffer": lambda c: core(c, bypass=True),
    "run of 17 bits": lambda c: core(c, run_bits=17),
    "partial sums of 20 bits": lambda c: built(c, acc_bits=20),
    "partial sums of 16 bits": lambda c: built(c, acc_bits=16),
}
#: What spares DRAM; SparTen could do it, too, and compresses already.
MEMORY: dict[str, Lever] = {
    "maps compressed at the ports": lambda c: dataclasses.replace(c, compressed=True),
    "maps kept in 2 MiB on the chip": lambda c: dataclasses.replace(c, maps_kept=2 * MIB),
    "weights kept on the chip": lambda c: dataclasses.replace(c, weights_kept=True),
    "pooling fused (the core does so)": lambda c: dataclasses.replace(c, pools_fused=True),
    "16 images at once, both": lambda c: dataclasses.replace(c, images=16),
}
#: What the hardware has, taken away or changed; the last one is an assumption.
PARAMETERS: dict[str, Lever] = {
    "without gating for zero activations": lambda c: core(c, gating=False),
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
#: Not together with a stronger one of the same kind.
WEAKER = {"operand registers shared by 2 × 2 PEs", "partial sums of 20 bits", "run of 17 bits"}
#: Changes what is computed, or its exactness; not in the sum.
INEXACT = {"run of 17 bits", "partial sums of 20 bits", "partial sums of 16 bits"}


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
    before = mean(base)
    for title, levers in (
        ("levers in the hardware, each alone", HARDWARE),
        ("levers of memory, each alone", MEMORY),
        ("parameters and assumptions, each alone", PARAMETERS),
    ):
        head(f"{title}, {setting}", names, more)
        line("the core as it is", base)
        for name in sorted(levers, key=lambda name: -mean(levers[name](base))):
            line(f"{name}", levers[name](base))
    head(f"one after the other, {setting}", names, more)
    config = base
    line("the core as it is", config)
    for levers in (HARDWARE, MEMORY):
        rest = {name: lever for name, lever in levers.items() if name not in WEAKER | INEXACT}
        while rest:
            best = max(rest, key=lambda name: mean(rest[name](config)))
            if mean(rest[best](config)) <= mean(config):
                break
            config = rest.pop(best)(config)
            line(f"+ {best}", config)
        for name, lever in rest.items():
            line(f"  (not taken: {name})", lever(config))
        for other, refetch in itertools.product(Setting, (False, True)):
            found = ratios(names, spartens, config, other, refetch=refetch)
            row(f"all so far, {other}{', refetch' * refetch}", found.energy)
    print(f"  mean ratio, all together: {before:.2f} → {mean(config):.2f}")


def tell_chain(
    names: Sequence[str], spartens: SparTens, setting: Setting, config: CspH, title: str
) -> None:
    """Give the factors whose product is the ratio, from SparTen to CSP-H."""
    constants = Constants(setting=setting)
    factors: dict[str, list[float]] = {}
    for name in names:
        unstructured, cascade = (
            spartens.cost(name, pruning, constants)
            for pruning in (Pruning.UNSTRUCTURED, Pruning.CASCADE)
        )
        own = together(name, csp_costs(name, config, constants))
        for step, factor in _factors(unstructured, cascade, own):
            factors.setdefault(step, []).append(factor)
    head(f"factors from SparTen to CSP-H, {title}, {setting}", names)
    for step, values in factors.items():
        row(step, values)
    row("product = ratio", [math.prod(each) for each in zip(*factors.values(), strict=True)])


def _factors(
    unstructured: SparTenCost, cascade: SparTenCost, own: Cost
) -> Iterator[tuple[str, float]]:
    """Give what each step changes: energy before / after."""
    yield "its weights a cascade: balance by structure", unstructured.total() / cascade.total()
    parts = dict(cascade.energy())
    total = sum(parts.values())

    def without(part: Part) -> float:
        nonlocal total
        before = total
        # Idle units idle in each of their parts alike.
        if part is not Part.IDLE:
            busy = sum(parts[p] for p in parts if p not in (Part.IDLE, Part.DRAM))
            parts[Part.IDLE] *= 1 - parts[part] / busy
        parts[part] = 0.0
        total = sum(parts.values())
        return before / total

    yield "no inner join", without(Part.JOIN)
    yield "no permute network", without(Part.ROUTE)
    yield "no unit waits", without(Part.IDLE)
    own_parts = own.energy()

    def now(new: dict[Part, float]) -> float:
        nonlocal total
        before = total
        parts.update(new)
        total = sum(parts.values())
        return before / total

    registers = (Part.REGISTER, Part.ACCUMULATOR, Part.OTHER)
    yield (
        "registers and sums of a PE for its buffers and rest",
        now({Part.BUFFER: 0.0, Part.OTHER: 0.0} | {p: own_parts[p] for p in registers}),
    )
    around = (Part.BUFFER, Part.ROUTE, Part.JOIN)
    yield "buffers, edges, drain, skipping", now({p: own_parts[p] for p in around})
    kept = (Part.MAC, Part.IDLE)
    yield "zero activations and idle PEs", now({p: own_parts[p] for p in kept})
    yield "DRAM", now({Part.DRAM: own_parts[Part.DRAM]})


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--networks", default="all", help=f"of {','.join(SHAPES)}, or all")
    parser.add_argument("--setting", default=Setting.MID, type=Setting, choices=list(Setting))
    parser.add_argument("--again", action="store_true", help="simulate SparTen again")
    options = parser.parse_args()
    names = list(SHAPES) if options.networks == "all" else options.networks.split(",")
    spartens = SparTens(again=options.again)
    tell_sources()
    tell_ratios(names, spartens)
    base, gated = CspH(), core(CspH(), enables=True)
    tell_sparten(names, spartens, options.setting)
    for config, title in ((base, "the core as it is"), (gated, "with clock enables")):
        tell_components(names, options.setting, config, title)
        tell_chain(names, spartens, options.setting, config, title)
    tell_levers(names, spartens, options.setting)
    return 0


if __name__ == "__main__":
    sys.exit(main())
