# SPDX-License-Identifier: Apache-2.0
"""Train, prune, quantise and save a wider ResNet-20.

It is that of :mod:`csp_algo.train.fashion_mnist_resnet20` with twice the filters behind a stem of
stride 2: about as much to multiply, four times the weights.
"""

import sys

from torch import nn

from csp_algo.train import commands, fashion_mnist_resnet20, flow
from csp_algo.train.method import Method

#: Share of zeros; a later pattern overrides. The stem and the last layer are exempt.
TARGETS = {
    "block1?.conv?": 0.2,
    "block2?.conv?": 0.65,
    "block3?.conv?": 0.887,
    "block2?.shortcut": 0.4,
    "block3?.shortcut": 0.5,
}


def build_model() -> nn.Sequential:
    """Give the untrained network.

    1,080,864 weights of convolutions and linear layers, 34 million multiply-accumulates an image.
    Input float[N, 1, 28, 28] in 0 … 1, output float[N, 10].
    """
    return fashion_mnist_resnet20.build_model(width=32, stride=2)


def recipe() -> flow.Recipe:
    """Give what the flow needs to know of this network."""
    plan = flow.Plan(
        targets=TARGETS,
        period=32,
        strength=2e-3,
        method=Method.SEQUENTIAL,
        epochs=(2, 1, 20),
        shift=1,
        validation=10_000,
    )
    return flow.Recipe(name="fashion_mnist_resnet20_wide", build=build_model, plan=plan)


if __name__ == "__main__":
    sys.exit(commands.train(recipe()))
