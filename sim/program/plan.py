# SPDX-License-Identifier: Apache-2.0
"""The passes of each node, before anything has an address."""

import collections
import contextlib
import dataclasses
import math

from csp_algo.errors import CspError, located
from csp_algo.network import Concat, Layer, Network, Node, Pool
from csp_hw.config import CspConfig
from sim.program.filters import Part, layer_layout, split_filters
from sim.program.layout import Layout
from sim.program.pooling import PoolWindow, pool_window, pool_windows
from sim.program.windows import Window, cost, cut_window, strips, whole_window, windows


@dataclasses.dataclass(frozen=True, kw_only=True)
class Choices:
    """What may be done to make a program faster, each can be turned off; and for whom it is.

    Parameters
    ----------
    fuse : bool
        A pooling takes its input from the convolution before it, not from memory.
    merge : bool
        Groups that share a chunk are computed in one pass, where that changes no result.
    expose : bool
        Each map on the chip is copied to memory when it is complete. Passes that only those want
        who compare it.
    """

    fuse: bool = True
    merge: bool = True
    expose: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Step:
    """Some filters of a layer over the windows of its input.

    Parameters
    ----------
    part : Part
    windows : tuple of Window
    pools : tuple of PoolWindow
        What the pooler makes of each window; none if the results are written as they are.
    """

    part: Part
    windows: tuple[Window, ...]
    pools: tuple[PoolWindow, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class LayerPlan:
    """The passes of a layer, and the node whose map they write."""

    layer: Layer
    steps: tuple[Step, ...]
    output: Layer | Pool


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class PoolPlan:
    """The passes of a pooling that reads a map from memory."""

    node: Pool
    windows: tuple[PoolWindow, ...]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Plan:
    """The passes of a network.

    Parameters
    ----------
    layouts : dict of str to Layout
        Of each value.
    nodes : dict of str to LayerPlan or PoolPlan
        By name, in order; a pooling that needs no pass of its own has none.
    hidden : set of str
        Layers whose output goes to the pooler only.
    """

    layouts: dict[str, Layout]
    nodes: dict[str, LayerPlan | PoolPlan]
    hidden: set[str]


def kind_of(node: Node) -> str:
    """Give what messages call a node."""
    return "pool" if isinstance(node, Pool) else type(node).__name__.lower()


def make_plan(network: Network, config: CspConfig, images: int, choices: Choices) -> Plan:
    """Divide the work of a network into passes.

    Raises
    ------
    CspError
        A node cannot be computed on this configuration; the message names it and the value.
    """
    planner = _Planner(network, config, images, choices)
    for node in network.nodes:
        with located(f"{kind_of(node)} {node.name}"):
            planner.add(node)
    return planner.plan


class _Planner:
    def __init__(self, network: Network, config: CspConfig, images: int, choices: Choices) -> None:
        self._network = network
        self._config = config
        self._images = images
        self._choices = choices
        self._readers = collections.Counter(
            source for node in network.nodes for source in node.sources
        )
        channels = network.input.shape[2]
        layouts = {network.input.name: Layout.dense(channels, config.cols)}
        self.plan = Plan(layouts=layouts, nodes={}, hidden=set())

    def add(self, node: Node) -> None:
        layouts = self.plan.layouts
        if isinstance(node, Layer):
            residual = None if node.residual is None else layouts[node.residual.input]
            layouts[node.name] = layer_layout(node, residual, self._config.cols)
            self.plan.nodes[node.name] = self._layer(node, merge=self._choices.merge)
        elif isinstance(node, Pool):
            layouts[node.name] = layouts[node.input]
            if not (self._choices.fuse and self._fused(node)):
                beats = layouts[node.input].chunks
                shape = self._network.values[node.input].shape
                parts = pool_windows(node, shape, beats, self._config)
                self.plan.nodes[node.name] = PoolPlan(node=node, windows=parts)
        elif isinstance(node, Concat):
            layouts[node.name] = Layout.joined([layouts[name] for name in node.inputs])
        else:
            pixels = math.prod(self._network.values[node.input].shape[:2])
            layouts[node.name] = layouts[node.input].repeated(pixels)

    def _layer(self, layer: Layer, *, merge: bool) -> LayerPlan:
        config, layouts = self._config, self.plan.layouts
        parts = split_filters(
            layer,
            layouts[layer.input],
            layouts[layer.name],
            config,
            dtype=self._network.values[layer.input].dtype,
            merge=merge,
        )
        try:
            steps = [
                Step(
                    part=part,
                    windows=windows(
                        layer.geometry, len(part.beats), part.matrix, config, self._images
                    ),
                )
                for part in parts
            ]
        except CspError:
            # Groups together read more channels than one does.
            if all(len(part.groups) == 1 for part in parts):
                raise
            return self._layer(layer, merge=False)
        return LayerPlan(layer=layer, steps=tuple(steps), output=layer)

    def _fused(self, node: Pool) -> bool:
        """Let the layer before a pooling do it on its way out, if it can."""
        plan = self.plan.nodes.get(node.input)
        if not isinstance(plan, LayerPlan) or self._readers[node.input] > 1:
            return False
        steps = []
        with contextlib.suppress(CspError):
            steps = [self._pooled(plan.layer, step, node) for step in plan.steps]
        found = tuple(step for step in steps if step is not None)
        if len(found) != len(plan.steps):
            return False
        self.plan.nodes[node.input] = LayerPlan(layer=plan.layer, steps=found, output=node)
        self.plan.hidden.add(node.input)
        return True

    def _pooled(self, layer: Layer, step: Step, node: Pool) -> Step | None:
        """Give filters with the pooling behind them, in as few strips as possible.

        None if more strips cost more than to write the map and to read it again.
        """
        config, images, part = self._config, self._images, step.part
        shape = layer.geometry.out_shape
        whole = whole_window(layer.geometry, len(part.beats), part.matrix.filters, config, images)
        width = node.out_shape(shape)[1]
        widest = config.pool_words // len(part.chunks)
        for count in range(-(-width // widest) if widest else width + 1, width + 1):
            pools = [pool_window(node, shape, part.chunks, out) for out in strips(width, count)]
            fitted = cut_window(whole, [pool.columns for pool in pools], config, images)
            if fitted is not None:
                beats = images * shape[0] * shape[1] * len(part.chunks)
                now, before = (
                    cost(parts, part.matrix, config, images) for parts in (fitted, step.windows)
                )
                if now > before + 2 * beats:
                    return None
                return dataclasses.replace(step, windows=fitted, pools=tuple(pools))
        return None
