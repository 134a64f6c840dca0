# SPDX-License-Identifier: Apache-2.0
"""ResNet-50 (He et al., arXiv:1512.03385).

Totals: 25,557,032 parameters and 4.089 G MACs with the stride in the 3 × 3 convolution
(torchvision, ``ResNet50_Weights.IMAGENET1K_V1.meta``); 3.86 G in the convolutions with the stride
in the first 1 × 1, as in the paper (Sze et al. 2017, doi 10.1109/JPROC.2017.2761740; from
memory).
"""

from sim.workloads.shapes.layer import NORM, LayerShape, Trunk

#: Bottleneck blocks of each stage.
BLOCKS = (3, 4, 6, 3)
#: A bottleneck's output has so many times its inner filters.
EXPANSION = 4


def resnet50(*, stride_in_kernel: bool = True) -> tuple[LayerShape, ...]:
    """Give 53 convolutions and a linear layer.

    Parameters
    ----------
    stride_in_kernel : bool
        A stage's stride is in its first 3 × 3 convolution, as everybody trains it now; else in the
        1 × 1 before it, as in the paper.
    """
    net = Trunk((224, 224, 3), per_filter=NORM)
    net.conv("conv1", 64, 7, stride=2, padding=3).pool(3, 2, padding=1)
    for stage, blocks in enumerate(BLOCKS, 2):
        filters = 64 * 2 ** (stage - 2)
        for block in range(1, blocks + 1):
            stride = 2 if stage > 2 and block == 1 else 1
            name = f"conv{stage}_{block}"
            shortcut = net.branch()
            net.conv(f"{name}_reduce", filters, stride=1 if stride_in_kernel else stride)
            net.conv(
                f"{name}_conv", filters, 3, stride=stride if stride_in_kernel else 1, padding=1
            )
            if block == 1:
                shortcut.conv(f"{name}_shortcut", EXPANSION * filters, stride=stride)
            net.conv(f"{name}_expand", EXPANSION * filters)
    net.mean().linear("linear", 1000, rectified=False)
    return tuple(net.layers)
