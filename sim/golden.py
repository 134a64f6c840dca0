# SPDX-License-Identifier: Apache-2.0
"""What the accelerator must compute, integer by integer, in numpy.

A layer's sums depend on its counts, T, t and B only: nothing here knows rows, tiles or I. Where no
partial sum can saturate and t = 0, the order of the additions is of no consequence and a layer is
one matrix product; otherwise its blocks follow each other as they do in a PE.
"""

import dataclasses
import math
from collections.abc import Collection, Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from csp_algo.compress import CompressedMatrix
from csp_algo.errors import CspError, check_int, located
from csp_algo.geometry import patches
from csp_algo.integers import Ints, accumulate, affine, requantise, rescale, rhu
from csp_algo.network import AvgPool, Concat, Flatten, Layer, MaxPool, Network, Node

Maps = npt.NDArray[np.integer]
Floats = npt.NDArray[np.floating]

#: Width B of a partial sum unless the caller says otherwise.
ACC_BITS = 24
#: Activations of unfolded windows that are worked on at a time; bounds the memory of a layer.
WINDOW_LIMIT = 1 << 20
#: Partial sums that are worked on at a time, so that they stay in a cache.
SUM_LIMIT = 1 << 16
#: Bytes of feature maps that a batch of images may fill.
BATCH_LIMIT = 1 << 27


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class GoldenResult:
    """The integers of a network for some images.

    Parameters
    ----------
    values : dict of str to array [N, H, W, C]
        The nodes that were kept and the output, in the type of each.
    saturations : dict of str to int
        For each layer, how often a partial sum of a real pixel and filter was clipped.
    output : str
        Name of the last node.
    """

    values: dict[str, Maps]
    saturations: dict[str, int]
    output: str

    @property
    def logits(self) -> Maps:
        """The last node's values, [N, H, W, C]."""
        return self.values[self.output]

    @property
    def argmax(self) -> npt.NDArray[np.int64]:
        """Index of the largest output of each image, the first one of equals; int64 [N]."""
        values = math.prod(self.logits.shape[1:])
        return np.asarray(self.logits.reshape(-1, values).argmax(axis=1))


class Run(NamedTuple):
    """One run of one pixel: what was added, and the partial sums after it."""

    group: int
    block: int
    chunk: int
    #: Taps of the run, int64.
    taps: Ints
    #: Exact sums of its products, int64 [cols]; 0 in the padding of the last chunk.
    run: Ints
    #: acc after sat_B(acc + rhu(run, t)), int64 [cols].
    sums: Ints
    #: How many filters were clipped.
    saturations: int


def run(
    network: Network,
    images: Maps,
    *,
    acc_bits: int = ACC_BITS,
    keep: Collection[str] | None = None,
) -> GoldenResult:
    """Compute a network.

    Parameters
    ----------
    network : Network
    images : array [N, H, W, C] in the type of the network's input
    acc_bits : int
        Width B of a partial sum.
    keep : names, optional
        Nodes whose values are wanted, besides the output; all of them if not given. Images pass
        in batches, so memory is bounded by what is kept.

    Raises
    ------
    CspError
        The images do not fit the network, there is no such node, or B + t > 32 in a layer.
    """
    _check_images(network, images)
    output = network.output.name
    unknown = [name for name in keep or () if name not in network.values]
    if unknown:
        raise CspError(f"network {network.name}: there is no value {unknown[0]} to keep")
    wanted = {
        name: np.empty((len(images), *value.shape), dtype=value.dtype.numpy)
        for name, value in network.values.items()
        if keep is None or name in keep or name == output
    }
    saturations = {layer.name: 0 for layer in network.layers()}
    # No array of a node takes more than 8 bytes a value; a batch is at least one image.
    step = max(1, BATCH_LIMIT // (8 * max(map(math.prod, network.shapes().values()))))
    for start in range(0, len(images), step):
        batch = slice(start, start + step)
        values: dict[str, Maps] = {network.input.name: images[batch]}
        for node in network.nodes:
            values[node.name], clipped = _node(node, values, acc_bits)
            if isinstance(node, Layer):
                saturations[node.name] += clipped
        for name, kept in wanted.items():
            kept[batch] = values[name]
    return GoldenResult(values=wanted, saturations=saturations, output=output)


def layer_forward(
    layer: Layer, inputs: Maps, *, acc_bits: int = ACC_BITS, residual: Maps | None = None
) -> tuple[Maps, int]:
    """Compute one layer.

    Parameters
    ----------
    inputs : int8 or uint8 [N, H, W, C]
        The type says whether the activations are signed.
    residual : int8 or uint8 [N, Ho, Wo, M], if the layer adds one

    Returns
    -------
    array [N, Ho, Wo, M] and int
        Outputs in the layer's type, and how many partial sums were clipped.

    Raises
    ------
    CspError
        Shapes or types do not fit, or B + t > 32.
    """
    with located(f"layer {layer.name}"):
        _check_layer(layer, inputs, acc_bits)
        if (residual is None) != (layer.residual is None):
            raise CspError("a residual must be given if and only if the layer adds one")
        shape = (len(inputs), *layer.geometry.out_shape)
        if residual is not None and residual.shape != shape:
            raise CspError(f"the residual has shape {list(residual.shape)}, not {list(shape)}")
    outputs = np.empty(shape, dtype=layer.dtype.numpy)
    saturations = 0
    for images, lines, acc, clipped in _PartialSums(layer, inputs, acc_bits).parts():
        added = None
        if residual is not None and layer.residual is not None:
            added = rescale(residual[images, lines], layer.residual.mult, layer.residual.shift)
        outputs[images, lines] = requantise(
            affine(acc, layer.acc_shift, layer.bias),
            layer.mult,
            layer.shift,
            layer.dtype,
            relu=layer.relu,
            residual=added,
        )
        saturations += clipped
    return outputs, saturations


def trace(
    layer: Layer, inputs: Maps, image: int, y: int, x: int, *, acc_bits: int = ACC_BITS
) -> list[Run]:
    """Give the partial sums of one pixel after each run, in the order of a PE.

    Parameters
    ----------
    inputs : int8 or uint8 [N, H, W, C]
    image, y, x : int
        The pixel of the output.

    Raises
    ------
    CspError
        Shapes or types do not fit, or there is no such pixel.
    """
    with located(f"layer {layer.name}"):
        _check_layer(layer, inputs, acc_bits)
        height, width, _ = layer.geometry.out_shape
        check_int("image", image, 0, len(inputs) - 1)
        check_int("y", y, 0, height - 1)
        check_int("x", x, 0, width - 1)
    windows = layer.geometry.unfold(inputs[image : image + 1])[:, 0, y, x].astype(np.int64)
    runs = []
    for group, (matrix, window) in enumerate(zip(layer.matrices, windows, strict=True)):
        padded = np.zeros((matrix.chunks * matrix.cols, matrix.taps), dtype=np.int64)
        padded[: matrix.filters] = matrix.decompress()
        weights = padded.reshape(matrix.chunks, matrix.cols, matrix.taps)
        sums = np.zeros((matrix.chunks, matrix.cols), dtype=np.int64)
        for block, taps in enumerate(matrix.blocks()):
            for chunk in range(int(matrix.counts[taps].max())):
                members = taps[matrix.counts[taps] > chunk]
                total = weights[chunk][:, members] @ window[members]
                sums[chunk], clipped = accumulate(sums[chunk], total, layer.acc_shift, acc_bits)
                runs.append(Run(group, block, chunk, members, total, sums[chunk].copy(), clipped))
    return runs


class _PartialSums:
    """Partial sums of a layer at the end, a part of its pixels at a time.

    ``proven`` is the bound of safe inference: Σ over blocks of rhu(Σ|w| · max|a|, t) fits B bits,
    so that no prefix of any sum can saturate. Products of integers are taken in floats, which are
    exact while every partial result is at most 2^24 (float32) or 2^53 (float64).
    """

    def __init__(self, layer: Layer, inputs: Maps, acc_bits: int) -> None:
        self.inputs = inputs
        self.geometry = layer.geometry
        self.matrices = layer.matrices
        self.acc_shift = layer.acc_shift
        self.acc_bits = acc_bits
        self.limit = (1 << (acc_bits - 1)) - 1
        weights = layer.weights()
        largest = max(int(inputs.max(initial=0)), -int(inputs.min(initial=0)))
        reach = int(np.abs(weights.astype(np.int64)).sum(axis=2).max()) * largest
        whole = layer.acc_shift == 0  # else only runs are multiplied: at most 32 · 255 · 128
        self.dtype = np.dtype(np.float64 if whole and reach > 1 << 24 else np.float32)
        self.proven = [
            _reach(matrix, group, largest, layer.acc_shift) <= self.limit
            for matrix, group in zip(layer.matrices, weights, strict=True)
        ]
        self.weights = [np.ascontiguousarray(group.T, dtype=self.dtype) for group in weights]

    def parts(self) -> Iterator[tuple[slice, slice, Ints, int]]:
        """Give images, lines, acc [n, lines, Wo, M] and saturations, a bounded part at a time."""
        height, width, _ = self.geometry.out_shape
        taps, filters = self.geometry.taps * self.geometry.groups, self.geometry.filters
        pixels = min(WINDOW_LIMIT // taps, SUM_LIMIT // filters)
        lines = min(height, max(1, pixels // width))
        images = max(1, pixels // (width * height))
        for image in range(0, len(self.inputs), images):
            batch = slice(image, image + images)
            windows = self._windows(self.inputs[batch])
            for line in range(0, height, lines):
                band = slice(line, line + lines)
                yield batch, band, *self._sums(windows[:, :, band])

    def _windows(self, images: Maps) -> Floats:
        """View images as windows [groups, n, Ho, Wo, R, S, Cg] of floats."""
        shape = self.geometry
        top, left, bottom, right = shape.padding
        count, height, width, channels = images.shape
        extent = (count, top + height + bottom, left + width + right, channels)
        padded = np.zeros(extent, dtype=self.dtype)
        padded[:, top : top + height, left : left + width] = images
        view = patches(padded, shape.out_shape[:2], shape.kernel, shape.stride, shape.dilation)
        split = view.reshape(*view.shape[:5], shape.groups, shape.group_channels)
        return split.transpose(5, 0, 1, 2, 3, 4, 6)

    def _sums(self, windows: Floats) -> tuple[Ints, int]:
        """Give acc [n, lines, Wo, M] and saturations of some windows."""
        shape = windows.shape[1:4]
        pixels = windows.reshape(len(windows), -1, self.geometry.taps)
        sums = np.empty((pixels.shape[1], self.geometry.filters), dtype=np.int64)
        each = self.geometry.group_filters
        clipped = 0
        for group, taps in enumerate(pixels):
            columns = sums[:, group * each : (group + 1) * each]
            clipped += self._group(group, taps, columns)
        return sums.reshape(*shape, self.geometry.filters), clipped

    def _group(self, group: int, taps: Floats, sums: Ints) -> int:
        """Fill sums [P, M] of one group and give the number of saturations."""
        if self.acc_shift:
            return self._runs(group, taps, sums)
        sums[...] = taps @ self.weights[group]
        if self.proven[group]:
            return 0
        # The bound again, now of each pixel: only where it fails are the runs followed.
        reach = (np.abs(taps) @ np.abs(self.weights[group])).max(axis=1)
        doubtful = np.flatnonzero(reach > self.limit)
        followed = sums[doubtful]
        clipped = self._runs(group, taps[doubtful], followed)
        sums[doubtful] = followed
        return clipped

    def _runs(self, group: int, taps: Floats, sums: Ints) -> int:
        """Fill sums [P, M] block by block and give the number of saturations.

        All chunks of a block are one product: a tap's weights are 0 in the chunks above its
        count, and a chunk without taps adds rhu(0, t) = 0, which never saturates.
        """
        matrix = self.matrices[group]
        survivors = matrix.survivors()
        taps, weights = taps[:, survivors], self.weights[group][survivors]
        # |acc + run| ≤ 65,535 taps · 127 · 255 < 2^31.
        half = (1 << self.acc_shift) >> 1
        step = max(1, SUM_LIMIT // matrix.filters)
        clipped = 0
        for start in range(0, len(taps), step):
            part = taps[start : start + step]
            acc = np.zeros((len(part), matrix.filters), dtype=np.int32)
            for block in range(0, len(survivors), matrix.period):
                members = slice(block, block + matrix.period)
                # csp_algo.integers.accumulate without int64 and without new arrays.
                run = (part[:, members] @ weights[members]).astype(np.int32)
                run += half
                run >>= self.acc_shift
                run += acc
                if self.proven[group]:
                    acc = run
                else:
                    np.clip(run, -self.limit - 1, self.limit, out=acc)
                    clipped += int(np.count_nonzero(acc != run))
            sums[start : start + step] = acc
        return clipped


def _reach(matrix: CompressedMatrix, weights: npt.NDArray[np.int8], largest: int, t: int) -> int:
    """Give Σ over blocks of rhu(Σ|w| · largest, t), the largest of all filters."""
    survivors = matrix.survivors()
    if not survivors.size:
        return 0
    sizes = np.abs(weights[:, survivors].astype(np.int64)) * largest
    blocks = np.add.reduceat(sizes, np.arange(0, len(survivors), matrix.period), axis=1)
    return int(rhu(blocks, t).sum(axis=1).max())


def _node(node: Node, values: dict[str, Maps], acc_bits: int) -> tuple[Maps, int]:
    """Give a node's values, and its saturations if it is a layer."""
    inputs = [values[source] for source in node.sources]
    if isinstance(node, Layer):
        residual = inputs[1] if node.residual is not None else None
        return layer_forward(node, inputs[0], acc_bits=acc_bits, residual=residual)
    if isinstance(node, MaxPool):
        return _max_pool(node, inputs[0]), 0
    if isinstance(node, AvgPool):
        return _average_pool(node, inputs[0]), 0
    if isinstance(node, Concat):
        return np.concatenate(inputs, axis=3), 0
    if isinstance(node, Flatten):
        return inputs[0].reshape(len(inputs[0]), 1, 1, -1), 0
    raise TypeError(f"unknown node {node!r}")  # pragma: no cover (the union is complete)


def _max_pool(node: MaxPool, x: Maps) -> Maps:
    """Give the largest element of each window; what lies outside is below or equal to all."""
    windows = node.unfold(x, int(np.iinfo(x.dtype).min))
    result = windows[:, :, :, 0, 0].copy()
    for row, column in np.ndindex(node.kernel):
        np.maximum(result, windows[:, :, :, row, column], out=result)
    return result


def _average_pool(node: AvgPool, x: Maps) -> Maps:
    """Give rhu(Σ · pmult, shift), clipped to the type (pmult may be rounded up)."""
    windows = node.unfold(x, 0)
    total = np.zeros(windows.shape[:3] + windows.shape[5:], dtype=np.int64)
    for row, column in np.ndindex(node.kernel):
        total += windows[:, :, :, row, column]
    mean = rescale(total, node.multipliers(x.shape[1:])[:, :, None], node.shift)
    limits = np.iinfo(x.dtype)
    return np.clip(mean, limits.min, limits.max).astype(x.dtype)


def _check_layer(layer: Layer, inputs: Maps, acc_bits: int) -> None:
    check_int("acc_bits", acc_bits, 8, 32)
    if acc_bits + layer.acc_shift > 32:
        raise CspError(
            f"acc_bits {acc_bits} and acc_shift {layer.acc_shift} make more than 32 bits"
        )
    if inputs.dtype not in (np.int8, np.uint8):
        raise CspError(f"activations must be int8 or uint8, not {inputs.dtype}")
    if inputs.shape[1:] != layer.geometry.in_shape:
        raise CspError(
            f"activations have shape {list(inputs.shape)}, not [N, *{layer.geometry.in_shape}]"
        )


def _check_images(network: Network, images: Maps) -> None:
    expected = network.input
    if images.dtype != expected.dtype.numpy:
        raise CspError(
            f"network {network.name}: images must be {expected.dtype.value}, not {images.dtype}"
        )
    if images.shape[1:] != expected.shape:
        raise CspError(
            f"network {network.name}: images have shape {list(images.shape)}, "
            f"not [N, *{expected.shape}]"
        )
