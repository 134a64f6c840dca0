# SPDX-License-Identifier: Apache-2.0
"""The command ``csp prune``: an ONNX graph as a pruned integer network, and what that costs."""

import dataclasses
import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from csp_algo import container, reorder
from csp_algo.cascade import sparsity
from csp_algo.errors import CspError, located
from csp_algo.network import Layer, Network
from csp_algo.prune import Rule, keep, prunable, prune, prune_whole, tap_moments
from csp_algo.quantize import FloatNetwork, quantise
from csp_hw.config import ConfigError, CspConfig, preset
from sim import demo, golden
from sim.costs import Of
from sim.program.compiler import compile_network
from sim.targets import Measured, measure

Floats = npt.NDArray[np.float64]

#: Largest difference of ONNX Runtime's float32 from float64 here, of the largest value of a map.
TOLERANCE = 1e-3
#: What costs are shown in; energy is reckoned in pJ.
UNITS = {Of.WEIGHTS: "weights", Of.CYCLES: "cycles", Of.ENERGY: "µJ"}
#: Largest sparsity for which filters are put in order.
MOST_ZEROS = 0.9
#: Samples on which the networks are compared, the first ones.
COMPARED = 4


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What is pruned, and how.

    Parameters
    ----------
    model, samples : Path
        An ONNX file, and samples: .npz, .npy or a folder of .npy.
    target : float, optional
        Share of zeros of the layers that are pruned.
    budget : float, optional
        Instead of a target: share of what the dense network costs.
    of : Of, optional
        What is meant by cost: cycles if not given. Goes with a budget.
    output : Path
        The network to write.
    preset : str
        Configuration of the hardware: columns and period.
    rule : Rule, optional
        WHOLE if not given. Goes with a target.
    reorder : bool
        Whether filters are put into another order first.
    limit : int
        Most samples.
    onnx : Path, optional
        The pruned graph to write.
    """

    model: Path
    samples: Path
    target: float | None
    budget: float | None
    of: Of | None
    output: Path
    preset: str
    rule: Rule | None
    reorder: bool
    limit: int
    onnx: Path | None

    def __post_init__(self) -> None:
        if (self.target is None) == (self.budget is None):
            raise CspError("one of --target and --budget must be given")
        for name in ("target", "budget"):
            value = getattr(self, name)
            if value is not None and not 0 < value < 1:
                raise CspError(f"--{name} must be above 0 and below 1, not {value}")
        if self.target is not None and self.of is not None:
            raise CspError(f"--of {self.of} goes with --budget, not with --target")
        if self.budget is not None and self.rule is not None:
            raise CspError(f"--rule {self.rule} goes with --target, not with --budget")
        taken = {self.model.resolve(): "MODEL", self.samples.resolve(): "--samples"}
        for name, path in (("-o", self.output), ("--onnx", self.onnx)):
            if path is not None:
                other = taken.setdefault(path.resolve(), name)
                if other != name:
                    raise CspError(f"{path}: is the file of {other} and of {name}")
                # It may take minutes until something is written.
                if not path.parent.is_dir():
                    raise CspError(f"{path}: cannot be written: {path.parent} is no folder")


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Spent:
    """What a network costs that was pruned under a budget.

    Parameters
    ----------
    measured : Measured
    levels : mapping of layer name to level
    costs : mapping of node name to float
        Of the integers.
    """

    measured: Measured
    levels: Mapping[str, int]
    costs: Mapping[str, float]

    @property
    def share(self) -> float:
        """Of what the dense network costs."""
        return sum(self.costs.values()) / sum(self.measured.whole.values())


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Pruned:
    """What came out.

    Parameters
    ----------
    network : Network
    noise : mapping of value name to float
        Of the integers beside the pruned float network: ‖difference‖ / ‖value‖, of some samples.
    difference : float, optional
        Largest difference of ONNX Runtime on the pruned graph from the pruned float network, as a
        share of the largest value of its map; None if no graph was written.
    spent : Spent, optional
        Under a budget.
    """

    network: Network
    noise: Mapping[str, float]
    difference: float | None
    spent: Spent | None

    @property
    def equal(self) -> bool:
        """Whether ONNX Runtime computes what was pruned here."""
        return self.difference is None or self.difference <= TOLERANCE


def run(options: Options, console: Console) -> Pruned:
    """Import, prune, quantise, compress, write, compare, and print what came out.

    Raises
    ------
    CspError
        A file or the target does not fit; the message names the file and the value.
    """
    onnx = _onnx()
    config = preset(options.preset)
    period = config.max_period
    with demo.Phases(console) as phases:
        with phases.phase("import"):
            imported = onnx["importer"].import_graph(options.model)
            samples = onnx["samples"].load_samples(options.samples, imported, limit=options.limit)
            network = dataclasses.replace(imported.network, input=samples.input)
        names = _layers(options.model, network, imported.origins)
        measured, levels = None, {}
        with phases.phase("pruning") as tell, located(str(options.model)):
            # Without a target, no layer's filters change places.
            targets = _targets(network, names, options) if options.reorder else {}
            moments = tap_moments(network, samples.images)
            orders = reorder.orders_for(network, targets, config.cols, moments=moments)
            moved = reorder.reorder_floats(network, orders)
            moments = reorder.reorder_moments(network, moments, orders)
            if options.budget is None:
                pruned = _pruned(moved, names, options, config.cols, moments)
            else:
                measured = measure(
                    moved,
                    names,
                    samples.images,
                    of=options.of or Of.CYCLES,
                    config=config,
                    moments=moments,
                    tell=tell,
                )
                levels = measured.choose(options.budget)
                pruned = keep(moved, measured.counts(levels), config.cols)
        with phases.phase("calibration"), located(str(options.model)):
            integers = quantise(
                pruned,
                samples.images,
                cols=config.cols,
                period=period,
                acc_bits=config.acc_bits,
                metadata=_metadata(options),
            )
        with phases.phase("golden model"):
            few = samples.images[:COMPARED]
            values = pruned.forward(few)
            noise = _noise(integers, few, values, config.acc_bits)
        contents = {options.output: container.to_bytes(integers)}
        difference = None
        if options.onnx is not None:
            with phases.phase("ONNX Runtime") as tell:
                plain = reorder.reorder_floats(pruned, orders.inverse())
                model = onnx["export"].pruned_model(imported, plain)
                contents[options.onnx] = model
                maps = plain.forward(few)
                found = onnx["witness"].run(imported, model, samples.floats[:COMPARED])
                difference = _difference(found, maps, len(few), tell)
        for path, data in contents.items():
            container.write_atomically(path, data)
    spent = None
    if measured is not None:
        costs = measured.meter.nodes(integers)
        spent = Spent(measured=measured, levels=levels, costs=costs)
    result = Pruned(network=integers, noise=noise, difference=difference, spent=spent)
    _show(console, options, result, names, imported, why_not(integers, config))
    return result


def why_not(network: Network, config: CspConfig) -> str | None:
    """Say why the core cannot run a network of this configuration, or None."""
    try:
        compile_network(network, config, 1)
    except (CspError, ConfigError) as error:
        return str(error)
    return None


def _onnx() -> dict[str, Any]:
    """Give the modules of csp_algo.onnx, which need the extra of that name."""
    names = ("importer", "samples", "export", "witness")
    return {name: importlib.import_module(f"csp_algo.onnx.{name}") for name in names}


def _layers(path: Path, network: FloatNetwork, origins: Mapping[str, object]) -> tuple[str, ...]:
    names = tuple(name for name in prunable(network) if name in origins)
    if not names:
        raise CspError(f"{path}: no layer has 16 channels and 16 filters, nothing can be pruned")
    return names


def _targets(network: FloatNetwork, names: tuple[str, ...], options: Options) -> dict[str, float]:
    """Give the sparsities for which filters are put in order: with a budget, its complement.

    A layer that is sparser already has its own, and one without a weight has no order.
    """
    aim = options.target
    if aim is None:
        assert options.budget is not None
        aim = 1 - options.budget
    zeros = {each.name: sparsity(each.weights) for each in network.layers() if each.name in names}
    return {name: max(min(aim, MOST_ZEROS), own) for name, own in zeros.items() if own < 1}


def _pruned(
    network: FloatNetwork,
    names: tuple[str, ...],
    options: Options,
    cols: int,
    moments: Mapping[str, Floats],
) -> FloatNetwork:
    assert options.target is not None
    rule = options.rule or Rule.WHOLE
    if rule is Rule.WHOLE:
        return prune_whole(network, names, options.target, cols, moments=moments)
    targets = dict.fromkeys(names, options.target)
    return prune(network, targets, cols, rule=rule, moments=moments)


def _metadata(options: Options) -> dict[str, str]:
    if options.budget is not None:
        aim = f"budget {options.budget:g} of {options.of or Of.CYCLES}"
    else:
        aim = f"target {options.target:g}, rule {options.rule or Rule.WHOLE}"
    return {
        "source": options.model.name,
        "pruning": f"{aim}, no training",
        "samples": options.samples.name,
    }


def _noise(
    network: Network, images: npt.NDArray[np.integer], values: Mapping[str, Floats], acc_bits: int
) -> dict[str, float]:
    found = golden.run(network, images, acc_bits=acc_bits).values
    scales = network.scales()
    return {
        node.name: _distance(found[node.name] * np.float64(scales[node.name]), values[node.name])
        for node in network.nodes
    }


def _distance(found: Floats, expected: Floats) -> float:
    size = float(np.linalg.norm(expected))
    return float(np.linalg.norm(found - expected)) / size if size else 0.0


def _difference(
    found: Any, maps: Mapping[str, Floats], count: int, tell: Callable[[str, float], None]
) -> float:
    worst = 0.0
    for number, runtime in enumerate(found):
        for name, values in runtime.items():
            own = maps[name][number : number + 1]
            largest = float(np.abs(own).max()) or 1.0
            # Unlike max, this keeps what is no number.
            worst = float(np.maximum(worst, np.abs(values - own).max() / largest))
        tell("", (number + 1) / count)
    return worst


def _show(
    console: Console,
    options: Options,
    result: Pruned,
    names: tuple[str, ...],
    imported: Any,
    reason: str | None,
) -> None:
    network = result.network
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for heading in ("node", "kind", "runs on"):
        table.add_column(heading, overflow="fold")
    for heading in ("weights", "kept", "density", "counts, mean", "noise"):
        table.add_column(heading, justify="right")
    for node in network.nodes:
        cells = _layer_cells(node) if isinstance(node, Layer) else ["", "", "", ""]
        kind = type(node).__name__.lower()
        kind += "" if not isinstance(node, Layer) or node.name in names else ", whole"
        place = "core" if reason is None else "golden model"
        noise = f"{result.noise[node.name]:.1%}"
        table.add_row(*map(Text, [node.name, kind, place, *cells, noise]))
    for node in imported.host:
        table.add_row(*map(Text, [node.name, node.kind, "host", "", "", "", "", ""]))
    console.print(table)
    weights, kept = totals(network, names)
    console.print(
        f"{kept:,} of {weights:,} weights kept in {len(names)} layers: sparsity "
        f"{1 - kept / weights:.2%}; noise is ‖integers − floats‖ / ‖floats‖",
        highlight=False,
    )
    if result.spent is not None and options.budget is not None:
        _show_spent(console, options.budget, result.spent, network)
    if reason is not None:
        why = f"preset {options.preset} cannot run it: {reason}"
        console.print(why, highlight=False, markup=False)
    for node in imported.host:
        why = f"host: {node.name} ({node.kind}): {node.why}"
        console.print(why, highlight=False, markup=False)
    console.print(f"wrote {options.output}", highlight=False, markup=False, soft_wrap=True)
    if result.difference is not None:
        verdict = "equal" if result.equal else f"differs by more than {TOLERANCE:g}"
        console.print(
            f"wrote {options.onnx}: ONNX Runtime {verdict}, largest difference "
            f"{result.difference:.1e} of a map's largest value",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )


def _show_spent(console: Console, budget: float, spent: Spent, network: Network) -> None:
    of = spent.measured.meter.of
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("node", overflow="fold")
    for heading in ("density", UNITS[of], "of all", "of its dense", "error alone"):
        table.add_column(heading, justify="right")
    layers = {layer.name: layer.weights() for layer in network.layers()}
    total, whole = sum(spent.costs.values()), sum(spent.measured.whole.values())
    for name, cost in spent.costs.items():
        density = f"{1 - sparsity(layers[name]):.1%}" if name in layers else ""
        dense = spent.measured.whole[name]
        alone = ""
        if name in spent.levels:
            alone = f"{spent.measured.errors[name][spent.levels[name]]:.3f}"
        cells = [density, _amount(of, cost), f"{cost / total:.1%}", f"{cost / dense:.1%}", alone]
        table.add_row(*map(Text, [name, *cells]))
    console.print(table)
    console.print(
        f"{_amount(of, total)} of {_amount(of, whole)} {UNITS[of]} of the dense network: "
        f"{spent.share:.2%}, budget {budget:.2%}; error alone is ‖after − before‖ / ‖before‖ of "
        "the output if only this layer is pruned",
        highlight=False,
    )


def _amount(of: Of, cost: float) -> str:
    return f"{cost / 1e6:,.3f}" if of is Of.ENERGY else f"{cost:,.0f}"


def _layer_cells(layer: Layer) -> list[str]:
    weights, counts = layer.weights(), np.concatenate([each.counts for each in layer.matrices])
    kept = int(np.count_nonzero(weights))
    chunks = layer.matrices[0].chunks
    return [
        f"{weights.size:,}",
        f"{kept:,}",
        f"{kept / weights.size:.1%}",
        f"{counts.mean():.2f} of {chunks}",
    ]


def totals(network: Network, names: tuple[str, ...]) -> tuple[int, int]:
    """Give how many weights some layers have, and how many of them are not zero."""
    layers = [layer.weights() for layer in network.layers() if layer.name in names]
    return sum(each.size for each in layers), sum(int(np.count_nonzero(each)) for each in layers)
