# SPDX-License-Identifier: Apache-2.0
"""Models of other accelerators, on the same work and with the same constants."""
