# SPDX-License-Identifier: Apache-2.0
"""Filters in another order, through a whole network, so that a cascade keeps more of the weights.

A layer's filters may stand in any order if all that read its map take its channels in that order.
Maps that are added share one order, a concatenation has those of its parts, a Flatten repeats its
map's for each pixel. The input, the output and grouped layers keep theirs; a depthwise layer
follows its input. What the network computes stays the same: exactly in integers while no partial
sum is rounded (t = 0) or clipped, to rounding in floats.
"""

import dataclasses
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from csp_algo import prefix
from csp_algo.network import AvgPool, Concat, Flatten, MaxPool
from csp_algo.quantize import FloatLayer, FloatNetwork, FloatNode, order_of

Indices = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

#: Most rounds of exchanging filters; what is left to gain is then well below a thousandth.
ROUNDS = 12


class _Part(NamedTuple):
    """Channels of a map that are the channels of one class, or keep their order."""

    channels: int
    owner: str | None


class Channels:
    """Which channels of which maps must share an order: the layers' filters, in classes.

    Parameters
    ----------
    network : FloatNetwork
    """

    def __init__(self, network: FloatNetwork) -> None:
        self._parts: dict[str, tuple[_Part, ...]] = {}
        self._pixels: dict[str, int] = {}
        self._roots: dict[str, str] = {}
        self._fixed: set[str] = set()
        shapes = network.shapes()
        self._add(network.input.name, (_Part(shapes[network.input.name][2], None),), 1)
        for node in network.nodes:
            height, width, _ = shapes[node.sources[0]]
            self._node(node, height * width)
        self._fix(network.nodes[-1].name)

    def classes(self) -> dict[str, list[str]]:
        """Give the layers of each class whose order may change, by the first of them."""
        found: dict[str, list[str]] = {}
        for name in self._roots:
            root = self._root(name)
            if root not in self._fixed:
                found.setdefault(root, []).append(name)
        return found

    def order(self, name: str, chosen: Mapping[str, Indices]) -> Indices:
        """Give the order of a map's channels, int64 [C], if those of classes are chosen."""
        first, parts = 0, []
        for channels, owner in self._parts[name]:
            order = None if owner is None else chosen.get(self._root(owner))
            parts.append(first + (np.arange(channels) if order is None else order))
            first += channels
        order = np.concatenate(parts)
        return (np.arange(self._pixels[name])[:, None] * first + order).ravel()

    def _add(self, name: str, parts: tuple[_Part, ...], pixels: int) -> None:
        self._parts[name], self._pixels[name] = parts, pixels

    def _node(self, node: FloatNode, pixels: int) -> None:
        source = node.sources[0]
        match node:
            case MaxPool() | AvgPool():
                self._add(node.name, self._parts[source], self._pixels[source])
            case Flatten():
                self._add(node.name, self._parts[source], self._pixels[source] * pixels)
            case Concat():
                self._concat(node)
            case _:
                self._layer(node)

    def _concat(self, node: Concat) -> None:
        parts: list[_Part] = []
        for name in node.inputs:
            if self._pixels[name] == 1:
                parts.extend(self._parts[name])
            else:
                self._fix(name)
                parts.append(_Part(len(self.order(name, {})), None))
        self._add(node.name, tuple(parts), 1)

    def _layer(self, layer: FloatLayer) -> None:
        shape = layer.geometry
        self._roots[layer.name] = layer.name
        self._add(layer.name, (_Part(shape.filters, layer.name),), 1)
        if shape.groups > 1:
            if shape.group_channels == shape.group_filters == 1:
                self._tie(layer.name, layer.input)
            else:
                self._fix(layer.name)
                self._fix(layer.input)
        residual = layer.sources[1:]
        for name in residual:
            self._tie(layer.name, name)

    def _tie(self, name: str, other: str) -> None:
        """Give two maps one order; where one of them is made of parts, both keep theirs."""
        (own,), parts = self._parts[name], self._parts[other]
        if len(parts) == 1 and self._pixels[other] == 1 and parts[0].owner and own.owner:
            one, two = self._root(own.owner), self._root(parts[0].owner)
            self._roots[one] = two
            if one in self._fixed:
                self._fixed.add(two)
        else:
            self._fix(name)
            self._fix(other)

    def _fix(self, name: str) -> None:
        self._fixed.update(self._root(part.owner) for part in self._parts[name] if part.owner)

    def _root(self, name: str) -> str:
        while self._roots[name] != name:
            name = self._roots[name]
        return name


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Orders:
    """Orders of the channels of a network's maps.

    Parameters
    ----------
    channels : Channels
    chosen : mapping of class to int64 [C]
        New channel i is old channel order[i]; classes without an order keep theirs.
    """

    channels: Channels
    chosen: Mapping[str, Indices]

    def of(self, name: str) -> Indices:
        """Give the order of a map's channels, int64 [C]."""
        return self.channels.order(name, self.chosen)

    def inverse(self) -> "Orders":
        """Give the orders that undo these ones, in the network so re-ordered."""
        chosen = {root: np.argsort(order) for root, order in self.chosen.items()}
        return dataclasses.replace(self, chosen=chosen)


def orders_for(
    network: FloatNetwork,
    targets: Mapping[str, float],
    cols: int,
    *,
    refine: bool = True,
    moments: Mapping[str, Floats] | None = None,
) -> Orders:
    """Choose the order of filters with which a cascade keeps more of the weights.

    Filters are sorted by the squared norm of their weights, largest first. Then they change places
    between chunks while more of it is kept at the target: for the counts of
    :mod:`csp_algo.prefix`, each filter is worth in chunk k what the taps weigh that keep k + 1
    chunks, and any two chunks share their filters so that these worths are the largest.

    Parameters
    ----------
    network : FloatNetwork
    targets : mapping of layer name to share of zeros
        The layers that count, and where they are to be pruned to.
    cols : int
        Filters of a chunk.
    refine : bool
        Whether filters change places after they were sorted.
    moments : mapping of layer name to float64 [groups, J], optional
        What taps are weighed with: :func:`csp_algo.prune.tap_moments`.
    """
    channels = Channels(network)
    chosen: dict[str, Indices] = {}
    layers = {layer.name: layer for layer in network.layers()}
    for root, names in channels.classes().items():
        counting = [name for name in names if name in targets and layers[name].geometry.groups == 1]
        if not counting:
            continue
        matrices = {
            name: unit(layers[name].matrices[0], None if moments is None else moments[name][0])
            for name in counting
        }
        chosen[root] = shared_order(matrices, targets, cols, refine=refine)
    return Orders(channels=channels, chosen=chosen)


def shared_order(
    matrices: Mapping[str, Floats],
    targets: Mapping[str, float],
    cols: int,
    *,
    refine: bool = True,
) -> Indices:
    """Give one order of the filters of some layers, as :func:`orders_for` chooses it, int64 [M].

    Parameters
    ----------
    matrices : mapping of layer name to float64 [M, J]
        As large as what they do: :func:`unit`.
    targets : mapping of layer name to share of zeros
    cols : int
        Filters of a chunk.
    refine : bool
        Whether filters change places after they were sorted.
    """
    norms = sum((np.square(matrix).sum(axis=1) for matrix in matrices.values()), np.zeros(1))
    order = np.argsort(-norms, kind="stable")
    return _exchanged(matrices, targets, order, cols) if refine else order


def reorder_floats(network: FloatNetwork, orders: Orders) -> FloatNetwork:
    """Give the network with filters and taps in the orders of its maps."""

    def moved(layer: FloatLayer) -> FloatLayer:
        order = orders.of(layer.name)
        weights = np.asarray(layer.weights)[order]
        # The channels of grouped layers are in place, those of depthwise ones are their filters.
        if layer.geometry.groups == 1:
            weights = weights[:, orders.of(layer.input)]
        return dataclasses.replace(
            layer,
            weights=weights,
            bias=layer.bias[order],
            filter_order=order_of(layer)[order],
        )

    nodes = (moved(node) if isinstance(node, FloatLayer) else node for node in network.nodes)
    return dataclasses.replace(network, nodes=tuple(nodes))


def reorder_moments(
    network: FloatNetwork, moments: Mapping[str, Floats], orders: Orders
) -> dict[str, Floats]:
    """Give the moments of the taps of the network that :func:`reorder_floats` gives."""
    moved = {}
    for layer in network.layers():
        shape, values = layer.geometry, moments[layer.name]
        if shape.groups == 1:
            taps = values.reshape(*shape.kernel, -1)[..., orders.of(layer.input)]
            moved[layer.name] = taps.reshape(values.shape)
        elif shape.group_channels == shape.group_filters == 1:
            moved[layer.name] = values[orders.of(layer.name)]
        else:
            moved[layer.name] = values
    return moved


def unit(matrix: Floats, moments: Floats | None) -> Floats:
    """Give weights [M, J] as large as what they do to the outputs, their mean square 1."""
    weighed = matrix if moments is None else matrix * np.sqrt(moments)
    return np.asarray(weighed / (np.sqrt(np.mean(np.square(weighed))) or 1.0))


def _exchanged(
    matrices: Mapping[str, Floats], targets: Mapping[str, float], order: Indices, cols: int
) -> Indices:
    """Let filters change places while the kept squared norm grows."""
    best, most = order, -1.0
    starts = np.arange(0, len(order), cols)
    for _ in range(ROUNDS):
        worth = np.zeros((len(order), len(starts)))
        for name, matrix in matrices.items():
            _, (counts,) = prefix.price_for_sparsity(
                [matrix[order]], cols, targets[name], name=f"layer {name}"
            )
            alive = counts[:, None] > np.arange(len(starts))
            worth += np.square(matrix) @ alive
        kept = float(worth[order, np.arange(len(order)) // cols].sum())
        if kept <= most * (1 + 1e-6):
            break
        best, most = order, kept
        order = _shared_out(worth, order, cols)
    return best


def _shared_out(worth: Floats, order: Indices, cols: int) -> Indices:
    """Share the filters of each two chunks so that their worths are the largest."""
    order = order.copy()
    count = worth.shape[1]
    for first in range(count):
        for second in range(first + 1, count):
            places = np.r_[
                first * cols : (first + 1) * cols,
                second * cols : min((second + 1) * cols, len(order)),
            ]
            filters = order[places]
            gain = worth[filters, first] - worth[filters, second]
            order[places] = filters[np.argsort(-gain, kind="stable")]
    return order
