# SPDX-License-Identifier: Apache-2.0
"""Models of the hardware: what a layer costs."""
