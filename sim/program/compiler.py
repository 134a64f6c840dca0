# SPDX-License-Identifier: Apache-2.0
"""From a network to a program."""

import dataclasses
import functools
from collections.abc import Callable, Iterator

import numpy as np

from csp_algo.errors import CspError, check_int, located
from csp_algo.network import Concat, MaxPool, Network
from csp_hw.axi.ports import LOCAL_OFFSET
from csp_hw.config import CspConfig
from csp_hw.descriptor import DESCRIPTOR_BYTES, pack
from csp_hw.ports import IMAGE_BITS
from sim.grid import Bools
from sim.program.loops import LoopError
from sim.program.maps import FeatureMap
from sim.program.memory import WINDOW_BYTES, Areas
from sim.program.passes import Pass, Target, convolution, pooling
from sim.program.places import Copy, Places, place_maps
from sim.program.plan import Choices, LayerPlan, Plan, PoolPlan, make_plan
from sim.program.pooling import PoolWindow, pool_windows
from sim.program.program import Program

#: Most images of a program.
IMAGE_LIMIT = (1 << IMAGE_BITS) - 1


def compile_network(
    network: Network, config: CspConfig, images: int, choices: Choices | None = None
) -> Program:
    """Give the program of a network for a number of images.

    Raises
    ------
    CspError
        Something does not fit; the message names the node and the value.
    ConfigError
        The configuration is that of an engine, not of a core.
    """
    config.check_core()
    with located(f"network {network.name}"):
        check_int("images", images, 1, IMAGE_LIMIT)
        if network.cols != config.cols:
            raise CspError(
                f"stored for {network.cols} columns, the array has {config.cols}: repack"
            )
    choices = choices or Choices()
    plan = make_plan(network, config, images, choices)
    areas = Areas(config.cols, LOCAL_OFFSET if config.map_bytes else WINDOW_BYTES)
    places = place_maps(network, plan, images, areas, config, expose=choices.expose)
    passes = list(_Emitter(network, config, images, plan, places).passes())
    region = areas.reserve("descriptors", DESCRIPTOR_BYTES * len(passes), DESCRIPTOR_BYTES)
    stored = tuple(_stored(step, number, areas) for number, step in enumerate(passes))
    areas.fill(region, b"".join(_packed(step) for step in stored))
    # A long vector may be read a little beyond its end, but its counts alone are longer than that.
    assert all(step.input.end <= areas.size for step in stored if not step.input.on_chip)
    start, constants = areas.contents()
    return Program(
        network=network,
        config=config,
        images=images,
        size=areas.size,
        start=start,
        constants=constants,
        regions=areas.regions,
        maps=places.maps,
        shown=places.shown,
        passes=stored,
    )


class _Emitter:
    """Gives the passes of all nodes, in order."""

    def __init__(
        self, network: Network, config: CspConfig, images: int, plan: Plan, places: Places
    ) -> None:
        self._network = network
        self._config = config
        self._images = range(images)
        self._plan = plan
        self._places = places
        #: Columns and beats that a node has read of a map, for the images from a first one on.
        self._seen: dict[tuple[str, str, int], Bools] = {}

    def passes(self) -> Iterator[Pass]:
        for node in self._network.nodes:
            plan = self._plan.nodes.get(node.name)
            if isinstance(plan, LayerPlan):
                yield from self._convolutions(plan)
            elif isinstance(plan, PoolPlan):
                source, target = plan.node.input, plan.node.name
                copy = Copy(self._places.maps[source], self._places.maps[target])
                yield from self._poolings(target, plan.windows, copy)
            for copy in self._places.copies.get(node.name, ()):
                yield from self._poolings(node.name, self._windows(copy), copy)
            complete = plan.output.name if isinstance(plan, LayerPlan) else node.name
            if complete in self._places.exposed and (plan or isinstance(node, Concat)):
                copy = self._places.exposed[complete]
                yield from self._poolings(complete, self._windows(copy), copy)

    def _windows(self, copy: Copy) -> tuple[PoolWindow, ...]:
        """Give the poolings that copy a map."""
        source = copy.source
        same = MaxPool(name="copy", input=source.name, kernel=(1, 1), stride=(1, 1))
        return pool_windows(same, source.shape, source.beats, self._config)

    def _convolutions(self, plan: LayerPlan) -> Iterator[Pass]:
        maps, layer = self._places.maps, plan.layer
        target = Target(
            source=maps[layer.input],
            output=maps[plan.output.name],
            residual=None if layer.residual is None else maps[layer.residual.input],
        )
        for step in plan.steps:
            first = step.part.beats.start
            for number, window in enumerate(step.windows):
                make = functools.partial(convolution, step, number, target, self._config)
                beats = range(first, first + window.beats)
                for made in self._batches(f"layer {layer.name}", make):
                    part = (window.lines, window.columns, beats)
                    yield self._counted(made, layer.name, target.source, part)

    def _poolings(self, name: str, windows: tuple[PoolWindow, ...], copy: Copy) -> Iterator[Pass]:
        for window in windows:
            make = functools.partial(pooling, name, window, copy, self._config)
            for made in self._batches(f"pool {name}", make):
                part = (range(copy.source.shape[0]), window.columns, window.beats)
                yield self._counted(made, name, copy.source, part)

    def _batches(self, title: str, make: Callable[[range], Pass]) -> list[Pass]:
        """Give one pass for all images, or one for each if a pass does not reach them all."""
        try:
            return [make(self._images)]
        except LoopError:
            with located(title):
                return [make(range(image, image + 1)) for image in self._images]

    def _counted(
        self, made: Pass, node: str, source: FeatureMap, read: tuple[range, range, range]
    ) -> Pass:
        """Note which beats the node has read before; all its passes read the same lines."""
        key = (node, source.name, made.images.start)
        lines, columns, beats = read
        seen = self._seen.setdefault(key, np.zeros((source.shape[1], source.beats), dtype=bool))
        part = seen[columns.start : columns.stop : columns.step, beats.start : beats.stop]
        new = int(np.count_nonzero(~part)) * len(lines) * len(made.images)
        part[...] = True
        return dataclasses.replace(made, again=made.input.total - new)


def _stored(step: Pass, number: int, areas: Areas) -> Pass:
    """Give data a place."""
    offsets = {
        f"{name}_offset": areas.store(f"{number} {name}", data).offset
        for name, data in step.data.items()
    }
    return dataclasses.replace(step, fields={**step.fields, **offsets})


def _packed(step: Pass) -> bytes:
    try:
        return pack(step.fields)
    except ValueError as error:
        raise CspError(f"{step.title}: {error}") from error
