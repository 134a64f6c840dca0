# SPDX-License-Identifier: Apache-2.0
"""Train, prune, quantise and save the project's plain Fashion-MNIST network.

``python -m csp_algo.train.fashion_mnist --out examples/fashion_mnist`` does the whole flow of
:mod:`csp_algo.train.flow`.
"""

import sys
from collections import OrderedDict

import torch
from torch import nn

from csp_algo.train import commands, flow

#: Share of zeros for each pruned layer. The thin first convolution and the last layer are exempt.
TARGETS = {"conv2": 0.45, "conv3": 0.6, "conv4": 0.7, "conv5": 0.8, "linear6": 0.86}


def build_model(*, hidden: int = 128) -> nn.Sequential:
    """Give the untrained network: five 3×3 convolutions, three pools, two linear layers.

    201,616 weights of convolutions and linear layers, 8 million multiply-accumulates an image.
    Input float[N, 1, 28, 28] in 0 … 1, output float[N, 10].

    Parameters
    ----------
    hidden : int
        Outputs of the first linear layer.
    """
    parts: list[tuple[str, nn.Module]] = []

    def convolution(index: int, inputs: int, filters: int) -> None:
        conv = nn.Conv2d(inputs, filters, 3, padding=1, bias=False)
        parts.append((f"conv{index}", conv))
        parts.append((f"norm{index}", nn.BatchNorm2d(filters)))
        parts.append((f"relu{index}", nn.ReLU(inplace=True)))

    convolution(1, 1, 16)
    parts.append(("pool1", nn.MaxPool2d(2)))  # 28 → 14
    convolution(2, 16, 32)
    convolution(3, 32, 32)
    convolution(4, 32, 64)
    parts.append(("pool4", nn.MaxPool2d(2)))  # 14 → 7
    convolution(5, 64, 64)
    parts.append(("pool5", nn.MaxPool2d(2, ceil_mode=True)))  # 7 → 4
    parts.append(("flatten", nn.Flatten()))
    parts.append(("linear6", nn.Linear(4 * 4 * 64, hidden, bias=False)))
    parts.append(("norm6", nn.BatchNorm1d(hidden)))
    parts.append(("relu6", nn.ReLU(inplace=True)))
    parts.append(("linear7", nn.Linear(hidden, 10)))
    return nn.Sequential(OrderedDict(parts)).to(memory_format=torch.channels_last)


def recipe() -> flow.Recipe:
    """Give what the flow needs to know of this network."""
    plan = flow.Plan(targets=TARGETS)
    return flow.Recipe(name="fashion_mnist", build=build_model, plan=plan, samples=256)


if __name__ == "__main__":
    sys.exit(commands.train(recipe()))
