# SPDX-License-Identifier: Apache-2.0
"""Networks as work for a model: each layer's shape and densities, and where these are from."""

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

from csp_algo.errors import CspError
from sim.tables import read_table
from sim.workloads import draw
from sim.workloads.shapes.alexnet import alexnet
from sim.workloads.shapes.inception_v3 import inception_v3
from sim.workloads.shapes.layer import LayerShape
from sim.workloads.shapes.resnet50 import resnet50
from sim.workloads.shapes.transformer import transformer
from sim.workloads.shapes.vgg16 import vgg16
from sim.workloads.zeros import Zeros

DATA = Path(__file__).parent / "data"
#: Means of what is drawn where no table says it: assumed, in the middle of published networks.
WEIGHTS, ACTIVATIONS = 0.25, 0.45
#: ν of the layers' densities: assumed. Deviations of 0.09 and 0.11.
LAYER_CONCENTRATION = 20.0
#: Weights of a layer with fewer input channels than this are not pruned: the image's.
LEAST_CHANNELS = 16


@dataclasses.dataclass(frozen=True, kw_only=True)
class Work:
    """A layer as work for a model.

    Parameters
    ----------
    shape : LayerShape
    weights, inputs, outputs : float
        Densities, 0 … 1: of weights, of the map that is read, of the map that is written.
    published : float, optional
        Density of the weights that others published, pruned without structure.
    zeros : Zeros, optional
        Where zeros are; if not given, they are drawn.
    """

    shape: LayerShape
    weights: float
    inputs: float
    outputs: float
    published: float | None = None
    zeros: Zeros | None = None

    def __post_init__(self) -> None:
        names = ["weights", "inputs", "outputs"]
        for name in names if self.published is None else [*names, "published"]:
            draw.checked_density(f"{self.shape.name}: {name}", getattr(self, name))

    @property
    def effective(self) -> float:
        """Expected products of a weight and an activation that are not zero, padding counted."""
        return self.shape.macs * self.weights * self.inputs


@dataclasses.dataclass(frozen=True, kw_only=True)
class Workload:
    """A network as work.

    Parameters
    ----------
    name : str
    works : tuple of Work
    weight_source, activation_source : str
        Where the densities are from.
    published_source : str
        The same of those that others published for weights without structure, or why there are
        none besides ``weights``.
    """

    name: str
    works: tuple[Work, ...]
    weight_source: str
    activation_source: str
    published_source: str = ""

    @property
    def density(self) -> float:
        """Share of the weights that are not zero."""
        kept = sum(work.shape.repeat * work.shape.weights * work.weights for work in self.works)
        return kept / sum(work.shape.repeat * work.shape.weights for work in self.works)

    def provenance(self) -> Iterator[str]:
        """Give lines that say what the network is and where its zeros are from."""
        macs = sum(work.shape.macs for work in self.works)
        yield f"{self.name}: {len(self.works)} layers, {macs / 1e6:,.0f} M MACs"
        yield f"  weights, {self.density:.1%} not zero: {self.weight_source}"
        yield f"  activations: {self.activation_source}"
        if self.published_source:
            yield f"  published for weights without structure: {self.published_source}"


#: Why SparTen has no other densities of weights without structure than those of the cascade.
_SAME = {
    "alexnet": "the same densities, so SparTen's two kinds of unstructured weights are one",
    "vgg16": "the same densities, so SparTen's two kinds of unstructured weights are one",
    "inception_v3": "none found for its layers; SparTen has the densities of the cascade",
    "transformer": "none found for its layers; SparTen has the densities of the cascade",
}

#: What makes the shapes of each network.
SHAPES: dict[str, Callable[[], tuple[LayerShape, ...]]] = {
    "alexnet": alexnet,
    "vgg16": vgg16,
    "resnet50": resnet50,
    "inception_v3": inception_v3,
    "transformer": transformer,
}


def workload(name: str, *, seed: int = 0) -> Workload:
    """Give a network with published densities, and drawn ones where none are published.

    Parameters
    ----------
    name : str
        One of :data:`SHAPES`.
    seed : int
        Of what is drawn.

    Raises
    ------
    CspError
        There is no such network, or its table does not fit its layers.
    """
    if name not in SHAPES:
        raise CspError(f"no workload {name!r}; there are {', '.join(SHAPES)}")
    layers = SHAPES[name]()
    densities = _Densities(name, layers, seed)
    weights = [densities.weights(layer) for layer in layers]
    inputs = [densities.inputs(layer) for layer in layers]
    # What a layer writes is taken for as dense as what the next one reads; of branches, too.
    outputs = [*inputs[1:], 1.0]
    published, published_source = _published(name, layers)
    works = tuple(
        Work(
            shape=layer,
            weights=w,
            inputs=i,
            outputs=o if layer.rectified_out else 1.0,
            published=published.get(layer.name),
        )
        for layer, w, i, o in zip(layers, weights, inputs, outputs, strict=True)
    )
    return Workload(
        name=name,
        works=works,
        weight_source=densities.source("weights", WEIGHTS),
        activation_source=densities.source("inputs", ACTIVATIONS)
        + "; 1 where no ReLU stands before the layer",
        published_source=published_source,
    )


def _published(name: str, layers: tuple[LayerShape, ...]) -> tuple[dict[str, float], str]:
    """Give published densities of weights without structure, and where they are from."""
    path = DATA / f"{name}_unstructured.csv"
    if not path.is_file():
        return {}, _SAME.get(name, "")
    table = read_table(path)
    found = {row["layer"]: float(row["weights"]) for row in table.rows}
    names = {layer.name for layer in layers}
    if strangers := found.keys() - names:
        raise CspError(f"{table.name}: {name} has no layer {min(strangers)}")
    if missing := names - found.keys():
        raise CspError(f"{table.name}: layer {min(missing)} of {name} is missing")
    return found, table.source


class _Densities:
    """Looks densities up, draws what is not found, and remembers which was which."""

    def __init__(self, name: str, layers: tuple[LayerShape, ...], seed: int) -> None:
        self._name, self._seed = name, seed
        self._rows: dict[str, dict[str, str]] = {}
        self._table = ""
        self._found = {"weights": 0, "inputs": 0}
        self._drawn = {"weights": 0, "inputs": 0}
        path = DATA / f"{name}.csv"
        if path.is_file():
            table = read_table(path)
            self._rows = {row["layer"]: row for row in table.rows}
            self._table = table.source
            strangers = self._rows.keys() - {layer.name for layer in layers}
            if strangers:
                raise CspError(f"{table.name}: {name} has no layer {min(strangers)}")

    def weights(self, layer: LayerShape) -> float:
        if layer.geometry.in_shape[2] < LEAST_CHANNELS and not self._rows:
            return 1.0
        return self._find(layer, "weights", WEIGHTS)

    def inputs(self, layer: LayerShape) -> float:
        if not layer.rectified_in and not self._published(layer, "inputs"):
            return 1.0
        return self._find(layer, "inputs", ACTIVATIONS)

    def source(self, kind: str, mean: float) -> str:
        drawn = f"drawn per layer from beta(mean {mean:g}, ν {LAYER_CONCENTRATION:g}), assumed"
        parts = []
        if self._found[kind]:
            parts.append(f"{self._table} ({self._found[kind]} layers)")
        if self._drawn[kind]:
            parts.append(f"{drawn} ({self._drawn[kind]} layers)")
        return "; ".join(parts)

    def _published(self, layer: LayerShape, kind: str) -> str:
        return self._rows.get(layer.name, {}).get(kind, "")

    def _find(self, layer: LayerShape, kind: str, mean: float) -> float:
        if text := self._published(layer, kind):
            self._found[kind] += 1
            return float(text)
        self._drawn[kind] += 1
        rng = draw.generator(self._name, layer.name, kind, seed=self._seed)
        return float(draw.beta(rng, mean, LAYER_CONCENTRATION, 1)[0])
