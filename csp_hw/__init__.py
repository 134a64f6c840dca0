# SPDX-License-Identifier: Apache-2.0
"""CSP-H in Amaranth: from one frozen :class:`~csp_hw.config.CspConfig` to Verilog."""
