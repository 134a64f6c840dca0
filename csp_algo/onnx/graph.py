# SPDX-License-Identifier: Apache-2.0
"""An ONNX file: read, checked, and its constants known.

Constants are initialisers and whatever is computed of them alone; what asks for the shape of a map
is one of them, since all shapes are known. ONNX Runtime computes them.
"""

import dataclasses
import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import google.protobuf.message
import numpy as np
import onnx
import onnx.checker
import onnx.helper
import onnx.numpy_helper

from csp_algo.errors import CspError, located
from csp_algo.onnx.runtime import Array, Session

#: Nodes that ask for a map's shape, not for its elements.
SHAPE_ONLY = ("Shape", "Size")
#: Domains of the operators of ONNX itself.
DOMAINS = ("", "ai.onnx")
#: Oldest version of these operators that is read: before it, constants were broadcast otherwise.
OLDEST_OPSET = 7


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Graph:
    """A checked graph of one input and one output.

    Parameters
    ----------
    path : str
        The file.
    model : onnx.ModelProto
    nodes : tuple of onnx.NodeProto
        Those on which the output depends, in the order of the file.
    initialisers : mapping of str to array
    input : str
        Name of the input.
    shape : tuple of int
        Of the input, the batch first; 1 where the batch is dynamic.
    dtype : np.dtype
        Of the input.
    output : str
        Name of the output.
    """

    path: str
    model: Any
    nodes: tuple[Any, ...]
    initialisers: Mapping[str, Array]
    input: str
    shape: tuple[int, ...]
    dtype: np.dtype[np.floating]
    output: str

    def uses(self) -> Counter[str]:
        """Give how many times the elements of each tensor are read, by nodes or as the output."""
        readers = (node.input for node in self.nodes if node.op_type not in SHAPE_ONLY)
        return Counter([*(name for names in readers for name in names), self.output])

    def declared(self) -> dict[str, tuple[int | None, ...]]:
        """Give the shapes that the file tells of its tensors; None where an extent is dynamic."""
        infos = (*self.model.graph.value_info, *self.model.graph.output)
        return {info.name: _extents(info) for info in infos if _has_shape(info)}

    def evaluate(self, node: Any, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Give the outputs of a node whose inputs are constants.

        Raises
        ------
        CspError
            It cannot be computed.
        """
        names = [name for name in node.input if name]
        infos = [
            onnx.helper.make_tensor_value_info(
                name, onnx.helper.np_dtype_to_tensor_dtype(inputs[name].dtype), inputs[name].shape
            )
            for name in dict.fromkeys(names)
        ]
        outputs = [name for name in node.output if name]
        results = [onnx.helper.make_empty_tensor_value_info(name) for name in outputs]
        alone = onnx.helper.make_graph([node], "constant", infos, results)
        model = onnx.helper.make_model(alone, opset_imports=self.model.opset_import)
        model.ir_version = self.model.ir_version
        feed = {name: inputs[name] for name in names}
        found = Session(model.SerializeToString()).run(outputs, feed)
        return dict(zip(outputs, found, strict=True))


def title(node: Any) -> str:
    """Give what messages call a node: its name, or that of its output, and its operator."""
    kind = node.op_type if node.domain in DOMAINS else f"{node.domain}.{node.op_type}"
    return f"node {label(node)} ({kind})"


def label(node: Any) -> str:
    """Give the name of a node, or of its first output if it has none."""
    return str(node.name or next(iter(node.output), ""))


def attributes(node: Any) -> dict[str, Any]:
    """Give the attributes of a node; strings as str, lists as lists."""
    values = {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}
    return {
        name: value.decode(errors="replace") if isinstance(value, bytes) else value
        for name, value in values.items()
    }


def load(path: str | os.PathLike[str]) -> Graph:
    """Read a file and check it.

    Raises
    ------
    CspError
        It cannot be read, is no valid ONNX, of an old opset, or has other than one input and one
        output; an extent other than the batch is dynamic, or the input is no float. The message
        names the file.
    """
    with located(os.fspath(path)):
        model = _read(path)
        graph = model.graph
        arrays = {item.name: _array(item) for item in graph.initializer}
        inputs = [item for item in graph.input if item.name not in arrays]
        for what, items in (("inputs", inputs), ("outputs", graph.output)):
            if len(items) != 1:
                names = ", ".join(item.name for item in items)
                raise CspError(f"the graph has {len(items)} {what} ({names}), only 1 is possible")
        return Graph(
            path=os.fspath(path),
            model=model,
            nodes=tuple(_living(graph)),
            initialisers=arrays,
            input=inputs[0].name,
            shape=_input_shape(inputs[0]),
            dtype=onnx.helper.tensor_dtype_to_np_dtype(inputs[0].type.tensor_type.elem_type),
            output=graph.output[0].name,
        )


def _read(path: str | os.PathLike[str]) -> Any:
    if not Path(path).is_file():
        raise CspError("there is no such file")
    try:
        # Else the name's extension would tell the format.
        model = onnx.load(path, format="protobuf")
        onnx.checker.check_model(model)
    except (
        google.protobuf.message.DecodeError,
        onnx.checker.ValidationError,
        OSError,
        ValueError,
    ) as error:
        raise CspError(f"is no valid ONNX: {str(error).strip()[:300]}") from error
    opset = next((item.version for item in model.opset_import if item.domain in DOMAINS), 1)
    if opset < OLDEST_OPSET:
        raise CspError(f"has opset {opset}, at least {OLDEST_OPSET} is needed")
    return model


def _array(tensor: Any) -> Array:
    try:
        return np.asarray(onnx.numpy_helper.to_array(tensor))
    except (KeyError, ValueError, TypeError) as error:
        raise CspError(f"initialiser {tensor.name} cannot be read: {error}") from error


def _living(graph: Any) -> list[Any]:
    wanted = {item.name for item in graph.output}
    living: list[Any] = []
    for node in reversed(graph.node):
        if wanted.intersection(node.output):
            wanted.update(node.input)
            living.append(node)
    living.reverse()
    return living


def _has_shape(info: Any) -> bool:
    return bool(info.type.tensor_type.HasField("shape"))


def _extents(info: Any) -> tuple[int | None, ...]:
    dims = info.type.tensor_type.shape.dim
    return tuple(dim.dim_value if dim.HasField("dim_value") else None for dim in dims)


def _input_shape(info: Any) -> tuple[int, ...]:
    with located(f"input {info.name}"):
        kind = info.type.tensor_type.elem_type
        if kind not in (onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE, onnx.TensorProto.FLOAT16):
            names = {number: name.lower() for name, number in onnx.TensorProto.DataType.items()}
            raise CspError(f"must be float, not {names.get(kind, kind)}")
        shape = _extents(info)
        batch, *rest = shape or (None,)
        if not 1 <= len(rest) <= 3:
            raise CspError(f"has {len(shape)} dimensions, 2 … 4 are possible")
        extents = []
        for axis, extent in enumerate(rest, 1):
            if extent is None or extent < 1:
                name = info.type.tensor_type.shape.dim[axis].dim_param or "unknown"
                raise CspError(f"extent {axis} is dynamic ({name}), only the batch may be")
            extents.append(extent)
        return max(batch or 1, 1), *extents
