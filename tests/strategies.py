# SPDX-License-Identifier: Apache-2.0
"""Random layers and activations for every test; a seed gives the same layer everywhere.

``random_layer(rng, cols=…, period=…, case=…)`` makes one layer. ``CASES`` are the corners that
each consumer should see.
"""

import functools

import numpy as np
import numpy.typing as npt

from csp_algo.compress import compress
from csp_algo.geometry import Geometry
from csp_algo.integers import ActDtype
from csp_algo.network import Flatten, Input, Layer, MaxPool, Network

#: What a layer's counts look like; "mixed" is the usual one.
CASES = (
    "mixed",  # counts 0 … K, some stored words zero
    "dense",  # every count is K
    "empty",  # every count is 0: outputs are the requantised bias
    "one_tap",  # J = 1
    "one_survivor",  # one tap of many has a count
    "one_filter",  # M = 1
    "thin_last_chunk",  # the last chunk holds one filter, K ≥ 2
    "ragged_block",  # the last block is shorter than T
    "gaps",  # long runs of zero-count taps, also at both ends
    "extreme",  # weights ±127, activations at their limits: sums as large as possible
)


def random_geometry(
    rng: np.random.Generator,
    *,
    channels: int | None = None,
    filters: int | None = None,
    groups: int | None = None,
    kernel: tuple[int, int] | None = None,
    size: tuple[int, int] | None = None,
    max_side: int = 7,
    max_taps: int = 64,
    max_filters: int = 12,
) -> Geometry:
    """Give a geometry with any stride, padding, dilation and groups; what is given is kept.

    ``channels`` and ``filters`` are those of one group. Depthwise layers are groups with one
    channel each, and appear by themselves.
    """
    if kernel is None:
        kernel = (int(rng.integers(1, 4)), int(rng.integers(1, 4)))
    area = kernel[0] * kernel[1]
    if channels is None:
        channels = int(rng.integers(1, max(1, min(max_taps // area, 16)) + 1))
    if filters is None:
        filters = int(rng.integers(1, max_filters + 1))
    if groups is None:
        groups = int(rng.choice([1, 1, 1, 2, 3]))
    stride = (int(rng.integers(1, 4)), int(rng.integers(1, 4)))
    dilation = tuple(int(rng.integers(1, 3)) if side > 1 else 1 for side in kernel)
    extent = tuple((side - 1) * step + 1 for side, step in zip(kernel, dilation, strict=True))
    padding = tuple(int(rng.integers(0, min(extent[axis % 2], 4))) for axis in range(4))
    if size is None:
        least = [max(1, extent[axis] - padding[axis] - padding[axis + 2]) for axis in (0, 1)]
        size = tuple(int(rng.integers(low, max(low, max_side) + 1)) for low in least)
    return Geometry(
        in_shape=(size[0], size[1], channels * groups),
        filters=filters * groups,
        kernel=kernel,
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
    )


def random_counts(
    rng: np.random.Generator, taps: int, chunks: int, *, case: str = "mixed", period: int = 1
) -> npt.NDArray[np.uint8]:
    """Give uint8[taps] counts of 0 … chunks for a case of ``CASES``."""
    counts = rng.integers(0, chunks + 1, taps)
    if case in ("dense", "extreme"):
        counts[:] = chunks
    elif case == "empty":
        counts[:] = 0
    elif case == "one_survivor":
        counts[:] = 0
        counts[rng.integers(taps)] = rng.integers(1, chunks + 1)
    elif case == "ragged_block" and period > 1:
        counts = rng.integers(1, chunks + 1, taps)
        while np.count_nonzero(counts) % period == 0:
            counts[rng.choice(np.flatnonzero(counts))] = 0
    elif case == "gaps":
        alive = np.zeros(taps, dtype=bool)
        alive[rng.random(taps) < rng.choice([0.02, 0.05, 0.1, 0.2])] = True
        counts = np.where(alive, rng.integers(1, chunks + 1, taps), 0)
    elif rng.random() < 0.5:
        counts[rng.random(taps) < rng.random()] = 0
    return counts.astype(np.uint8)


def random_weights(
    rng: np.random.Generator,
    filters: int,
    counts: npt.NDArray[np.uint8],
    cols: int,
    *,
    case: str = "mixed",
) -> npt.NDArray[np.int8]:
    """Give int8 [filters, taps] that respect the counts; some chunks below a count are zero."""
    shape = (filters, len(counts))
    if case == "extreme":
        sign = rng.choice([-1, 1], size=(filters, 1))
        weights = np.broadcast_to(127 * sign, shape).copy()
    else:
        weights = rng.integers(-127, 128, shape)
        weights[rng.random(shape) < 0.1] = 0
        weights[rng.random(shape) < 0.02] = rng.choice([-127, 127])
    chunk = np.arange(filters)[:, None] // cols
    hollow = rng.random((filters // cols + 1, len(counts))) < 0.05
    weights[(chunk >= counts) | hollow[chunk[:, 0]]] = 0
    return weights.astype(np.int8)


def random_layer(
    rng: np.random.Generator,
    *,
    cols: int,
    period: int | None = None,
    case: str = "mixed",
    geometry: Geometry | None = None,
    max_chunks: int = 4,
    max_taps: int = 64,
    max_side: int = 7,
    groups: int | None = None,
    density: float | None = None,
    acc_bits: int = 24,
    acc_shift: int | None = None,
    dtype: ActDtype | None = None,
    relu: bool | None = None,
    signed: bool = False,
    name: str = "layer",
    source: str = "input",
) -> Layer:
    """Give a random layer.

    Parameters
    ----------
    cols, period : int
        Filters of a chunk, and T (1 … 8 if not given).
    case : str
        One of ``CASES``.
    geometry : Geometry, optional
        Shape; otherwise random with at most ``max_chunks`` chunks and ``max_taps`` taps a group.
    density : float, optional
        Share of taps that keep a count above 0 (an approximate one), whatever the case.
    acc_bits, acc_shift : int
        Accumulation width B (keeps B + t ≤ 32 for a random t), and t.
    dtype : ActDtype, optional
        Type of the outputs.
    signed : bool
        Whether the activations are int8 rather than uint8: scales the outputs, nothing else.
    """
    if case not in CASES:
        raise ValueError(f"unknown case {case!r}")
    if period is None:
        period = int(rng.choice([1, 2, 3, 4, 8]))
    if geometry is None:
        geometry = _geometry_for(rng, case, cols, max_chunks, max_taps, max_side, groups)
    if acc_shift is None:
        acc_shift = min(int(rng.choice([0, 0, 1, 4, 8])), 32 - acc_bits)
    if dtype is None:
        dtype = ActDtype(rng.choice(["int8", "uint8", "int32"], p=[0.4, 0.4, 0.2]))
    if relu is None:
        relu = dtype is not ActDtype.INT32 and bool(rng.random() < 0.5)
    matrices = []
    for _ in range(geometry.groups):
        counts = random_counts(rng, geometry.taps, geometry.chunks(cols), case=case, period=period)
        if density is not None:
            counts[rng.random(len(counts)) >= density] = 0
        weights = random_weights(rng, geometry.group_filters, counts, cols, case=case)
        matrices.append(compress(weights, cols, period, counts=counts))
    energy = np.concatenate(
        [np.square(matrix.decompress().astype(np.float64)).sum(axis=1) for matrix in matrices]
    )
    spread = np.sqrt(energy) * (74 if signed else 147) + 1
    mult, shift = _random_scales(rng, spread)
    return Layer(
        name=name,
        input=source,
        geometry=geometry,
        matrices=tuple(matrices),
        acc_shift=acc_shift,
        bias=np.rint(rng.normal(0, spread)).astype(np.int32),
        mult=mult,
        shift=shift,
        relu=relu,
        dtype=dtype,
        filter_order=np.arange(geometry.filters, dtype=np.int32),
        scale=1.0,
        residual=None,
    )


def random_activations(
    rng: np.random.Generator,
    shape: tuple[int, ...],
    dtype: ActDtype = ActDtype.UINT8,
    *,
    case: str = "mixed",
) -> npt.NDArray[np.integer]:
    """Give activations [N, H, W, C] of a type, with zeros and both limits among them."""
    low, high = dtype.low, dtype.high
    if case == "extreme":
        return np.full(shape, high if dtype is ActDtype.UINT8 else low, dtype=dtype.numpy)
    values = rng.integers(low, high + 1, shape)
    values[rng.random(shape) < 0.2] = 0
    values[rng.random(shape) < 0.05] = low
    values[rng.random(shape) < 0.05] = high
    return values.astype(dtype.numpy)


def network_of(*layers: Layer, dtype: ActDtype = ActDtype.UINT8, name: str = "random") -> Network:
    """Give a network of layers in a row; the first one reads the input, named ``input``."""
    first = layers[0]
    return Network(
        name=name,
        input=Input(name=first.input, shape=first.geometry.in_shape, dtype=dtype, scale=1.0),
        nodes=layers,
        cols=first.matrices[0].cols,
        period=first.matrices[0].period,
        metadata={},
    )


def little_network(shape: tuple[int, int, int]) -> Network:
    """Give a convolution of two groups, a pool, and a linear layer with three classes.

    It is for arrays of 4 columns and blocks of 4 taps; images are uint8 [H, W, C].
    """
    layer = functools.partial(random_layer, np.random.default_rng(5), cols=4, period=4, acc_shift=0)
    padding = (1, 1, 1, 1)
    conv = Geometry(in_shape=shape, filters=10, kernel=(3, 3), padding=padding, groups=2)
    pooled = (shape[0] // 2) * (shape[1] // 2) * conv.filters
    linear = Geometry(in_shape=(1, 1, pooled), filters=3)
    return Network(
        name="little",
        input=Input(name="input", shape=shape, dtype=ActDtype.UINT8, scale=1.0),
        nodes=(
            layer(geometry=conv, name="conv", dtype=ActDtype.UINT8, relu=True),
            MaxPool(name="pool", input="conv", kernel=(2, 2), stride=(2, 2)),
            Flatten(name="flatten", input="pool"),
            layer(
                geometry=linear,
                name="linear",
                source="flatten",
                dtype=ActDtype.INT32,
                relu=False,
            ),
        ),
        cols=4,
        period=4,
    )


def _geometry_for(
    rng: np.random.Generator,
    case: str,
    cols: int,
    max_chunks: int,
    max_taps: int,
    max_side: int,
    groups: int | None,
) -> Geometry:
    channels = filters = kernel = None
    if case == "one_tap":
        channels, kernel = 1, (1, 1)
    elif case in ("ragged_block", "gaps", "one_survivor"):
        side = 3 if max_taps >= 18 else 1
        kernel = (side, side)
        channels = max(2, max_taps // side**2)
    if case == "one_filter":
        filters = 1
    elif case == "thin_last_chunk" and max_chunks > 1:
        filters = int(rng.integers(1, max_chunks)) * cols + 1
    return random_geometry(
        rng,
        channels=channels,
        filters=filters,
        groups=groups,
        kernel=kernel,
        max_side=max_side,
        max_taps=max_taps,
        max_filters=max_chunks * cols,
    )


def _random_scales(
    rng: np.random.Generator, spread: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.uint16], npt.NDArray[np.uint8]]:
    """Give mult and shift that spread the outputs over their range; some filters are dead."""
    wanted = rng.uniform(20, 150, spread.shape) / spread
    exponent = np.floor(np.log2(wanted)).astype(np.int64)
    mult = np.clip(np.rint(wanted / 2.0 ** (exponent - 15)), 2**15, 2**16 - 1)
    shift = np.clip(15 - exponent, 0, 47)
    odd = rng.random(spread.shape)
    shift = np.where(odd < 0.03, rng.integers(0, 48, spread.shape), shift)
    mult = np.where(odd > 0.95, 0, mult)
    return mult.astype(np.uint16), shift.astype(np.uint8)
