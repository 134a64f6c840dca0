# SPDX-License-Identifier: Apache-2.0
"""The integers of :mod:`csp_algo.integers` as differentiable functions of float tensors.

The forward values are exactly those integers. Backwards, rounding counts as the identity
(straight through) and clipping passes gradients where nothing was clipped.
"""

from typing import Any

import torch

#: Partial sums that are computed together: as many as a core's cache holds with their runs.
CACHED = 1 << 16


class _Nearest(torch.autograd.Function):
    @staticmethod
    def forward(_: Any, x: torch.Tensor) -> torch.Tensor:
        return torch.round(x)

    @staticmethod
    def backward(_: Any, grad: torch.Tensor) -> torch.Tensor:
        return grad


class _HalfUp(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, divisor: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(divisor)
        # The half of a divisor of 1 is no integer, and is not added.
        return torch.floor((x + torch.floor(divisor / 2)) / divisor)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None]:
        (divisor,) = ctx.saved_tensors
        return grad / divisor, None


class _Affine(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, acc: torch.Tensor, factor: torch.Tensor, offset: torch.Tensor
    ) -> torch.Tensor:
        ctx.save_for_backward(factor)
        return torch.addcmul(offset, acc.double(), factor).floor_().float()

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None, torch.Tensor]:
        (factor,) = ctx.saved_tensors
        to_offset = grad.reshape(-1, grad.shape[-1]).sum(0)
        return grad * factor.to(grad.dtype), None, to_offset.double()


class _PartialSums(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        activations: torch.Tensor,
        weights: torch.Tensor,
        period: int,
        t: int,
        bits: int,
    ) -> torch.Tensor:
        ctx.period, ctx.factor = period, 0.5**t
        # A run is at most 32 · 255 · 127 < 2^20, so it is exact in float32, divided by 2^t, too;
        # so is what a sum of 24 bits and a run make.
        scaled = weights * ctx.factor
        shape = (len(activations), weights.shape[1])
        acc = torch.zeros(shape, dtype=torch.float32 if bits <= 24 else torch.float64)
        last: torch.Tensor | None = None
        limit = 1 << (bits - 1)
        rows = max(1, CACHED // max(1, weights.shape[1]))
        for first in range(0, len(activations), rows):
            part = slice(first, first + rows)
            sums = acc[part]
            for block, start in enumerate(range(0, len(weights), period)):
                taps = slice(start, start + period)
                run = activations[part, taps] @ scaled[taps]
                if t:
                    run.add_(0.5).floor_()
                sums += run
                low, high = torch.stack(torch.aminmax(sums)).tolist()
                if low >= -limit and high < limit:
                    continue
                if last is None:
                    last = torch.full(shape, -1, dtype=torch.int32)
                last[part].masked_fill_((sums < -limit) | (sums >= limit), block)
                sums.clamp_(-limit, limit - 1)
        ctx.save_for_backward(activations, weights, *([] if last is None else [last]))
        return acc

    @staticmethod
    def backward(
        ctx: Any, grad: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, None, None, None]:
        activations, weights, *clipped = ctx.saved_tensors
        grad = (ctx.factor * grad).to(weights.dtype)
        if not clipped:
            return grad @ weights.T, activations.T @ grad, None, None, None
        (last,) = clipped
        whole = last < 0
        free = grad * whole
        to_activations, to_weights = free @ weights.T, activations.T @ free
        # What a clipped sum had before its last clipping does not show in the result. Few are.
        rows = (~whole).any(1).nonzero()[:, 0]
        grad = (grad * ~whole)[rows]
        last, activations = last[rows], activations[rows]
        more = torch.zeros_like(activations)
        for block, start in enumerate(range(0, len(weights), ctx.period)):
            taps = slice(start, start + ctx.period)
            passed = grad * (last < block)
            more[:, taps] = passed @ weights[taps].T
            to_weights[taps] += activations[:, taps].T @ passed
        to_activations.index_add_(0, rows, more)
        return to_activations, to_weights, None, None, None


def nearest(x: torch.Tensor) -> torch.Tensor:
    """Give x rounded to the nearest integer, halves to the even one."""
    return _Nearest.apply(x)


def half_up(x: torch.Tensor, divisor: torch.Tensor) -> torch.Tensor:
    """Give rhu(x, s) for divisor = 2^s; the gradient is that of x / 2^s.

    Parameters
    ----------
    x : float64 holding integers, |x| < 2^52
    divisor : float64, powers of two, broadcast with x
    """
    return _HalfUp.apply(x, divisor)


def affine(acc: torch.Tensor, factor: torch.Tensor, offset: torch.Tensor) -> torch.Tensor:
    """Give ⌊acc · factor + offset⌋; the gradient is that without rounding.

    Parameters
    ----------
    acc : float32 or float64 [..., M] holding integers
    factor, offset : float64 [M]
        Whole multiples of the same 2^−s, so that the product and the sum are exact: they have
        at most 53 bits.

    Returns
    -------
    float32 [..., M]
        Whole numbers; beyond 2^24 only nearly those.
    """
    return _Affine.apply(acc, factor, offset)


def partial_sums(
    activations: torch.Tensor, weights: torch.Tensor, *, period: int, t: int, bits: int
) -> torch.Tensor:
    """Give the partial sums of B bits after the last run, acc ← sat_B(acc + rhu(run, t)).

    The gradient is that of Σ run / 2^t over the runs after a sum's last clipping.

    Parameters
    ----------
    activations : float32 [P, J] holding integers of int8 or uint8
        Taps without weights may stand at the end; all others in blocks of ``period``.
    weights : float32 [J, M] holding integers −127 … 127
    period : int
        Surviving taps T of a block, at most 32.
    t : int
        Run shift.
    bits : int
        Width B of a partial sum, B + t ≤ 32.

    Returns
    -------
    float32 [P, M] holding integers; float64 for B > 24
    """
    return _PartialSums.apply(activations, weights, period, t, bits)
