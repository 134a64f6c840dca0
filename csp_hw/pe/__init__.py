# SPDX-License-Identifier: Apache-2.0
"""Processing elements: multiply, add up a run, round it into the accumulation buffer; in groups."""
