# SPDX-License-Identifier: Apache-2.0
"""From a trained ``nn.Sequential`` to the float network that quantisation takes."""

import dataclasses

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from csp_algo.errors import CspError
from csp_algo.geometry import Geometry, flatten_order
from csp_algo.network import AvgPool, Flatten, Input, MaxPool
from csp_algo.quantize import (
    BatchNorm,
    FloatLayer,
    FloatNetwork,
    FloatNode,
    fold_batch_norm,
    multiplier,
)
from csp_algo.train.residual import BasicBlock


def to_float_network(model: nn.Sequential, source: Input, *, name: str) -> FloatNetwork:
    """Give the network with batch normalisation folded and taps in CSP's order.

    Takes convolutions and linear layers, each with an optional batch normalisation and then an
    optional ReLU after it, basic blocks, max and average pools, flattening, and dropout, which does
    nothing in inference. The layers of a block ``b`` are ``b.conv1``, ``b.conv2``, which adds the
    residual and is the block's output, and ``b.shortcut`` where that is no identity.

    Parameters
    ----------
    model : nn.Sequential
    source : Input
        Name, shape, type and scale of the images.

    Raises
    ------
    CspError
        A module, or a module's place or setting, cannot be expressed; the message names it.
    """
    modules = [(n, m) for n, m in model.named_children() if not isinstance(m, nn.Dropout)]
    nodes: list[FloatNode] = []
    shape, previous = source.shape, source.name
    flattened: tuple[int, int, int] | None = None
    while modules:
        label, module = modules.pop(0)
        if isinstance(module, nn.Conv2d | nn.Linear):
            norm = None
            if modules and isinstance(modules[0][1], nn.BatchNorm1d | nn.BatchNorm2d):
                norm = modules.pop(0)[1]
            relu = bool(modules) and isinstance(modules[0][1], nn.ReLU)
            if relu:
                modules.pop(0)
            layer = _layer(label, module, norm, relu, previous, shape, flattened)
            shape = layer.geometry.out_shape
            flattened = None
            nodes.append(layer)
        elif isinstance(module, BasicBlock):
            layers = _block(label, module, previous, shape)
            shape = layers[-1].geometry.out_shape
            nodes.extend(layers)
        elif isinstance(module, nn.MaxPool2d | nn.AvgPool2d):
            pool = _pool(label, module, previous, shape)
            shape = pool.out_shape(shape)
            nodes.append(pool)
        elif isinstance(module, nn.Flatten):
            if (module.start_dim, module.end_dim) != (1, -1):
                raise CspError(f"{label}: only a Flatten of all dimensions but the first")
            flattened = shape
            shape = (1, 1, shape[0] * shape[1] * shape[2])
            nodes.append(Flatten(name=label, input=previous))
        else:
            raise CspError(f"{label}: a {type(module).__name__} cannot stand here")
        previous = nodes[-1].name
    return FloatNetwork(name=name, input=source, nodes=tuple(nodes))


def _array(tensor: torch.Tensor) -> npt.NDArray[np.float64]:
    return np.asarray(tensor.detach().double().cpu().numpy(), dtype=np.float64)


def _pair(value: int | tuple[int, int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[1])


def _layer(
    label: str,
    module: nn.Conv2d | nn.Linear,
    norm: nn.BatchNorm1d | nn.BatchNorm2d | None,
    relu: bool,
    previous: str,
    shape: tuple[int, int, int],
    flattened: tuple[int, int, int] | None,
) -> FloatLayer:
    weights = _array(module.weight)
    if isinstance(module, nn.Conv2d):
        if isinstance(module.padding, str) or module.padding_mode != "zeros":
            raise CspError(f"{label}: padding {module.padding!r}, {module.padding_mode}")
        down, right = _pair(module.padding)
        geometry = Geometry(
            in_shape=shape,
            filters=module.out_channels,
            kernel=_pair(module.kernel_size),
            stride=_pair(module.stride),
            padding=(down, right, down, right),
            dilation=_pair(module.dilation),
            groups=module.groups,
        )
    else:
        geometry = Geometry(in_shape=shape, filters=module.out_features)
        if flattened is not None:
            weights = weights[:, flatten_order(flattened)]
    bias = None if module.bias is None else _array(module.bias)
    if norm is not None:
        weights, bias = fold_batch_norm(weights, bias, _batch_norm(norm, label))
    if bias is None:
        bias = np.zeros(geometry.filters)
    return FloatLayer(
        name=label, input=previous, geometry=geometry, weights=weights, bias=bias, relu=relu
    )


def _block(
    label: str, block: BasicBlock, previous: str, shape: tuple[int, int, int]
) -> list[FloatLayer]:
    first = _layer(f"{label}.conv1", block.conv1, block.norm1, True, previous, shape, None)
    inner = first.geometry.out_shape
    last = _layer(f"{label}.conv2", block.conv2, block.norm2, True, first.name, inner, None)
    if block.shortcut is None:
        return [first, dataclasses.replace(last, residual=previous)]
    side = _layer(f"{label}.shortcut", block.shortcut, block.norm, False, previous, shape, None)
    return [first, side, dataclasses.replace(last, residual=side.name)]


def _batch_norm(norm: nn.BatchNorm1d | nn.BatchNorm2d, label: str) -> BatchNorm:
    if norm.running_mean is None or norm.weight is None:
        raise CspError(f"{label}: batch normalisation needs running statistics, γ and β")
    return BatchNorm(
        gamma=_array(norm.weight),
        beta=_array(norm.bias),
        mean=_array(norm.running_mean),
        variance=_array(norm.running_var),
        epsilon=float(norm.eps),
    )


def _pool(
    label: str,
    module: nn.MaxPool2d | nn.AvgPool2d,
    previous: str,
    shape: tuple[int, int, int],
) -> MaxPool | AvgPool:
    down, right = _pair(module.padding)
    kernel, stride = _pair(module.kernel_size), _pair(module.stride)
    padding = (down, right, down, right)
    ceil_mode = bool(module.ceil_mode)
    if isinstance(module, nn.MaxPool2d):
        if _pair(module.dilation) != (1, 1):
            raise CspError(f"{label}: a max pool with dilation {module.dilation}")
        return MaxPool(
            name=label,
            input=previous,
            kernel=kernel,
            stride=stride,
            padding=padding,
            ceil_mode=ceil_mode,
        )
    if module.divisor_override is not None:
        raise CspError(f"{label}: an average pool with divisor {module.divisor_override}")
    pool = AvgPool(
        name=label,
        input=previous,
        kernel=kernel,
        stride=stride,
        padding=padding,
        ceil_mode=ceil_mode,
        count_include_pad=bool(module.count_include_pad),
        shift=0,
    )
    # The smallest divisor has the largest multiplier, which shall have all of its bits.
    _, shift = multiplier(1 / int(pool.divisors(shape).min()))
    return dataclasses.replace(pool, shift=shift)
