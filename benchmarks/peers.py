# SPDX-License-Identifier: Apache-2.0
"""Time, memory and results of the peers' models on whole networks.

    python benchmarks/peers.py [--networks resnet50] [--no-sparten]

Tells where each network's zeros are from, what each peer takes, and how long the models
themselves took, in time of processors; for SparTen with the drawing of the masks apart.
`OPENBLAS_NUM_THREADS=1` for one thread.
"""

import argparse
import os
import platform
import resource
import sys
import time

from csp_algo.errors import CspError
from sim.model.constants import Constants, Setting
from sim.peers.base import Cost, together
from sim.peers.catalogue import PEERS
from sim.peers.sparten import Balance, SparTen, simulate
from sim.workloads.catalogue import SHAPES, Workload, workload
from sim.workloads.operands import Pruning, operands, prunings

#: What ResNet-50 may take, s of a processor: all peers but SparTen, and SparTen with one kind of
#: weights.
WANTED, WANTED_SPARTEN = 1.0, 60.0


def tell(name: str, cost: Cost, dense: Cost) -> None:
    print(
        f"    {name:26} {cost.cycles / 1e6:8.3f} M cycles  "
        f"{dense.cycles / cost.cycles:5.2f} × dense  "
        f"{cost.utilisation:6.1%} useful  {cost.total() / 1e9:7.3f} … "
        f"{cost.total(refetch=True) / 1e9:7.3f} mJ  "
        f"{cost.traffic.bytes(refetch=False) / 1e6:7.2f} MB"
    )


def run_peers(network: Workload, constants: Constants) -> tuple[Cost, float]:
    start = time.process_time()
    costs = {
        name: together(network.name, (peer(work, constants) for work in network.works))
        for name, peer in PEERS.items()
    }
    took = time.process_time() - start
    for name, cost in costs.items():
        tell(name, cost, costs["dense"])
    return costs["dense"], took


def run_sparten(
    network: Workload, pruning: Pruning, config: SparTen, constants: Constants, dense: Cost
) -> float:
    start = time.process_time()
    drawing = 0.0
    costs: dict[Balance, list[Cost]] = {balance: [] for balance in Balance}
    for work in network.works:
        begin = time.process_time()
        masks = operands(work, pruning)
        drawing += time.process_time() - begin
        for balance, cost in simulate(work, masks, config=config, constants=constants).items():
            costs[balance].append(cost)
    took = time.process_time() - start
    for balance, parts in costs.items():
        tell(f"sparten {balance} {pruning}", together(network.name, parts), dense)
    print(f"      {took:.1f} s, of which drawing masks {drawing:.1f} s")
    return took


def memory() -> float:
    """Give the most memory that this process has had, MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--networks", default="resnet50", help=f"of {','.join(SHAPES)}, or all")
    parser.add_argument("--setting", default=Setting.MID, type=Setting, choices=list(Setting))
    parser.add_argument("--start-up", default=0, type=int, help="cycles of a broadcast")
    parser.add_argument("--schedule", default=1, type=int, help="fewest cycles of a broadcast")
    parser.add_argument("--packed", action="store_true", help="chunks across kernel columns")
    parser.add_argument("--no-sparten", action="store_true")
    options = parser.parse_args()
    names = list(SHAPES) if options.networks == "all" else options.networks.split(",")
    if strangers := set(names) - SHAPES.keys():
        parser.error(f"no network {min(strangers)!r}; there are {', '.join(SHAPES)}")
    constants = Constants(setting=options.setting)
    try:
        config = SparTen(
            start_up=options.start_up, schedule=options.schedule, packed=options.packed
        )
    except CspError as error:
        parser.error(str(error))

    print(f"{platform.machine()}, {os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}")
    slow = False
    for name in names:
        network = workload(name)
        print("\n".join(network.provenance()))
        dense, took = run_peers(network, constants)
        print(f"      {took * 1e3:.0f} ms for {len(network.works)} layers and {len(PEERS)} peers")
        slow |= name == "resnet50" and took > WANTED
        if not options.no_sparten:
            for pruning in prunings(network.works[0]):
                took = run_sparten(network, pruning, config, constants, dense)
                slow |= name == "resnet50" and took > WANTED_SPARTEN
        print(f"      most memory so far {memory():.0f} MB")
    if slow:
        print("slower than wanted", file=sys.stderr)
    return int(slow)


if __name__ == "__main__":
    sys.exit(main())
