# SPDX-License-Identifier: Apache-2.0
"""``csp report``: networks by name, a bar while it reckons, the files, a table."""

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from csp_algo.errors import CspError
from sim.demo import Phases
from sim.model.constants import Constants, Setting
from sim.peers.csp_h import CspH
from sim.report.comparison import files
from sim.report.comparison.accelerators import OURS, RIVAL, accelerators
from sim.report.comparison.record import Comparison, compare
from sim.report.comparison.svg import number
from sim.version import version
from sim.workloads.catalogue import SHAPES, Workload, workload
from sim.workloads.real import REAL, real_workload


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What the command line says.

    Parameters
    ----------
    networks : tuple of str
        Names; all there are if none is given.
    output : Path
        The folder.
    setting : Setting
        Of the energy constants.
    seed : int
    sparten : bool
    """

    networks: tuple[str, ...]
    output: Path
    setting: Setting = Setting.MID
    seed: int = 0
    sparten: bool = True

    @property
    def command(self) -> str:
        """The command line that gives the same figures."""
        words = ["csp report", *self.networks, f"--setting {self.setting}", f"--seed {self.seed}"]
        return " ".join([*words, *([] if self.sparten else ["--no-sparten"])])


def named(names: Sequence[str]) -> tuple[str, ...]:
    """Check the names, and give them, each once; all with drawn zeros if there are none.

    Raises
    ------
    CspError
        There is no such network; the message names those that there are.
    """
    for name in names:
        if name not in (*SHAPES, *REAL):
            raise CspError(f"no network {name!r}; there are {', '.join((*SHAPES, *REAL))}")
    return tuple(dict.fromkeys(names)) or tuple(SHAPES)


def load(name: str, seed: int) -> Workload:
    """Give a network with drawn zeros, or one with real ones."""
    return real_workload(name) if name in REAL else workload(name, seed=seed)


def run(options: Options, console: Console) -> Comparison:
    """Compare, write the files, and tell the main figures.

    Raises
    ------
    CspError
        A network is unknown or its package missing, or the folder cannot be written.
    """
    names = named(options.networks)
    if options.seed < 0:
        raise CspError(f"--seed must not be negative, not {options.seed}")
    files.prepare(options.output)
    config, constants = CspH(), Constants(setting=options.setting)
    networks = []
    start = time.monotonic()
    with Phases(console) as phases:
        # A package that is missing is told before others have taken minutes.
        with phases.phase("networks"):
            workloads = [load(name, options.seed) for name in names]
        for workload_ in workloads:
            with phases.phase(workload_.name) as tell:
                record = compare(
                    workload_,
                    tell,
                    config=config,
                    constants=constants,
                    seed=options.seed,
                    sparten=options.sparten,
                )
            networks.append(record)
        provenance = {
            "csp": version(),
            "command": options.command,
            "wall clock": f"{time.monotonic() - start:.0f} s",
        }
        comparison = Comparison(
            networks=tuple(networks),
            accelerators=accelerators(sparten=options.sparten),
            config=config,
            constants=constants,
            seed=options.seed,
            provenance=provenance,
        )
        with phases.phase("page and files"):
            paths = files.write(comparison, options.output)
    for network in networks:
        for line in network.workload.provenance():
            console.print(line, highlight=False, soft_wrap=True, markup=False)
    console.print(table(comparison))
    for path in paths:
        console.print(f"wrote {path}", highlight=False, markup=False, soft_wrap=True)
    return comparison


def table(record: Comparison) -> Table:
    """Give one line a network: CSP-H, and SparTen over it."""
    result = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    result.add_column("network", style="bold")
    names = ["CSP-H, M cycles", "mJ"]
    if record.networks[0].compared:
        names += ["SparTen GB-H, M cycles", "mJ", "SparTen / CSP-H: cycles", "energy"]
    for name in names:
        result.add_column(name, justify="right")
    for network in record.networks:
        ours = network.totals[OURS]
        cells = [number(ours.cycles / 1e6), number(ours.total(refetch=True) / 1e9)]
        if network.compared:
            rival = network.totals[RIVAL]
            energy = rival.total(refetch=True)
            cells += [number(rival.cycles / 1e6), number(energy / 1e9)]
            cells += [number(rival.cycles / ours.cycles)]
            cells += [number(energy / ours.total(refetch=True))]
        result.add_row(network.name, *cells)
    return result
