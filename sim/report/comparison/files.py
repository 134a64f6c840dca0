# SPDX-License-Identifier: Apache-2.0
"""A comparison as files: the page, JSON with everything, CSV with a row for each layer and one."""

import csv
import dataclasses
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from csp_algo.container import write_atomically
from csp_algo.errors import CspError
from sim.peers.base import Cost, Part
from sim.peers.csp_h import CspCost
from sim.peers.sparten import SparTenCost
from sim.report.comparison import page, sensitivity
from sim.report.comparison.record import Comparison, NetworkRecord

PAGE, JSON, CSV = "comparison.html", "comparison.json", "comparison.csv"
#: Of the layout of the JSON.
FORMAT = 1


def cost_fields(cost: Cost) -> dict[str, float]:
    """Give a cost as flat figures: cycles, unit-cycles, pJ by part, bytes."""
    traffic = cost.traffic
    fields: dict[str, float] = {
        "cycles": cost.cycles,
        "units": cost.units,
        "useful_unit_cycles": cost.useful,
        **{f"{part}_pJ": cost.energy().get(part, 0.0) for part in Part},
        "refetched_dram_pJ": cost.total(refetch=True) - cost.total(),
        "total_pJ": cost.total(refetch=True),
        **{f"dram_{name}_bytes": value for name, value in dataclasses.asdict(traffic).items()},
    }
    if isinstance(cost, SparTenCost):
        fields |= {
            "unused_unit_cycles": cost.unused,
            "barrier_unit_cycles": cost.barrier,
            "idle_cluster_unit_cycles": cost.clusters,
        }
    return fields


def rows(record: Comparison) -> Iterator[dict[str, Any]]:
    """Give a row for each layer on each accelerator, and one for each network."""
    for network in record.networks:
        for layer in network.layers:
            work = layer.work
            for one in record.shown(network):
                yield {
                    "network": network.name,
                    "layer": layer.name,
                    "accelerator": one.key,
                    "macs": work.shape.macs,
                    "weight_density": work.weights,
                    "input_density": work.inputs,
                    **cost_fields(layer.costs[one.key]),
                }
        for one in record.shown(network):
            yield {
                "network": network.name,
                "layer": "",
                "accelerator": one.key,
                "macs": network.macs,
                "weight_density": network.workload.density,
                **cost_fields(network.totals[one.key]),
            }


def as_csv(record: Comparison) -> str:
    """Give the rows as CSV; the layer of a whole network is empty."""
    found = list(rows(record))
    names = list(dict.fromkeys(name for row in found for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(found)
    return text.getvalue()


def _network(network: NetworkRecord) -> dict[str, Any]:
    layers = []
    for layer in network.layers:
        ours = next(cost for cost in layer.costs.values() if isinstance(cost, CspCost))
        shape = layer.work.shape
        layers.append(
            {
                "name": layer.name,
                "in_shape": shape.geometry.in_shape,
                "out_shape": shape.geometry.out_shape,
                "repeat": shape.repeat,
                "macs": shape.macs,
                "weight_density": layer.work.weights,
                "input_density": layer.work.inputs,
                "published_weight_density": layer.work.published,
                "roof": dataclasses.asdict(layer.roof),
                "components_pJ": dict(ours.components),
                "costs": {key: cost_fields(cost) for key, cost in layer.costs.items()},
            }
        )
    return {
        "name": network.name,
        "macs": network.macs,
        "weight_source": network.workload.weight_source,
        "activation_source": network.workload.activation_source,
        "published_weight_source": network.workload.published_source,
        "totals": {key: cost_fields(cost) for key, cost in network.totals.items()},
        "components_pJ": dict(network.ours.components),
        "energy_chain_pJ": [dataclasses.asdict(step) for step in network.energy_chain],
        "cycle_chain": [dataclasses.asdict(step) for step in network.cycle_chain],
        "sweeps": [dataclasses.asdict(sweep) for sweep in network.sweeps],
        "levers": [dataclasses.asdict(lever) for lever in network.levers],
        "dram": {
            "pJ_per_bit": sensitivity.DRAM_BITS,
            "total_pJ": sensitivity.dram(network.totals),
        },
        "layers": layers,
    }


def as_json(record: Comparison) -> str:
    """Give everything as JSON."""
    document = {
        "format": FORMAT,
        "setting": record.constants.setting,
        "seed": record.seed,
        "hardware": json.loads(record.config.core.config.to_json()),
        "provenance": dict(record.provenance),
        "accelerators": [dataclasses.asdict(one) for one in record.all_shown],
        "constants": {name: dataclasses.asdict(quantity) for name, quantity in page.quantities()},
        "equal_area": [
            dataclasses.asdict(way) for way in page.equal_areas(record.config.core.elements)
        ],
        "networks": [_network(network) for network in record.networks],
    }
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def prepare(folder: Path) -> None:
    """Make the folder, so that a run of minutes does not end where it cannot be written.

    Raises
    ------
    CspError
        It cannot be made, or nothing can be written there.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CspError(f"{folder}: cannot be made: {error.strerror}") from error
    for name in (PAGE, JSON, CSV):
        path = folder / name
        if path.exists() and not path.is_file():
            raise CspError(f"{path}: cannot be written: is not a file")
    probe = folder / ".csp-report"
    write_atomically(probe, b"")
    probe.unlink()


def write(record: Comparison, folder: Path) -> tuple[Path, ...]:
    """Write all three, each whole or not at all.

    Raises
    ------
    CspError
        A file could not be written.
    """
    texts = {PAGE: page.render(record), JSON: as_json(record), CSV: as_csv(record)}
    for name, text in texts.items():
        write_atomically(folder / name, text.encode())
    return tuple(folder / name for name in texts)
