# SPDX-License-Identifier: Apache-2.0
"""Which version of this project runs."""

import importlib.metadata

DISTRIBUTION = "csp-accelerator"


def version() -> str:
    """Give the version of the installed distribution, or ``unknown`` in a bare checkout."""
    try:
        return importlib.metadata.version(DISTRIBUTION)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"
