# SPDX-License-Identifier: Apache-2.0
"""The table of layers that are slower than on SparTen."""

import dataclasses
import json
from pathlib import Path

import pytest

from csp_algo.geometry import Geometry
from sim.model.constants import Constants
from sim.peers import csp_h
from sim.report.comparison import files, roofline
from sim.workloads.catalogue import Work
from sim.workloads.shapes.layer import LayerShape

ROOT = Path(__file__).resolve().parents[2]
UNITS = 1000


@pytest.fixture
def layers(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import layers as module

    return module


def record(module, name, *, cycles, useful, issued, limit, rival):
    """Give a layer of the report."""
    return {
        "name": name,
        "roof": {"products": issued, "limit": limit},
        "costs": {
            module.OURS: {"cycles": cycles, "units": UNITS, "useful_unit_cycles": useful},
            module.RIVAL: {"cycles": rival, "units": UNITS, "useful_unit_cycles": useful},
        },
    }


def report(module):
    made = [
        # 1,000,000 unit-cycles: 300,000 useful, 500,000 of zeros, 200,000 empty.
        record(module, "zeros", cycles=1000, useful=3e5, issued=8e5, limit="compute", rival=400),
        record(module, "drain", cycles=1000, useful=2e5, issued=3e5, limit="drain", rival=800),
        record(module, "quick", cycles=1000, useful=9e5, issued=9e5, limit="compute", rival=1200),
    ]
    return {
        "equal_area": [{"name": "wide", "elements": 3000.0}],
        "networks": [{"name": "net", "layers": made}],
    }


def test_shares_and_reasons(layers):
    made = report(layers)["networks"][0]["layers"]
    zeros, drain, quick = map(layers.layer_of, made)
    assert zeros[1:4] == pytest.approx((0.4, 0.5, 0.2))
    assert zeros.waiting == pytest.approx(0.25)
    assert zeros.reason == layers.ZEROS
    assert drain[1:4] == pytest.approx((0.8, 0.1, 0.7))
    assert drain.reason == "the drain"
    assert quick.speed == pytest.approx(1.2)


def test_a_layer_that_repeats_is_told_as_one(layers):
    """With the roof and the cost that the report writes."""
    geometry = Geometry(in_shape=(8, 8, 32), filters=64)

    def told(repeat):
        shape = LayerShape(name="layer", geometry=geometry, repeat=repeat)
        work = Work(shape=shape, weights=0.5, inputs=0.5, outputs=0.5)
        cost, roof = roofline.layer(work, csp_h.Place(), csp_h.CspH(), Constants())
        costs = dict.fromkeys((layers.OURS, layers.RIVAL), files.cost_fields(cost))
        roof_fields = dataclasses.asdict(roof)
        return layers.layer_of(
            {"name": "layer", "repeat": repeat, "roof": roof_fields, "costs": costs}
        )

    once, thrice = told(1), told(3)
    assert thrice[1:5] == pytest.approx(once[1:5])
    assert 0 < thrice.zeros < 1


def test_the_table(layers, tmp_path, capsys):
    path = tmp_path / "comparison.json"
    path.write_text(json.dumps(report(layers)), encoding="utf-8")
    assert layers.main([str(path), "--all"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "equal multipliers / equal area, wide" in lines[0]
    assert lines[2] == (
        "| net | 3 | 2 / 0 | 0.40 (zeros) … 1.20 (quick) | zero activations 1, the drain 1 |"
    )
    assert lines[-1] == "| quick | 1.20 | 0% | 10% | 25% | lanes without a pixel |"


@pytest.mark.parametrize("text", ["", "{}", '{"networks": []}'])
def test_what_is_no_report_is_refused(layers, tmp_path, capsys, text):
    path = tmp_path / "a.json"
    path.write_text(text, encoding="utf-8")
    assert layers.main([str(path)]) == 2
    assert f"{path}: no report" in capsys.readouterr().err


def test_sparten_is_needed(layers, tmp_path, capsys):
    made = report(layers)
    del made["networks"][0]["layers"][0]["costs"][layers.RIVAL]
    path = tmp_path / "a.json"
    path.write_text(json.dumps(made), encoding="utf-8")
    assert layers.main([str(path)]) == 2
    assert "--no-sparten" in capsys.readouterr().err
