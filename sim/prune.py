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
from csp_algo.errors import CspError, located
from csp_algo.network import Layer, Network
from csp_algo.prune import Rule, prunable, prune, prune_whole, tap_moments
from csp_algo.quantize import FloatNetwork, quantise
from csp_hw.config import ConfigError, CspConfig, preset
from sim import demo, golden
from sim.program.compiler import compile_network

Floats = npt.NDArray[np.float64]

#: Largest difference of ONNX Runtime's float32 from float64 here, of the largest value of a map.
TOLERANCE = 1e-3
#: Samples on which the networks are compared, the first ones.
COMPARED = 4


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What is pruned, and how.

    Parameters
    ----------
    model, samples : Path
        An ONNX file, and samples: .npz, .npy or a folder of .npy.
    target : float
        Share of zeros of the layers that are pruned.
    output : Path
        The network to write.
    preset : str
        Configuration of the hardware: columns and period.
    rule : Rule
    reorder : bool
        Whether filters are put into another order first.
    limit : int
        Most samples.
    onnx : Path, optional
        The pruned graph to write.
    """

    model: Path
    samples: Path
    target: float
    output: Path
    preset: str
    rule: Rule
    reorder: bool
    limit: int
    onnx: Path | None


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
    """

    network: Network
    noise: Mapping[str, float]
    difference: float | None

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
    if not 0 < options.target < 1:
        raise CspError(f"--target must be above 0 and below 1, not {options.target}")
    with demo.Phases(console) as phases:
        with phases.phase("import"):
            imported = onnx["importer"].import_graph(options.model)
            samples = onnx["samples"].load_samples(options.samples, imported, limit=options.limit)
            network = dataclasses.replace(imported.network, input=samples.input)
        names = _layers(options.model, network, imported.origins)
        with phases.phase("pruning"), located(str(options.model)):
            # Without a target, no layer's filters change places.
            targets = dict.fromkeys(names, options.target) if options.reorder else {}
            moments = tap_moments(network, samples.images)
            orders = reorder.orders_for(network, targets, config.cols, moments=moments)
            pruned = _pruned(
                reorder.reorder_floats(network, orders),
                names,
                options,
                config.cols,
                reorder.reorder_moments(network, moments, orders),
            )
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
        container.save(integers, options.output)
        difference = None
        if options.onnx is not None:
            with phases.phase("ONNX Runtime") as tell:
                plain = reorder.reorder_floats(pruned, orders.inverse())
                model = onnx["export"].pruned_model(imported, plain)
                container.write_atomically(options.onnx, model)
                maps = plain.forward(few)
                found = onnx["witness"].run(imported, model, samples.floats[:COMPARED])
                difference = _difference(found, maps, len(few), tell)
    result = Pruned(network=integers, noise=noise, difference=difference)
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


def _pruned(
    network: FloatNetwork,
    names: tuple[str, ...],
    options: Options,
    cols: int,
    moments: Mapping[str, Floats],
) -> FloatNetwork:
    if options.rule is Rule.WHOLE:
        return prune_whole(network, names, options.target, cols, moments=moments)
    targets = dict.fromkeys(names, options.target)
    return prune(network, targets, cols, rule=options.rule, moments=moments)


def _metadata(options: Options) -> dict[str, str]:
    return {
        "source": options.model.name,
        "pruning": f"target {options.target:g}, rule {options.rule.value}, no training",
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
            worst = max(worst, float(np.abs(values - own).max()) / largest)
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
    if reason is not None:
        console.print(f"preset {options.preset} cannot run it: {reason}", highlight=False)
    for node in imported.host:
        console.print(f"host: {node.name} ({node.kind}): {node.why}", highlight=False)
    console.print(f"wrote {options.output}", highlight=False, soft_wrap=True)
    if result.difference is not None:
        verdict = "equal" if result.equal else f"differs by more than {TOLERANCE:g}"
        console.print(
            f"wrote {options.onnx}: ONNX Runtime {verdict}, largest difference "
            f"{result.difference:.1e} of a map's largest value",
            highlight=False,
            soft_wrap=True,
        )


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
