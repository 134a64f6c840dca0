# SPDX-License-Identifier: Apache-2.0
"""What each operator of ONNX is in a network of CSP.

Each function takes a node in; what it cannot express is a :class:`CspError` that names the value.
The operators are those of https://onnx.ai/onnx/operators.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx.helper

from csp_algo.errors import CspError
from csp_algo.geometry import STEP_LIMIT, Geometry, windows
from csp_algo.network import AvgPool, Concat, Flatten, MaxPool
from csp_algo.onnx.builder import Builder, Origin
from csp_algo.onnx.graph import attributes
from csp_algo.onnx.views import EDGE, LOWEST, ZERO, View, channels_first, joined
from csp_algo.quantize import BatchNorm, FloatLayer, fold_batch_norm, multiplier

Floats = npt.NDArray[np.float64]
Pads = tuple[int, int, int, int]


def convolution(build: Builder, node: Any) -> None:
    """Conv: two spatial dimensions, any stride, dilation, padding and groups."""
    settings = attributes(node)
    view = build.view(node.input[0])
    weights = build.number(node.input[1], "weight")
    if weights.ndim != 4:
        raise CspError(
            f"its weight has {weights.ndim} dimensions, only convolutions of 2 are possible"
        )
    kernel = (weights.shape[2], weights.shape[3])
    if tuple(settings.get("kernel_shape", kernel)) != kernel:
        raise CspError(f"kernel_shape is {settings['kernel_shape']}, its weight has {list(kernel)}")
    around, fill = view.padded()
    if fill != ZERO:
        raise CspError("reads a map that is padded with something other than 0")
    stride, dilation = _pair(settings, "strides"), _pair(settings, "dilations")
    extent = tuple((side - 1) * step + 1 for side, step in zip(kernel, dilation, strict=True))
    pads = _pads(settings, view.index.shape[1:], extent, stride)
    geometry = Geometry(
        in_shape=view.shape,
        filters=weights.shape[0],
        kernel=kernel,
        stride=stride,
        padding=_sum(around, pads),
        dilation=dilation,
        groups=settings.get("group", 1),
    )
    bias = np.zeros(len(weights))
    if len(node.input) > 2 and node.input[2]:
        bias = build.number(node.input[2], "bias")
    layer = FloatLayer(
        name=build.name(node),
        input=view.value,
        geometry=geometry,
        weights=weights,
        bias=bias,
        relu=False,
    )
    made = build.put(layer)
    index = np.arange(weights.size, dtype=np.int64).reshape(weights.shape)
    build.origins[layer.name] = Origin(tensor=node.input[1], index=index)
    build.define(node.output[0], made.moved(channels_first(made.shape)))


def gemm(build: Builder, node: Any) -> None:
    """Gemm: α·A·B + β·C with constant B and C, and A not transposed."""
    settings = attributes(node)
    if settings.get("transA", 0):
        raise CspError("transA is 1, only 0 is possible")
    weights = settings.get("alpha", 1.0) * build.number(node.input[1], "weight")
    transposed = bool(settings.get("transB", 0))
    bias: Floats = np.zeros(1)
    if len(node.input) > 2 and node.input[2]:
        bias = settings.get("beta", 1.0) * build.number(node.input[2], "bias")
    if weights.ndim != 2:
        raise CspError(f"its weight has {weights.ndim} dimensions, not 2")
    filters = weights.shape[0 if transposed else 1]
    if bias.size not in (1, filters):
        raise CspError(f"its bias has shape {list(bias.shape)}, not [{filters}]")
    view = build.view(node.input[0])
    if view.index.ndim != 1:
        raise CspError(f"reads a tensor of {view.index.ndim + 1} dimensions, not 2")
    bias = np.broadcast_to(bias.ravel(), (filters,)).copy()
    _linear(build, node, view, weights if transposed else weights.T, bias, transposed=transposed)


def matmul(build: Builder, node: Any) -> None:
    """MatMul of a map and a constant matrix."""
    weights = build.number(node.input[1], "weight")
    if weights.ndim != 2:
        raise CspError(f"its weight has {weights.ndim} dimensions, not 2")
    view = build.view(node.input[0])
    _linear(build, node, view, weights.T, np.zeros(weights.shape[1]), transposed=False)


def _linear(
    build: Builder, node: Any, view: View, weights: Floats, bias: Floats, *, transposed: bool
) -> None:
    """Add a linear layer of weights [M, inputs], on the last dimension of a tensor."""
    filters, inputs = weights.shape
    if view.index.shape[-1] != inputs:
        raise CspError(f"its weight has {inputs} inputs, its input {view.index.shape[-1]}")
    view.check_whole()
    lead, columns = view.index.shape[:-1], np.arange(inputs)
    if view.index.ndim == 1:
        columns = view.index
        if view.pixels > 1:
            view = build.put(Flatten(name=f"{build.name(node)}.flatten", input=view.value))
    elif (
        not np.array_equal(view.index.ravel(), np.arange(view.index.size))
        or inputs != view.channels
    ):
        raise CspError("reads a tensor whose last dimension is not the channels of a map")
    ordered = np.empty_like(weights)
    ordered[:, columns] = weights
    layer = FloatLayer(
        name=build.name(node),
        input=view.value,
        geometry=Geometry(in_shape=view.shape, filters=filters),
        weights=ordered,
        bias=bias,
        relu=False,
    )
    made = build.put(layer)
    index = np.arange(filters)[:, None] * inputs + columns
    origin = index if transposed else index.T
    build.origins[layer.name] = Origin(tensor=node.input[1], index=origin)
    build.define(node.output[0], made.moved(made.index.reshape(*lead, filters)))


def batch_normalisation(build: Builder, node: Any) -> None:
    """BatchNormalization in inference: a scale and an offset for each channel."""
    settings = attributes(node)
    if settings.get("training_mode", 0):
        raise CspError("training_mode is 1, only 0 is possible")
    view = build.view(node.input[0])
    names = ("scale", "bias", "mean", "variance")
    parts = {
        what: build.number(name, what) for what, name in zip(names, node.input[1:5], strict=True)
    }
    channels = view.index.shape[0]
    for what, values in parts.items():
        if values.shape != (channels,):
            raise CspError(f"its {what} has shape {list(values.shape)}, not [{channels}]")
    norm = BatchNorm(
        gamma=parts["scale"],
        beta=parts["bias"],
        mean=parts["mean"],
        variance=parts["variance"],
        epsilon=settings.get("epsilon", 1e-5),
    )
    factor, offset = fold_batch_norm(np.ones((channels, 1)), None, norm)
    aligned = (channels, *(1,) * (view.index.ndim - 1))
    factors = view.per_channel(factor.reshape(aligned))
    _affine(build, node, view, factors, view.per_channel(offset.reshape(aligned)))


def add(build: Builder, node: Any) -> None:
    """Add: of two maps, or of a map and a constant for each channel."""
    first, second = node.input
    if build.known(first) and build.known(second):
        _residual(build, node, build.view(first), build.view(second))
    else:
        view, constant = _operands(build, node)
        _affine(build, node, view, np.ones(view.channels), constant)


def subtract(build: Builder, node: Any) -> None:
    """Sub: of a map and a constant for each channel, either way round."""
    view, constant = _operands(build, node)
    sign = 1.0 if build.known(node.input[0]) else -1.0
    _affine(build, node, view, np.full(view.channels, sign), -sign * constant)


def multiply(build: Builder, node: Any) -> None:
    """Mul: of a map and a constant for each channel."""
    view, constant = _operands(build, node)
    _affine(build, node, view, constant, np.zeros(view.channels))


def divide(build: Builder, node: Any) -> None:
    """Div: of a map by a constant for each channel."""
    view, constant = _operands(build, node)
    if not build.known(node.input[0]):
        raise CspError("divides by a map")
    if not constant.all():
        raise CspError("divides by 0")
    _affine(build, node, view, 1 / constant, np.zeros(view.channels))


def _operands(build: Builder, node: Any) -> tuple[View, Floats]:
    """Give the map and the constant of each of its channels."""
    first, second = node.input
    map_, other = (first, second) if build.known(first) else (second, first)
    if build.known(other):
        raise CspError("reads two maps, only Add can")
    view, constant = build.view(map_), build.number(other, "constant")
    extra = constant.ndim - view.index.ndim
    if extra > 0 and any(extent != 1 for extent in constant.shape[:extra]):
        raise CspError(f"its constant {other} has shape {list(constant.shape)}")
    constant = constant.reshape(constant.shape[max(0, extra) :])
    try:
        values = np.broadcast_to(constant, view.index.shape)
    except ValueError as error:
        raise CspError(
            f"its constant {other} has shape {list(constant.shape)}, its input "
            f"{list(view.index.shape)} without the batch"
        ) from error
    return view, view.per_channel(values)


def _affine(build: Builder, node: Any, view: View, factor: Floats, offset: Floats) -> None:
    """Scale and move each channel, in the layer before it or in one of its own."""
    layer = build.growing(view)
    if layer is None or (layer.residual is not None and (factor != 1).any()):
        layer, view = build.identity(view, build.name(node))
    weights = layer.weights * factor.reshape(-1, *(1,) * (layer.weights.ndim - 1))
    build.change(dataclasses.replace(layer, weights=weights, bias=layer.bias * factor + offset))
    build.define(node.output[0], view)


def _residual(build: Builder, node: Any, first: View, second: View) -> None:
    """Add a map in the layer that makes the other one, or in one of its own."""
    if first.shape != second.shape or not np.array_equal(first.index, second.index):
        raise CspError("adds maps of different shape or layout")
    early, late = first, second
    if build.order([first.value])[0] > build.order([second.value])[0]:
        early, late = second, first
    for own, other in ((late, early), (early, late)):
        layer = build.growing(own)
        if layer is not None and layer.residual is None and own.value != other.value:
            break
    else:
        layer, own = build.identity(late, build.name(node))
        other = early
    # What only this sum reads may as well be computed just before it.
    build.change(dataclasses.replace(layer, residual=other.value), last=True)
    build.define(node.output[0], own)


def relu(build: Builder, node: Any) -> None:
    """Relu: of the layer before it, or in a layer of its own."""
    _rectify(build, node, build.view(node.input[0]))


def _rectify(build: Builder, node: Any, view: View) -> None:
    if build.rectified(view.value):
        build.define(node.output[0], view, made=False)
        return
    layer = build.growing(view)
    if layer is None:
        layer, view = build.identity(view, build.name(node))
    build.change(dataclasses.replace(layer, relu=True))
    build.define(node.output[0], view)


def max_pool(build: Builder, node: Any) -> None:
    """MaxPool without dilation and without indices."""
    if len(node.output) > 1 and node.output[1]:
        raise CspError("its indices are wanted")
    view = build.view(node.input[0])
    settings = _pool_settings(node)
    around, fill = view.padded()
    # Padding is below the kernel, so a window that holds a copy of the edge holds the edge, too.
    if any(around) and fill == ZERO and not build.rectified(view.value):
        raise CspError("reads a padded map that may be negative, so that padding could win")
    padding = _pool_padding(settings, view, around)
    _pooled(
        build,
        node,
        MaxPool(name=build.name(node), input=view.value, padding=padding, **_window(settings)),
    )


def average_pool(build: Builder, node: Any) -> None:
    """AveragePool without dilation."""
    view = build.view(node.input[0])
    settings = _pool_settings(node)
    around, fill = view.padded()
    padding = _pool_padding(settings, view, around)
    include = bool(settings.get("count_include_pad", 0))
    if any(around) and (fill != ZERO or (padding != around and not include)):
        raise CspError("reads a padded map and pads it in another way")
    _average(
        build,
        node,
        view,
        AvgPool(
            name=build.name(node),
            input=view.value,
            padding=padding,
            count_include_pad=include or any(around),
            shift=0,
            **_window(settings),
        ),
    )


def global_average(build: Builder, node: Any) -> None:
    """GlobalAveragePool: the mean of each channel."""
    view = build.view(node.input[0])
    if view.padded()[0] != (0, 0, 0, 0):
        raise CspError("reads a padded map")
    _average(build, node, view, _mean(build.name(node), view))


def reduce_mean(build: Builder, node: Any) -> None:
    """ReduceMean over all lines and columns of a map."""
    settings = attributes(node)
    view = build.view(node.input[0])
    view.check_whole()
    rank = view.index.ndim + 1
    axes = settings.get("axes")
    if axes is None and len(node.input) > 1 and node.input[1]:
        axes = build.number(node.input[1], "axes").astype(int).ravel().tolist()
    if axes is None:
        raise CspError("takes the mean of everything, the batch included")
    spatial = sorted(axis % rank - 1 for axis in axes)
    channel = view.index % view.channels
    count = math.prod(view.index.shape[axis] for axis in spatial if axis >= 0)
    kept = np.take(channel, [0], axis=spatial[0]) if spatial and spatial[0] >= 0 else channel
    for axis in spatial[1:]:
        kept = np.take(kept, [0], axis=axis)
    if -1 in spatial or count != view.pixels or (channel != kept).any():
        raise CspError(f"axes {list(axes)} are not the lines and columns of its map")
    if not settings.get("keepdims", 1):
        kept = kept.reshape(
            [extent for axis, extent in enumerate(kept.shape) if axis not in spatial]
        )
    _average(build, node, view, _mean(build.name(node), view), kept)


def _mean(name: str, view: View) -> AvgPool:
    sides = view.shape[:2]
    return AvgPool(
        name=name,
        input=view.value,
        kernel=sides,
        stride=sides,
        count_include_pad=False,
        shift=0,
    )


def _average(
    build: Builder, node: Any, view: View, pool: AvgPool, index: npt.NDArray[np.int64] | None = None
) -> None:
    # The smallest divisor has the largest multiplier, which shall have all of its bits.
    _, shift = multiplier(1 / int(pool.divisors(view.shape).min()))
    _pooled(build, node, dataclasses.replace(pool, shift=shift), index)


def _pooled(
    build: Builder,
    node: Any,
    pool: MaxPool | AvgPool,
    index: npt.NDArray[np.int64] | None = None,
) -> None:
    made = build.put(pool)
    build.define(node.output[0], made.moved(channels_first(made.shape) if index is None else index))


def _pool_settings(node: Any) -> dict[str, Any]:
    settings = attributes(node)
    kernel = settings.get("kernel_shape", [])
    if len(kernel) != 2:
        raise CspError(f"kernel_shape is {list(kernel)}, only 2 dimensions are possible")
    if any(step != 1 for step in settings.get("dilations", [])):
        raise CspError(f"dilations are {list(settings['dilations'])}, only 1 is possible in a pool")
    return settings


def _window(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "kernel": _pair(settings, "kernel_shape"),
        "stride": _pair(settings, "strides"),
        "ceil_mode": bool(settings.get("ceil_mode", 0)),
    }


def _pool_padding(settings: Mapping[str, Any], view: View, around: Pads) -> Pads:
    kernel, stride = _pair(settings, "kernel_shape"), _pair(settings, "strides")
    size = view.index.shape[1:]
    pads = _pads(settings, size, kernel, stride)
    padding = _sum(around, pads)
    if any(around) and settings.get("ceil_mode", 0):
        # To the graph what Pad puts behind the map is a part of it, where a window may start.
        wanted, found = (
            [
                windows(extents[axis], kernel[axis], stride[axis], *sides[axis::2], ceil_mode=True)
                for axis in (0, 1)
            ]
            for extents, sides in ((size, pads), (view.shape, padding))
        )
        if wanted != found:
            raise CspError(f"reads a padded map and rounds up to {wanted} windows, not {found}")
    return padding


def _pair(settings: Mapping[str, Any], name: str) -> tuple[int, int]:
    values = settings.get(name, (1, 1))
    if len(values) != 2:
        raise CspError(f"{name} are {list(values)}, only 2 dimensions are possible")
    if min(values) < 1:
        raise CspError(f"{name} are {list(values)}, not above 0")
    return int(values[0]), int(values[1])


def _sum(one: Pads, other: Pads) -> Pads:
    return (one[0] + other[0], one[1] + other[1], one[2] + other[2], one[3] + other[3])


def _pads(
    settings: Mapping[str, Any],
    size: Sequence[int],
    extent: Sequence[int],
    stride: tuple[int, int],
) -> Pads:
    """Give the padding (top, left, bottom, right) that an operator asks for."""
    auto = settings.get("auto_pad", "NOTSET")
    if auto == "NOTSET":
        pads = settings.get("pads", (0, 0, 0, 0))
        if len(pads) != 4:
            raise CspError(f"pads are {list(pads)}, only 2 dimensions are possible")
        return int(pads[0]), int(pads[1]), int(pads[2]), int(pads[3])
    if auto == "VALID":
        return 0, 0, 0, 0
    if auto not in ("SAME_UPPER", "SAME_LOWER"):
        raise CspError(f"auto_pad is {auto}")
    before, after = [], []
    for axis in (0, 1):
        total = max(
            0, (-(-size[axis] // stride[axis]) - 1) * stride[axis] + extent[axis] - size[axis]
        )
        less, more = total // 2, total - total // 2
        before.append(less if auto == "SAME_UPPER" else more)
        after.append(more if auto == "SAME_UPPER" else less)
    return before[0], before[1], after[0], after[1]


def concatenation(build: Builder, node: Any) -> None:
    """Concat along the channels."""
    views = [build.view(name) for name in node.input]
    axis = attributes(node)["axis"]
    rank = views[0].index.ndim
    if axis % (rank + 1) == 0:
        raise CspError(f"axis {axis} is the batch")
    if any(view.index.ndim == 1 and view.pixels > 1 for view in views):
        raise CspError("joins flattened maps")
    index = joined(views, axis % (rank + 1) - 1)
    made = build.put(Concat(name=build.name(node), inputs=tuple(view.value for view in views)))
    build.define(node.output[0], made.moved(index))


def pad(build: Builder, node: Any) -> None:
    """Pad with zeros, or before a MaxPool with the lowest number or with the map's edge."""
    settings = attributes(node)
    view = build.view(node.input[0])
    rank = view.index.ndim + 1
    mode = settings.get("mode", "constant")
    if mode not in ("constant", "edge"):
        raise CspError(f"mode is {mode}, only constant and edge are possible")
    if len(node.input) > 3 and node.input[3]:
        raise CspError("axes are given")
    if len(node.input) > 1:
        pads = build.number(node.input[1], "pads").astype(int)
    else:
        pads = np.asarray(settings["pads"])
    value = settings.get("value", 0.0)
    if len(node.input) > 2 and node.input[2]:
        value = float(build.constant(node.input[2], "value").ravel()[0])
    valid = pads.size == 2 * rank and pads.min() >= 0 and pads.max() <= STEP_LIMIT
    if not valid or pads[0] or pads[rank]:
        raise CspError(f"pads are {pads.tolist()}, 0 … {STEP_LIMIT} are possible but for the batch")
    fill = EDGE if mode == "edge" else ZERO if value == 0 else LOWEST
    if fill == LOWEST and value > float(np.finfo(np.float16).min):
        raise CspError(f"pads with {value:g}, only 0 and the lowest number are possible")
    widths = list(zip(pads[1:rank].tolist(), pads[rank + 1 :].tolist(), strict=True))
    build.define(
        node.output[0], view.moved(np.pad(view.index, widths, constant_values=fill)), made=False
    )


def transpose(build: Builder, node: Any) -> None:
    """Transpose: the batch stays the first dimension."""
    view = build.view(node.input[0])
    rank = view.index.ndim + 1
    perm = list(attributes(node).get("perm", range(rank - 1, -1, -1)))
    if perm[0] != 0 or sorted(perm) != list(range(rank)):
        raise CspError(f"perm {perm} moves the batch")
    index = view.index.transpose([axis - 1 for axis in perm[1:]])
    build.define(node.output[0], view.moved(index), made=False)


def reshape(build: Builder, node: Any) -> None:
    """Reshape: the batch stays the first dimension."""
    view = build.view(node.input[0])
    target = build.number(node.input[1], "shape").astype(int).ravel().tolist()
    shape = (build.graph.shape[0], *view.index.shape)
    if not attributes(node).get("allowzero", 0):
        kept = (*shape, *(0,) * len(target))
        target = [kept[axis] if extent == 0 else extent for axis, extent in enumerate(target)]
    rest = -math.prod(target) if target.count(-1) == 1 else 0
    if rest and math.prod(shape) % rest == 0:
        target = [math.prod(shape) // rest if extent == -1 else extent for extent in target]
    _reshaped(build, node, view, target)


def flatten(build: Builder, node: Any) -> None:
    """Flatten: all dimensions but the batch become one."""
    view = build.view(node.input[0])
    axis = attributes(node).get("axis", 1)
    if axis not in (1, -view.index.ndim):
        raise CspError(f"axis is {axis}, only 1 is possible")
    build.define(node.output[0], view.moved(view.index.ravel()), made=False)


def squeeze(build: Builder, node: Any) -> None:
    """Squeeze: dimensions of 1 go."""
    view = build.view(node.input[0])
    rank = view.index.ndim + 1
    axes = _axes(build, node)
    gone = {axis % rank for axis in axes} if axes else None
    shape = [build.graph.shape[0], *view.index.shape]
    kept = [
        extent
        for axis, extent in enumerate(shape)
        if axis == 0 or (extent != 1 if gone is None else axis not in gone)
    ]
    if gone is not None and 0 in gone:
        raise CspError("takes the batch away")
    _reshaped(build, node, view, kept)


def unsqueeze(build: Builder, node: Any) -> None:
    """Unsqueeze: dimensions of 1 come."""
    view = build.view(node.input[0])
    axes = _axes(build, node)
    rank = view.index.ndim + 1 + len(axes)
    new = {axis % rank for axis in axes}
    if len(new) < len(axes):
        raise CspError(f"axes {axes} name a dimension twice")
    if 0 in new:
        raise CspError("puts a dimension before the batch")
    rest = iter([build.graph.shape[0], *view.index.shape])
    _reshaped(build, node, view, [1 if axis in new else next(rest) for axis in range(rank)])


def _axes(build: Builder, node: Any) -> list[int]:
    axes = attributes(node).get("axes")
    if axes is None and len(node.input) > 1 and node.input[1]:
        axes = build.number(node.input[1], "axes").astype(int).ravel().tolist()
    return list(axes or [])


def _reshaped(build: Builder, node: Any, view: View, shape: list[int]) -> None:
    batch = build.graph.shape[0]
    if not shape or shape[0] != batch or math.prod(shape[1:]) != view.index.size:
        raise CspError(f"shape {shape} does not keep the batch of {batch} first")
    build.define(node.output[0], view.moved(view.index.reshape(shape[1:])), made=False)


def same(build: Builder, node: Any) -> None:
    """Take what passes its input on, in inference: Identity, Dropout, Cast between floats."""
    if node.op_type == "Dropout":
        if len(node.output) > 1 and node.output[1]:
            raise CspError("its mask is wanted")
        if (
            len(node.input) > 2
            and node.input[2]
            and build.constant(node.input[2], "training_mode").any()
        ):
            raise CspError("training_mode is 1, only 0 is possible")
    if node.op_type == "Cast" and attributes(node)["to"] not in (1, 10, 11, 16):
        raise CspError("casts a map to something other than float")
    build.define(node.output[0], build.view(node.input[0]), made=False)


def quantise_linear(build: Builder, node: Any) -> None:
    """QuantizeLinear with one scale: a type that starts at the zero point is a ReLU as well.

    Its rounding and its upper limit are left out: scales are chosen anew.
    """
    view = build.view(node.input[0])
    scale = build.number(node.input[1], "scale")
    if scale.size != 1:
        raise CspError(f"has {scale.size} scales, only 1 is possible for a map")
    kind = attributes(node).get("output_dtype", 0) or onnx.TensorProto.UINT8
    point = np.zeros(1, dtype=onnx.helper.tensor_dtype_to_np_dtype(kind))
    if len(node.input) > 2 and node.input[2]:
        point = build.constant(node.input[2], "zero point")
    if point.size != 1 or point.dtype.kind not in "iu":
        raise CspError(f"its zero point is {point.dtype} {list(point.shape)}, not one integer")
    zero, low = int(point.ravel()[0]), int(np.iinfo(point.dtype).min)
    build.quantised[node.output[0]] = (float(scale.ravel()[0]), zero)
    if zero == low:
        _rectify(build, node, view)
    else:
        build.define(node.output[0], view, made=False)


def dequantise_linear(build: Builder, node: Any) -> None:
    """DequantizeLinear of a map, with the scale and zero point it was quantised with."""
    view = build.view(node.input[0])
    if node.input[0] not in build.quantised:
        raise CspError("reads a map that no QuantizeLinear makes")
    scale, zero = build.quantised[node.input[0]]
    own = float(build.number(node.input[1], "scale").ravel()[0])
    point = np.zeros(1)
    if len(node.input) > 2 and node.input[2]:
        point = build.constant(node.input[2], "zero point")
    if (own, int(point.ravel()[0])) != (scale, zero):
        raise CspError(f"has another scale or zero point than the map ({scale:g}, {zero})")
    build.define(node.output[0], view, made=False)


OPERATORS: Mapping[str, Callable[[Builder, Any], None]] = {
    "Add": add,
    "AveragePool": average_pool,
    "BatchNormalization": batch_normalisation,
    "Cast": same,
    "Concat": concatenation,
    "Conv": convolution,
    "DequantizeLinear": dequantise_linear,
    "Div": divide,
    "Dropout": same,
    "Flatten": flatten,
    "Gemm": gemm,
    "GlobalAveragePool": global_average,
    "Identity": same,
    "MatMul": matmul,
    "MaxPool": max_pool,
    "Mul": multiply,
    "Pad": pad,
    "QuantizeLinear": quantise_linear,
    "ReduceMean": reduce_mean,
    "Relu": relu,
    "Reshape": reshape,
    "Squeeze": squeeze,
    "Sub": subtract,
    "Transpose": transpose,
    "Unsqueeze": unsqueeze,
}
