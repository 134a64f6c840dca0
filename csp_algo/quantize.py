# SPDX-License-Identifier: Apache-2.0
"""From a trained float network to integers: folding, scales, multipliers, biases and run shifts.

Weights are int8 with a scale for each filter, activations int8 or uint8 with zero point 0 and one
scale for each feature map, biases int32 in units of input scale · weight scale. All of it is
float64 arithmetic on the given arrays. Activation scales are kept to 16 significant bits, so that
the order in which a matrix product adds does not show in the result.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from csp_algo.compress import WEIGHT_LIMIT, CompressedMatrix, compress
from csp_algo.errors import CspError, check_int, located
from csp_algo.geometry import Geometry
from csp_algo.integers import (
    ACC_SHIFT_LIMIT,
    MULT_HIGH,
    MULT_LOW,
    SHIFT_LIMIT,
    ActDtype,
    Ints,
    accumulate,
    affine,
    requantise,
    rhu,
)
from csp_algo.network import (
    AvgPool,
    Concat,
    Flatten,
    Input,
    Layer,
    MaxPool,
    Network,
    Residual,
    Shape,
)

Floats = npt.NDArray[np.float64]

#: Largest magnitude of a bias: leaves room for the sum in the 32 bits of v.
BIAS_LIMIT = 2**30
#: Widths B that a partial sum may have.
ACC_BITS = (8, 32)
#: Shares of the largest calibration value at which clipping is tried.
CLIPS = tuple(1 - step / 50 for step in range(31))
#: Significant bits of an activation scale.
_SCALE_BITS = 16
#: Images that one step of the float forward pass takes: it bounds the unfolded maps.
_BATCH = 32
#: Windows on which the squared error of a run shift is measured.
_WINDOWS = 2048


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class BatchNorm:
    """Batch normalisation as it acts in inference, float64 [M] each."""

    gamma: Floats
    beta: Floats
    mean: Floats
    variance: Floats
    epsilon: float


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class FloatLayer:
    """A convolution or linear layer with batch normalisation folded in.

    Parameters
    ----------
    name, input : str
        Names of the output and of the input.
    geometry : Geometry
    weights : float64 [M, C / groups, R, S], or [M, C] of a linear layer
        A Linear that follows a Flatten has its inputs in the order (y, x, c):
        :func:`csp_algo.geometry.flatten_order`.
    bias : float64 [M]
    relu : bool
    residual : str, optional
        Name of a map that is added before the ReLU.
    filter_order : int32 [M], optional
        Which filter of the original network each filter is, if they were re-ordered.

    Raises
    ------
    CspError
        A shape is wrong, or a value is NaN or infinite; the message names the layer.
    """

    name: str
    input: str
    geometry: Geometry
    weights: Floats
    bias: Floats
    relu: bool
    residual: str | None = None
    filter_order: npt.NDArray[np.int32] | None = None

    def __post_init__(self) -> None:
        with located(f"layer {self.name}"):
            _ = self.matrices
            if self.bias.shape != (self.geometry.filters,):
                raise CspError(
                    f"bias has shape {list(self.bias.shape)}, not [{self.geometry.filters}]"
                )
            for name in ("weights", "bias"):
                if not np.isfinite(getattr(self, name)).all():
                    raise CspError(f"{name} hold a value that is NaN or infinite")

    @property
    def matrices(self) -> Floats:
        """Weights as [groups, M / groups, J]."""
        return self.geometry.weights_to_matrices(np.asarray(self.weights, dtype=np.float64))

    @property
    def sources(self) -> tuple[str, ...]:
        """Names of the inputs, the residual last."""
        return (self.input,) if self.residual is None else (self.input, self.residual)

    def forward(self, x: Floats, residual: Floats | None = None) -> Floats:
        """Give the outputs [N, Ho, Wo, M] for [N, H, W, C]."""
        parts = self.geometry.unfold(x)
        groups = [part @ matrix.T for part, matrix in zip(parts, self.matrices, strict=True)]
        y = np.concatenate(groups, axis=-1) + self.bias
        if residual is not None:
            y = y + residual
        return np.maximum(y, 0) if self.relu else y


FloatNode = FloatLayer | MaxPool | AvgPool | Concat | Flatten


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class FloatNetwork:
    """A float network in the form that :func:`quantise` takes.

    Parameters
    ----------
    name : str
    input : Input
        With the type and scale that the integer network's images have.
    nodes : tuple of nodes
        In an order in which each reads only earlier ones; the last one is the output.
    """

    name: str
    input: Input
    nodes: tuple[FloatNode, ...]

    def __post_init__(self) -> None:
        known = {self.input.name}
        with located(f"network {self.name}"):
            if not self.nodes:
                raise CspError("there are no nodes")
            for node in self.nodes:
                if node.name in known:
                    raise CspError(f"two values have the name {node.name}")
                for source in node.sources:
                    if source not in known:
                        raise CspError(f"{node.name} reads {source}, which no earlier node makes")
                known.add(node.name)

    def layers(self) -> tuple[FloatLayer, ...]:
        """Give the nodes that are layers."""
        return tuple(node for node in self.nodes if isinstance(node, FloatLayer))

    def shapes(self) -> dict[str, Shape]:
        """Give the shape (H, W, C) of each feature map."""
        shapes = {self.input.name: self.input.shape}
        for node in self.nodes:
            shapes[node.name] = float_shape(node, [shapes[name] for name in node.sources])
        return shapes

    def forward(self, images: npt.NDArray[np.integer]) -> dict[str, Floats]:
        """Give the real value of every feature map, float64 [N, H, W, C].

        Parameters
        ----------
        images : integers [N, H, W, C]
            Of the type of the input; its scale is applied here.
        """
        batches = [
            self._forward(images[start : start + _BATCH]) for start in range(0, len(images), _BATCH)
        ]
        return {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}

    def output_with(self, layer: FloatLayer, values: Mapping[str, Floats]) -> Floats:
        """Give the last node's value if a layer is replaced by another one of its name.

        Parameters
        ----------
        layer : FloatLayer
        values : mapping of value name to float64 [N, H, W, C]
            What :meth:`forward` gives: only what depends on the layer is computed again.
        """
        found = {layer.name: layer.forward(*(values[name] for name in layer.sources))}
        for node in self.nodes:
            if node.name != layer.name and any(name in found for name in node.sources):
                inputs = [found.get(name, values[name]) for name in node.sources]
                found[node.name] = _float_node(node, inputs)
        last = self.nodes[-1].name
        return found.get(last, values[last])

    def _forward(self, images: npt.NDArray[np.integer]) -> dict[str, Floats]:
        values = {self.input.name: images * np.float64(self.input.scale)}
        for node in self.nodes:
            values[node.name] = _float_node(node, [values[name] for name in node.sources])
        return values


def renamed(network: FloatNetwork, names: Mapping[str, str]) -> FloatNetwork:
    """Give the network with other names of its values, the input's included."""

    def other(node: FloatNode) -> FloatNode:
        match node:
            case FloatLayer():
                residual = None if node.residual is None else names[node.residual]
                return dataclasses.replace(
                    node, name=names[node.name], input=names[node.input], residual=residual
                )
            case Concat():
                inputs = tuple(names[name] for name in node.inputs)
                return dataclasses.replace(node, name=names[node.name], inputs=inputs)
            case _:
                return dataclasses.replace(node, name=names[node.name], input=names[node.input])

    source = dataclasses.replace(network.input, name=names[network.input.name])
    nodes = tuple(other(node) for node in network.nodes)
    return dataclasses.replace(network, input=source, nodes=nodes)


def float_shape(node: FloatNode, inputs: Sequence[Shape]) -> Shape:
    """Give the shape (H, W, C) that a node makes of inputs of these shapes."""
    match node:
        case FloatLayer():
            return node.geometry.out_shape
        case MaxPool() | AvgPool():
            return node.out_shape(inputs[0])
        case Concat():
            return (*inputs[0][:2], sum(shape[2] for shape in inputs))
        case Flatten():
            return (1, 1, math.prod(inputs[0]))


def _float_node(node: FloatNode, inputs: list[Floats]) -> Floats:
    x = inputs[0]
    match node:
        case FloatLayer():
            return node.forward(*inputs)
        case MaxPool():
            # Every window holds an element, so a fill that no element is below never wins.
            return np.asarray(node.unfold(x, fill=math.floor(x.min())).max(axis=(3, 4)))
        case AvgPool():
            height, width, channels = x.shape[1:]
            divisors = node.divisors((height, width, channels))
            return np.asarray(node.unfold(x, fill=0).sum(axis=(3, 4)) / divisors[..., None])
        case Concat():
            return np.concatenate(inputs, axis=-1)
        case Flatten():
            return x.reshape(len(x), 1, 1, -1)


def fold_batch_norm(
    weights: npt.NDArray[np.floating], bias: npt.NDArray[np.floating] | None, norm: BatchNorm
) -> tuple[Floats, Floats]:
    """Give weights and bias that do what a layer and its batch normalisation do.

    γ·(W·x + b − μ) / √(σ² + ε) + β, so W is scaled by γ / √(σ² + ε) for each filter.

    Parameters
    ----------
    weights : float [M, …]
    bias : float [M], or None for zeros

    Returns
    -------
    tuple of float64 [M, …] and float64 [M]

    Raises
    ------
    CspError
        A variance is negative, or σ² + ε is 0.
    """
    spread = np.asarray(norm.variance, dtype=np.float64) + norm.epsilon
    if (spread <= 0).any():
        raise CspError(f"batch normalisation has variance + epsilon {spread.min()}, not above 0")
    factor = np.asarray(norm.gamma, dtype=np.float64) / np.sqrt(spread)
    old = np.zeros_like(factor) if bias is None else np.asarray(bias, dtype=np.float64)
    shape = (-1,) + (1,) * (weights.ndim - 1)
    folded = np.asarray(weights, dtype=np.float64) * factor.reshape(shape)
    return folded, norm.beta + factor * (old - norm.mean)


def activation_scale(values: Floats, dtype: ActDtype) -> float:
    """Give the scale with the least squared error of round and clip.

    Clipping at 100 % … 40 % of the largest magnitude is tried; the first of equals is taken. Maps
    of zeros get scale 1.

    Parameters
    ----------
    values : float64, any shape
        Calibration values, not negative if the type is UINT8.
    """
    largest = float(np.abs(values).max(initial=0.0))
    if largest == 0:
        return 1.0
    best, least = 1.0, math.inf
    for clip in CLIPS:
        scale = _rounded(clip * largest / dtype.high)
        levels = np.clip(np.rint(values / scale), dtype.low, dtype.high)
        error = float(np.square(levels * scale - values).sum())
        if error < least:
            best, least = scale, error
    return best


def _rounded(scale: float) -> float:
    fraction, exponent = math.frexp(scale)
    return math.ldexp(round(fraction * 2**_SCALE_BITS), exponent - _SCALE_BITS)


def weight_scales(
    matrix: Floats, bias: Floats, in_scale: float, *, per_filter: bool = True
) -> Floats:
    """Give the scale of each filter's weights: its largest magnitude is 127.

    A filter of zeros gets 0, unless its bias needs a scale. Scales grow where a bias would pass
    2^30 units. Logits share one scale, since they are compared with each other.

    Parameters
    ----------
    matrix : float64 [M, J]
    bias : float64 [M]
    in_scale : float
        Scale of the input.
    """
    scales = np.abs(matrix).max(axis=1) / WEIGHT_LIMIT
    scales = np.maximum(scales, np.abs(bias) / (in_scale * BIAS_LIMIT))
    return scales if per_filter else np.full_like(scales, scales.max())


def quantise_weights(matrix: Floats, scales: Floats) -> npt.NDArray[np.int8]:
    """Give round(W / scale) in −127 … 127, int8 [M, J]; filters of scale 0 are zero."""
    safe = np.where(scales > 0, scales, 1.0)
    levels = np.rint(matrix / safe[:, None])
    return np.clip(levels, -WEIGHT_LIMIT, WEIGHT_LIMIT).astype(np.int8)


def multiplier(ratio: float) -> tuple[int, int]:
    """Give (mult, shift) with mult / 2^shift nearest to a ratio, mult 2^15 … 2^16 − 1.

    Ratios below 2^−32 give (0, 0): no v of 32 bits makes an output of 1 with them.

    Raises
    ------
    CspError
        The ratio is negative, not finite, or 2^16 or more (to be exact: rounds to that).
    """
    if not (math.isfinite(ratio) and ratio >= 0):
        raise CspError(f"the ratio of scales must be finite and not negative, not {ratio}")
    fraction, exponent = math.frexp(ratio)
    mult, shift = round(fraction * 2**16), 16 - exponent
    if mult > MULT_HIGH:
        mult, shift = MULT_LOW, shift - 1
    if mult == 0 or shift > SHIFT_LIMIT:
        return 0, 0
    if shift < 0:
        raise CspError(f"the ratio of scales is {ratio:g}, it must be below {MULT_HIGH + 1}")
    return mult, shift


def run_bounds(matrix: CompressedMatrix, dtype: ActDtype) -> Ints:
    """Give S_b = Σ|w| · max|activation| of each block and filter, int64 [blocks, M]."""
    magnitude = np.abs(matrix.decompress().astype(np.int64))
    sums = [magnitude[:, taps].sum(axis=1) for taps in matrix.blocks()]
    return np.asarray(sums, dtype=np.int64).reshape(-1, matrix.filters) * dtype.magnitude


def safe_shift(matrices: Sequence[CompressedMatrix], dtype: ActDtype, acc_bits: int) -> int | None:
    """Give the smallest run shift t at which no input can saturate a partial sum, or None.

    Safe means Σ_b rhu(S_b, t) ≤ 2^(B−1) − 1 for every filter; t is at most 15 and at most 32 − B.

    Parameters
    ----------
    matrices : of one layer, one for each group
    dtype : ActDtype
        Of the activations that the layer reads.
    acc_bits : int
        Width B of a partial sum.
    """
    check_int("acc_bits", acc_bits, *ACC_BITS)
    bounds = [run_bounds(matrix, dtype) for matrix in matrices]
    for t in _shifts(acc_bits):
        worst = max(int(rhu(bound, t).sum(axis=0).max(initial=0)) for bound in bounds)
        if worst < 1 << (acc_bits - 1):
            return t
    return None


def safe_shifts(network: Network, acc_bits: int) -> dict[str, int | None]:
    """Give the smallest safe run shift of each layer, or None where there is none."""
    dtypes = network.dtypes()
    return {
        layer.name: safe_shift(layer.matrices, dtypes[layer.input], acc_bits)
        for layer in network.layers()
    }


def choose_shift(
    layer: Layer,
    activations: npt.NDArray[np.integer],
    dtype: ActDtype,
    acc_bits: int,
    *,
    residual: npt.NDArray[np.integer] | None = None,
) -> int:
    """Give the run shift t with the least squared error of the outputs, up to the smallest safe t.

    The outputs are compared with those of an unlimited accumulator; of equals the largest t, the
    one furthest from saturation, is taken. A smallest safe t of 0 is exact and is taken at once.

    Parameters
    ----------
    layer : Layer
        Its own ``acc_shift`` does not matter.
    activations : integers [N, H, W, C]
        Calibration inputs of the layer; windows are taken evenly from all of them.
    dtype : ActDtype
        Of the activations.
    acc_bits : int
        Width B of a partial sum.
    residual : integers [N, Ho, Wo, M], optional
        What is added, already rescaled.
    """
    safe = safe_shift(layer.matrices, dtype, acc_bits)
    if safe == 0:
        return 0
    windows, chosen = _sample(layer.geometry, activations)
    added = None if residual is None else residual.reshape(-1, layer.geometry.filters)[chosen]

    def outputs(sums: list[Ints], t: int) -> Ints:
        v = affine(np.concatenate(sums, axis=-1), t, layer.bias)
        return requantise(v, layer.mult, layer.shift, layer.dtype, relu=layer.relu, residual=added)

    shifts = list(_shifts(acc_bits) if safe is None else range(safe + 1))
    groups = [
        _accumulated(matrix, part, shifts, acc_bits)
        for matrix, part in zip(layer.matrices, windows, strict=True)
    ]
    exact = outputs([sums for sums, _ in groups], 0)
    best, least = 0, math.inf
    for index, t in enumerate(shifts):
        got = outputs([limited[index] for _, limited in groups], t)
        error = float(np.square((got - exact).astype(np.float64)).sum())
        if error <= least:
            best, least = t, error
    return best


def _sample(
    geometry: Geometry, activations: npt.NDArray[np.integer]
) -> tuple[Floats, npt.NDArray[np.int64]]:
    """Give windows [groups, P, J] taken evenly, and where they lie in N·Ho·Wo."""
    size = math.prod(geometry.out_shape[:2])
    chosen = np.arange(0, len(activations) * size, max(1, len(activations) * size // _WINDOWS))
    parts = []
    for image in np.unique(chosen // size):
        unfolded = geometry.unfold(activations[image : image + 1].astype(np.float64))
        inside = chosen[chosen // size == image] % size
        parts.append(unfolded.reshape(geometry.groups, size, geometry.taps)[:, inside])
    return np.concatenate(parts, axis=1), chosen


def _accumulated(
    matrix: CompressedMatrix, windows: Floats, shifts: list[int], acc_bits: int
) -> tuple[Ints, list[Ints]]:
    """Give exact sums [P, M], and the partial sums of ``acc_bits`` bits for each run shift."""
    # Products of integers far below 2^53: float64 is exact, and numpy multiplies it fast.
    weights = matrix.decompress().T.astype(np.float64)
    exact = np.zeros((len(windows), matrix.filters), dtype=np.int64)
    limited = [exact.copy() for _ in shifts]
    for taps in matrix.blocks():
        run = (windows[:, taps] @ weights[taps]).astype(np.int64)
        exact += run
        limited = [
            accumulate(acc, run, t, acc_bits)[0] for acc, t in zip(limited, shifts, strict=True)
        ]
    return exact, limited


def _shifts(acc_bits: int) -> range:
    return range(min(ACC_SHIFT_LIMIT, 32 - acc_bits) + 1)


def quantise(
    network: FloatNetwork,
    images: npt.NDArray[np.integer],
    *,
    cols: int,
    period: int,
    acc_bits: int = 24,
    metadata: Mapping[str, str] | None = None,
) -> Network:
    """Give the integer network.

    Maps after a ReLU become uint8, others int8. A layer that ends the network without ReLU and
    residual gives logits, int32. Maps that a pool, flatten or concatenation ties together share
    one type and scale; if the network's input is among them, its own.

    Parameters
    ----------
    network : FloatNetwork
    images : integers [N, H, W, C]
        Calibration images, of the input's type.
    cols, period : int
        Filters of a chunk and T.
    acc_bits : int
        Width B of the partial sums for which run shifts are chosen.
    metadata : mapping of str to str, optional

    Raises
    ------
    CspError
        There are no images, they are not of the input's shape or type, or a layer cannot be
        expressed; the message names it.
    """
    check_int("acc_bits", acc_bits, *ACC_BITS)
    with located(f"network {network.name}"):
        if images.shape[1:] != network.input.shape or not len(images):
            raise CspError(
                f"calibration images have shape {list(images.shape)}, "
                f"not [N, *{network.input.shape}] with N above 0"
            )
        if images.dtype != network.input.dtype.numpy:
            raise CspError(
                f"calibration images are {images.dtype}, not {network.input.dtype.value}"
            )
        values = network.forward(images)
        types = _activation_types(network, values)
        nodes = tuple(
            _quantise_layer(node, network, types, values, cols, period, acc_bits)
            if isinstance(node, FloatLayer)
            else node
            for node in network.nodes
        )
    return Network(
        name=network.name,
        input=network.input,
        nodes=nodes,
        cols=cols,
        period=period,
        metadata=dict(metadata or {}),
    )


def _is_logits(node: FloatNode, network: FloatNetwork) -> bool:
    return (
        node is network.nodes[-1]
        and isinstance(node, FloatLayer)
        and not node.relu
        and node.residual is None
    )


def _activation_types(
    network: FloatNetwork, values: dict[str, Floats]
) -> dict[str, tuple[ActDtype, float]]:
    """Give type and scale of each map but the logits."""
    shared = _tied(network)
    types: dict[str, tuple[ActDtype, float]] = {}
    layers = [node for node in network.nodes if isinstance(node, FloatLayer)]
    for root in dict.fromkeys(shared.values()):
        makers = [layer for layer in layers if shared[layer.name] == root]
        if shared[network.input.name] == root:
            kind, scale = network.input.dtype, network.input.scale
            for layer in makers:
                if kind is ActDtype.UINT8 and not layer.relu:
                    raise CspError(
                        f"layer {layer.name} without ReLU shares its type with the uint8 input"
                    )
        elif len(makers) == 1 and _is_logits(makers[0], network):
            continue
        else:
            signed = any(not layer.relu for layer in makers)
            kind = ActDtype.INT8 if signed else ActDtype.UINT8
            made = np.concatenate([values[layer.name].ravel() for layer in makers])
            scale = activation_scale(made, kind)
        types.update({name: (kind, scale) for name, other in shared.items() if other == root})
    return types


def _tied(network: FloatNetwork) -> dict[str, str]:
    """Give for each map a name that all maps of the same type and scale have in common."""
    root = {network.input.name: network.input.name}
    for node in network.nodes:
        root[node.name] = node.name
        if isinstance(node, FloatLayer):
            continue
        joined = {root[source] for source in node.sources} | {node.name}
        for name, other in root.items():
            if other in joined:
                root[name] = node.name
    return root


def _quantise_layer(
    node: FloatLayer,
    network: FloatNetwork,
    types: dict[str, tuple[ActDtype, float]],
    values: dict[str, Floats],
    cols: int,
    period: int,
    acc_bits: int,
) -> Layer:
    with located(f"layer {node.name}"):
        logits = _is_logits(node, network)
        in_kind, in_scale = types[node.input]
        filters = node.geometry.filters
        floats = node.matrices.reshape(filters, -1)
        scales = weight_scales(floats, node.bias, in_scale, per_filter=not logits)
        levels = quantise_weights(floats, scales).reshape(node.matrices.shape)
        matrices = tuple(compress(matrix, cols, period) for matrix in levels)
        units = np.where(scales > 0, scales, 1.0) * in_scale
        if logits:
            kind, scale = ActDtype.INT32, float(units[0])
            # v itself leaves the layer; 2^15 / 2^15 says so.
            pairs = [(MULT_LOW, MULT_LOW.bit_length() - 1)] * filters
        else:
            kind, scale = types[node.name]
            pairs = [multiplier(float(ratio)) for ratio in scales * in_scale / scale]
        residual = None
        if node.residual is not None:
            mult, shift = multiplier(types[node.residual][1] / scale)
            residual = Residual(input=node.residual, mult=mult, shift=shift)
        layer = Layer(
            name=node.name,
            input=node.input,
            geometry=node.geometry,
            matrices=matrices,
            acc_shift=0,
            bias=np.rint(node.bias / units).astype(np.int32),
            mult=np.array([pair[0] for pair in pairs], dtype=np.uint16),
            shift=np.array([pair[1] for pair in pairs], dtype=np.uint8),
            relu=node.relu,
            dtype=kind,
            filter_order=order_of(node),
            scale=scale,
            residual=residual,
        )
        inputs = quantise_values(values[node.input], in_kind, in_scale)
        added = None
        if residual is not None:
            raw = quantise_values(values[residual.input], *types[residual.input])
            added = rhu(raw * residual.mult, residual.shift)
        t = choose_shift(layer, inputs, in_kind, acc_bits, residual=added)
        return dataclasses.replace(layer, acc_shift=t)


def order_of(layer: FloatLayer) -> npt.NDArray[np.int32]:
    """Give which filter of the original network each filter is, int32 [M]."""
    if layer.filter_order is None:
        return np.arange(layer.geometry.filters, dtype=np.int32)
    return layer.filter_order


def quantise_values(values: Floats, dtype: ActDtype, scale: float) -> Ints:
    """Give round(values / scale) clipped to the type, as int64."""
    return np.clip(np.rint(values / scale), dtype.low, dtype.high).astype(np.int64)
