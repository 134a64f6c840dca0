# SPDX-License-Identifier: Apache-2.0
"""Which filters a pass computes, and their weights as the engine reads them.

A pass writes whole chunks of a pixel. Usually these are all filters of a group. Chunks beyond the
accumulation buffer make further passes; a chunk that several groups share makes one pass in which
each tap knows the filters of its group only, or one pass a group with a mask over the columns.
"""

import dataclasses
import functools
import itertools
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from csp_algo.compress import CompressedMatrix, compress, counts_of
from csp_algo.geometry import CHUNK_LIMIT, TAP_LIMIT, Geometry, Scalar
from csp_algo.integers import ActDtype
from csp_algo.network import Layer
from csp_hw.config import CspConfig
from sim.program.layout import Ints, Layout


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Part:
    """The filters of a pass.

    Parameters
    ----------
    layer : Layer
    groups : range
        Groups that take part.
    chunks : range
        Chunks of a pixel that are written.
    columns : int
        Bit c says that element c of a chunk is written.
    filters, places : int64 [n]
        The layer's filters, and the element of the written chunks that each one is.
    beats : range
        Beats of an input pixel that are read.
    channels : int64 [c]
        The element of these beats that each channel of the groups is.
    matrix : CompressedMatrix
        Weights of the written elements, for each kernel position and channel of the groups.
    """

    layer: Layer
    groups: range
    chunks: range
    columns: int
    filters: Ints
    places: Ints
    beats: range
    channels: Ints
    matrix: CompressedMatrix

    def view(self, geometry: Geometry) -> Layer:
        """Give the pass as a layer without groups, over the elements that are read and written.

        Parameters
        ----------
        geometry : Geometry
            Of this layer; its taps are those of ``beats``, and zeros behind them.
        """
        cols = self.matrix.cols
        area = self.layer.geometry.kernel[0] * self.layer.geometry.kernel[1]
        counts = np.zeros(geometry.taps, dtype=np.uint8)
        padded = counts[: area * len(self.beats) * cols].reshape(area, -1)
        padded[:, self.channels] = self.matrix.counts.reshape(area, -1)
        matrix = CompressedMatrix(
            filters=self.matrix.filters,
            cols=cols,
            period=self.matrix.period,
            counts=counts,
            words=self.matrix.words,
        )
        return dataclasses.replace(
            self.layer,
            geometry=geometry,
            matrices=(matrix,),
            bias=self._spread(self.layer.bias),
            mult=self._spread(self.layer.mult),
            shift=self._spread(self.layer.shift),
            filter_order=np.arange(matrix.filters, dtype=np.int32),
        )

    def _spread(self, values: npt.NDArray[Scalar]) -> npt.NDArray[Scalar]:
        """Give the value of each written element, 0 where there is no filter."""
        spread = np.zeros(self.matrix.filters, dtype=values.dtype)
        spread[self.places] = values[self.filters]
        return spread


class _Piece(NamedTuple):
    """Chunks that hold filters of these groups only, or ``shared`` with others."""

    groups: range
    chunks: range
    shared: bool


def layer_layout(layer: Layer, residual: Layout | None, cols: int) -> Layout:
    """Give the layout of a layer's output: that of the residual, if it adds one."""
    if residual is not None:
        return residual
    share = layer.dtype is not ActDtype.INT32
    geometry = layer.geometry
    return Layout.grouped(geometry.groups, geometry.group_filters, cols, share=share)


def split_filters(
    layer: Layer,
    source: Layout,
    target: Layout,
    config: CspConfig,
    *,
    dtype: ActDtype,
    merge: bool,
) -> tuple[Part, ...]:
    """Give the filters of each pass.

    Parameters
    ----------
    layer : Layer
    source, target : Layout
        Of the input and of the output.
    config : CspConfig
    dtype : ActDtype
        Of the input.
    merge : bool
        Whether groups that share a chunk may be computed together, where that changes no result.
    """
    return _Splitter(layer, source, target, config, dtype).parts(merge=merge)


class _Splitter:
    def __init__(
        self, layer: Layer, source: Layout, target: Layout, config: CspConfig, dtype: ActDtype
    ) -> None:
        self._layer = layer
        self._source = source
        self._target = target
        self._config = config
        self._largest = dtype.magnitude
        self._weights = functools.cache(lambda group: layer.matrices[group].decompress())

    def parts(self, *, merge: bool) -> tuple[Part, ...]:
        return tuple(
            self._part(part)
            for piece in self._pieces()
            for part in ([piece] if merge and self._together(piece) else self._apart(piece))
        )

    def _pieces(self) -> list[_Piece]:
        """Give the longest stretches of chunks that belong to the same groups."""
        each, cols = self._layer.geometry.group_filters, self._config.cols
        chunks, firsts = np.unique(self._target.places // cols, return_index=True)
        lasts = [*(firsts[1:] - 1).tolist(), self._target.channels - 1]
        pieces: list[_Piece] = []
        for chunk, first, last in zip(chunks.tolist(), firsts.tolist(), lasts, strict=True):
            groups = range(first // each, last // each + 1)
            start = chunk
            grows = pieces and len(groups) == 1 and pieces[-1].groups == groups
            if grows and pieces[-1].chunks.stop == chunk:
                start = pieces.pop().chunks.start
            pieces.append(_Piece(groups, range(start, chunk + 1), len(groups) > 1))
        return pieces

    def _together(self, piece: _Piece) -> bool:
        """Whether groups may be one pass: their blocks mix, so no sum may depend on them."""
        geometry = self._layer.geometry
        beats = self._beats(piece.groups)
        taps = geometry.kernel[0] * geometry.kernel[1] * len(beats) * self._config.cols
        fits = piece.shared and taps <= TAP_LIMIT
        return fits and all(self._exact(group) for group in piece.groups)

    def _apart(self, piece: _Piece) -> Iterator[_Piece]:
        """Give the passes of each group alone, none with more chunks than sums can be held.

        With the holes of a residual's layout there may be more chunks than a count can tell.
        """
        for group in piece.groups:
            count = -(-len(piece.chunks) // min(self._config.depth, CHUNK_LIMIT))
            edges = [piece.chunks.start + len(piece.chunks) * n // count for n in range(count + 1)]
            for start, stop in itertools.pairwise(edges):
                yield _Piece(range(group, group + 1), range(start, stop), piece.shared)

    def _exact(self, group: int) -> bool:
        """Whether no sum of a group can saturate or is rounded, however it is taken."""
        reach = np.abs(self._weights(group).astype(np.int64)).sum(axis=1).max() * self._largest
        return self._layer.acc_shift == 0 and bool(reach < 1 << (self._config.acc_bits - 1))

    def _beats(self, groups: range) -> range:
        each = self._layer.geometry.group_channels
        return self._source.chunks_of(range(groups.start * each, groups.stop * each))

    def _part(self, piece: _Piece) -> Part:
        geometry, cols = self._layer.geometry, self._config.cols
        first, last = np.searchsorted(
            self._target.places, [piece.chunks.start * cols, piece.chunks.stop * cols]
        )
        filters = np.arange(
            max(int(first), piece.groups.start * geometry.group_filters),
            min(int(last), piece.groups.stop * geometry.group_filters),
        )
        places = self._target.places[filters] - piece.chunks.start * cols
        columns = (1 << cols) - 1
        if piece.shared and len(piece.groups) == 1:
            columns = sum(1 << place for place in places.tolist())
        beats = self._beats(piece.groups)
        each = geometry.group_channels
        channels = self._source.places[piece.groups.start * each : piece.groups.stop * each]
        return Part(
            layer=self._layer,
            groups=piece.groups,
            chunks=piece.chunks,
            columns=columns,
            filters=filters,
            places=places,
            beats=beats,
            channels=channels - beats.start * cols,
            matrix=self._matrix(piece.groups, filters, places),
        )

    def _matrix(self, groups: range, filters: Ints, places: Ints) -> CompressedMatrix:
        """Give the weights of some filters of some groups, at their places."""
        geometry, cols = self._layer.geometry, self._config.cols
        each, matrix = geometry.group_filters, self._layer.matrices[groups.start]
        local = filters - groups.start * each
        # Chunks as they are stored, without holes between the filters.
        stored = len(groups) == 1 and bool((places == local - local[0]).all())
        stored = stored and local[0] % cols == 0
        if stored and len(filters) == each:
            return matrix
        area = geometry.kernel[0] * geometry.kernel[1]
        channels = geometry.group_channels
        weights = np.zeros((int(places[-1]) + 1, area, len(groups), channels), dtype=np.int8)
        for number, group in enumerate(groups):
            mine = filters // each == group
            rows = self._weights(group)[filters[mine] - group * each]
            weights[places[mine], :, number] = rows.reshape(-1, area, channels)
        flat = weights.reshape(len(weights), -1)
        counts = counts_of(flat, cols)
        if stored:
            first, last = int(local[0]) // cols, int(local[-1]) // cols + 1
            counts = np.clip(matrix.counts, first, last) - np.uint8(first)
        if len(groups) == 1 and not self._exact(groups.start):
            # The blocks must stay what they are, so a tap that survives survives here, too.
            counts = np.maximum(counts, matrix.counts > 0)
        return compress(flat, cols, matrix.period, counts=counts.astype(np.uint8))
