# SPDX-License-Identifier: Apache-2.0
"""The comparison of CSP-H with other accelerators on whole networks: figures, page, files."""
