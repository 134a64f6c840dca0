# SPDX-License-Identifier: Apache-2.0
"""What drawn zeros are worth: trained networks with their own zeros, and with as many drawn ones.

    python benchmarks/real_zeros.py [--networks resnet50_nsfw]

SparTen GB-H over CSP-H, 1,024 multipliers each, one image; above 1 is in CSP-H's favour. Drawn
zeros have each layer's densities. It needs the packages of ``make soak`` (``python
tools/environment.py .venv models``), and takes minutes.
"""

import argparse
import dataclasses
import sys
from collections.abc import Sequence

from csp_algo.errors import CspError
from sim.model.constants import Constants, Setting
from sim.peers import csp_h, sparten
from sim.peers.base import together
from sim.peers.csp_h import Counted, CspH
from sim.peers.sparten import Balance, SparTenCost
from sim.workloads.catalogue import Work, Workload
from sim.workloads.operands import Pruning, operands
from sim.workloads.real import REAL, real_workload

HEAD = """\
| network | zeros | SparTen's weights | not zero | inputs not zero | speed | low | mid | high |
| --- | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |"""


def simulated(work: Work, pruning: Pruning) -> SparTenCost:
    """Give what a layer costs on SparTen GB-H."""
    masks = operands(work, pruning)
    return sparten.simulate(work, masks, balances=(Balance.GB_H,))[Balance.GB_H]


def line(workload: Workload, counted: Sequence[Counted], zeros: str, pruning: Pruning) -> str:
    """Give a line: densities, ratios of cycles, and of energies without and with refetch."""
    works = workload.works
    rival = sparten.network_cost(
        workload.name,
        [simulated(work, pruning) for work in works],
    )
    cells = []
    for setting in Setting:
        constants = Constants(setting=setting)
        costs = [
            csp_h.priced(work, done, CspH(), constants, place)
            for work, done, place in zip(works, counted, csp_h.places(workload), strict=True)
        ]
        ours = together(workload.name, costs)
        theirs = sparten.with_constants(rival, constants)
        ratios = [theirs.total(refetch=each) / ours.total(refetch=each) for each in (False, True)]
        cells.append(" … ".join(f"{ratio:.2f}" for ratio in ratios))
    read = [work.shape.geometry.in_shape for work in works]
    sizes = [height * width * channels for height, width, channels in read]
    inputs = sum(size * work.inputs for size, work in zip(sizes, works, strict=True)) / sum(sizes)
    speed = rival.cycles / ours.cycles
    return (
        f"| {workload.name} | {zeros} | {pruning} | {workload.density:.1%} | {inputs:.1%} "
        f"| {speed:.2f} | {' | '.join(cells)} |"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--networks", default=",".join(REAL), help="names, with commas")
    names = parser.parse_args().networks.split(",")
    if strangers := set(names) - REAL.keys():
        parser.error(f"no network {min(strangers)!r}; there are {', '.join(REAL)}")
    print(HEAD, flush=True)
    for name in names:
        try:
            real = real_workload(name)
        except CspError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        works = tuple(dataclasses.replace(work, zeros=None) for work in real.works)
        drawn = dataclasses.replace(real, works=works)
        for zeros, workload in (("its own", real), ("drawn", drawn)):
            counted = [csp_h.counted(work, CspH()) for work in workload.works]
            for pruning in (Pruning.UNSTRUCTURED, Pruning.CASCADE):
                print(line(workload, counted, zeros, pruning), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
