# SPDX-License-Identifier: Apache-2.0
"""AlexNet (Krizhevsky, Sutskever and Hinton, NIPS 2012), and its later version with one tower.

Totals. Two towers: 666 M MACs and 2.3 M weights in the convolutions, 724 M and 61 M together (Sze
et al., Proc. IEEE 105(12), 2017, doi 10.1109/JPROC.2017.2761740, table of popular networks; from
memory). One tower (arXiv:1404.5997): 61,100,840 parameters and 0.714 G MACs (torchvision,
``AlexNet_Weights.IMAGENET1K_V1.meta``).
"""

from sim.workloads.shapes.layer import BIAS, LayerShape, Trunk


def alexnet() -> tuple[LayerShape, ...]:
    """Give AlexNet of 2012: 227 × 227 images, two towers that meet in conv3.

    The paper's 224 does not give its 55 × 55 map; 227 does.
    """
    net = Trunk((227, 227, 3), per_filter=BIAS)
    net.conv("conv1", 96, 11, stride=4).pool(3, 2)
    net.conv("conv2", 256, 5, padding=2, groups=2).pool(3, 2)
    net.conv("conv3", 384, 3, padding=1)
    net.conv("conv4", 384, 3, padding=1, groups=2)
    net.conv("conv5", 256, 3, padding=1, groups=2).pool(3, 2)
    return _classifier(net)


def alexnet_one_tower() -> tuple[LayerShape, ...]:
    """Give the version of 2014 that torchvision has: fewer filters, no groups."""
    net = Trunk((224, 224, 3), per_filter=BIAS)
    net.conv("conv1", 64, 11, stride=4, padding=2).pool(3, 2)
    net.conv("conv2", 192, 5, padding=2).pool(3, 2)
    net.conv("conv3", 384, 3, padding=1)
    net.conv("conv4", 256, 3, padding=1)
    net.conv("conv5", 256, 3, padding=1).pool(3, 2)
    return _classifier(net)


def _classifier(net: Trunk) -> tuple[LayerShape, ...]:
    net.linear("fc6", 4096).linear("fc7", 4096).linear("fc8", 1000, rectified=False)
    return tuple(net.layers)
