# SPDX-License-Identifier: Apache-2.0
"""Memory ports: runs of addresses, and the AXI4 managers that read and write them."""
