# SPDX-License-Identifier: Apache-2.0
"""What could be built otherwise in CSP-H, what could spare DRAM, and what each is worth."""

import dataclasses
import enum
from collections.abc import Callable
from typing import Any

from sim.model.constants import Constants
from sim.model.energy import Core
from sim.peers import csp_h
from sim.peers.base import together
from sim.peers.csp_h import Counted, CspH
from sim.workloads.catalogue import Workload

MIB = 1024 * 1024


class Kind(enum.StrEnum):
    """What a lever is."""

    HARDWARE = "in the hardware"
    #: Changes what is computed, or its exactness.
    INEXACT = "in the hardware, changes integers"
    #: SparTen could do it, too, and compresses already.
    MEMORY = "of memory"
    #: In the hardware already; here it is taken away.
    BUILT = "built, taken away"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Lever:
    """A change of the core or of its memory.

    Parameters
    ----------
    name : str
    kind : Kind
    pull : callable
        Gives the changed machine.
    weaker : bool
        There is a stronger one of the same sort, not to be combined with it.
    """

    name: str
    kind: Kind
    pull: Callable[[CspH], CspH]
    weaker: bool = False


def core(machine: CspH, **changes: Any) -> CspH:
    """Give a machine with another core."""
    return dataclasses.replace(machine, core=dataclasses.replace(machine.core, **changes))


def built(machine: CspH, **changes: Any) -> CspH:
    """Give a machine with another configuration of the hardware."""
    return core(machine, config=machine.core.config.replace(**changes))


def _core(name: str, *, kind: Kind = Kind.HARDWARE, **changes: Any) -> Lever:
    return Lever(name=name, kind=kind, pull=lambda c: core(c, **changes))


def _sums(bits: int, *, weaker: bool = False) -> Lever:
    return Lever(
        name=f"partial sums of {bits} bits",
        kind=Kind.INEXACT,
        pull=lambda c: built(c, acc_bits=bits),
        weaker=weaker,
    )


def _memory(name: str, **changes: Any) -> Lever:
    return Lever(name=name, kind=Kind.MEMORY, pull=lambda c: dataclasses.replace(c, **changes))


LEVERS = (
    Lever(
        name="operand and control registers shared by 8 × 8 PEs",
        kind=Kind.HARDWARE,
        pull=lambda c: built(c, share=8),
    ),
    _core("weights of one tile pass by their buffer", bypass=True),
    _core("run of 17 bits", kind=Kind.INEXACT, run_bits=17),
    _sums(20, weaker=True),
    _sums(16),
    _memory("maps compressed at the ports", compressed=True),
    Lever(
        name="maps kept in 2 MiB on the chip, a parameter of the core",
        kind=Kind.MEMORY,
        pull=lambda c: built(c, map_bytes=2 * MIB),
    ),
    _memory("weights kept on the chip", weights_kept=True),
    _memory("pooling fused, which the core does", pools_fused=True),
    _memory("16 images at once", images=16),
    _core("without gating for zero activations", kind=Kind.BUILT, gating=False),
    _core("without clock enables in the PE", kind=Kind.BUILT, enables=False),
    _core("both banks read for each run", kind=Kind.BUILT, one_bank=False),
    _core("line buffer read for each word", kind=Kind.BUILT, line_hold=False),
    Lever(
        name="operand and control registers in each PE",
        kind=Kind.BUILT,
        pull=lambda c: built(c, share=1),
    ),
)


def asking(machine: CspH) -> CspH:
    """Give a machine that asks for the same actions and cycles, without what only prices them."""
    return CspH(
        core=Core(config=machine.core.config.replace(map_bytes=0)),
        period=machine.period,
        images=machine.images,
        timing=machine.timing,
        cycles=machine.cycles,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pulled:
    """What a network costs with a lever, pJ, and the energy without it over that."""

    name: str
    kind: Kind
    energy: float
    factor: float


def ranked(
    network: Workload, config: CspH, constants: Constants, *, seed: int = 0
) -> tuple[Pulled, ...]:
    """Give each lever alone, the strongest first; energies with DRAM's, of one image."""
    counts: dict[CspH, list[Counted]] = {}

    def energy(machine: CspH) -> float:
        alike = asking(machine)
        if alike not in counts:
            counts[alike] = [csp_h.counted(work, alike, seed=seed) for work in network.works]
        costs = [
            csp_h.priced(work, done, machine, constants, place)
            for work, done, place in zip(
                network.works, counts[alike], csp_h.places(network), strict=True
            )
        ]
        return together(network.name, costs).total(refetch=True)

    usual = energy(config)
    found = []
    for lever in LEVERS:
        value = energy(lever.pull(config))
        found.append(Pulled(name=lever.name, kind=lever.kind, energy=value, factor=usual / value))
    return tuple(sorted(found, key=lambda each: -each.factor))
