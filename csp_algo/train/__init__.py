# SPDX-License-Identifier: Apache-2.0
"""Training of cascade-pruned networks: the only rooms of the project that import PyTorch."""
