# SPDX-License-Identifier: Apache-2.0
"""Which layers are slower on CSP-H than on SparTen, and why; from the JSON of `csp report`.

    csp report && python benchmarks/layers.py build/comparison/comparison.json [--all]

SparTen GB-H with unstructured weights. Of the unit-cycles of CSP-H some give a product of two
operands that are not zero; the others are *zeros*, products of an activation that is zero, which
SparTen skips; or they are *empty*: lanes without a pixel, drains and ports that are waited for. A
layer's reason is the larger of both, and for empty ones what binds the layer. SparTen's own are
those at its barriers, or without a filter. ``--all`` tells of each layer.

At equal area CSP-H's cycles are taken to go with the inverse of the number of its elements.
"""

import argparse
import collections
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from sim.report.comparison.accelerators import OURS, RIVAL

#: What is counted besides: the areas at which CSP-H has another number of elements.
EQUAL = "equal multipliers"
ZEROS = "zero activations"
#: How what binds a layer is called.
BINDS = {"drain": "the drain", "compute": "lanes without a pixel"}


class Layer(NamedTuple):
    """A layer on both: SparTen's cycles over ours, shares of unit-cycles."""

    name: str
    speed: float
    zeros: float
    empty: float
    waiting: float
    reason: str


def layer_of(record: dict[str, Any]) -> Layer:
    """Give what is told of a layer."""
    ours, rival, roof = record["costs"][OURS], record["costs"][RIVAL], record["roof"]
    slots = ours["cycles"] * ours["units"]
    useful = ours["useful_unit_cycles"] / slots
    issued = roof["products"] / slots  # of all repeats, as the cycles are
    zeros, empty = issued - useful, 1 - issued
    limit = BINDS.get(roof["limit"], f"the port of {roof['limit']}")
    return Layer(
        name=record["name"],
        speed=rival["cycles"] / ours["cycles"],
        zeros=zeros,
        empty=empty,
        waiting=1 - rival["useful_unit_cycles"] / (rival["cycles"] * rival["units"]),
        reason=ZEROS if zeros > empty else limit,
    )


def table(networks: list[dict[str, Any]], areas: dict[str, float]) -> str:
    """Give a line for each network."""
    titles = ["network", "layers", f"slower with {' / '.join(areas)}", "least and largest speed"]
    titles.append("reasons, of those slower with equal multipliers")
    lines = [f"| {' | '.join(titles)} |", "| --- | ---: | ---: | ---: | --- |"]
    for network in networks:
        layers = [layer_of(record) for record in network["layers"]]
        slower = [sum(layer.speed * factor < 1 for layer in layers) for factor in areas.values()]
        reasons = collections.Counter(layer.reason for layer in layers if layer.speed < 1)
        speeds = sorted(layers, key=lambda layer: layer.speed)
        ends = " … ".join(f"{layer.speed:.2f} ({layer.name})" for layer in (speeds[0], speeds[-1]))
        told = ", ".join(f"{reason} {number}" for reason, number in reasons.most_common())
        lines.append(
            f"| {network['name']} | {len(layers)} | {' / '.join(map(str, slower))} "
            f"| {ends} | {told} |"
        )
    return "\n".join(lines)


def details(network: dict[str, Any]) -> str:
    """Give a line for each layer."""
    lines = [
        f"| {network['name']} | speed | zeros | empty | SparTen waits | reason |",
        "| --- | ---: | ---: | ---: | ---: | --- |",
    ]
    for record in network["layers"]:
        name, speed, zeros, empty, waiting, reason = layer_of(record)
        lines.append(
            f"| {name} | {speed:.2f} | {zeros:.0%} | {empty:.0%} | {waiting:.0%} | {reason} |"
        )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("report", type=Path)
    parser.add_argument("--all", action="store_true", help="a table of each network's layers")
    options = parser.parse_args(arguments)
    try:
        report = json.loads(options.report.read_text(encoding="utf-8"))
        missing = RIVAL not in report["networks"][0]["layers"][0]["costs"]
    except (OSError, ValueError, LookupError) as error:
        print(f"error: {options.report}: no report: {error}", file=sys.stderr)
        return 2
    if missing:
        print(f"error: {options.report}: made with --no-sparten", file=sys.stderr)
        return 2
    units = report["networks"][0]["layers"][0]["costs"][OURS]["units"]
    areas = {EQUAL: 1.0}
    for area in report["equal_area"]:
        areas[f"equal area, {area['name']}"] = area["elements"] / units
    print(table(report["networks"], areas))
    if options.all:
        for network in report["networks"]:
            print(f"\n{details(network)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
