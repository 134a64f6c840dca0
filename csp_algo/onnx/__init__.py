# SPDX-License-Identifier: Apache-2.0
"""ONNX graphs as networks of CSP: import, samples to calibrate with, export of what was pruned.

Only this package imports ``onnx`` and ``onnxruntime``, which the extra ``onnx`` installs.
"""

import importlib.util

from csp_algo.errors import CspError

for _package in ("onnx", "onnxruntime"):
    if importlib.util.find_spec(_package) is None:
        raise CspError(
            f"the package {_package} is not installed: pip install 'csp-accelerator[onnx]'"
        )
