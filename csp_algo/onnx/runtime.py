# SPDX-License-Identifier: Apache-2.0
"""ONNX Runtime: graphs computed by others."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime

from csp_algo.errors import CspError

Array = npt.NDArray[Any]

#: Only what is fatal is printed; errors are raised, and said once.
_SILENT = 4
#: Its errors are of a dozen classes whose only common base is Exception.
_ERRORS: tuple[type[Exception], ...] = (
    RuntimeError,
    ValueError,
    TypeError,
    *(
        value
        for value in vars(onnxruntime.capi.onnxruntime_pybind11_state).values()
        if isinstance(value, type) and issubclass(value, Exception)
    ),
)


class Session:
    """A graph that is ready to run.

    Parameters
    ----------
    model : bytes
        The contents of an ONNX file.

    Raises
    ------
    CspError
        ONNX Runtime refuses it.
    """

    def __init__(self, model: bytes) -> None:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = _SILENT
        # Graphs are computed as they stand: some optimisations lose tensors that are outputs.
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        self._session = _attempt(
            lambda: onnxruntime.InferenceSession(
                model, options, providers=["CPUExecutionProvider"], enable_fallback=0
            )
        )

    def run(self, outputs: Sequence[str], inputs: dict[str, Array]) -> list[Array]:
        """Give some outputs.

        Raises
        ------
        CspError
            The graph cannot be computed.
        """
        return [
            np.asarray(each) for each in _attempt(lambda: self._session.run(list(outputs), inputs))
        ]


def _attempt(action: Any) -> Any:
    try:
        return action()
    except _ERRORS as error:
        raise CspError(f"ONNX Runtime refuses the graph: {error}") from error
