# SPDX-License-Identifier: Apache-2.0
"""The benchmark against other simulators: what it tells them, and why their cycles differ."""

import json
from pathlib import Path

import pytest

from sim.peers import dense
from sim.workloads.catalogue import workload

ROOT = Path(__file__).resolve().parents[2]
MEASURED = json.loads((ROOT / "benchmarks" / "results" / "others.json").read_text("utf-8"))


@pytest.fixture
def others(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import others as module

    return module


def layer():
    return next(w for w in workload("resnet50").works if w.shape.name == MEASURED["layer"])


def test_every_cycle_of_scale_sim_has_a_reason(others):
    found = others.ScaleSim(**MEASURED["scale_sim"])
    ours = dense.cost(layer()).cycles
    assert ours == MEASURED["dense"] == MEASURED["zigzag"]["ideal"]
    reasons = others.explain(layer().shape.geometry, found, 32, 32)
    assert ours + sum(reason.cycles for reason in reasons) == found.last
    # 25 tiles of pixels, 4 of filters.
    assert reasons[0].cycles == 100 * 62
    memory = others.explain_memory(found)
    assert found.last + sum(reason.cycles for reason in memory) == found.with_memory


def test_scale_sim_is_given_the_same_layer(others, tmp_path):
    config, topology, _ = others.scale_files(layer(), tmp_path)
    # Height and width with padding, kernel, channels, filters, stride.
    assert "conv3_2_conv,30,30,3,3,128,128,1,1:1," in topology.read_text("utf-8")
    lines = config.read_text("utf-8").splitlines()
    assert {"ArrayHeight = 32", "ArrayWidth = 32", "Dataflow = os"} <= set(lines)


def test_reports_of_scale_sim_are_read(others, tmp_path):
    (tmp_path / "COMPUTE_REPORT.csv").write_text(
        "LayerID, Total Cycles (incl. prefetch), Total Cycles, Stall Cycles,\n0, 150, 99, 3,\n"
    )
    (tmp_path / "DETAILED_ACCESS_REPORT.csv").write_text(
        "LayerID, DRAM IFMAP Start Cycle, DRAM Filter Start Cycle, DRAM OFMAP Stop Cycle,\n"
        "0, -30.0, -40.0, 110.0,\n"
    )
    found = others.read_scale(tmp_path)
    assert found == others.ScaleSim(last=99, stalls=3, with_memory=150, prefetch=40, drained=110)


def test_zigzag_is_given_the_same_work(others):
    sizes = others.zigzag_layer(layer().shape.geometry)["loop_sizes"]
    assert sizes == [128, 1152, 784]
    assert others.zigzag_accelerator()["operational_array"]["sizes"] == [32, 32]


def test_an_unknown_layer_names_those_there_are(others, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["others.py", "--layer", "conv9"])
    with pytest.raises(SystemExit) as stopped:
        others.main()
    assert stopped.value.code == 2
    assert "no layer 'conv9'; there are conv1, " in capsys.readouterr().err
