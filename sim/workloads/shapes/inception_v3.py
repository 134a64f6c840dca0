# SPDX-License-Identifier: Apache-2.0
"""Inception-v3 (Szegedy et al., arXiv:1512.00567), in the version that everybody trains.

Totals: 27,161,264 parameters with the auxiliary classifier of training, and 5.713 G MACs without it
(torchvision, ``Inception_V3_Weights.IMAGENET1K_V1.meta``). The letters of the modules are those
of torchvision.
"""

from sim.workloads.shapes.layer import NORM, LayerShape, Trunk

#: Kernels of 7 taps along a row and along a column, with their padding.
ROW7, COLUMN7 = ((1, 7), (0, 3)), ((7, 1), (3, 0))
ROW3, COLUMN3 = ((1, 3), (0, 1)), ((3, 1), (1, 0))


def inception_v3(*, auxiliary: bool = False) -> tuple[LayerShape, ...]:
    """Give 94 convolutions and a linear layer.

    Parameters
    ----------
    auxiliary : bool
        With the classifier on the side, which only training uses.
    """
    net = Trunk((299, 299, 3), per_filter=NORM)
    net.conv("1a", 32, 3, stride=2).conv("2a", 32, 3).conv("2b", 64, 3, padding=1).pool(3, 2)
    net.conv("3b", 80).conv("4a", 192, 3).pool(3, 2)
    for name, pooled in (("5b", 32), ("5c", 64), ("5d", 64)):
        _module_a(net, name, pooled)
    _module_b(net, "6a")
    for name, inner in (("6b", 128), ("6c", 160), ("6d", 160), ("6e", 192)):
        _module_c(net, name, inner)
    if auxiliary:
        side = net.branch().pool(5, 3)
        side.conv("aux.conv0", 128).conv("aux.conv1", 768, 5).linear("aux.fc", 1000)
    _module_d(net, "7a")
    for name in ("7b", "7c"):
        _module_e(net, name)
    net.mean().linear("fc", 1000, rectified=False)
    return tuple(net.layers)


def _join(net: Trunk, *branches: Trunk) -> None:
    """Put the branches' maps one behind the other."""
    height, width, _ = branches[0].shape
    net.shape = (height, width, sum(branch.shape[2] for branch in branches))


def _module_a(net: Trunk, name: str, pooled: int) -> None:
    one = net.branch().conv(f"{name}.1x1", 64)
    five = net.branch().conv(f"{name}.5x5_1", 48).conv(f"{name}.5x5_2", 64, 5, padding=2)
    three = net.branch().conv(f"{name}.3x3dbl_1", 64)
    three.conv(f"{name}.3x3dbl_2", 96, 3, padding=1).conv(f"{name}.3x3dbl_3", 96, 3, padding=1)
    pool = net.branch().conv(f"{name}.pool", pooled)
    _join(net, one, five, three, pool)


def _module_b(net: Trunk, name: str) -> None:
    three = net.branch().conv(f"{name}.3x3", 384, 3, stride=2)
    double = net.branch().conv(f"{name}.3x3dbl_1", 64).conv(f"{name}.3x3dbl_2", 96, 3, padding=1)
    double.conv(f"{name}.3x3dbl_3", 96, 3, stride=2)
    _join(net, three, double, net.branch().pool(3, 2))


def _module_c(net: Trunk, name: str, inner: int) -> None:
    one = net.branch().conv(f"{name}.1x1", 192)
    seven = net.branch().conv(f"{name}.7x7_1", inner)
    seven.conv(f"{name}.7x7_2", inner, ROW7[0], padding=ROW7[1])
    seven.conv(f"{name}.7x7_3", 192, COLUMN7[0], padding=COLUMN7[1])
    double = net.branch().conv(f"{name}.7x7dbl_1", inner)
    for number, (kernel, padding) in enumerate((COLUMN7, ROW7, COLUMN7), 2):
        double.conv(f"{name}.7x7dbl_{number}", inner, kernel, padding=padding)
    double.conv(f"{name}.7x7dbl_5", 192, ROW7[0], padding=ROW7[1])
    pool = net.branch().conv(f"{name}.pool", 192)
    _join(net, one, seven, double, pool)


def _module_d(net: Trunk, name: str) -> None:
    three = net.branch().conv(f"{name}.3x3_1", 192).conv(f"{name}.3x3_2", 320, 3, stride=2)
    seven = net.branch().conv(f"{name}.7x7x3_1", 192)
    seven.conv(f"{name}.7x7x3_2", 192, ROW7[0], padding=ROW7[1])
    seven.conv(f"{name}.7x7x3_3", 192, COLUMN7[0], padding=COLUMN7[1])
    seven.conv(f"{name}.7x7x3_4", 192, 3, stride=2)
    _join(net, three, seven, net.branch().pool(3, 2))


def _module_e(net: Trunk, name: str) -> None:
    one = net.branch().conv(f"{name}.1x1", 320)
    three = net.branch().conv(f"{name}.3x3_1", 384)
    double = net.branch().conv(f"{name}.3x3dbl_1", 448).conv(f"{name}.3x3dbl_2", 384, 3, padding=1)
    ends = [
        trunk.branch().conv(f"{name}.{kind}", 384, kernel, padding=padding)
        for trunk, prefix in ((three, "3x3_2"), (double, "3x3dbl_3"))
        for kind, (kernel, padding) in ((f"{prefix}a", ROW3), (f"{prefix}b", COLUMN3))
    ]
    pool = net.branch().conv(f"{name}.pool", 192)
    _join(net, one, *ends, pool)
