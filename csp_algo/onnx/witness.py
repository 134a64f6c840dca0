# SPDX-License-Identifier: Apache-2.0
"""What ONNX Runtime computes: every map of a network, of a graph's file."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import onnx
import onnx.helper

from csp_algo.onnx.importer import Imported
from csp_algo.onnx.runtime import Session

Floats = npt.NDArray[np.float64]


def run(
    imported: Imported, model: bytes, samples: Floats, names: list[str] | None = None
) -> Iterator[dict[str, Floats]]:
    """Give the maps of the values of a network as ONNX Runtime computes them, sample by sample.

    Parameters
    ----------
    imported : Imported
    model : bytes
        Its graph's file, or one with other weights.
    samples : float64 [N, …]
        In the layout of the graph's input.
    names : list of str, optional
        Values that are wanted, all nodes that the graph has, if not given.

    Yields
    ------
    dict of str to float64 [1, H, W, C]

    Raises
    ------
    CspError
        ONNX Runtime refuses the file.
    """
    tapped = onnx.load_model_from_string(model)
    wanted = names or [
        node.name for node in imported.network.nodes if node.name in imported.tensors
    ]
    tensors = [imported.tensors[name][0] for name in wanted]
    present = {item.name for item in tapped.graph.output}
    for tensor in dict.fromkeys(tensors):
        if tensor not in present:
            tapped.graph.output.append(onnx.helper.make_empty_tensor_value_info(tensor))
    session = Session(tapped.SerializeToString())
    batch, *shape = imported.graph.shape
    for sample in samples:
        feed = np.broadcast_to(sample, (batch, *shape)).astype(imported.graph.dtype)
        found = session.run(tensors, {imported.graph.input: feed})
        yield {
            name: imported.maps(name, np.asarray(values[:1], dtype=np.float64))
            for name, values in zip(wanted, found, strict=True)
        }
