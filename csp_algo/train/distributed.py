# SPDX-License-Identifier: Apache-2.0
"""Training by several processes that ``torchrun`` starts, each on its part of every batch.

Sums over a batch are added in another order than in one process, nothing else differs: batch
normalisation takes its statistics from the whole batch (:func:`synchronise`), and all processes
draw the same chances.
"""

import contextlib
import dataclasses
import os
from collections.abc import Iterator
from typing import Any

import torch

# DistributedDataParallel imports it, and the group there is then becomes a default of its
# functions, for ever. Imported before there is a group, it keeps none.
import torch.distributed.nn.functional
from torch import distributed, nn

from csp_algo.errors import CspError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Group:
    """The processes that train together: one, unless ``torchrun`` started more.

    Attributes
    ----------
    rank, size : int
        Which one this is, and how many there are.
    """

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this process is the one that reports and writes."""
        return self.rank == 0

    def part(self, batch: torch.Tensor) -> torch.Tensor:
        """Give this process's part of a batch, every ``size``-th element."""
        return batch[self.rank :: self.size]

    def check_batch(self, batch: int) -> None:
        """Refuse a batch that cannot be divided evenly.

        Raises
        ------
        CspError
            The mean over processes would not be the mean over images.
        """
        if batch % self.size:
            raise CspError(f"a batch of {batch} images cannot be shared by {self.size} processes")

    def total(self, *values: float) -> list[float]:
        """Give sums over all processes, in float64."""
        if self.size == 1:
            return list(values)
        sums = torch.tensor(values, dtype=torch.float64)
        distributed.all_reduce(sums)
        return list(map(float, sums))

    def wrap(self, model: nn.Module) -> nn.Module:
        """Give the module to call in training: it averages gradients over the processes."""
        if self.size == 1:
            return model
        # Buffers are masks, constants, and statistics of whole batches: alike everywhere.
        return nn.parallel.DistributedDataParallel(model, broadcast_buffers=False)

    def wait(self) -> None:
        """Return when all processes are here."""
        if self.size > 1:
            distributed.barrier()


@contextlib.contextmanager
def joined() -> Iterator[Group]:
    """Join the processes that ``torchrun`` started, over gloo; alone, give a group of one.

    At its end gloo's threads have ended, too: one that holds a tensor of Python when the
    interpreter stops aborts the process (https://github.com/pytorch/pytorch/issues/190489).
    """
    size = _size()
    if size == 1:
        yield Group()
        return
    distributed.init_process_group("gloo")
    try:
        yield Group(rank=distributed.get_rank(), size=size)
    finally:
        distributed.destroy_process_group()


def alone(what: str) -> None:
    """Refuse to do something in one of several processes that ``torchrun`` started.

    Raises
    ------
    CspError
        There are several.
    """
    size = _size()
    if size > 1:
        raise CspError(f"{what} runs in one process, not in {size}")


def _size() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))


class _Total(torch.autograd.Function):
    """The sum over processes; what each makes of it adds to the gradient of all."""

    @staticmethod
    def forward(_: Any, x: torch.Tensor) -> torch.Tensor:
        total = x.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(_: Any, grad: torch.Tensor) -> torch.Tensor:
        total = grad.clone()
        distributed.all_reduce(total)
        return total


def _normalise(self: nn.BatchNorm1d | nn.BatchNorm2d, x: torch.Tensor) -> torch.Tensor:
    """Give what batch normalisation gives, with the statistics of all processes' batches."""
    axes = [axis for axis in range(x.ndim) if axis != 1]
    count = x.numel() // x.shape[1] * distributed.get_world_size()
    # Layers may give bfloat16; statistics stay float32, as PyTorch's own do.
    wide = x.to(self.running_mean.dtype)
    mean = _Total.apply(wide.sum(axes)) / count
    shape = (1, -1) + (1,) * (x.ndim - 2)
    centred = wide - mean.reshape(shape)
    variance = _Total.apply(centred.square().sum(axes)) / count
    with torch.no_grad():
        self.num_batches_tracked.add_(1)
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance * (count / (count - 1)), self.momentum)
    scaled = centred * torch.rsqrt(variance + self.eps).reshape(shape)
    return (scaled * self.weight.reshape(shape) + self.bias.reshape(shape)).to(x.dtype)


class _BatchNorm1d(nn.BatchNorm1d):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return _normalise(self, x) if self.training else super().forward(x)


class _BatchNorm2d(nn.BatchNorm2d):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return _normalise(self, x) if self.training else super().forward(x)


def synchronise(model: nn.Module, group: Group) -> None:
    """Let a model's batch normalisations see whole batches; PyTorch's own do so on GPUs only.

    Parameters
    ----------
    model : nn.Module
        Changed in place; nothing is changed where there is one process.
    group : Group
    """
    if group.size == 1:
        return
    kinds = {nn.BatchNorm1d: _BatchNorm1d, nn.BatchNorm2d: _BatchNorm2d}
    for module in model.modules():
        if type(module) in kinds:
            module.__class__ = kinds[type(module)]
