# SPDX-License-Identifier: Apache-2.0
"""The basic block of residual networks."""

import torch
from torch import nn


class BasicBlock(nn.Module):
    """ReLU(norm2(conv2(ReLU(norm1(conv1(x))))) + shortcut(x)) with 3×3 convolutions.

    The shortcut is the identity, or a 1×1 convolution and its batch normalisation where the number
    of channels or the size of the map changes.

    Parameters
    ----------
    inputs, filters : int
        Channels of the input and of the output.
    stride : int
        Of the first convolution and of the shortcut.
    """

    def __init__(self, inputs: int, filters: int, *, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, filters, 3, stride=stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(filters)
        self.conv2 = nn.Conv2d(filters, filters, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(filters)
        self.shortcut: nn.Conv2d | None = None
        self.norm: nn.BatchNorm2d | None = None
        if stride != 1 or inputs != filters:
            self.shortcut = nn.Conv2d(inputs, filters, 1, stride=stride, bias=False)
            self.norm = nn.BatchNorm2d(filters)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Give float[N, filters, ⌈H / stride⌉, ⌈W / stride⌉] for float[N, inputs, H, W]."""
        y = nn.functional.relu(self.norm1(self.conv1(x)), inplace=True)
        y = self.norm2(self.conv2(y))
        if self.shortcut is not None and self.norm is not None:
            x = self.norm(self.shortcut(x))
        return nn.functional.relu(y + x, inplace=True)
