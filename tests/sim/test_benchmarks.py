# SPDX-License-Identifier: Apache-2.0
"""What benchmarks say to those who ask for what there is not, before they measure anything."""

import importlib
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def refusal(monkeypatch, capsys):
    """Give a function that runs a benchmark and gives what it says to options that are wrong."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))

    def run(script, *options):
        monkeypatch.setattr(sys, "argv", [script, *options])
        with pytest.raises(SystemExit) as exit_:
            importlib.import_module(script).main()
        assert exit_.value.code == 2
        out, err = capsys.readouterr()
        assert out == ""
        return err.splitlines()[-1]

    return run


@pytest.mark.parametrize("script", ["budget", "energy", "peers", "pruning", "real_zeros"])
def test_an_unknown_network_is_told_of_all(script, refusal):
    assert "error: no network 'lenet'; there are " in refusal(script, "--networks", "lenet")


def test_a_target_that_is_distilled_must_be_pruned_to(refusal):
    message = "error: --distil 0.6 is none of the targets"
    assert refusal("minilm", "--targets", "0.5,0.7", "--distil", "0.5,0.6").endswith(message)


def test_a_sparten_that_cannot_be_is_told(refusal):
    message = "error: start_up must be 0 … 65536, not -1"
    assert refusal("peers", "--start-up", "-1").endswith(message)
