# SPDX-License-Identifier: Apache-2.0
"""Area of a processing element of `csp_h_32x32` in standard cells, as an ASIC would have it.

Of one that shares nothing with others: its registers of operands and control are its own.

    make area         # or: YOSYS=yosys python benchmarks/area.py [--depth 64]

The element of style ``regbin`` is synthesised by Yosys onto OSU's 0.18 µm cells (Debian's package
``qflow-tech-osu018``; the environment variable LIBERTY names another copy), its hierarchy kept, so
that cells are counted by part. Twice: with the registers' enables as multiplexers, the way Yosys
maps them, and as clock gates, a latch and a gate for each enable.

45 nm: each cell by the cell of the same name in OSU's FreePDK45 library, and by the ideal square
of the lengths, (45 / 180)². :mod:`sim.model.area` has what follows from that. Placement, wires
and the clock tree are in none of the figures. Results: a table on standard output,
``benchmarks/results/area.{md,json}``.
"""

import argparse
import collections
import json
import os
import re
import sys
import time
from pathlib import Path

from synthesis import BLOCK, BUILD, RESULTS, Design, convert, run, version, yosys

from csp_hw.config import BufferStyle, CspConfig, preset
from csp_hw.pe.group import Group
from sim.model.area import Part, cells_area, ideal, part_of, split

LIBERTY = "/usr/share/qflow/tech/osu018/osu018_stdcells.lib"
#: A register with an enable, as a register on a gated clock. Gates with the same enable are merged.
GATE = r"""
module \$_DFFE_PP_ (input D, C, E, output Q);
    wire gated;
    \$_AND_ gate (.A(C), .B(E), .Y(gated));
    \$_DFF_P_ register (.D(D), .C(gated), .Q(Q));
endmodule
"""
#: The netlist has the gate of a clock gate, but not its latch. The library gives it no area: that
#: is of osu018_stdcells.lef, 5.6 µm × 10 µm.
LATCH, LATCH_AREA = "LATCH", 56.0


def liberty() -> Path:
    """Give the library's path."""
    path = Path(os.environ.get("LIBERTY", LIBERTY))
    if not path.is_file():
        raise SystemExit(f"{path} not found: apt-get install qflow-tech-osu018, or set LIBERTY")
    return path


def liberty_areas(text: str) -> dict[str, float]:
    """Give the area of each cell of a library, µm²."""
    pattern = r"\bcell\s*\(\s*\"?(\w+)\"?\s*\)\s*\{(.*?)(?=\bcell\s*\(|\Z)"
    found = re.findall(pattern, text, re.DOTALL)
    areas = {}
    for name, body in found:
        area = re.search(r"\barea\s*:\s*([\d.]+)", body)
        if area:
            areas[name] = float(area[1])
    return areas | {LATCH: LATCH_AREA}


def script(cells: Path, *, gated: bool) -> str:
    """Give the steps of Yosys."""
    gates = (
        "dfflegalize -cell $_DFF_P_ 01 -cell $_DFFE_PP_ 01\ntechmap -map gate.v\nopt_merge\nclean\n"
        "write_json gates.json\n"
        if gated
        else ""
    )
    return f"""
        read_verilog {BLOCK}.v
        synth -top {BLOCK}
        {gates}
        dfflibmap -liberty {cells}
        abc -liberty {cells}
        opt_clean
        write_json netlist.json
    """


def count_cells(netlist: dict) -> dict[Part, collections.Counter[str]]:
    """Count a netlist's cells by part, each module as often as it stands in the element."""
    modules = netlist["modules"]
    parts: dict[Part, collections.Counter[str]] = {}

    def walk(module: str) -> None:
        count = parts.setdefault(part_of(module), collections.Counter())
        for cell in modules[module]["cells"].values():
            if cell["type"] in modules:
                walk(cell["type"])
            else:
                count[cell["type"]] += 1

    walk(BLOCK)
    return parts


def count_gates(netlist: dict) -> dict[Part, int]:
    """Count the gated clocks of each part: those of registers that are not the module's own."""
    modules = netlist["modules"]
    gates: dict[Part, int] = {}

    def walk(module: str) -> None:
        description = modules[module]
        own = tuple(description["ports"]["clk"]["bits"])
        clocks = {
            tuple(cell["connections"]["C"])
            for cell in description["cells"].values()
            if cell["type"] == "$_DFF_P_"
        }
        part = part_of(module)
        gates[part] = gates.get(part, 0) + len(clocks - {own})
        for cell in description["cells"].values():
            if cell["type"] in modules:
                walk(cell["type"])

    walk(BLOCK)
    return gates


def measure(config: CspConfig, *, gated: bool) -> dict[Part, collections.Counter[str]]:
    """Synthesise the element, and give its cells by part."""
    folder = BUILD / ("area_gated" if gated else "area")
    folder.mkdir(parents=True, exist_ok=True)
    block, _ = Design(create=Group, config=config).modules()
    texts = {f"{BLOCK}.v": convert(block, BLOCK), "gate.v": GATE}
    # A relative path: Yosys in WebAssembly sees no other folders than this one.
    texts["cells.lib"] = liberty().read_text(encoding="utf-8")
    texts["area.ys"] = script(Path("cells.lib"), gated=gated)
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    start = time.monotonic()
    run([yosys(), "-s", "area.ys"], folder, "yosys.log")
    print(f"synthesised in {time.monotonic() - start:.0f} s", flush=True)
    parts = count_cells(json.loads((folder / "netlist.json").read_text(encoding="utf-8")))
    if gated:
        netlist = json.loads((folder / "gates.json").read_text(encoding="utf-8"))
        for part, gates in count_gates(netlist).items():
            parts[part][LATCH] += gates
    return parts


def summary(parts: dict[Part, collections.Counter[str]], areas: dict[str, float]) -> dict:
    """Give the areas of an element by part and by kind of cell, µm²."""
    unknown = {cell for count in parts.values() for cell in count} - areas.keys()
    if unknown:
        raise SystemExit(f"no area of {', '.join(sorted(unknown))} in the library")
    result: dict = {}
    for part, count in parts.items():
        registers, logic = split(count)
        old = {kind: cells_area(c, areas) for kind, c in (("r", registers), ("l", logic))}
        new = {kind: cells_area(c) for kind, c in (("r", registers), ("l", logic))}
        result[part.value] = {
            "registers": sum(registers.values()),
            "gates": sum(logic.values()),
            "um2_180": {"registers": round(old["r"]), "logic": round(old["l"])},
            "um2_45": {"registers": round(new["r"], 1), "logic": round(new["l"], 1)},
            "cells": dict(sorted(count.items())),
        }
    return result


def total(result: dict, node: str) -> float:
    """Give the element's area, µm²."""
    return float(sum(sum(part[node].values()) for part in result.values()))


def table(document: dict) -> str:
    """Give the results as Markdown."""
    lines = [
        "| part | registers | other cells | 0.18 µm: registers + other, µm² | 45 nm, µm² | share |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for title, key in (("enables as multiplexers", "multiplexed"), ("as clock gates", "gated")):
        result = document[key]
        lines.append(f"| **{title}** | | | | | |")
        whole = total(result, "um2_45")
        for name, part in result.items():
            old, new = part["um2_180"], part["um2_45"]
            lines.append(
                f"| {name} | {part['registers']:,} | {part['gates']:,} "
                f"| {old['registers']:,} + {old['logic']:,} "
                f"| {new['registers']:,.0f} + {new['logic']:,.0f} "
                f"| {sum(new.values()) / whole:.1%} |"
            )
        registers = sum(part["registers"] for part in result.values())
        others = sum(part["gates"] for part in result.values())
        lines.append(
            f"| together | {registers:,} | {others:,} | {total(result, 'um2_180'):,.0f} "
            f"| {whole:,.0f} ({ideal(total(result, 'um2_180')):,.0f} by the square of lengths) | |"
        )
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--depth", type=int, help="partial sums, if not the preset's 128")
    parser.add_argument("--no-save", action="store_true", help="only print")
    options = parser.parse_args()
    config = preset("csp_h_32x32").replace(style=BufferStyle.REGBIN, share=1)
    if options.depth is not None:
        config = config.replace(depth=options.depth)
    areas = liberty_areas(liberty().read_text(encoding="utf-8"))
    document = {
        "config": json.loads(config.to_json()),
        "tools": {"yosys": version(yosys())},
        "multiplexed": summary(measure(config, gated=False), areas),
        "gated": summary(measure(config, gated=True), areas),
    }
    print(table(document))
    if not options.no_save:
        text = json.dumps(document, indent=1, ensure_ascii=False) + "\n"
        (RESULTS / "area.json").write_text(text, encoding="utf-8")
        (RESULTS / "area.md").write_text(
            f"""<!-- SPDX-License-Identifier: Apache-2.0 -->
# Area of a processing element

Written by `benchmarks/area.py`, which says how: depth {config.depth}, T ≤ {config.max_period},
{config.acc_bits}-bit sums, style regbin. Cells only: no placement, wires or clock tree. Yosys
{document["tools"]["yosys"]}.

{table(document)}""",
            encoding="utf-8",
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
