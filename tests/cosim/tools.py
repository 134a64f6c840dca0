# SPDX-License-Identifier: Apache-2.0
"""What the tests of the co-simulation share."""

import shutil

import pytest

from csp_hw.config import CspConfig

#: As small as it gets, so that it is built soon.
TINY = CspConfig(rows=2, cols=4, depth=8, max_period=2, max_interleave=2, lookahead=2)

#: Icarus Verilog is the second simulator; the first one comes with the dependencies.
needs_icarus = pytest.mark.skipif(
    shutil.which("iverilog") is None, reason="Icarus Verilog is not installed"
)
