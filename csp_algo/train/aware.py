# SPDX-License-Identifier: Apache-2.0
"""Quantisation-aware training: the integer network itself, with straight-through gradients.

:class:`AwareNetwork` computes what the accelerator computes, with partial sums that are shifted by
t and saturated to B bits after each run of T taps, so that training sees what truncation does.
Weights and biases are trained; scales, multipliers and run shifts stay as quantisation chose them.
What is zero stays zero, so a cascade stays one.
"""

import dataclasses
from typing import Any

import numpy as np
import torch
from torch import nn

from csp_algo.compress import WEIGHT_LIMIT, compress
from csp_algo.errors import CspError, check_int
from csp_algo.integers import RESIDUAL_BITS, ActDtype
from csp_algo.network import AvgPool, Concat, Flatten, Layer, MaxPool, Network, Node, Pool, Value
from csp_algo.quantize import ACC_BITS, BIAS_LIMIT, FloatLayer, FloatNetwork, weight_scales
from csp_algo.train.layers import from_matrices
from csp_algo.train.straight import affine, half_up, nearest, partial_sums

#: Integers of float32 whose sums are exact, in any order, up to this size.
FLOAT32_EXACT = 1 << 24


class AwareNetwork(nn.Module):
    """An integer network that can be trained.

    Parameters
    ----------
    floats : FloatNetwork
        Weights and biases to start from.
    network : Network
        What :func:`csp_algo.quantize.quantise` made of it.
    acc_bits : int
        Width B of a partial sum.

    Raises
    ------
    CspError
        The two have other layers, or B + t > 32 in one; the message names it.
    """

    def __init__(self, floats: FloatNetwork, network: Network, *, acc_bits: int) -> None:
        super().__init__()
        check_int("acc_bits", acc_bits, *ACC_BITS)
        self.network = network
        sources = {node.name: node for node in floats.nodes if isinstance(node, FloatLayer)}
        values = network.values
        # Names of layers may hold dots, names of modules may not: a list, in order.
        self.layers = nn.ModuleList()
        self.places: dict[str, int] = {}
        for layer in network.layers():
            if layer.name not in sources:
                raise CspError(f"layer {layer.name} is not in the float network {floats.name}")
            if acc_bits + layer.acc_shift > 32:
                raise CspError(
                    f"layer {layer.name}: acc_bits {acc_bits} and acc_shift {layer.acc_shift} "
                    "make more than 32 bits"
                )
            self.places[layer.name] = len(self.layers)
            in_scale = values[layer.input].scale
            self.layers.append(AwareLayer(sources[layer.name], layer, in_scale, acc_bits))

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Give the output's real values, float32 [N, values], for real images [N, C, H, W]."""
        source = self.network.input
        levels = nearest(pixels.double() / source.scale)
        levels = levels.clamp(source.dtype.low, source.dtype.high)
        maps = self.maps(levels.permute(0, 2, 3, 1).float())
        output = self.network.output.name
        return (maps[output].flatten(1) * self.network.values[output].scale).float()

    def maps(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Give the integers of every map, floats [N, H, W, C], for integer images in float32."""
        values = self.network.values
        maps = {self.network.input.name: images}
        for node in self.network.nodes:
            inputs = [maps[source] for source in node.sources]
            if isinstance(node, Layer):
                maps[node.name] = self.layers[self.places[node.name]](*inputs)
            else:
                maps[node.name] = _other(node, inputs, values[node.name])
        return maps

    def zeros(self) -> float:
        """Give the share of zero integers in the weights, in percent."""
        with torch.no_grad():
            weights = [layer.integers() for layer in self.layers]
            zero = sum(int((weight == 0).sum()) for weight in weights)
        return 100 * zero / sum(weight.numel() for weight in weights)

    def export(self) -> Network:
        """Give the integer network with the weights and biases as they are now."""
        nodes = tuple(
            self.layers[self.places[node.name]].export(self.network.cols, self.network.period)
            if isinstance(node, Layer)
            else node
            for node in self.network.nodes
        )
        return dataclasses.replace(self.network, nodes=nodes)


class AwareLayer(nn.Module):
    """One layer of :class:`AwareNetwork`.

    Parameters
    ----------
    floats : FloatLayer
    layer : Layer
    in_scale : float
        Scale of the layer's input.
    acc_bits : int
        Width B of a partial sum.
    """

    def __init__(self, floats: FloatLayer, layer: Layer, in_scale: float, acc_bits: int) -> None:
        super().__init__()
        self.layer, self.acc_bits = layer, acc_bits
        matrices = floats.matrices
        logits = layer.dtype is ActDtype.INT32
        flat = matrices.reshape(layer.geometry.filters, -1)
        scales = weight_scales(flat, floats.bias, in_scale, per_filter=not logits)
        scales = np.where(scales > 0, scales, 1.0)
        # In float64, so that the integers to start from are those of quantisation.
        self.weight = nn.Parameter(torch.from_numpy(matrices.copy()))
        self.bias = nn.Parameter(torch.from_numpy(floats.bias.astype(np.float64)))
        self.register_buffer("scale", torch.from_numpy(scales.reshape(*matrices.shape[:2], 1)))
        self.register_buffer("unit", torch.from_numpy(scales * in_scale))
        self.register_buffer("mask", torch.from_numpy(matrices != 0))
        self.register_buffer("mult", torch.from_numpy(layer.mult.astype(np.float64)))
        self.register_buffer("divisor", torch.from_numpy(np.exp2(layer.shift.astype(np.float64))))

    def integers(self) -> torch.Tensor:
        """Give the weights as integers in float64, [groups, M / groups, J]."""
        levels = nearest(self.weight / self.scale).clamp(-WEIGHT_LIMIT, WEIGHT_LIMIT)
        return levels * self.mask

    def forward(self, x: torch.Tensor, residual: torch.Tensor | None = None) -> torch.Tensor:
        """Give the outputs [N, Ho, Wo, M] as integers in floats: float64 of logits, else float32.

        Parameters
        ----------
        x : float32 [N, H, W, C] holding integers
        residual : float32 [N, Ho, Wo, M], if the layer adds one
        """
        layer = self.layer
        sums = self._sums(x)
        if layer.dtype is ActDtype.INT32:
            v = sums.double() * 2.0**layer.acc_shift + self._bias()
            return v.clamp(layer.dtype.low, layer.dtype.high)
        # rhu(v · mult, s) = ⌊(acc · 2^t + bias) · mult / 2^s + ½⌋, without the ½ at s = 0.
        ratio = self.mult / self.divisor
        offset = self._bias() * ratio + torch.where(self.divisor > 1, 0.5, 0.0)
        z = affine(sums, ratio * 2.0**layer.acc_shift, offset)
        if residual is not None and layer.residual is not None:
            limit = 1 << (RESIDUAL_BITS - 1)
            divisor = torch.tensor(2.0**layer.residual.shift, dtype=torch.float64)
            added = half_up(residual.double() * layer.residual.mult, divisor)
            z = z.clamp(-limit, limit - 1) + added.float()
        return z.clamp(0 if layer.relu else layer.dtype.low, layer.dtype.high)

    def export(self, cols: int, period: int) -> Layer:
        """Give the layer with the weights and biases as they are now."""
        with torch.no_grad():
            weights = self.integers().numpy().astype(np.int8)
            bias = self._bias().numpy().astype(np.int32)
        matrices = tuple(compress(matrix, cols, period) for matrix in weights)
        return dataclasses.replace(self.layer, matrices=matrices, bias=bias)

    def _bias(self) -> torch.Tensor:
        return nearest(self.bias / self.unit).clamp(-BIAS_LIMIT, BIAS_LIMIT)

    def _sums(self, x: torch.Tensor) -> torch.Tensor:
        """Give the partial sums after the last run, [N, Ho, Wo, M]."""
        integers = self.integers()
        with torch.no_grad():
            reach = int(integers.abs().sum(2).max()) * int(x.abs().max()) if x.numel() else 0
        if self.layer.acc_shift == 0 and reach < 1 << (self.acc_bits - 1):
            # No prefix of any sum can saturate: the order of the additions does not matter.
            kind = torch.float32 if reach <= FLOAT32_EXACT else torch.float64
            return self._convolution(x.to(kind), integers.to(kind))
        return self._blocks(x, integers.float())

    def _blocks(self, x: torch.Tensor, integers: torch.Tensor) -> torch.Tensor:
        """Give the sums [N, Ho, Wo, M] of a layer, block after block."""
        shape = self.layer.geometry
        windows = _windows(
            x, shape.out_shape[:2], shape.kernel, shape.stride, shape.padding, shape.dilation
        )
        # [N, Ho, Wo, R·S, C] → [groups, P, J]
        split = windows.reshape(*windows.shape[:4], shape.groups, shape.group_channels)
        pixels = split.permute(4, 0, 1, 2, 3, 5).reshape(shape.groups, -1, shape.taps)
        sums = [
            self._group(part, weights, kept)
            for part, weights, kept in zip(pixels, integers, self.mask.any(1), strict=True)
        ]
        return torch.cat(sums, dim=1).reshape(len(x), *shape.out_shape)

    def _convolution(self, x: torch.Tensor, integers: torch.Tensor) -> torch.Tensor:
        """Give the sums [N, Ho, Wo, M] of a layer in which nothing saturates."""
        shape = self.layer.geometry
        top, left, bottom, right = shape.padding
        weights = from_matrices(integers, (shape.filters, shape.group_channels, *shape.kernel))
        sums = nn.functional.conv2d(
            nn.functional.pad(x, (0, 0, left, right, top, bottom)).permute(0, 3, 1, 2),
            weights,
            stride=shape.stride,
            dilation=shape.dilation,
            groups=shape.groups,
        )
        return sums.permute(0, 2, 3, 1)

    def _group(
        self, pixels: torch.Tensor, weights: torch.Tensor, kept: torch.Tensor
    ) -> torch.Tensor:
        """Give the partial sums [P, M] of one group."""
        survives = (weights != 0).any(0)
        # Taps that rounding made zero belong to no block: behind the last one they add nothing,
        # but gradients still reach them.
        order = torch.cat([survives.nonzero()[:, 0], (kept & ~survives).nonzero()[:, 0]])
        return partial_sums(
            pixels.index_select(1, order),
            weights.index_select(1, order).T,
            period=self.layer.matrices[0].period,
            t=self.layer.acc_shift,
            bits=self.acc_bits,
        )


def _windows(
    x: torch.Tensor,
    out: tuple[int, int],
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int, int, int],
    dilation: tuple[int, int] = (1, 1),
) -> torch.Tensor:
    """Give the windows [N, Ho, Wo, R·S, C] of a map [N, H, W, C], 0 outside of it."""
    top, left, bottom, right = padding
    padded = nn.functional.pad(x, (0, 0, left, right, top, bottom))
    places = []
    for row in range(kernel[0]):
        for column in range(kernel[1]):
            y, z = row * dilation[0], column * dilation[1]
            down = slice(y, y + (out[0] - 1) * stride[0] + 1, stride[0])
            along = slice(z, z + (out[1] - 1) * stride[1] + 1, stride[1])
            places.append((down, along))
    return _Windows.apply(padded, places)


class _Windows(torch.autograd.Function):
    """Gathers taps; autograd's own way back makes a whole map of zeros for each of them."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, places: list[tuple[slice, slice]]) -> torch.Tensor:
        ctx.shape, ctx.places = x.shape, places
        return torch.stack([x[:, down, along] for down, along in places], dim=3)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None]:
        total = grad.new_zeros(ctx.shape)
        for tap, (down, along) in enumerate(ctx.places):
            total[:, down, along] += grad[:, :, :, tap]
        return total, None


def _padded(node: Pool, x: torch.Tensor, *, fill: float) -> torch.Tensor:
    """Give a map [N, H, W, C] with all that a pool's windows reach, ``fill`` outside of it."""
    height, width, channels = x.shape[1:]
    out = node.out_shape((height, width, channels))
    top, left = node.padding[:2]
    # A last, partial window reaches beyond the padding.
    bottom, right = (
        max(0, (out[axis] - 1) * node.stride[axis] + node.kernel[axis] - node.padding[axis] - size)
        for axis, size in enumerate((height, width))
    )
    return nn.functional.pad(x, (0, 0, left, right, top, bottom), value=fill)


def _pool_windows(node: Pool, x: torch.Tensor) -> torch.Tensor:
    out = node.out_shape((x.shape[1], x.shape[2], x.shape[3]))
    padded = _padded(node, x, fill=0)
    return _windows(padded, out[:2], node.kernel, node.stride, (0, 0, 0, 0))


def _other(node: Node, inputs: list[torch.Tensor], value: Value) -> torch.Tensor:
    """Give the values of a node that is no layer."""
    x = inputs[0]
    if isinstance(node, MaxPool):
        # Every window holds an element, so what is below all never wins.
        padded = _padded(node, x, fill=value.dtype.low).permute(0, 3, 1, 2)
        return nn.functional.max_pool2d(padded, node.kernel, node.stride).permute(0, 2, 3, 1)
    if isinstance(node, AvgPool):
        height, width, channels = x.shape[1:]
        mults = torch.from_numpy(node.multipliers((height, width, channels)))[:, :, None]
        total = _pool_windows(node, x.double()).sum(dim=3)
        mean = half_up(total * mults, torch.tensor(2.0**node.shift, dtype=torch.float64))
        return mean.clamp(value.dtype.low, value.dtype.high).float()
    if isinstance(node, Concat):
        return torch.cat(inputs, dim=3)
    if isinstance(node, Flatten):
        return x.reshape(len(x), 1, 1, -1)
    raise TypeError(f"unknown node {node!r}")  # pragma: no cover (the union is complete)
