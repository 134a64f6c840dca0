# SPDX-License-Identifier: Apache-2.0
"""Which map lies where: a concatenation is one map, and its inputs are written into it.

A map can be a part of one concatenation only, and a map that is flattened has no gaps between its
pixels. What cannot be written in place is copied, by a pooling with windows of one element.
"""

import dataclasses
import itertools
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from csp_algo.network import Concat, Flatten, Network
from sim.program.layout import Layout
from sim.program.maps import FeatureMap
from sim.program.memory import MAP_ALIGNMENT, Areas


class Copy(NamedTuple):
    """A map, and where a concatenation wants it again."""

    source: FeatureMap
    target: FeatureMap


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Places:
    """Where all maps are.

    Parameters
    ----------
    maps : mapping of str to FeatureMap
        Each value that is in memory.
    copies : mapping of str to sequence of Copy
        What each concatenation still has to copy.
    """

    maps: Mapping[str, FeatureMap]
    copies: Mapping[str, Sequence[Copy]]


class _Slot(NamedTuple):
    """One input of a concatenation."""

    concat: Concat
    number: int


def place_maps(
    network: Network,
    layouts: Mapping[str, Layout],
    hidden: Collection[str],
    images: int,
    areas: Areas,
) -> Places:
    """Give every value a place.

    Parameters
    ----------
    network : Network
    layouts : mapping of str to Layout
        Of each value.
    hidden : names
        Values that are never in memory.
    images : int
    areas : Areas
        What gives out the memory.

    Raises
    ------
    CspError
        The maps do not fit the window.
    """
    placer = _Placer(network, layouts, images, areas)
    maps = {name: placer.map_of(name) for name in network.values if name not in hidden}
    copies = {
        node.name: [
            placer.copy(_Slot(node, index))
            for index in range(len(node.inputs))
            if placer.homes.get(placer.base(node.inputs[index])) != _Slot(node, index)
        ]
        for node in network.nodes
        if isinstance(node, Concat)
    }
    return Places(maps=maps, copies=copies)


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
                place = self._own(base)
            self._maps[name] = place
        return self._maps[name]

    def copy(self, slot: _Slot) -> Copy:
        """Give what fills a slot that its input is not written into."""
        return Copy(self.map_of(self.base(slot.concat.inputs[slot.number])), self._part(slot))

    def _single(self, name: str) -> bool:
        return self._network.values[name].shape[:2] == (1, 1)

    def _own(self, name: str) -> FeatureMap:
        """Give a new place to a map."""
        value, layout = self._network.values[name], self._layouts[name]
        height, width, _ = value.shape
        pixel = layout.chunks * layout.cols * value.dtype.numpy.itemsize
        image = height * width * pixel
        region = self._areas.reserve(f"map {name}", self._images * image, MAP_ALIGNMENT)
        return FeatureMap(
            name=name,
            images=self._images,
            shape=value.shape,
            dtype=value.dtype,
            layout=layout,
            offset=region.offset,
            image=image,
            line=width * pixel,
            pixel=pixel,
        )

    def _part(self, slot: _Slot) -> FeatureMap:
        """Give the place that a concatenation has for an input, in the shape of its base."""
        whole = self.map_of(slot.concat.name)
        source = slot.concat.inputs[slot.number]
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
