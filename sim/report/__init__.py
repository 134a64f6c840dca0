# SPDX-License-Identifier: Apache-2.0
"""What a run says of itself: one record, shown in the terminal and as one HTML page."""
