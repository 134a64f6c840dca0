# SPDX-License-Identifier: Apache-2.0
import csv
import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs the extra 'train': make train-test")

import torch

from csp_algo import container
from csp_algo.errors import CspError
from csp_algo.train import __main__ as command_line
from csp_algo.train import commands, data, flow, schedule, search
from csp_algo.train.method import Method
from csp_algo.train.search import Trial, best
from tests.csp_algo.train import driver
from tests.csp_algo.train.small import data_folder, striped

PLAIN = dataclasses.replace(driver.recipe().plan, epochs=(2, 1, 1), aware=0, acc_bits=24)
RECIPE = dataclasses.replace(driver.recipe(), plan=PLAIN)


def trial(words: float, reached: float | None, **fields: object) -> Trial:
    given = {
        "method": "cascade",
        "strength": 0.1,
        "q": 2.0,
        "keep": 1.0,
        "cols": 4,
        "period": 8,
        "acc_bits": 24,
        "dense": 90.0,
        "int8": reached,
        "words": words,
    }
    return Trial(**{**given, **fields})


class TestBest:
    def test_the_fewest_words_within_the_drop(self):
        trials = [trial(30, 89.5), trial(20, 89.0), trial(10, 88.9), trial(20, 89.3)]
        assert best(trials, 1.0) is trials[3]
        assert best(trials, 0.5) is trials[0]
        assert best(trials, 2.0) is trials[2]

    def test_the_last_integers_count(self):
        trials = [trial(30, 89.5), trial(10, 50.0, aware=89.2), trial(5, 89.9, aware=80.0)]
        assert best(trials, 1.0) is trials[1]

    def test_refusals(self):
        message = r"^no trial loses at most 0.2 points; λ 0.1, q 2 loses 0.50$"
        with pytest.raises(CspError, match=message):
            best([trial(30, 89.5), trial(20, 89.0)], 0.2)
        with pytest.raises(CspError, match=r"^every trial erased a layer: choose smaller q$"):
            best([trial(30, None)], 1.0)


@pytest.fixture
def folder(tmp_path) -> Path:
    return data_folder(tmp_path, 280)


def options(folder: Path, out: str) -> list[str]:
    return [
        *("--data", str(folder), "--out", str(folder / out)),
        *("--work", str(folder / "work"), "--validation", "80"),
    ]


def table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_choose(folder, capsys, monkeypatch):
    looks = []
    examine = flow.examine

    def spy(*arguments, **options):
        looks.append(arguments[0].plan)
        return examine(*arguments, **options)

    monkeypatch.setattr(flow, "examine", spy)
    given = ["--strength", "0.001", "0.01", "--quantile", "0.5", "1", "1e6", "--drop", "100"]
    assert commands.choose(RECIPE, [*options(folder, "choice"), *given]) == 0
    rows = table(folder / "choice" / "choice.csv")
    assert [(row["strength"], row["q"]) for row in rows] == [
        (strength, q) for strength in ("0.001", "0.01") for q in ("0.5", "1", "1e+06")
    ]
    # What erases a layer has no figures, all others have.
    for row in rows:
        erased = row["q"] == "1e+06"
        assert row["note"] == ("conv2: strength q 1e+06 leaves no weight" if erased else "")
        assert (row["int8"] == row["words"] == "") == erased
    known = [row for row in rows if row["words"]]
    (chosen,) = [row for row in rows if row["test"]]
    assert float(chosen["words"]) == min(float(row["words"]) for row in known)
    # Test images were looked at once, and for the chosen plan.
    assert [(f"{plan.strength:g}", f"{plan.q:g}") for plan in looks] == [
        (chosen["strength"], chosen["q"])
    ]
    # The dense stage is common to all, the regularised one to all q.
    assert len(list((folder / "work").glob("dense-*.pt"))) == 1
    assert len(list((folder / "work").glob("regularised-*.pt"))) == 2
    assert len(list((folder / "work").glob("fine-*.pt"))) == 4
    network = container.load(folder / "choice" / "network.csp")
    assert f"{search.stored(network):.2f}" == chosen["words"]
    assert f"{flow.zeros(network):.2f}" == chosen["sparsity"]
    assert f'"q": {float(chosen["q"])}' in network.metadata["plan"]
    assert f"chosen: λ {chosen['strength']}, q {chosen['q']}" in capsys.readouterr().out


def test_choose_among_densities(folder, capsys):
    given = ["--strength", "0.001", "--density", "0.5", "1", "--drop", "100"]
    assert commands.choose(RECIPE, [*options(folder, "choice"), *given]) == 0
    rows = table(folder / "choice" / "choice.csv")
    assert [(row["q"], row["keep"], bool(row["test"])) for row in rows] == [
        ("", "0.5", True),
        ("", "1", False),
    ]
    assert "chosen: λ 0.001, keep 0.5" in capsys.readouterr().out
    layers = container.load(folder / "choice" / "network.csp").layers()
    for layer in layers:
        if layer.name in PLAIN.targets:
            kept = float((layer.weights() != 0).mean())
            assert kept == pytest.approx(0.5 * (1 - PLAIN.targets[layer.name]), abs=0.03)


def test_choose_tells_if_nothing_is_good(folder, capsys):
    given = ["--strength", "0.001", "--quantile", "1e6"]
    assert commands.choose(RECIPE, [*options(folder, "choice"), *given]) == 2
    assert capsys.readouterr().err == "error: every trial erased a layer: choose smaller q\n"
    assert len(table(folder / "choice" / "choice.csv")) == 1


def test_searches_run_in_one_process(folder, capsys, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    given = ["--strength", "0.001", "--quantile", "1"]
    assert commands.choose(RECIPE, [*options(folder, "choice"), *given]) == 2
    assert commands.ablate(RECIPE, [*options(folder, "a.csv"), "--vary", "cols=4"]) == 2
    told = (
        "error: choose runs in one process, not in 2\nerror: ablate runs in one process, not in 2"
    )
    assert capsys.readouterr().err.strip() == told


def test_ablate(folder, monkeypatch):
    monkeypatch.setattr(flow, "examine", lambda *_, **__: pytest.fail("a look at test images"))
    given = ["--vary", "period=4,8", "--vary", "acc_bits=10,24", "--vary", "cols=2,4"]
    # A field may be given again.
    given += ["--vary", "q=0.5", "--vary", "q=1", "--aware", "1"]
    for path in folder.glob("t10k-*"):
        path.unlink()
    assert commands.ablate(RECIPE, [*options(folder, "ablation.csv"), *given]) == 0
    rows = table(folder / "ablation.csv")
    assert [(row["axis"], row["value"]) for row in rows] == [
        *(("period", "4"), ("period", "8"), ("acc_bits", "10"), ("acc_bits", "24")),
        *(("cols", "2"), ("cols", "4"), ("q", "0.5"), ("q", "1")),
    ]
    for row in rows:
        assert row[row["axis"]] == row["value"]
        assert row["aware"]
        assert not row["test"]
    # The same plan is the same trial.
    (same,) = {tuple(list(rows[index].values())[2:]) for index in (1, 3, 5)}
    assert "8" in same
    assert float(rows[6]["words"]) > float(rows[7]["words"])
    # The period and the bits need no training of their own, but for the integers.
    assert len(list((folder / "work").glob("fine-*.pt"))) == 4
    assert len(list((folder / "work").glob("aware-*.pt"))) == 6


def test_what_is_out_of_range_shows_before_any_training(folder, monkeypatch, capsys):
    monkeypatch.setattr(flow, "learn", lambda *_, **__: pytest.fail("training"))
    given = ["--vary", "cols=2,4", "--vary", "acc_bits=24,99"]
    assert commands.ablate(RECIPE, [*options(folder, "ablation.csv"), *given]) == 2
    for given in (
        ["--strength", "0", "-1", "--quantile", "1"],
        ["--strength", "0", "--quantile", "1", "-1"],
        ["--strength", "0", "--density", "1", "--drop", "nan"],
    ):
        assert commands.choose(RECIPE, [*options(folder, "out"), *given]) == 2
    assert capsys.readouterr().err.splitlines() == [
        "error: acc_bits must be 8 … 32, not 99",
        "error: strength must be finite and not negative, not -1.0",
        "error: q must be finite and not negative, not -1.0",
        "error: drop must be a number of points, not nan",
    ]


@pytest.mark.parametrize("option", [["--q", "2"], ["--keep", "0.5"]])
def test_what_is_chosen_is_not_given_once(folder, capsys, option):
    given = ["--strength", "0", "--density", "1", *option]
    with pytest.raises(SystemExit):
        commands.choose(RECIPE, [*options(folder, "out"), *given])
    assert f"unrecognized arguments: {' '.join(option)}" in capsys.readouterr().err


def test_a_later_target_overrides(folder, monkeypatch):
    plans = []

    def learn(_: flow.Recipe, plan: flow.Plan, *__: object, **___: object) -> None:
        plans.append(plan)
        raise CspError("enough")

    monkeypatch.setattr(flow, "learn", learn)
    given = [f"--target={each}" for each in ("conv2=0.7", "conv*=0.4", "conv2=0.1")]
    assert commands.train(RECIPE, [*options(folder, "out"), *given]) == 2
    assert list(plans[0].targets.items()) == [("conv*", 0.4), ("conv2", 0.1)]


def test_a_folder_that_cannot_be_made_is_named(folder, capsys):
    (folder / "out").write_text("a file")
    arguments = [*options(folder, "out"), "--epochs", "0", "0", "0"]
    assert commands.train(RECIPE, arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert str(folder / "out") in line


def test_samples_are_written_whole_or_not_at_all(tmp_path):
    with pytest.raises(CspError, match=r"cannot be written: is not a file$"):
        commands.save_samples(striped(3), tmp_path)


def test_rate_and_decay_of_fine_tuning(folder):
    losses = {}
    for name, given in (
        ("usual", []),
        ("rate", ["--fine-rate", "0.5"]),
        ("decay", ["--fine-decay", "2"]),
    ):
        assert commands.train(RECIPE, [*options(folder, name), *given]) == 0
        rows = table(folder / name / "training.csv")
        losses[name] = {row["stage"]: row["loss"] for row in rows if row["loss"]}
    for name in ("rate", "decay"):
        assert losses[name]["regularised"] == losses["usual"]["regularised"]
        assert losses[name]["fine"] != losses["usual"]["fine"]
    plan = container.load(folder / "rate" / "network.csp").metadata["plan"]
    assert '"fine_rate": 0.5' in plan
    assert "fine_decay" not in plan


@pytest.mark.parametrize("given", [[], ["--shift", "0"], ["--shift", "3"]])
def test_images_are_shifted_in_all_stages(folder, monkeypatch, given):
    shifts, augment = [], schedule.augment

    def watched(pixels: torch.Tensor, generator: torch.Generator, *, shift: int) -> torch.Tensor:
        shifts.append(shift)
        return augment(pixels, generator, shift=shift)

    monkeypatch.setattr(schedule, "augment", watched)
    arguments = [*options(folder, "out"), "--epochs", "1", "1", "1", "--aware", "1", *given]
    assert commands.train(RECIPE, arguments) == 0
    assert set(shifts) == {int(given[1]) if given else 2}
    plan = json.loads(container.load(folder / "out" / "network.csp").metadata["plan"])
    assert plan.get("shift", 2) == shifts[0]


@pytest.mark.parametrize("method", Method)
def test_methods(folder, method):
    out = folder / "out"
    arguments = [*options(folder, "out"), "--method", method, "--strength", "0.01"]
    assert commands.train(RECIPE, arguments) == 0
    network = container.load(out / "network.csp")
    layers = {layer.name: layer for layer in network.layers()}
    for name, target in PLAIN.targets.items():
        zero = float((layers[name].weights() == 0).mean())
        assert zero >= target - 0.02, name
    rows = table(out / "training.csv")
    pulled = [row["stage"] for row in rows if row["regulariser"]]
    assert pulled == ([] if method is Method.CHUNK else ["regularised"])
    # Only cascades store nothing but what survives.
    linear = layers["linear3"].matrices[0]
    chunks = linear.decompress().reshape(-1, 4, linear.taps).any(axis=1)
    hollow = int(linear.counts.sum(dtype=int)) - int(chunks.sum())
    assert (hollow == 0) == (method not in (Method.SSL, Method.CHUNK))
    recorded = f'"method": "{method}"' in network.metadata["plan"]
    assert recorded == (method is not Method.CASCADE)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--vary", "rows=3"], "rows cannot be varied; there are: cols, q, keep, strength, period"),
        (["--vary", "cols=a"], "--vary 'cols=a' is not FIELD=V,V,…"),
        (["--vary", "period=4.5"], "period must be an integer, not 4.5"),
        (["--vary", "cols=nan"], "cols must be an integer, not nan"),
        (["--vary", "cols=inf"], "cols must be an integer, not inf"),
        (["--vary", "q=nan"], "q must be finite and not negative, not nan"),
        (["--vary", "keep=0.5", "--q", "2"], "keep 0.5 scales targets, and q 2 stands in their"),
        (["--vary", "cols=4", "--threads", "0"], "threads must be 1 … 1024, not 0"),
        (["--vary", "cols=4", "--seed", str(2**70)], "seed must be 0 … 4294967295, not 118059"),
        (["--vary", "cols=4", "--epochs", "0", "1", "1"], "epochs of stage dense must be 1 or mo"),
        (["--vary", "cols=0"], "cols must be 1 … 256, not 0"),
        (["--vary", "cols=4", "--acc-bits", "40"], "acc_bits must be 8 … 32, not 40"),
        (["--vary", "cols=4", "--aware", "-1"], "epochs of stage aware must be 0 … 10000, not -1"),
        (["--vary", "cols=4", "--period", "33"], "period must be 1 … 32, not 33"),
        (["--vary", "cols=4", "--strength", "nan"], "strength must be finite and not negative, no"),
        (["--vary", "keep=0"], "keep must be finite and above 0, not 0.0"),
        (["--vary", "cols=4", "--fine-rate", "0"], "fine_rate must be finite and above 0, not 0.0"),
        (["--vary", "cols=4", "--fine-decay", "-1"], "fine_decay must be finite and not negative"),
        (["--vary", "cols=4", "--shift", "28"], "shift must be 0 … 27, not 28"),
        (["--vary", "keep=2"], "the target of conv2 must be 0 or more and below 1, not -0.2"),
        (["--vary", "cols=4", "--images", "0"], "images must be 1 … 2147483647, not 0"),
        (["--vary", "cols=4", "--images", "281"], "images is 281, there are 280 to train on"),
        (["--vary", "cols=4", "--validation", "0"], "validation must be 1 … 2147483647, not 0"),
    ],
)
def test_refusals(folder, capsys, arguments, message):
    assert commands.ablate(RECIPE, [*options(folder, "a.csv"), *arguments]) == 2
    assert capsys.readouterr().err.startswith(f"error: {message}")


def test_a_stage_that_was_not_trained_has_no_accuracy():
    training = striped(280)
    plan = dataclasses.replace(PLAIN, epochs=(0, 0, 0))
    learnt = flow.learn(RECIPE, plan, training)
    with pytest.raises(CspError, match=r"^stage fine has no accuracy on held images$"):
        learnt.validation("fine")


def test_states_of_other_circumstances_are_not_taken(tmp_path, capsys):
    images, plan = striped(280), dataclasses.replace(PLAIN, epochs=(1, 0, 0))

    def other_stride():
        model = RECIPE.build()
        model.conv1.stride = (1, 1)
        model.conv2.stride = (4, 4)
        return model

    def labelled(part: slice) -> data.Images:
        labels = images.labels.copy()
        labels[part] = 9
        return dataclasses.replace(images, labels=labels)

    def taken(recipe: flow.Recipe, plan: flow.Plan, images: data.Images) -> bool:
        flow.learn(recipe, plan, images, work=tmp_path)
        return "dense: taken as it is" in capsys.readouterr().out

    assert not taken(RECIPE, plan, images)
    assert taken(RECIPE, plan, images)
    # The same 200 images are trained on, others are held back.
    assert not taken(RECIPE, dataclasses.replace(plan, validation=40), images[:240])
    assert not taken(RECIPE, plan, labelled(slice(0, 1)))
    assert not taken(RECIPE, plan, labelled(slice(279, 280)))
    assert not taken(RECIPE, dataclasses.replace(plan, threads=2), images)
    assert not taken(dataclasses.replace(RECIPE, build=other_stride), plan, images)
    assert taken(RECIPE, plan, images)


def test_fewer_images_are_the_first_ones(folder):
    arguments = [*options(folder, "out"), "--images", "200"]
    assert commands.train(RECIPE, arguments) == 0
    whole = striped(280)
    learnt = flow.learn(RECIPE, PLAIN, whole[:200])
    saved = container.load(folder / "out" / "network.csp")
    for first, second in zip(saved.layers(), learnt.network.layers(), strict=True):
        np.testing.assert_array_equal(first.weights(), second.weights())


def test_the_command_line_knows_every_network(capsys):
    with pytest.raises(SystemExit) as ended:
        command_line.main(["--help"])
    assert ended.value.code == 0
    assert "compare" in capsys.readouterr().out
    for name, recipe in command_line.NETWORKS.items():
        assert recipe().name == name
        with pytest.raises(SystemExit) as ended:
            command_line.main(["train", name, "--help"])
        assert ended.value.code == 0
        assert f"python -m csp_algo.train.{name}" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        command_line.main(["train", "nothing"])
    assert "invalid choice: 'nothing'" in capsys.readouterr().err
