# SPDX-License-Identifier: Apache-2.0
"""Golden model, schedule, co-simulation, models and reports: what uses csp_algo and csp_hw."""
