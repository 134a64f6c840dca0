# SPDX-License-Identifier: Apache-2.0
"""The plots of an ablation."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HEAD = "axis,value,int8,aware,words,sparsity\n"
ROWS = (
    "cols,4,88.50,89.00,31.00,70.00\ncols,8,88.00,,35.00,68.00\nq,1,,,,\nq,2,80.25,,20.00,80.00\n"
)


@pytest.fixture
def ablation(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import ablation as module

    return module


def drawn(ablation, folder: Path, text: str) -> int:
    (folder / "a.csv").write_text(text, encoding="utf-8")
    return ablation.main([str(folder / "a.csv"), "--out", str(folder / "plots" / "a.svg")])


def test_every_figure_is_a_point(ablation, tmp_path):
    assert drawn(ablation, tmp_path, HEAD + ROWS) == 0
    text = (tmp_path / "plots" / "a.svg").read_text(encoding="utf-8")
    _, *charts = text.split("<svg ")[1:]
    assert len(charts) == 4
    titles = [re.findall(r"<title>(.*?)</title>", chart) for chart in charts]
    assert titles[0] == [
        "4: after quantisation 88.5 %",
        "8: after quantisation 88 %",
        "4: after aware fine-tuning 89 %",
    ]
    assert titles[3] == ["2: chunks stored 20 %", "2: zero weights 80 %"]
    # All within the chart, which is 512 wide and 250 high; higher is better.
    dots = re.findall(r'cx="([\d.]+)" cy="([\d.]+)"', charts[0])
    assert all(54 <= float(x) <= 498 and 24 <= float(y) <= 208 for x, y in dots)
    first, second, better = (float(y) for _, y in dots)
    assert better < first < second


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is no table of an ablation, or an empty one"),
        (HEAD, "is no table of an ablation, or an empty one"),
        ("strength,q\n1,2\n", "is no table of an ablation, or an empty one"),
        (HEAD + "q,1,,,,\n", "error: q: no trial has figures"),
    ],
)
def test_refusals(ablation, tmp_path, capsys, text, message):
    assert drawn(ablation, tmp_path, text) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "plots").exists()


def test_no_file(ablation, tmp_path, capsys):
    assert ablation.main([str(tmp_path / "none.csv"), "--out", str(tmp_path / "a.svg")]) == 2
    assert "none.csv: cannot be read: " in capsys.readouterr().err
