# SPDX-License-Identifier: Apache-2.0
"""Shapes of well-known networks, made from their definitions: no weights, no files."""
