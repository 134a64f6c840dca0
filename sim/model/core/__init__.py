# SPDX-License-Identifier: Apache-2.0
"""Cycles of a pass of the whole core, equal to its counters to the cycle."""
