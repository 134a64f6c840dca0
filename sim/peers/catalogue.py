# SPDX-License-Identifier: Apache-2.0
"""All peers that reckon with densities, by name; SparTen needs masks: :mod:`sim.peers.sparten`."""

from collections.abc import Callable

from sim.model.constants import Constants
from sim.peers import cambricon, csp_h, dense, diannao, scnn
from sim.peers.base import Cost
from sim.workloads.catalogue import Work

#: Each gives what a layer costs, with 1,024 multipliers.
PEERS: dict[str, Callable[[Work, Constants], Cost]] = {
    "dense": lambda work, constants: dense.cost(work, constants=constants),
    "scnn": lambda work, constants: scnn.cost(work, constants=constants),
    "cambricon-x": lambda work, constants: cambricon.cost_x(work, constants=constants),
    "cambricon-s": lambda work, constants: cambricon.cost_s(work, constants=constants),
    "diannao": lambda work, constants: diannao.cost(work, constants=constants),
    "csp-h": lambda work, constants: csp_h.cost(work, constants=constants),
}
