# SPDX-License-Identifier: Apache-2.0
"""Who is compared, and what a layer costs each of them."""

import dataclasses

from sim.model.constants import Constants
from sim.peers.base import Cost
from sim.peers.catalogue import PEERS
from sim.peers.sparten import Balance, simulate
from sim.workloads.catalogue import Work
from sim.workloads.operands import Pruning, operands, prunings

#: The two that everything is told about: this project's, and the one it is measured against.
OURS, RIVAL = "csp-h", "sparten gb-h unstructured"
#: The rival with weights that were pruned as ours are.
RIVAL_CASCADE = "sparten gb-h cascade"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Accelerator:
    """One that is compared.

    Parameters
    ----------
    key : str
    title : str
        For people.
    source : str
        Where the model is, and what it is of.
    """

    key: str
    title: str
    source: str


_BALANCES = {Balance.NONE: "no balancing", Balance.GB_S: "GB-S", Balance.GB_H: "GB-H"}
_WEIGHTS = {
    Pruning.CASCADE: "weights of CSP-H's cascade",
    Pruning.UNSTRUCTURED: "unstructured weights at the densities of the cascade",
    Pruning.PUBLISHED: "unstructured weights at densities that others published",
}
_PEERS = {
    "dense": ("dense, 32 × 32", "sim/peers/dense.py: formula, output-stationary array"),
    "scnn": ("SCNN", "sim/peers/scnn.py: formula; ISCA 2017, doi 10.1145/3079856.3080254"),
    "cambricon-x": (
        "Cambricon-X",
        "sim/peers/cambricon.py: formula; MICRO 2016, doi 10.1109/MICRO.2016.7783723",
    ),
    "cambricon-s": (
        "Cambricon-S, coarse",
        "sim/peers/cambricon.py: formula; MICRO 2018, doi 10.1109/MICRO.2018.00011; coarse pruning",
    ),
    "diannao": ("DianNao", "sim/peers/diannao.py: formula; ASPLOS 2014"),
}


def sparten_key(balance: Balance, pruning: Pruning) -> str:
    """Give the key of SparTen with some balancing and some weights."""
    return f"sparten {balance} {pruning}"


def accelerators(*, sparten: bool = True) -> tuple[Accelerator, ...]:
    """Give all of them, in the order in which they are shown.

    Those with published weights are compared only on networks for which there are some.
    """
    ours = Accelerator(
        key=OURS,
        title="CSP-H",
        source="sim/peers/csp_h.py: the compiler's passes; cycles are a bound, actions are counted",
    )
    others = [Accelerator(key=key, title=t, source=s) for key, (t, s) in _PEERS.items()]
    rivals = [
        Accelerator(
            key=sparten_key(balance, pruning),
            title=f"SparTen {_BALANCES[balance]}, {pruning}",
            source=f"sim/peers/sparten.py: every broadcast counted on masks, {_WEIGHTS[pruning]}; "
            "MICRO 2019, doi 10.1145/3352460.3358291",
        )
        for balance in reversed(Balance)
        for pruning in Pruning
    ]
    return (ours, *(rivals if sparten else ()), *others)


def costs(
    work: Work, constants: Constants, *, seed: int = 0, sparten: bool = True
) -> dict[str, Cost]:
    """Give what a layer costs all of them but CSP-H, by key."""
    found: dict[str, Cost] = {
        key: peer(work, constants) for key, peer in PEERS.items() if key != OURS
    }
    if sparten:
        for pruning in prunings(work):
            masks = operands(work, pruning, seed=seed)
            for balance, cost in simulate(work, masks, constants=constants).items():
                found[sparten_key(balance, pruning)] = cost
    return found
