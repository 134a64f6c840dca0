# SPDX-License-Identifier: Apache-2.0
"""Train, prune, quantise and save a wider Fashion-MNIST network.

It is that of :mod:`csp_algo.train.fashion_mnist` with four times the outputs of the first linear
layer. ``python -m csp_algo.train compare fashion_mnist_wide`` sets it beside dense networks of the
same budget.
"""

import sys

from torch import nn

from csp_algo.train import commands, fashion_mnist, flow
from csp_algo.train.method import Method

#: Share of zeros for each pruned layer. The thin first convolution and the last layer are exempt.
TARGETS = {"conv2": 0.1, "conv3": 0.2, "conv4": 0.3, "conv5": 0.5, "linear6": 0.87}


def build_model() -> nn.Sequential:
    """Give the untrained network.

    598,672 weights of convolutions and linear layers, 8 million multiply-accumulates an image.
    Input float[N, 1, 28, 28] in 0 … 1, output float[N, 10].
    """
    return fashion_mnist.build_model(hidden=512)


def recipe() -> flow.Recipe:
    """Give what the flow needs to know of this network."""
    plan = flow.Plan(
        targets=TARGETS,
        period=32,
        strength=2e-3,
        method=Method.PREFIX,
        epochs=(10, 4, 16),
        aware=1,
    )
    return flow.Recipe(name="fashion_mnist_wide", build=build_model, plan=plan)


if __name__ == "__main__":
    sys.exit(commands.train(recipe()))
