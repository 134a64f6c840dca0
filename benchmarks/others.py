# SPDX-License-Identifier: Apache-2.0
"""The same layer on other simulators: SCALE-Sim and ZigZag beside this project's models.

    make others        # or: .venv-compare/bin/python benchmarks/others.py [--layer conv3_2_conv]

A dense layer of ResNet-50 on a 32 × 32 output-stationary array, 512 KiB for each map and for
weights, wide ports. Tells the cycles of each, why those of SCALE-Sim differ from
`sim/peers/dense.py`, and the seconds that each simulator takes for the layer, imports apart. A
cycle without a reason is an error: exit code 1. SCALE-Sim takes minutes.

They need an environment of their own (extra ``compare``), which ``make others`` makes. Results: a
table on standard output, ``benchmarks/results/others.{md,json}``.
"""

import argparse
import contextlib
import csv
import dataclasses
import importlib.metadata
import io
import json
import logging
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from csp_algo.geometry import Geometry
from sim.model.constants import Constants
from sim.peers import dense
from sim.peers.catalogue import PEERS
from sim.peers.sparten import simulate
from sim.workloads.catalogue import Work, workload
from sim.workloads.operands import Pruning, operands

ROOT = Path(__file__).resolve().parent.parent
RESULTS, BUILD = ROOT / "benchmarks" / "results", ROOT / "build" / "others"
NETWORK, LAYER = "resnet50", "conv3_2_conv"
ROWS = COLS = 32
BUFFER_KIB = 512
#: So wide that no port of ZigZag's memories limits a row or a column of operands, bits.
WIDE = 2048


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScaleSim:
    """What SCALE-Sim reports: cycles are numbers of cycles, counted from 0."""

    last: int
    stalls: int
    with_memory: int
    prefetch: int
    drained: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reason:
    """Cycles, and why there are these."""

    cycles: int
    why: str


def explain(geometry: Geometry, found: ScaleSim, rows: int, cols: int) -> list[Reason]:
    """Give why SCALE-Sim's cycles differ from those of our dense array, one reason a difference."""
    pixels = geometry.out_shape[0] * geometry.out_shape[1]
    tiles = -(-pixels // rows) * -(-geometry.filters // cols)
    skew = rows + cols - 2
    return [
        Reason(
            cycles=tiles * skew,
            why=f"{tiles} tiles are skewed and drained one after the other, {rows} + {cols} − 2 "
            "cycles each; ours follow each other without a bubble, results leave beside the next "
            "tile",
        ),
        Reason(cycles=found.stalls, why="stalls for operands"),
        Reason(cycles=-1, why="it reports the number of the last cycle, counted from 0"),
    ]


def explain_memory(found: ScaleSim) -> list[Reason]:
    """Give what SCALE-Sim counts beside the array's cycles as ‘incl. prefetch’."""
    return [
        Reason(cycles=found.prefetch, why="weights and inputs fetched before, 10 words a cycle"),
        Reason(
            cycles=found.drained - found.last,
            why=f"results written after the last tile, {COLS} words a cycle",
        ),
    ]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep what the simulators print and log to themselves."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        logging.disable(logging.CRITICAL)
        try:
            yield
        finally:
            logging.disable(logging.NOTSET)


def scale_files(work: Work, folder: Path) -> list[Path]:
    """Write SCALE-Sim's configuration, layer and (unused) layout."""
    sections = {
        "general": {"run_name": "csp"},
        "architecture_presets": {
            "ArrayHeight": ROWS,
            "ArrayWidth": COLS,
            "IfmapSramSzkB": BUFFER_KIB,
            "FilterSramSzkB": BUFFER_KIB,
            "OfmapSramSzkB": BUFFER_KIB,
            "IfmapOffset": 0,
            "FilterOffset": 10_000_000,
            "OfmapOffset": 20_000_000,
            "Dataflow": "os",
            "ReadRequestBuffer": 64,
            "WriteRequestBuffer": 64,
        },
        "layout": {
            f"{name}{key}": value
            for name in ("Ifmap", "Filter")
            for key, value in (
                ("CustomLayout", False),
                ("SRAMBankBandwidth", COLS),
                ("SRAMBankNum", 10),
                ("SRAMBankPort", 2),
            )
        },
        "sparsity": {"SparsitySupport": False},
        # CALC: operands always come in time, as in our model.
        "run_presets": {"InterfaceBandwidth": "CALC", "UseRamulatorTrace": False},
    }
    lines = []
    for section, fields in sections.items():
        lines += [f"[{section}]", *(f"{name} = {value}" for name, value in fields.items())]
    geometry = work.shape.geometry
    # It knows no padding: the map comes padded.
    top, left, bottom, right = geometry.padding
    height, width, channels = geometry.in_shape
    layer = [height + top + bottom, width + left + right, *geometry.kernel, channels]
    layer += [geometry.filters, geometry.stride[0]]
    row = ",".join(str(value) for value in [work.shape.name, *layer])
    texts = {
        "scale.cfg": "\n".join(lines) + "\n",
        "topology.csv": f"header\n{row},1:1,\n",
        "layout.csv": "header\n",
    }
    paths = []
    for name, text in texts.items():
        paths.append(folder / name)
        paths[-1].write_text(text, encoding="utf-8")
    return paths


def run_scale(work: Work) -> tuple[ScaleSim, float]:
    """Run SCALE-Sim; give what it reports and the seconds it took."""
    from scalesim.scale_sim import scalesim

    folder = BUILD / "scale"
    folder.mkdir(parents=True, exist_ok=True)
    config, topology, layout = scale_files(work, folder)
    start = time.perf_counter()
    with quiet():
        simulator = scalesim(
            save_disk_space=True,
            verbose=False,
            config=str(config),
            topology=str(topology),
            layout=str(layout),
        )
        simulator.run_scale(top_path=str(folder))
    took = time.perf_counter() - start
    return read_scale(folder / "csp"), took


def read_scale(folder: Path) -> ScaleSim:
    """Read SCALE-Sim's reports of one layer."""
    rows: dict[str, str] = {}
    for name in ("COMPUTE_REPORT.csv", "DETAILED_ACCESS_REPORT.csv"):
        with (folder / name).open(encoding="utf-8") as stream:
            (row,) = csv.DictReader(stream, skipinitialspace=True)
        rows |= row
    starts = [float(rows[f"DRAM {name} Start Cycle"]) for name in ("IFMAP", "Filter")]
    return ScaleSim(
        last=int(float(rows["Total Cycles"])),
        stalls=int(float(rows["Stall Cycles"])),
        with_memory=int(float(rows["Total Cycles (incl. prefetch)"])),
        prefetch=int(-min(starts)),
        drained=int(float(rows["DRAM OFMAP Stop Cycle"])),
    )


def zigzag_accelerator() -> dict:
    """Give the array in ZigZag's terms; costs of accesses do not matter to its cycles."""

    def memory(size: int, operands: list[str], ports: dict[str, tuple[str, list[str]]]) -> dict:
        inner = size == 24
        return {
            "size": size,
            "r_cost": 1,
            "w_cost": 1,
            "area": 0,
            "latency": 1,
            "operands": operands,
            "ports": [
                {
                    "name": name,
                    "type": kind,
                    "bandwidth_min": 24 if inner else 8,
                    "bandwidth_max": 24 if inner else WIDE,
                    "allocation": uses,
                }
                for name, (kind, uses) in ports.items()
            ],
            "served_dimensions": [] if inner else ["D1", "D2"],
        }

    read, write = "read", "write"
    return {
        "name": "dense",
        "memories": {
            "sum": memory(
                24,
                ["O"],
                {
                    "r_port_1": (read, ["O, tl"]),
                    "r_port_2": (read, ["O, th"]),
                    "w_port_1": (write, ["O, fh"]),
                    "w_port_2": (write, ["O, fl"]),
                },
            ),
            "activations": memory(
                8 * 1024 * BUFFER_KIB,
                ["I1", "O"],
                {
                    "r_port_1": (read, ["I1, tl", "O, tl", "O, th"]),
                    "w_port_1": (write, ["I1, fh", "O, fh", "O, fl"]),
                },
            ),
            "weights": memory(
                8 * 1024 * BUFFER_KIB,
                ["I2"],
                {"r_port_1": (read, ["I2, tl"]), "w_port_1": (write, ["I2, fh"])},
            ),
            "dram": memory(
                1 << 33,
                ["I1", "I2", "O"],
                {
                    "rw_port_1": (
                        "read_write",
                        [f"{name}, {way}" for name in ("I1", "I2") for way in ("fh", "tl")]
                        + [f"O, {way}" for way in ("fh", "tl", "fl", "th")],
                    )
                },
            ),
        },
        "operational_array": {
            "unit_energy": 1,
            "unit_area": 1,
            "dimensions": ["D1", "D2"],
            "sizes": [ROWS, COLS],
        },
    }


def zigzag_layer(geometry: Geometry) -> dict:
    """Give the layer as a product of matrices: rows of the array take pixels of all lines alike."""
    pixels = geometry.out_shape[0] * geometry.out_shape[1]
    return {
        "id": 0,
        "name": "layer",
        "operator_type": "Conv",
        "equation": "O[k][ox]+=W[k][c]*I[c][ox]",
        "loop_dims": ["K", "C", "OX"],
        "loop_sizes": [geometry.filters, geometry.taps, pixels],
        "operand_precision": {"I": 8, "W": 8, "O": 24, "O_final": 8},
        "operand_source": {"I": 0, "W": 0},
    }


def run_zigzag(work: Work) -> tuple[dict[str, int], float]:
    """Run ZigZag; give its cycles and the seconds it took to find the mapping."""
    from zigzag.api import get_hardware_performance_zigzag

    folder = BUILD / "zigzag"
    folder.mkdir(parents=True, exist_ok=True)
    mapping = {
        "name": "default",
        "spatial_mapping": {"D1": [f"OX, {ROWS}"], "D2": [f"K, {COLS}"]},
        "memory_operand_links": {"O": "O", "W": "I2", "I": "I1"},
    }
    documents = {
        "accelerator": zigzag_accelerator(),
        "mapping": [mapping],
        "workload": [zigzag_layer(work.shape.geometry)],
    }
    files = {}
    for name, document in documents.items():
        path = folder / f"{name}.yaml"  # JSON is YAML
        path.write_text(json.dumps(document, indent=1), encoding="utf-8")
        files[name] = str(path)
    start = time.perf_counter()
    with quiet():
        result = get_hardware_performance_zigzag(
            **files,
            dump_folder=str(folder / "out"),
            opt="latency",
            loma_show_progress_bar=False,
        )
    took = time.perf_counter() - start
    ((found, _),) = result[2][0][1]
    cycles = {
        "ideal": found.ideal_temporal_cycle,
        "with_stalls": found.latency_total1,
        "with_loading": found.latency_total2,
    }
    return {name: round(value) for name, value in cycles.items()}, took


def timed(call: Callable[[], object]) -> float:
    """Give the seconds of the fastest of five calls."""
    times = []
    for _ in range(5):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


def run_ours(work: Work) -> dict[str, float]:
    """Give the seconds of each of our models for the layer."""
    constants = Constants()
    seconds = {name: timed(lambda peer=peer: peer(work, constants)) for name, peer in PEERS.items()}
    seconds["sparten"] = timed(lambda: simulate(work, operands(work, Pruning.UNSTRUCTURED)))
    return seconds


def page(document: dict) -> str:
    """Give the results as Markdown."""
    layer, scale, zigzag = document["layer"], document["scale_sim"], document["zigzag"]
    stalls = zigzag["with_stalls"] - zigzag["ideal"]
    loading = zigzag["with_loading"] - zigzag["with_stalls"]
    versions = ", ".join(f"{name} {number}" for name, number in document["versions"].items())
    origin = (
        f"Written by `benchmarks/others.py`, which says how. {versions}; {document['machine']}."
    )
    lines = [
        "<!-- SPDX-License-Identifier: Apache-2.0 -->",
        f"# {layer} of {NETWORK} on other simulators",
        "",
        origin,
        "",
        "| cycles | |",
        "| ---: | --- |",
        f"| {document['dense']:,} | `sim/peers/dense.py` |",
        *(f"| {reason['cycles']:+,} | {reason['why']} |" for reason in document["reasons"]),
        f"| **{scale['last']:,}** | SCALE-Sim, total cycles |",
        *(f"| {reason['cycles']:+,} | {reason['why']} |" for reason in document["memory"]),
        f"| {scale['with_memory']:,} | SCALE-Sim, total cycles incl. prefetch |",
        f"| {zigzag['ideal']:,} | ZigZag, ideal for this mapping |",
        f"| {stalls:+,} | stalls that it finds at its memories |",
        f"| {loading:+,} | loading before, unloading after |",
        "",
        "| simulator | seconds for this layer |",
        "| --- | ---: |",
        *(
            f"| {name} | {value:{'.0f' if value >= 10 else '.2g'}} |"
            for name, value in document["seconds"].items()
        ),
    ]
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--layer", default=LAYER, help="of ResNet-50; default %(default)s")
    parser.add_argument("--no-save", action="store_true", help="only print")
    options = parser.parse_args()
    works = {work.shape.name: work for work in workload(NETWORK).works}
    if options.layer not in works:
        parser.error(f"no layer {options.layer!r}; there are {', '.join(works)}")
    work = works[options.layer]
    try:
        versions = {name: importlib.metadata.version(name) for name in ("scalesim", "zigzag-dse")}
    except importlib.metadata.PackageNotFoundError as error:
        print(f"{error.name} is not installed: run `make others`", file=sys.stderr)
        return 2

    cycles = dense.cost(work, config=dense.Dense(rows=ROWS, cols=COLS)).cycles
    print("our models …", flush=True)
    ours = run_ours(work)
    print("ZigZag: some seconds …", flush=True)
    zigzag, zigzag_seconds = run_zigzag(work)
    print("SCALE-Sim: minutes …", flush=True)
    scale, scale_seconds = run_scale(work)
    reasons = explain(work.shape.geometry, scale, ROWS, COLS)
    memory = explain_memory(scale)
    document = {
        "layer": work.shape.name,
        "versions": versions,
        "machine": f"{platform.machine()}, {os.cpu_count()} processors, "
        f"load {os.getloadavg()[0]:.1f}",
        "dense": round(cycles),
        "scale_sim": dataclasses.asdict(scale),
        "reasons": [dataclasses.asdict(reason) for reason in reasons],
        "memory": [dataclasses.asdict(reason) for reason in memory],
        "zigzag": zigzag,
        "seconds": {
            "SCALE-Sim": scale_seconds,
            "ZigZag, search of a mapping included": zigzag_seconds,
            **{f"ours: {name}": value for name, value in ours.items()},
        },
    }
    print(page(document))
    if not options.no_save:
        RESULTS.mkdir(exist_ok=True)
        text = json.dumps(document, indent=1, ensure_ascii=False) + "\n"
        (RESULTS / "others.json").write_text(text, encoding="utf-8")
        (RESULTS / "others.md").write_text(page(document), encoding="utf-8")
    unexplained = [
        scale.last - round(cycles) - sum(reason.cycles for reason in reasons),
        scale.with_memory - scale.last - sum(reason.cycles for reason in memory),
    ]
    if any(unexplained):
        print(f"cycles without a reason: {unexplained}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
