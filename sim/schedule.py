# SPDX-License-Identifier: Apache-2.0
"""What moves when: pixels to lanes, lanes to tiles, and the words of every stream of the engine.

One :class:`Schedule` describes one group of one layer on one configuration. Co-simulation and
models read the same object, so they cannot differ on what was asked.
"""

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from csp_algo.compress import CompressedMatrix
from csp_algo.errors import CspError, check_int, located
from csp_algo.integers import ActDtype
from csp_algo.network import Layer
from csp_hw.config import CspConfig
from csp_hw.ports import OutputType
from sim.grid import Bools, Grid, Ints, Places
from sim.model.cycles import Work, last_drain, start_up
from sim.tiling import Arrival, Tile, TileCosts, choose_tiles

Bytes = npt.NDArray[np.uint8]
Maps = npt.NDArray[np.integer]

#: Most images of one schedule, so that every lane number fits well into int64.
IMAGE_LIMIT = 1 << 24
#: Result words for each chunk of a pixel.
WORDS_PER_CHUNK = {ActDtype.INT8: 1, ActDtype.UINT8: 1, ActDtype.INT32: 4}


class Place(NamedTuple):
    """Where a result word comes from; ``filter`` is the layer's filter in its first byte."""

    tile: int
    i: int
    row: int
    k: int
    image: int
    y: int
    x: int
    filter: int


class TileWords(NamedTuple):
    """All that the engine is sent for one tile."""

    tile: Tile
    #: bool [I, rows]
    live: Bools
    #: uint8 [ceil(J / L), L]
    counts: Bytes
    #: int8 [Σn, cols]
    weights: npt.NDArray[np.int8]
    #: uint8 [I · surviving taps, rows]; int8 activations as their bytes, 0 in dead lanes
    activations: Bytes


class Params(NamedTuple):
    """Requantisation of each filter of the chunks, K · cols of them, 0 in the padding."""

    bias: npt.NDArray[np.int32]
    mult: npt.NDArray[np.uint16]
    shift: npt.NDArray[np.uint8]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bound:
    """Fewest cycles of a layer: what each part needs, and what nothing can hide beside it.

    Computing cannot start before the first data are there, nor end less than a tile's drain
    before the end; draining cannot start before the first tile is computed.

    Parameters
    ----------
    compute : int
        Σ over tiles of I · Σn.
    drain : int
        Σ over tiles of rows · K · I.
    params, counts, weights, activations, results : int
        Beats of each port.
    first : int
        Cycles before the first product.
    ramp : int
        Products of the first tile, I · Σn.
    last : int
        Cycles from the last product until the engine is idle.
    tail : int
        Those of them after the last drained word was due.
    """

    compute: int
    drain: int
    params: int
    counts: int
    weights: int
    activations: int
    results: int
    first: int
    ramp: int
    last: int
    tail: int

    @functools.cached_property
    def paths(self) -> dict[str, int]:
        """Fewest cycles as each part has it."""
        draining = self.first + self.ramp + self.tail
        return {
            "compute": self.first + self.compute + self.last,
            "drain": draining + self.drain,
            "results": draining + self.results,
            "counts": self.counts + self.last,
            "activations": self.activations + self.last,
            "weights": self.weights + self.last,
            "params": self.params + self.tail,
        }

    @property
    def limit(self) -> str:
        """Name of the part that bounds the layer, the first one of equals."""
        return max(self.paths, key=self.paths.__getitem__)

    @property
    def cycles(self) -> int:
        """The bound."""
        return self.paths[self.limit]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Schedule:
    """One group of one layer on one configuration; make it with :meth:`make`.

    Parameters
    ----------
    layer : Layer
    group : int
    config : CspConfig
    grid : Grid
    tiles : tuple of Tile
        In the order in which they are computed.
    """

    layer: Layer
    group: int
    config: CspConfig
    grid: Grid
    tiles: tuple[Tile, ...]

    @classmethod
    def make(
        cls,
        layer: Layer,
        group: int,
        config: CspConfig,
        images: int,
        *,
        interleave: int | None = None,
        arrival: Arrival | None = None,
    ) -> "Schedule":
        """Choose I and the tiles.

        Parameters
        ----------
        layer : Layer
        group : int
        config : CspConfig
        images : int
        interleave : int, optional
            Largest I, where something around the engine limits it further.
        arrival : Arrival, optional
            When the input comes, where it is not there from the beginning.

        Raises
        ------
        CspError
            The layer does not fit the configuration; the message names the layer and both values.
        """
        with located(f"layer {layer.name}"):
            check_int("group", group, 0, layer.geometry.groups - 1)
            check_int("images", images, 1, IMAGE_LIMIT)
            if interleave is not None:
                check_int("interleave", interleave, 1, config.max_interleave)
            matrix = layer.matrices[group]
            _check_fit(layer, matrix, config)
            grid = Grid.of(layer.geometry, images, config.rows)
            costs = TileCosts(
                config=config,
                chunks=matrix.chunks,
                steps=int(matrix.counts.sum(dtype=np.int64)),
                beats=-(-matrix.taps // config.lookahead),
                words=WORDS_PER_CHUNK[layer.dtype],
                arrival=arrival,
            )
            tiles = choose_tiles(grid.live_groups(), costs, interleave)
        return cls(layer=layer, group=group, config=config, grid=grid, tiles=tiles)

    @property
    def matrix(self) -> CompressedMatrix:
        """Counts and words of the group."""
        return self.layer.matrices[self.group]

    @property
    def images(self) -> int:
        """Images N."""
        return self.grid.images

    @property
    def filters(self) -> slice:
        """The group's filters among those of the layer."""
        each = self.layer.geometry.group_filters
        return slice(self.group * each, (self.group + 1) * each)

    @property
    def words_per_chunk(self) -> int:
        """Result words of one chunk of one pixel."""
        return WORDS_PER_CHUNK[self.layer.dtype]

    @functools.cached_property
    def steps(self) -> int:
        """Steps of a tile with I = 1, Σn."""
        return int(self.matrix.counts.sum(dtype=np.int64))

    @functools.cached_property
    def survivors(self) -> Ints:
        """Taps with a count above 0, int64."""
        return self.matrix.survivors()

    @functools.cached_property
    def filters_of_taps(self) -> Ints:
        """Real filters that each surviving tap is multiplied for, int64."""
        counts = self.matrix.counts[self.survivors].astype(np.int64)
        return np.minimum(counts * self.config.cols, self.matrix.filters)

    # --- What is counted ----------------------------------------------------------------------

    @property
    def issued(self) -> int:
        """Steps in which products are issued, Σ over tiles of I · Σn."""
        return self.steps * sum(tile.interleave for tile in self.tiles)

    @property
    def slots(self) -> int:
        """Places for a product: issued steps · rows · cols."""
        return self.issued * self.config.rows * self.config.cols

    @property
    def useful(self) -> int:
        """Slots on a live pixel and a real filter."""
        return self.grid.pixels * int(self.filters_of_taps.sum())

    def zeros(self, inputs: Maps) -> Ints:
        """Give how many pixels read a 0 with each surviving tap, int64, padding included."""
        zeros = np.zeros(len(self.survivors), dtype=np.int64)
        for _, values, live in self._gathered(inputs):
            zeros += np.count_nonzero(values[live] == 0, axis=0)
        return zeros

    def gated(self, inputs: Maps) -> int:
        """Give the useful slots whose activation is 0, padding included."""
        return int(self.zeros(inputs) @ self.filters_of_taps)

    @functools.cached_property
    def work(self) -> Work:
        """The layer as the cycle model takes it."""
        return Work(
            counts=self.matrix.counts,
            period=self.matrix.period,
            chunks=self.matrix.chunks,
            int32=self.layer.dtype is ActDtype.INT32,
            tiles=[self.live(tile) for tile in self.tiles],
        )

    def bound(self) -> Bound:
        """Give the fewest cycles of the layer."""
        config, chunks = self.config, self.matrix.chunks
        interleaved = sum(tile.interleave for tile in self.tiles)
        last = last_drain(config, self.work)
        words = max(config.rows * chunks * self.tiles[-1].interleave, int(self.result_words[-1]))
        return Bound(
            compute=self.issued,
            drain=config.rows * chunks * interleaved,
            params=chunks * config.cols,
            counts=len(self.tiles) * len(self.counts()),
            weights=len(self.tiles) * self.steps,
            activations=interleaved * len(self.survivors),
            results=int(self.result_words.sum()),
            first=start_up(config, self.work),
            ramp=self.tiles[0].interleave * self.steps,
            last=last,
            tail=max(0, last - words),
        )

    # --- Streams ------------------------------------------------------------------------------

    def command(
        self, *, signed: bool, residual_signed: bool = False
    ) -> dict[str, int | dict[str, int]]:
        """Give the fields of the layer command.

        Parameters
        ----------
        signed : bool
            Whether the activations are int8 rather than uint8.
        residual_signed : bool
            Whether the residual, if the layer adds one, is int8 rather than uint8.
        """
        layer, matrix = self.layer, self.matrix
        return {
            "taps": matrix.taps,
            # Nobody asks where taps lie, so all of them are one kernel position.
            "position_words": -(-matrix.taps // self.config.lookahead),
            "kernel_w": 1,
            "tiles": len(self.tiles),
            "chunks": matrix.chunks,
            "last_filters": matrix.filters - (matrix.chunks - 1) * self.config.cols,
            "period": matrix.period,
            "acc_shift": layer.acc_shift,
            "signed": int(signed),
            "residual": self._residual_fields(residual_signed),
            "relu": int(layer.relu),
            "out": int(OutputType[layer.dtype.name]),
        }

    def params(self) -> Params:
        """Give bias, multiplier and shift of each filter of the chunks."""
        padding = (0, self.matrix.chunks * self.config.cols - self.matrix.filters)
        layer, own = self.layer, self.filters
        return Params(
            np.pad(layer.bias[own], padding),
            np.pad(layer.mult[own], padding),
            np.pad(layer.shift[own], padding),
        )

    def live(self, tile: Tile) -> Bools:
        """Give which lanes of a tile have a pixel, bool [I, rows]."""
        return self.places(tile).live

    def places(self, tile: Tile) -> Places:
        """Give the pixels of a tile's lanes, arrays [I, rows]."""
        lanes = np.arange(tile.interleave * self.config.rows, dtype=np.int64)
        return self.grid.places(tile.base + lanes.reshape(tile.interleave, self.config.rows))

    def counts(self) -> Bytes:
        """Give the beats of the counts, uint8 [ceil(J / L), L]; sent once for each tile."""
        beats = -(-self.matrix.taps // self.config.lookahead)
        padded = np.zeros(beats * self.config.lookahead, dtype=np.uint8)
        padded[: self.matrix.taps] = self.matrix.counts
        return padded.reshape(beats, self.config.lookahead)

    def weights(self) -> npt.NDArray[np.int8]:
        """Give the weight words, int8 [Σn, cols]; sent once for each tile."""
        return self.matrix.words

    def activations(self, inputs: Maps) -> Iterator[Bytes]:
        """Give the activation words of tile after tile, uint8 [I · surviving taps, rows].

        Parameters
        ----------
        inputs : int8 or uint8 [N, H, W, C]
            All channels of the layer's input.

        Raises
        ------
        CspError
            Shape or type does not fit.
        """
        whole = len(self.survivors) // self.matrix.period * self.matrix.period
        for tile, values, live in self._gathered(inputs):
            masked = np.where(live[:, :, None], values, np.uint8(0))
            full = masked[:, :, :whole].reshape(
                tile.interleave, self.config.rows, -1, self.matrix.period
            )
            yield np.concatenate(
                [
                    full.transpose(2, 0, 3, 1).reshape(-1, self.config.rows),
                    masked[:, :, whole:].transpose(0, 2, 1).reshape(-1, self.config.rows),
                ]
            )

    def residual(self, residual: Maps) -> Iterator[Bytes]:
        """Give the residual words of tile after tile, uint8 [words, cols], one for each result.

        Parameters
        ----------
        residual : int8 or uint8 [N, Ho, Wo, M]
            All channels of what the layer adds.

        Raises
        ------
        CspError
            Shape or type does not fit.
        """
        shape = (self.images, *self.layer.geometry.out_shape)
        self._check_maps("residual", residual, shape, (np.dtype(np.int8), np.dtype(np.uint8)))
        yield from self._words_of_pixels(residual)

    def words(self, inputs: Maps) -> Iterator[TileWords]:
        """Give all that is sent for each tile, one tile at a time."""
        counts, weights = self.counts(), self.weights()
        for tile, activations in zip(self.tiles, self.activations(inputs), strict=True):
            yield TileWords(tile, self.live(tile), counts, weights, activations)

    # --- Results ------------------------------------------------------------------------------

    @functools.cached_property
    def result_words(self) -> Ints:
        """Result words of each tile, int64 [tiles]."""
        each = self.matrix.chunks * self.words_per_chunk
        return np.array([self.live(tile).sum() for tile in self.tiles], dtype=np.int64) * each

    def results(self, outputs: Maps) -> Iterator[Bytes]:
        """Give the result words that tile after tile must leave, uint8 [words, cols].

        Parameters
        ----------
        outputs : array [N, Ho, Wo, M] in the layer's type
            All filters of the layer.

        Raises
        ------
        CspError
            Shape or type does not fit.
        """
        shape = (self.images, *self.layer.geometry.out_shape)
        self._check_maps("outputs", outputs, shape, (self.layer.dtype.numpy,))
        yield from self._words_of_pixels(outputs)

    def collect(self, words: Bytes) -> Maps:
        """Give the outputs [N, Ho, Wo, M / groups] that result words uint8 [words, cols] hold.

        Raises
        ------
        CspError
            There are not as many words as all tiles leave.
        """
        expected = (int(self.result_words.sum()), self.config.cols)
        self._check_maps("results", words, expected, (np.dtype(np.uint8),))
        dtype = self.layer.dtype.numpy
        height, width, _ = self.layer.geometry.out_shape
        outputs = np.empty((self.images, height, width, self.matrix.filters), dtype=dtype)
        values = np.ascontiguousarray(words).view(dtype.newbyteorder("<"))
        values = values.reshape(-1, self.matrix.chunks * self.config.cols)
        start = 0
        for tile in self.tiles:
            image, y, x, live = self.places(tile)
            stop = start + int(live.sum())
            outputs[image[live], y[live], x[live]] = values[start:stop, : self.matrix.filters]
            start = stop
        return outputs

    def locate(self, result: int) -> Place:
        """Give where the result word of a number, counted over all tiles, comes from.

        Raises
        ------
        CspError
            There is no such word.
        """
        ends = np.cumsum(self.result_words)
        check_int("result word", result, 0, int(ends[-1]) - 1)
        number = int(np.searchsorted(ends, result, side="right"))
        within = result - int(ends[number] - self.result_words[number])
        rest, part = divmod(within, self.words_per_chunk)
        lane, k = divmod(rest, self.matrix.chunks)
        places = self.places(self.tiles[number])
        i, row = (int(index) for index in np.argwhere(places.live)[lane])
        first = self.filters.start + k * self.config.cols
        return Place(
            tile=number,
            i=i,
            row=row,
            k=k,
            image=int(places.image[i, row]),
            y=int(places.y[i, row]),
            x=int(places.x[i, row]),
            filter=first + part * self.config.cols // self.words_per_chunk,
        )

    # --- Inside -------------------------------------------------------------------------------

    def _residual_fields(self, signed: bool) -> dict[str, int]:
        residual = self.layer.residual
        if residual is None:
            return dict.fromkeys(("enabled", "signed", "mult", "shift"), 0)
        return {
            "enabled": 1,
            "signed": int(signed),
            "mult": residual.mult,
            "shift": residual.shift,
        }

    def _words_of_pixels(self, maps: Maps) -> Iterator[Bytes]:
        """Give the group's channels of a map's live pixels as words, tile after tile."""
        padding = self.matrix.chunks * self.config.cols - self.matrix.filters
        little = maps.dtype.newbyteorder("<")
        for tile in self.tiles:
            image, y, x, live = self.places(tile)
            values = maps[image[live], y[live], x[live], self.filters]
            words = np.pad(values, ((0, 0), (0, padding))).astype(little, order="C")
            yield words.view(np.uint8).reshape(-1, self.config.cols)

    def _gathered(self, inputs: Maps) -> Iterator[tuple[Tile, Bytes, Bools]]:
        """Give each tile's activations uint8 [I, rows, surviving taps], and its live lanes."""
        geometry = self.layer.geometry
        shape = (self.images, *geometry.in_shape)
        self._check_maps("inputs", inputs, shape, (np.dtype(np.int8), np.dtype(np.uint8)))
        top, left, bottom, right = geometry.padding
        padded = np.pad(inputs.view(np.uint8), ((0, 0), (top, bottom), (left, right), (0, 0)))
        _, height, width, channels = padded.shape
        flat = padded.reshape(-1)
        kernel, channel = np.divmod(self.survivors, geometry.group_channels)
        r, s = np.divmod(kernel, geometry.kernel[1])
        offset = (r * geometry.dilation[0] * width + s * geometry.dilation[1]) * channels
        offset += self.group * geometry.group_channels + channel
        for tile in self.tiles:
            image, y, x, live = self.places(tile)
            line = image * height + y * geometry.stride[0]
            origin = (line * width + x * geometry.stride[1]) * channels
            yield tile, flat[np.where(live, origin, 0)[:, :, None] + offset], live

    def _check_maps(
        self, name: str, maps: Maps, shape: tuple[int, ...], dtypes: Sequence[np.dtype[np.integer]]
    ) -> None:
        if maps.dtype not in dtypes or maps.shape != shape:
            types = " or ".join(str(dtype) for dtype in dtypes)
            raise CspError(
                f"layer {self.layer.name}: {name} must be {types} {list(shape)}, "
                f"not {maps.dtype} {list(maps.shape)}"
            )


def _check_fit(layer: Layer, matrix: CompressedMatrix, config: CspConfig) -> None:
    if matrix.cols != config.cols:
        raise CspError(f"stored for {matrix.cols} columns, the array has {config.cols}: repack")
    if matrix.period > config.max_period:
        raise CspError(f"period {matrix.period} exceeds max_period {config.max_period}: repack")
    if matrix.chunks > config.depth:
        raise CspError(f"{matrix.chunks} chunks exceed the accumulation depth {config.depth}")
    if config.acc_bits + layer.acc_shift > 32:
        raise CspError(
            f"acc_bits {config.acc_bits} and acc_shift {layer.acc_shift} make more than 32 bits"
        )
