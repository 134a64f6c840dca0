# SPDX-License-Identifier: Apache-2.0
"""Which map lies where: a concatenation is one map, and its inputs are written into it.

A map can be a part of one concatenation only, and a map that is flattened has no gaps between its
pixels. What cannot be written in place is copied, by a pooling with windows of one element.

With a map memory, maps that software neither writes nor reads stay on the chip if they find a place
there (:mod:`sim.program.kept`). They may be copied, too, for those who want to see them.
"""

import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from csp_algo.integers import ActDtype
from csp_algo.network import Concat, Flatten, Network
from csp_hw.axi.ports import LOCAL_OFFSET
from csp_hw.config import CspConfig
from sim.program.kept import Use, keep
from sim.program.layout import Layout
from sim.program.maps import FeatureMap
from sim.program.memory import MAP_ALIGNMENT, Areas
from sim.program.plan import LayerPlan, Plan, PoolPlan


class Copy(NamedTuple):
    """A map, and where it is wanted again."""

    source: FeatureMap
    target: FeatureMap


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Places:
    """Where all maps are.

    Parameters
    ----------
    maps : mapping of str to FeatureMap
        Each value that is in memory or on the chip.
    copies : mapping of str to sequence of Copy
        What each concatenation still has to copy.
    exposed : mapping of str to Copy
        Maps on the chip that are to be copied to memory when they are complete.
    shown : mapping of str to FeatureMap
        Where a value is in memory when all is done, if it is.
    """

    maps: Mapping[str, FeatureMap]
    copies: Mapping[str, Sequence[Copy]]
    exposed: Mapping[str, Copy]
    shown: Mapping[str, FeatureMap]


class _Slot(NamedTuple):
    """One input of a concatenation."""

    concat: Concat
    number: int


def place_maps(
    network: Network,
    plan: Plan,
    images: int,
    areas: Areas,
    config: CspConfig,
    *,
    expose: bool = False,
) -> Places:
    """Give every value a place.

    Parameters
    ----------
    network : Network
    plan : Plan
    images : int
    areas : Areas
        What gives out the memory.
    config : CspConfig
    expose : bool
        Maps on the chip are to be copied.

    Raises
    ------
    CspError
        The maps do not fit the window.
    """
    placer = _Placer(network, plan.layouts, images, areas)
    if config.map_bytes:
        placer.keep(plan, config)
    maps = {name: placer.map_of(name) for name in network.values if name not in plan.hidden}
    copies = {
        node.name: [placer.copy(slot) for slot in placer.copied(node)]
        for node in network.nodes
        if isinstance(node, Concat)
    }
    exposed, shown = {}, {}
    for name, place in maps.items():
        base = placer.base(name)
        if not place.on_chip:
            shown[name] = place
        elif expose and name == base:
            shown[name] = placer.new(name, f"copy {name}")
            exposed[name] = Copy(place, shown[name])
        elif expose:
            shown[name] = shown[base].reshaped(place.shape, place.layout)
    return Places(maps=maps, copies=copies, exposed=exposed, shown=shown)


class _Placer:
    def __init__(
        self, network: Network, layouts: Mapping[str, Layout], images: int, areas: Areas
    ) -> None:
        self._network = network
        self._layouts = layouts
        self._images = images
        self._areas = areas
        self._maps: dict[str, FeatureMap] = {}
        self._flattened = {
            node.name: node.input for node in network.nodes if isinstance(node, Flatten)
        }
        #: The concatenation that each map is written into.
        self.homes: dict[str, _Slot] = {}
        #: Offset in the map memory of each map that stays there.
        self._kept: dict[str, int] = {}
        # Maps of several pixels that are also read as one pixel.
        whole = {self.base(name) for name in self._flattened if not self._single(self.base(name))}
        concats = [node for node in network.nodes if isinstance(node, Concat)]
        for node in reversed(concats):
            for index, source in enumerate(node.inputs):
                base = self.base(source)
                gaps = base in whole and not self._single(source)
                if base != network.input.name and base not in self.homes and not gaps:
                    self.homes[base] = _Slot(node, index)

    def base(self, name: str) -> str:
        """Give the value that one is another view of, or itself."""
        while name in self._flattened:
            name = self._flattened[name]
        return name

    def owner(self, name: str) -> str:
        """Give the map that has the bytes of a value."""
        base = self.base(name)
        while base in self.homes:
            base = self.homes[base].concat.name
        return base

    def copied(self, node: Concat) -> list[_Slot]:
        """Give the slots of a concatenation that its inputs are not written into."""
        slots = [_Slot(node, index) for index in range(len(node.inputs))]
        return [slot for slot in slots if self.homes.get(self.base(self._input(slot))) != slot]

    def keep(self, plan: Plan, config: CspConfig) -> None:
        """Choose the maps that stay on the chip; before the first one has a place."""
        network = self._network
        behind = self._behind(plan)
        sizes = {
            name: self._images * self._image(name) + behind.get(name, 0)
            for name, value in network.values.items()
            if value.dtype is not ActDtype.INT32 and self.owner(name) == name
        }
        outside = {self.owner(network.input.name), self.owner(network.output.name)}
        self._kept = keep(list(self._uses(plan)), sizes, outside, config)

    def _behind(self, plan: Plan) -> dict[str, int]:
        """Give the bytes that are read behind the last pixel of maps: of a long vector in pieces.

        In memory there is always something behind a map; the map memory ends.
        """
        behind: dict[str, int] = {}
        for made in plan.nodes.values():
            if isinstance(made, LayerPlan):
                source = made.layer.input
                owner, cols = self.owner(source), self._layouts[source].cols
                for step in made.steps:
                    first = step.part.beats.start
                    beats = max(first + window.beats for window in step.windows)
                    excess = beats * cols - self._pixel(source)
                    behind[owner] = max(behind.get(owner, 0), excess)
        return behind

    def _uses(self, plan: Plan) -> Iterator[Use]:
        for node in self._network.nodes:
            made = plan.nodes.get(node.name)
            if isinstance(made, LayerPlan):
                residual = made.layer.residual
                yield Use(
                    (self.owner(made.layer.input),),
                    (self.owner(made.output.name),),
                    None if residual is None else self.owner(residual.input),
                )
            elif isinstance(made, PoolPlan):
                yield Use((self.owner(made.node.input),), (self.owner(made.node.name),))
            elif isinstance(node, Concat):
                # It is complete now, and may be looked at.
                reads = [self.owner(self._input(slot)) for slot in self.copied(node)]
                yield Use(tuple(reads), (self.owner(node.name),))

    def map_of(self, name: str) -> FeatureMap:
        """Give the place of a value."""
        if name not in self._maps:
            base = self.base(name)
            if name != base:
                shape = self._network.values[name].shape
                place = self.map_of(base).reshaped(shape, self._layouts[name])
                place = dataclasses.replace(place, name=name)
            elif base in self.homes:
                place = self._part(self.homes[base])
            else:
                place = self.new(base, f"map {base}", self._kept.get(base))
            self._maps[name] = place
        return self._maps[name]

    def copy(self, slot: _Slot) -> Copy:
        """Give what fills a slot that its input is not written into."""
        return Copy(self.map_of(self.base(self._input(slot))), self._part(slot))

    def _input(self, slot: _Slot) -> str:
        return slot.concat.inputs[slot.number]

    def _single(self, name: str) -> bool:
        return self._network.values[name].shape[:2] == (1, 1)

    def _pixel(self, name: str) -> int:
        layout = self._layouts[name]
        return layout.chunks * layout.cols * self._network.values[name].dtype.numpy.itemsize

    def _image(self, name: str) -> int:
        height, width, _ = self._network.values[name].shape
        return height * width * self._pixel(name)

    def new(self, name: str, area: str, kept: int | None = None) -> FeatureMap:
        """Give a new place to a map: an area of memory or, if it has one, that on the chip."""
        value, layout, pixel = self._network.values[name], self._layouts[name], self._pixel(name)
        image = self._image(name)
        if kept is None:
            offset = self._areas.reserve(area, self._images * image, MAP_ALIGNMENT).offset
        else:
            offset = LOCAL_OFFSET + kept
        return FeatureMap(
            name=name,
            images=self._images,
            shape=value.shape,
            dtype=value.dtype,
            layout=layout,
            offset=offset,
            image=image,
            line=value.shape[1] * pixel,
            pixel=pixel,
            on_chip=kept is not None,
        )

    def _part(self, slot: _Slot) -> FeatureMap:
        """Give the place that a concatenation has for an input, in the shape of its base."""
        whole = self.map_of(slot.concat.name)
        source = self._input(slot)
        starts = [
            0,
            *itertools.accumulate(self._layouts[name].chunks for name in slot.concat.inputs),
        ]
        base = self.base(source)
        part = dataclasses.replace(
            whole,
            name=base,
            shape=self._network.values[source].shape,
            layout=self._layouts[source],
            offset=whole.offset + starts[slot.number] * whole.layout.cols,
        )
        shape = self._network.values[base].shape
        return part if shape == part.shape else part.reshaped(shape, self._layouts[base])
