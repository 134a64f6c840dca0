# SPDX-License-Identifier: Apache-2.0
"""Train, prune, quantise and save the project's residual Fashion-MNIST network.

``python -m csp_algo.train.fashion_mnist_resnet8 --out examples/fashion_mnist_resnet8`` does the
whole flow of :mod:`csp_algo.train.flow`.
"""

import sys
from collections import OrderedDict

import torch
from torch import nn

from csp_algo.train import commands, flow
from csp_algo.train.residual import BasicBlock

#: Share of zeros for each pruned layer. The thin first convolution and the last layer are exempt.
TARGETS = {
    "block1.conv1": 0.4,
    "block1.conv2": 0.4,
    "block2.conv1": 0.6,
    "block2.conv2": 0.7,
    "block2.shortcut": 0.4,
    "block3.conv1": 0.8,
    "block3.conv2": 0.85,
    "block3.shortcut": 0.5,
}


def build_model() -> nn.Sequential:
    """Give the untrained network, ResNet-8: a stem, three basic blocks, a mean, a linear layer.

    77,072 weights of convolutions and linear layers, 9.3 million multiply-accumulates an image.
    Input float[N, 1, 28, 28] in 0 … 1, output float[N, 10].
    """
    parts: list[tuple[str, nn.Module]] = [
        ("stem", nn.Conv2d(1, 16, 3, padding=1, bias=False)),
        ("norm", nn.BatchNorm2d(16)),
        ("relu", nn.ReLU(inplace=True)),
        ("block1", BasicBlock(16, 16)),
        ("block2", BasicBlock(16, 32, stride=2)),  # 28 → 14
        ("block3", BasicBlock(32, 64, stride=2)),  # 14 → 7
        ("mean", nn.AvgPool2d(7)),
        ("flatten", nn.Flatten()),
        ("linear", nn.Linear(64, 10)),
    ]
    return nn.Sequential(OrderedDict(parts)).to(memory_format=torch.channels_last)


def recipe() -> flow.Recipe:
    """Give what the flow needs to know of this network."""
    plan = flow.Plan(targets=TARGETS, epochs=(12, 6, 10))
    return flow.Recipe(name="fashion_mnist_resnet8", build=build_model, plan=plan)


if __name__ == "__main__":
    sys.exit(commands.train(recipe()))
