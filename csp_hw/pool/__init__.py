# SPDX-License-Identifier: Apache-2.0
"""Pooling of maps on their way out: what walks over them, what reduces an axis, and the whole."""
