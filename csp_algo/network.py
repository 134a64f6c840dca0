# SPDX-License-Identifier: Apache-2.0
"""A network as the accelerator runs it: a checked graph of integer layers.

Every object checks itself when it is made, so whoever holds a :class:`Network` may rely on it.
"""

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from csp_algo.compress import CompressedMatrix
from csp_algo.errors import CspError, check_int, check_ints, located
from csp_algo.geometry import (
    COLS_LIMIT,
    PERIOD_LIMIT,
    STEP_LIMIT,
    Geometry,
    Scalar,
    check_map,
    patches,
    windows,
)
from csp_algo.integers import ACC_SHIFT_LIMIT, MULT_HIGH, MULT_LOW, SHIFT_LIMIT, ActDtype

Shape = tuple[int, int, int]

#: Longest name of a network or of a value.
NAME_LIMIT = 200


class Value(NamedTuple):
    """What is known of a feature map: its shape (H, W, C), type and scale (real = scale · q)."""

    shape: Shape
    dtype: ActDtype
    scale: float


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Input:
    """The images: [N, H, W, C] of int8 or uint8 with a scale."""

    name: str
    shape: Shape
    dtype: ActDtype
    scale: float

    def __post_init__(self) -> None:
        _check_name(self.name)
        with located(f"input {self.name}"):
            check_map("shape", self.shape)
            _check_dtype(self.dtype)
            _check_scale(self.scale)
            if self.dtype is ActDtype.INT32:
                raise CspError("dtype must be int8 or uint8, not int32")

    @property
    def value(self) -> Value:
        """Shape, type and scale."""
        return Value(self.shape, self.dtype, self.scale)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Residual:
    """A map that is added to a layer's output as rhu(r · mult, shift)."""

    input: str
    mult: int
    shift: int

    def __post_init__(self) -> None:
        _check_name(self.input)
        with located(f"residual {self.input}"):
            check_int("mult", self.mult, 0, MULT_HIGH)
            check_int("shift", self.shift, 0, SHIFT_LIMIT)
            if 0 < self.mult < MULT_LOW:
                raise CspError(f"mult must be 0 or {MULT_LOW} … {MULT_HIGH}, not {self.mult}")


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Layer:
    """A convolution or linear layer with its requantisation.

    Parameters
    ----------
    name, input : str
        Names of the output and of the input.
    geometry : Geometry
    matrices : tuple of CompressedMatrix
        One for each group.
    acc_shift : int
        Run shift t, 0 … 15.
    bias : int32 [M]
    mult : uint16 [M]
        2^15 … 2^16 − 1, or 0 for a dead filter.
    shift : uint8 [M]
        0 … 47.
    relu : bool
    dtype : ActDtype
        Type of the output; INT32 is v itself, without ReLU and residual.
    filter_order : int32 [M]
        Which filter of the original network each filter is: a permutation.
    scale : float
        Scale of the output.
    residual : Residual, optional

    Raises
    ------
    CspError
        The message names the layer, the field and the value.
    """

    name: str
    input: str
    geometry: Geometry
    matrices: tuple[CompressedMatrix, ...]
    acc_shift: int
    bias: npt.NDArray[np.int32]
    mult: npt.NDArray[np.uint16]
    shift: npt.NDArray[np.uint8]
    relu: bool
    dtype: ActDtype
    filter_order: npt.NDArray[np.int32]
    scale: float
    residual: Residual | None = None

    def __post_init__(self) -> None:
        _check_name(self.name)
        _check_name(self.input)
        with located(f"layer {self.name}"):
            check_int("acc_shift", self.acc_shift, 0, ACC_SHIFT_LIMIT)
            _check_bool("relu", self.relu)
            _check_dtype(self.dtype)
            _check_scale(self.scale)
            if self.dtype is ActDtype.INT32 and (self.relu or self.residual is not None):
                raise CspError("an int32 output takes neither ReLU nor a residual")
            self._check_matrices()
            self._check_arrays()

    def _check_matrices(self) -> None:
        shape = self.geometry
        if len(self.matrices) != shape.groups:
            raise CspError(f"there are {len(self.matrices)} matrices for {shape.groups} groups")
        for group, matrix in enumerate(self.matrices):
            size = [matrix.filters, matrix.taps]
            if size != [shape.group_filters, shape.taps]:
                raise CspError(
                    f"matrix {group} is {size}, not [{shape.group_filters}, {shape.taps}]"
                )

    def _check_arrays(self) -> None:
        dtypes = {"bias": "int32", "mult": "uint16", "shift": "uint8", "filter_order": "int32"}
        for name, dtype in dtypes.items():
            array = getattr(self, name)
            if array.dtype != dtype or array.shape != (self.geometry.filters,):
                raise CspError(
                    f"{name} must be {dtype} [{self.geometry.filters}], "
                    f"not {array.dtype} {list(array.shape)}"
                )
        wrong = np.flatnonzero((self.mult > 0) & (self.mult < MULT_LOW))
        if wrong.size:
            raise CspError(
                f"mult of filter {wrong[0]} must be 0 or {MULT_LOW} … {MULT_HIGH}, "
                f"not {self.mult[wrong[0]]}"
            )
        wrong = np.flatnonzero(self.shift > SHIFT_LIMIT)
        if wrong.size:
            raise CspError(
                f"shift of filter {wrong[0]} must be 0 … {SHIFT_LIMIT}, not {self.shift[wrong[0]]}"
            )
        wrong = np.flatnonzero(np.sort(self.filter_order) != np.arange(self.geometry.filters))
        if wrong.size:
            raise CspError(f"filter_order is not a permutation of 0 … {self.geometry.filters - 1}")

    @property
    def sources(self) -> tuple[str, ...]:
        """Names of the inputs, the residual last."""
        return (self.input,) if self.residual is None else (self.input, self.residual.input)

    def output(self, inputs: tuple[Value, ...]) -> Value:
        """Give the output for these inputs."""
        if inputs[0].shape != self.geometry.in_shape:
            raise CspError(
                f"the input {self.input} has shape {inputs[0].shape}, not {self.geometry.in_shape}"
            )
        if self.residual is not None and inputs[1].shape != self.geometry.out_shape:
            raise CspError(
                f"the residual {self.residual.input} has shape {inputs[1].shape}, "
                f"not {self.geometry.out_shape}"
            )
        return Value(self.geometry.out_shape, self.dtype, self.scale)

    def weights(self) -> npt.NDArray[np.int8]:
        """Give the weights, int8 [groups, M / groups, J]."""
        return np.stack([matrix.decompress() for matrix in self.matrices])


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Pool:
    """What both kinds of pooling share; the output keeps the type and scale of the input.

    Parameters
    ----------
    kernel, stride : (y, x)
    padding : (top, left, bottom, right)
        Less than the kernel on each side, so that every window holds an element.
    ceil_mode : bool
        Whether a last, partial window counts if it starts inside the map or the padding before.
    """

    name: str
    input: str
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    ceil_mode: bool = False

    def __post_init__(self) -> None:
        _check_name(self.name)
        _check_name(self.input)
        with located(f"pool {self.name}"):
            check_ints("kernel", self.kernel, 2, 1, STEP_LIMIT)
            check_ints("stride", self.stride, 2, 1, STEP_LIMIT)
            check_ints("padding", self.padding, 4, 0, STEP_LIMIT)
            _check_bool("ceil_mode", self.ceil_mode)
            for axis in (0, 1):
                if max(self.padding[axis::2]) >= self.kernel[axis]:
                    raise CspError(f"padding {self.padding} must be below the kernel {self.kernel}")

    @property
    def sources(self) -> tuple[str, ...]:
        """Names of the inputs."""
        return (self.input,)

    def out_shape(self, shape: Shape) -> Shape:
        """Give (Ho, Wo, C) for (H, W, C)."""
        return self._count(shape, 0), self._count(shape, 1), shape[2]

    def output(self, inputs: tuple[Value, ...]) -> Value:
        """Give the output for this input."""
        return inputs[0]._replace(shape=self.out_shape(inputs[0].shape))

    def unfold(self, x: npt.NDArray[Scalar], fill: int) -> npt.NDArray[Scalar]:
        """Give the windows [N, Ho, Wo, R, S, C] of a map [N, H, W, C], ``fill`` outside of it."""
        out = self.out_shape(x.shape[1:])[:2]
        pads = [(0, 0)]
        for axis in (0, 1):
            before = self.padding[axis]
            end = (out[axis] - 1) * self.stride[axis] + self.kernel[axis] - before
            pads.append((before, max(0, end - x.shape[1 + axis])))
        padded = np.pad(x, [*pads, (0, 0)], constant_values=fill)
        return patches(padded, out, self.kernel, self.stride)

    def _count(self, shape: Shape, axis: int) -> int:
        before, after = self.padding[axis::2]
        count = windows(
            shape[axis],
            self.kernel[axis],
            self.stride[axis],
            before,
            after,
            ceil_mode=self.ceil_mode,
        )
        if count < 1:
            raise CspError(f"a kernel {self.kernel} does not fit the map {shape}")
        return count


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class MaxPool(Pool):
    """The largest element of each window; padding never wins."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class AvgPool(Pool):
    """The mean of each window: rhu(Σ · pmult, shift), pmult = round(2^shift / divisor).

    Parameters
    ----------
    count_include_pad : bool
        Whether the divisor counts padding too (not what a partial window has beyond it).
    shift : int
        0 … 47, such that pmult is 1 … 2^16 − 1 for every divisor.
    """

    count_include_pad: bool
    shift: int

    def __post_init__(self) -> None:
        super().__post_init__()
        with located(f"pool {self.name}"):
            _check_bool("count_include_pad", self.count_include_pad)
            check_int("shift", self.shift, 0, SHIFT_LIMIT)

    def output(self, inputs: tuple[Value, ...]) -> Value:
        """Give the output for this input."""
        self.multipliers(inputs[0].shape)
        return super().output(inputs)

    def divisors(self, shape: Shape) -> npt.NDArray[np.int64]:
        """Give the divisor of each window, int64 [Ho, Wo], for a map (H, W, C)."""
        rows, cols = self._covered(shape, 0), self._covered(shape, 1)
        return np.outer(rows, cols)

    def multipliers(self, shape: Shape) -> npt.NDArray[np.int64]:
        """Give pmult of each window, int64 [Ho, Wo], for a map (H, W, C).

        Raises
        ------
        CspError
            One is not 1 … 2^16 − 1.
        """
        divisors = self.divisors(shape)
        mults = ((1 << (self.shift + 1)) + divisors) // (2 * divisors)
        for mult in (int(mults.min()), int(mults.max())):
            if not 1 <= mult <= MULT_HIGH:
                raise CspError(f"shift {self.shift} makes pmult {mult}, not 1 … {MULT_HIGH}")
        return mults

    def _covered(self, shape: Shape, axis: int) -> npt.NDArray[np.int64]:
        before, after = self.padding[axis::2]
        starts = np.arange(self._count(shape, axis), dtype=np.int64) * self.stride[axis] - before
        ends = starts + self.kernel[axis]
        low, high = (-before, shape[axis] + after) if self.count_include_pad else (0, shape[axis])
        return np.minimum(ends, high) - np.maximum(starts, low)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Concat:
    """Maps of one height, width, type and scale, one after the other along the channels."""

    name: str
    inputs: tuple[str, ...]

    def __post_init__(self) -> None:
        _check_name(self.name)
        with located(f"concat {self.name}"):
            if not self.inputs:
                raise CspError("there are no inputs")
            for name in self.inputs:
                _check_name(name)

    @property
    def sources(self) -> tuple[str, ...]:
        """Names of the inputs."""
        return self.inputs

    def output(self, inputs: tuple[Value, ...]) -> Value:
        """Give the output for these inputs."""
        first = inputs[0]
        for name, value in zip(self.inputs, inputs, strict=True):
            if (value.shape[:2], value[1:]) != (first.shape[:2], first[1:]):
                raise CspError(f"input {name} is {_text(value)}, input 0 is {_text(first)}")
        channels = sum(value.shape[2] for value in inputs)
        return first._replace(shape=(*first.shape[:2], channels))


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Flatten:
    """(H, W, C) as (1, 1, H·W·C), in the order (y, x, c)."""

    name: str
    input: str

    def __post_init__(self) -> None:
        _check_name(self.name)
        _check_name(self.input)

    @property
    def sources(self) -> tuple[str, ...]:
        """Names of the inputs."""
        return (self.input,)

    def output(self, inputs: tuple[Value, ...]) -> Value:
        """Give the output for this input."""
        return inputs[0]._replace(shape=(1, 1, math.prod(inputs[0].shape)))


Node = Layer | MaxPool | AvgPool | Concat | Flatten


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Network:
    """A checked graph.

    Parameters
    ----------
    name : str
    input : Input
    nodes : tuple of nodes
        In an order in which each reads only earlier ones; the last one is the output.
    cols, period : int
        Filters of a chunk and T, those of every matrix.
    metadata : dict of str to str
        Free text: where the network comes from, its accuracy …

    Raises
    ------
    CspError
        The message names the network, the node and the value.
    """

    name: str
    input: Input
    nodes: tuple[Node, ...]
    cols: int
    period: int
    metadata: dict[str, str] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_name(self.name)
        with located(f"network {self.name}"):
            check_int("cols", self.cols, 1, COLS_LIMIT)
            check_int("period", self.period, 1, PERIOD_LIMIT)
            for item in (*self.metadata, *self.metadata.values()):
                _check_text(item)
            if not self.nodes:
                raise CspError("there are no nodes")
            for layer in self.layers():
                with located(f"layer {layer.name}"):
                    self._check_matrices(layer)
            _ = self.values

    def _check_matrices(self, layer: Layer) -> None:
        for group, matrix in enumerate(layer.matrices):
            if (matrix.cols, matrix.period) != (self.cols, self.period):
                raise CspError(
                    f"matrix {group} has cols {matrix.cols} and period {matrix.period}, "
                    f"the network {self.cols} and {self.period}"
                )

    @functools.cached_property
    def values(self) -> Mapping[str, Value]:
        """What is known of each feature map, in the order of the nodes, the input first."""
        values = {self.input.name: self.input.value}
        for node in self.nodes:
            if node.name in values:
                raise CspError(f"two values have the name {node.name}")
            with located(f"{type(node).__name__.lower()} {node.name}"):
                for source in node.sources:
                    if source not in values:
                        raise CspError(f"reads {source}, which no earlier node makes")
                    if values[source].dtype is ActDtype.INT32:
                        raise CspError(f"reads {source}, which is int32 and can only be an output")
                value = node.output(tuple(values[source] for source in node.sources))
                check_map("output", value.shape)
                values[node.name] = value
        return values

    @property
    def output(self) -> Node:
        """The last node."""
        return self.nodes[-1]

    def layers(self) -> tuple[Layer, ...]:
        """Give the nodes that are layers."""
        return tuple(node for node in self.nodes if isinstance(node, Layer))

    def shapes(self) -> dict[str, Shape]:
        """Give the shape (H, W, C) of each feature map."""
        return {name: value.shape for name, value in self.values.items()}

    def dtypes(self) -> dict[str, ActDtype]:
        """Give the type of each feature map."""
        return {name: value.dtype for name, value in self.values.items()}

    def scales(self) -> dict[str, float]:
        """Give the scale of each feature map."""
        return {name: value.scale for name, value in self.values.items()}


def _text(value: Value) -> str:
    return f"{value.shape} {value.dtype.value} of scale {value.scale:g}"


def _check_name(name: object) -> None:
    if not isinstance(name, str) or not 0 < len(name) <= NAME_LIMIT or not name.isprintable():
        raise CspError(f"a name must be 1 … {NAME_LIMIT} printable characters, not {name!r:.80}")


def _check_text(value: object) -> None:
    # Control characters could play tricks on the terminal that shows them.
    if not isinstance(value, str) or not value.replace("\n", " ").isprintable():
        raise CspError(f"metadata must be printable text, not {value!r:.80}")


def _check_bool(name: str, value: object) -> None:
    if not isinstance(value, bool):
        raise CspError(f"{name} must be a bool, not {value!r}")


def _check_dtype(value: object) -> None:
    if not isinstance(value, ActDtype):
        raise CspError(f"dtype must be an ActDtype, not {value!r}")


def _check_scale(value: object) -> None:
    if not isinstance(value, float) or not math.isfinite(value) or value <= 0:
        raise CspError(f"scale must be a finite float above 0, not {value!r}")
