# SPDX-License-Identifier: Apache-2.0
"""From an ONNX file to the float network that is pruned and quantised."""

import dataclasses
import math
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from csp_algo.errors import CspError, located
from csp_algo.onnx.builder import Builder, Origin
from csp_algo.onnx.graph import DOMAINS, SHAPE_ONLY, Graph, label, load, title
from csp_algo.onnx.operators import OPERATORS
from csp_algo.onnx.runtime import Array
from csp_algo.onnx.views import Indices
from csp_algo.quantize import FloatLayer, FloatNetwork, FloatNode

#: Operators with weights: they are the work, and none of it may be left to the host unseen.
WEIGHTED = frozenset(
    {"Conv", "ConvInteger", "ConvTranspose", "Gemm", "GRU", "LSTM", "MatMul", "MatMulInteger"}
    | {"QLinearConv", "QLinearMatMul", "RNN"}
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class HostNode:
    """A node behind the core's output, which software computes."""

    name: str
    kind: str
    why: str


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Imported:
    """A graph as a network.

    Parameters
    ----------
    graph : Graph
    network : FloatNetwork
        With an input of int8 and scale 1: only samples say what it needs.
    constants : mapping of tensor name to array
        Initialisers, and what is computed of them and of shapes.
    origins : mapping of layer name to Origin
        Where weights are from; a layer that stands for a lone ReLU, sum or scale has none.
    tensors : mapping of value name to (tensor, int64 array)
        Which tensor of the graph holds the map, and the number in it of each of its elements.
    host : tuple of HostNode
        What stays on the host.
    """

    graph: Graph
    network: FloatNetwork
    constants: Mapping[str, Array]
    origins: Mapping[str, Origin]
    tensors: Mapping[str, tuple[str, Indices]]
    host: tuple[HostNode, ...]

    def maps(self, name: str, values: Array) -> Array:
        """Give a tensor's values [N, …] as the map [N, H, W, C] of a value."""
        _, index = self.tensors[name]
        shape = self.network.shapes()[name]
        flat = np.empty((len(values), math.prod(shape)), dtype=values.dtype)
        inside = index.ravel() >= 0  # a ReLU may have come behind a padding
        flat[:, index.ravel()[inside]] = values.reshape(len(values), -1)[:, inside]
        return flat.reshape(-1, *shape)


def import_graph(path: str | os.PathLike[str], *, name: str | None = None) -> Imported:
    """Read an ONNX file as a float network.

    Parameters
    ----------
    path : path
    name : str, optional
        Of the network; the graph's if not given.

    Raises
    ------
    CspError
        The file or a node cannot be expressed; the message names the file, the node and the value.
    """
    graph = load(path)
    with located(graph.path):
        return _Import(graph).result(name or graph.model.graph.name or "network")


class _Import:
    """Takes the nodes of a graph in, one after the other."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.build = Builder(graph)
        self.host: list[HostNode] = []
        self._hosted: set[str] = set()
        #: Values of the core that the host reads, and the tensors in which it does.
        self._read: dict[str, str] = {}

    def result(self, name: str) -> Imported:
        """Give the network."""
        for node in self.graph.nodes:
            with located(title(node)):
                self._take(node)
        if self.graph.output not in self._hosted:
            if not self.build.known(self.graph.output):
                raise CspError(f"the output {self.graph.output} does not depend on the input")
            with located(f"output {self.graph.output}"):
                self._leave_map(self.graph.output)
        if len(self._read) != 1:
            names = ", ".join(self._read)
            raise CspError(f"the host reads {len(self._read)} maps ({names}), only 1 is possible")
        nodes = self._wanted()
        if not any(isinstance(node, FloatLayer) for node in nodes.values()):
            raise CspError("the graph has no convolution and no linear layer")
        source = self.build.input
        kept = {source.name, *nodes}
        return Imported(
            graph=self.graph,
            network=FloatNetwork(name=name, input=source, nodes=tuple(nodes.values())),
            constants=self.build.constants,
            origins={key: each for key, each in self.build.origins.items() if key in kept},
            tensors={key: each for key, each in self.build.tensors.items() if key in kept},
            host=tuple(self.host),
        )

    def _wanted(self) -> dict[str, FloatNode]:
        """Give the nodes that the output depends on: of other maps only the shape is asked."""
        wanted = set(self._read)
        for node in reversed(self.build.nodes.values()):
            if node.name in wanted:
                wanted.update(node.sources)
        return {name: node for name, node in self.build.nodes.items() if name in wanted}

    def _take(self, node: Any) -> None:
        build = self.build
        hosted = self._hosted.intersection(node.input)
        maps = [name for name in node.input if build.known(name)]
        if not hosted and not maps:
            self._constant(node)
        elif node.op_type in SHAPE_ONLY and not hosted:
            shape = np.array([self.graph.shape[0], *build.view(node.input[0]).index.shape])
            source = {node.input[0]: np.empty(shape, dtype=np.bool_)}
            build.constants.update(self.graph.evaluate(node, source))
        elif hosted:
            self._leave(node, f"reads {', '.join(sorted(hosted))}", maps)
        elif node.domain not in DOMAINS or node.op_type not in OPERATORS:
            self._leave(node, "the core has no such operator", maps)
        else:
            OPERATORS[node.op_type](build, node)

    def _constant(self, node: Any) -> None:
        if not node.input and node.op_type != "Constant":
            raise CspError("the operator is not supported")
        if all(not name or name in self.build.constants for name in node.input):
            self.build.constants.update(self.graph.evaluate(node, self.build.constants))
            return
        raise CspError("reads something that nothing makes")

    def _leave(self, node: Any, why: str, maps: list[str]) -> None:
        """Leave a node to the host."""
        if node.op_type in WEIGHTED:
            if self.host:
                first = self.host[0]
                why = f"it is behind {first.name} ({first.kind}), which the core has not"
            raise CspError(f"cannot run on the core: {why}")
        self.host.append(HostNode(name=label(node), kind=node.op_type, why=why))
        self._hosted.update(node.output)
        for tensor in maps:
            self._leave_map(tensor)

    def _leave_map(self, tensor: str) -> None:
        """Let the host read a map; nothing would pad it."""
        view = self.build.view(tensor)
        view.check_whole()
        self._read[view.value] = tensor
