# SPDX-License-Identifier: Apache-2.0
"""The integers of :mod:`csp_algo.integers` as differentiable functions of float tensors.

The forward values are exactly those integers. Backwards, rounding counts as the identity
(straight through) and clipping passes gradients where nothing was clipped.
"""

from typing import Any

import torch

#: Integers of float32 and float64 whose sums are exact up to this size.
EXACT = {torch.float32: 1 << 24, torch.float64: 1 << 53}


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
        reach = 0
        if weights.numel():
            reach = int(weights.abs().sum(0).max()) * int(activations.abs().max())
        limit = 1 << (bits - 1)
        if t == 0 and reach < limit:
            # No prefix of any sum can saturate: the order of the additions does not matter.
            ctx.save_for_backward(activations, weights)
            exact = torch.float32 if reach <= EXACT[torch.float32] else torch.float64
            return (activations.to(exact) @ weights.to(exact)).double()
        shape = (len(activations), weights.shape[1])
        acc = torch.zeros(shape, dtype=torch.int32)
        last = torch.full(shape, -1, dtype=torch.int32)
        for block, start in enumerate(range(0, len(weights), period)):
            taps = slice(start, start + period)
            # A run is at most 32 · 255 · 127 < 2^24, all sums 65,535 · 255 · 127 < 2^31.
            run = (activations[:, taps] @ weights[taps]).to(torch.int32)
            wanted = acc + ((run + ((1 << t) >> 1)) >> t)
            acc = wanted.clamp(-limit, limit - 1)
            last.masked_fill_(acc != wanted, block)
        ctx.save_for_backward(activations, weights, last)
        return acc.double()

    @staticmethod
    def backward(
        ctx: Any, grad: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, None, None, None]:
        activations, weights, *clipped = ctx.saved_tensors
        grad = (ctx.factor * grad).to(weights.dtype)
        if not clipped or not bool((clipped[0] >= 0).any()):
            return grad @ weights.T, activations.T @ grad, None, None, None
        # What a clipped sum had before its last clipping does not show in the result.
        to_activations, to_weights = torch.zeros_like(activations), torch.zeros_like(weights)
        for block, start in enumerate(range(0, len(weights), ctx.period)):
            taps = slice(start, start + ctx.period)
            passed = grad * (clipped[0] < block)
            to_activations[:, taps] = passed @ weights[taps].T
            to_weights[taps] = activations[:, taps].T @ passed
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
    float64 [P, M] holding integers
    """
    return _PartialSums.apply(activations, weights, period, t, bits)
