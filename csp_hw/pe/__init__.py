# SPDX-License-Identifier: Apache-2.0
"""One processing element: multiply, accumulate a run, round it into the accumulation buffer."""
