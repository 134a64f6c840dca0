# SPDX-License-Identifier: Apache-2.0
"""VGG-16 (Simonyan and Zisserman, arXiv:1409.1556, configuration D).

Totals: 138,357,544 parameters and 15.47 G MACs (torchvision, ``VGG16_Weights.IMAGENET1K_V1.meta``).
"""

from sim.workloads.shapes.layer import BIAS, LayerShape, Trunk
from sim.workloads.vgg16 import BLOCKS


def vgg16() -> tuple[LayerShape, ...]:
    """Give thirteen convolutions and three linear layers."""
    net = Trunk((224, 224, 3), per_filter=BIAS)
    for block, (count, filters) in enumerate(BLOCKS, 1):
        for number in range(1, count + 1):
            net.conv(f"conv{block}_{number}", filters, 3, padding=1)
        net.pool(2, 2)
    net.linear("fc6", 4096).linear("fc7", 4096).linear("fc8", 1000, rectified=False)
    return tuple(net.layers)
