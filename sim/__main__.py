# SPDX-License-Identifier: Apache-2.0
"""``python -m sim`` is ``csp``; it also works where the checkout was moved."""

from sim.cli import main

if __name__ == "__main__":
    main()
