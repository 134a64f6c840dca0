# SPDX-License-Identifier: Apache-2.0
"""CSP-A: cascade pruning, integer arithmetic, compressed layers and their container."""
