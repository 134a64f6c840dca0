# SPDX-License-Identifier: Apache-2.0
"""Train, prune, quantise and save a ResNet-20.

``python -m csp_algo.train.fashion_mnist_resnet20 --out build/resnet20`` does the whole flow of
:mod:`csp_algo.train.flow` on Fashion-MNIST; :func:`build_model` makes the network for 32×32 colour
images, too.
"""

import sys
from collections import OrderedDict

import torch
from torch import nn

from csp_algo.train import commands, flow
from csp_algo.train.residual import BasicBlock

#: Share of zeros; a later pattern overrides. The stem and the last layer are exempt.
TARGETS = {
    "block1?.conv?": 0.4,
    "block2?.conv?": 0.65,
    "block3?.conv?": 0.8,
    "block2?.shortcut": 0.4,
    "block3?.shortcut": 0.5,
}


def build_model(
    *, size: int = 28, channels: int = 1, classes: int = 10, width: int = 16, stride: int = 1
) -> nn.Sequential:
    """Give the untrained network: a stem, three stages of three basic blocks, a mean, a linear.

    The ResNet-20 of He et al. (CVPR 2016, doi 10.1109/CVPR.2016.90, section 4.2) with a 1×1
    convolution where a shortcut changes its shape.

    Parameters
    ----------
    size : int
        Side of the images in pixels.
    channels, classes : int
        Input float[N, channels, size, size], output float[N, classes].
    width : int
        Filters of the stem and of the first stage; each later stage has twice as many.
    stride : int
        Of the stem.
    """
    parts: list[tuple[str, nn.Module]] = [
        ("stem", nn.Conv2d(channels, width, 3, stride=stride, padding=1, bias=False)),
        ("norm", nn.BatchNorm2d(width)),
        ("relu", nn.ReLU(inplace=True)),
    ]
    inputs = width
    for stage, filters in enumerate((width, 2 * width, 4 * width), start=1):
        for number, letter in enumerate("abc"):
            block = BasicBlock(inputs, filters, stride=2 if stage > 1 and number == 0 else 1)
            parts.append((f"block{stage}{letter}", block))
            inputs = filters
    parts += [
        ("mean", nn.AvgPool2d(-(-size // (4 * stride)))),
        ("flatten", nn.Flatten()),
        ("linear", nn.Linear(inputs, classes)),
    ]
    return nn.Sequential(OrderedDict(parts)).to(memory_format=torch.channels_last)


def recipe() -> flow.Recipe:
    """Give what the flow needs to know of this network."""
    plan = flow.Plan(targets=TARGETS, epochs=(12, 6, 10))
    return flow.Recipe(name="fashion_mnist_resnet20", build=build_model, plan=plan)


if __name__ == "__main__":
    sys.exit(commands.train(recipe()))
