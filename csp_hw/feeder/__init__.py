# SPDX-License-Identifier: Apache-2.0
"""The activation feeder: a map is read once, every tap of every pixel leaves from here."""

from csp_hw.feeder.feeder import Feeder, FeedError

__all__ = ["FeedError", "Feeder"]
