# SPDX-License-Identifier: Apache-2.0
"""A network compiled for a core: memory, passes, and what they move."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from csp_algo.errors import CspError
from csp_algo.network import Network
from csp_hw.config import CspConfig
from csp_hw.descriptor import DESCRIPTOR_BYTES
from sim.program.maps import Bytes, FeatureMap, Maps, pack_map, unpack_map
from sim.program.memory import Region
from sim.program.passes import Pass


@dataclasses.dataclass(frozen=True, kw_only=True)
class PassRecord:
    """What is said of a pass in a table.

    Parameters
    ----------
    number : int
    nodes : tuple of str
        What it computes.
    kind : str
        ``convolve`` or ``pool``.
    groups, chunks, columns, images : (int, int)
        First and last one that it computes; no groups for a pooling: (0, 0).
    input_beats, again_beats, weight_beats, residual_beats, result_beats : int
        Beats of each port; ``again_beats`` are those of the input that the node has read before.
    kept_beats : int
        Beats of maps on the chip, which are on no port.
    weights_resident, counts_resident : bool
    tiles, interleave : int
        How many tiles, and the largest I.
    steps : int
        Steps of the array, Σ over tiles of I · Σn.
    """

    number: int
    nodes: tuple[str, ...]
    kind: str
    groups: tuple[int, int]
    chunks: tuple[int, int]
    columns: tuple[int, int]
    images: tuple[int, int]
    input_beats: int
    again_beats: int
    weight_beats: int
    residual_beats: int
    result_beats: int
    kept_beats: int
    weights_resident: bool
    counts_resident: bool
    tiles: int
    interleave: int
    steps: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlaceRecord:
    """What is said of a map in a table.

    Parameters
    ----------
    name : str
    on_chip : bool
        It lies in the map memory, else in the window of memory.
    offset, bytes : int
        The first byte, and from there to the last one.
    passes : (int, int), optional
        The first and the last pass that writes or reads it by this name, if there are any.
    """

    name: str
    on_chip: bool
    offset: int
    bytes: int
    passes: tuple[int, int] | None


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Program:
    """All that the core and its software need for a number of images.

    Parameters
    ----------
    network : Network
    config : CspConfig
    images : int
    size : int
        Bytes of the window, all offsets are below.
    start : int
        Where ``constants`` begin; they reach to the window's end.
    constants : uint8 array
        Descriptors, parameters, tiles, counts and weights.
    regions : mapping of str to Region
        ``descriptors``; ``map <name>`` for each map that is not a part of another one; ``<number>
        params``, ``<number> tiles``, ``<number> counts`` and ``<number> weights`` of each pass,
        which may share them.
    maps : mapping of str to FeatureMap
        Each value that is in memory or on the chip, the input included.
    shown : mapping of str to FeatureMap
        Where values are in memory after the last pass; of maps on the chip, their copies.
    passes : tuple of Pass
        In order.
    """

    network: Network
    config: CspConfig
    images: int
    size: int
    start: int
    constants: Bytes
    regions: Mapping[str, Region]
    maps: Mapping[str, FeatureMap]
    shown: Mapping[str, FeatureMap]
    passes: tuple[Pass, ...]

    @property
    def input(self) -> FeatureMap:
        """Where the images lie."""
        return self.maps[self.network.input.name]

    @property
    def output(self) -> FeatureMap:
        """Where the last node's values lie."""
        return self.maps[self.network.output.name]

    @property
    def descriptors(self) -> tuple[int, ...]:
        """Offset of each pass's descriptor."""
        first = self.regions["descriptors"].offset
        return tuple(first + number * DESCRIPTOR_BYTES for number in range(len(self.passes)))

    def memory(self, inputs: Maps) -> Bytes:
        """Give the window before the first pass.

        Parameters
        ----------
        inputs : array [N, H, W, C] in the type of the network's input

        Raises
        ------
        CspError
            They do not fit.
        """
        memory = np.zeros(self.size, dtype=np.uint8)
        memory[self.start :] = self.constants
        memory[self.input.offset : self.input.end] = pack_map(self.input, inputs)
        return memory

    def read(self, step: Pass, memory: Bytes, first: int = 0) -> Maps:
        """Give what a convolution reads, bytes [N, H, W, C] as its schedule has them.

        Parameters
        ----------
        step : Pass
        memory : uint8 array
            The window, or a part of it with all that is read.
        first : int
            Offset of its first byte.

        Raises
        ------
        CspError
            The pass is a pooling alone.
        """
        if step.schedule is None:
            raise CspError(f"{step.title}: a pooling has no schedule")
        places = step.input.addresses - first
        beats = memory[places[:, None] + np.arange(self.config.cols)]
        shape = (step.schedule.images, *step.schedule.layer.geometry.in_shape)
        return np.asarray(beats.reshape(shape))

    def value(self, name: str, memory: Bytes) -> Maps:
        """Give the value [N, H, W, C] of a node from the window.

        Raises
        ------
        CspError
            It is never in memory.
        """
        if name not in self.shown:
            where = "on the chip only" if name in self.maps else "never in memory"
            raise CspError(f"network {self.network.name}: {name} is {where}")
        return unpack_map(self.shown[name], memory)

    def mismatches(self, memory: Bytes, values: Mapping[str, Maps]) -> dict[str, int]:
        """Give how many integers of each value that is in memory differ from those given."""
        return {
            name: int(np.count_nonzero(self.value(name, memory) != values[name]))
            for name in self.shown
            if name in values
        }

    def places(self) -> tuple[PlaceRecord, ...]:
        """Give the table of the maps, parts of others and other views included."""
        records = []
        for name, place in self.maps.items():
            users = [
                number
                for number, step in enumerate(self.passes)
                if name == step.node or name in step.sources
            ]
            records.append(
                PlaceRecord(
                    name=name,
                    on_chip=place.on_chip,
                    offset=place.offset,
                    bytes=place.span,
                    passes=(users[0], users[-1]) if users else None,
                )
            )
        return tuple(records)

    def summary(self) -> tuple[PassRecord, ...]:
        """Give the table of the passes."""
        return tuple(_record(number, step) for number, step in enumerate(self.passes))


def _record(number: int, step: Pass) -> PassRecord:
    schedule, fields = step.schedule, step.fields
    tiles = () if schedule is None else schedule.tiles
    return PassRecord(
        number=number,
        nodes=step.nodes,
        kind=step.kind.name.lower(),
        groups=_ends(step.groups or range(1)),
        chunks=_ends(step.chunks),
        columns=_ends(step.columns),
        images=_ends(step.images),
        input_beats=step.input_beats,
        again_beats=step.again,
        weight_beats=step.weight_beats,
        residual_beats=step.residual_beats,
        result_beats=step.result_beats,
        kept_beats=step.kept_beats,
        weights_resident=bool(fields.get("weights_resident")),
        counts_resident=bool(fields.get("counts_resident")),
        tiles=len(tiles),
        interleave=max((tile.interleave for tile in tiles), default=0),
        steps=0 if schedule is None else schedule.issued,
    )


def _ends(numbers: range) -> tuple[int, int]:
    return numbers[0], numbers[-1]
