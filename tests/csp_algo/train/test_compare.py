# SPDX-License-Identifier: Apache-2.0
import csv
import dataclasses
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs the extra 'train': make train-test")

from csp_algo import container
from csp_algo.train import commands, compare, data, flow, schedule
from csp_algo.train.compare import Finding, summarise
from sim import golden
from tests.csp_algo.train import driver
from tests.csp_algo.train.small import data_folder, striped

PLAN = dataclasses.replace(driver.recipe().plan, epochs=(2, 1, 1), validation=80)
RECIPE = dataclasses.replace(driver.recipe(), plan=PLAN)


@pytest.fixture
def folder(tmp_path) -> Path:
    return data_folder(tmp_path, 280)


def options(folder: Path, *more: str) -> list[str]:
    given = ["--data", str(folder), "--out", str(folder / "out"), "--work", str(folder / "work")]
    return [*given, *more]


def table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_networks_of_two_seeds_beside_their_controls(folder, monkeypatch, capsys):
    events = []
    learn, read = flow.learn, data.read_images

    def spy_learn(recipe, plan, *arguments, **options):
        events.append((plan.seed, plan.control, plan.acc_bits))
        return learn(recipe, plan, *arguments, **options)

    def spy_read(directory, part):
        events.append(part)
        return read(directory, part)

    monkeypatch.setattr(flow, "learn", spy_learn)
    monkeypatch.setattr(data, "read_images", spy_read)
    given = options(folder, "--seeds", "3", "4", "--bits", "24", "9")
    assert commands.compare(RECIPE, given) == 0
    # Test images are read once, when all is trained.
    networks = [(True, 24), (False, 24), (False, 9)]
    assert events == ["train", *((seed, *each) for seed in (3, 4) for each in networks), "t10k"]

    rows = table(folder / "out" / "comparison.csv")
    kinds = [("control", kind) for kind in ("float32", "int8", "aware")]
    kinds += [("pruned", kind) for kind in ("float32", "int8", "aware", "int8", "aware")]
    assert [(row["network"], row["numbers"]) for row in rows] == kinds * 2
    # Epochs are the same on both sides, and so is what dense training gave.
    assert [row["epochs"] for row in rows] == ["4", "4", "5", "4", "4", "5", "4", "5"] * 2
    assert len(list((folder / "work").glob("dense-*.pt"))) == 2
    assert len(list((folder / "work").glob("fine-*.pt"))) == 4
    for row in rows:
        zeros = float(row["sparsity"])
        assert (zeros < 10) if row["network"] == "control" else (zeros > 50)
        assert bool(row["words"]) == bool(row["acc_bits"]) == (row["numbers"] != "float32")

    # The figures are those of the golden model on the networks that were written.
    test = read(folder, "t10k")
    for seed in (3, 4):
        for width in (24, 9):
            network = container.load(folder / "out" / f"seed{seed}-{width}bit.csp")
            assert f'"seed": {seed}' in network.metadata["plan"]
            result = golden.run(network, test.pixels[..., None], acc_bits=width, keep=[])
            answers = result.logits.reshape(len(test), -1).argmax(axis=1)
            (row,) = (
                row
                for row in rows
                if (row["seed"], row["network"], row["numbers"], row["acc_bits"])
                == (str(seed), "pruned", "aware", str(width))
            )
            assert row["test"] == f"{100 * float((answers == test.labels).mean()):.2f}"

    summary = (folder / "out" / "summary.csv").read_text(encoding="utf-8")
    assert capsys.readouterr().out.endswith(summary)
    assert len(summary.splitlines()) == 1 + 8


def test_a_control_is_dense_and_trained_as_long(folder, capsys):
    plain = options(folder, "--validation", "80", "--acc-bits", "24", "--aware", "0")
    assert commands.train(RECIPE, [*plain, "--control"]) == 0
    rows = table(folder / "out" / "training.csv")
    stages = ["dense", "dense", "regularised", "fine"]
    assert [row["stage"] for row in rows if row["seconds"]] == stages
    assert "pruned" not in [row["stage"] for row in rows]
    assert not any(row["regulariser"] for row in rows)
    network = container.load(folder / "out" / "network.csp")
    assert '"control": true' in network.metadata["plan"]
    assert flow.zeros(network) < 10
    # λ, q and targets make no difference to it.
    first = [layer.weights() for layer in network.layers()]
    capsys.readouterr()
    other = ["--control", "--strength", "0.5", "--target", "conv2=0.9", "--q", "3"]
    assert commands.train(RECIPE, [*plain, *other]) == 0
    assert capsys.readouterr().out.count("taken as it is") == 3
    network = container.load(folder / "out" / "network.csp")
    for layer, before in zip(network.layers(), first, strict=True):
        np.testing.assert_array_equal(layer.weights(), before)


def test_bfloat16_is_not_for_the_integers(folder):
    plan = dataclasses.replace(PLAN, bfloat16=True)
    assert [stage.bfloat16 for stage in plan.stages()] == [True, True, True, False]
    assert commands.train(RECIPE, options(folder, "--validation", "80", "--bfloat16")) == 0
    network = container.load(folder / "out" / "network.csp")
    assert '"bfloat16": true' in network.metadata["plan"]


def test_integers_may_be_tuned_on_fewer_images(monkeypatch):
    seen = []
    train = schedule.train

    def spy(model, stage, pixels, labels, **options):
        seen.append((stage.name, len(pixels), len(labels)))
        return train(model, stage, pixels, labels, **options)

    monkeypatch.setattr(schedule, "train", spy)
    training = striped(280)
    plan = dataclasses.replace(PLAN, aware_images=130)
    flow.learn(RECIPE, plan, training)
    assert seen[2:] == [("fine", 200, 200), ("aware", 130, 130)]
    message = r"^aware_images must be 1 … 2147483647, not 0$"
    with pytest.raises(compare.CspError, match=message):
        dataclasses.replace(PLAN, aware_images=0)
    more = dataclasses.replace(PLAN, aware_images=201)
    with pytest.raises(compare.CspError, match=r"^aware_images is 201, there are 200 to train on$"):
        flow.learn(RECIPE, more, training)
    # Without such epochs it does not matter.
    flow.learn(RECIPE, dataclasses.replace(more, epochs=(0, 0, 0), aware=0), training)


def finding(seed: int, network: str, numbers: str, test: float, **more: object) -> Finding:
    given = {"epochs": 4, "sparsity": 80.0, "validation": 50.0, "acc_bits": None}
    return Finding(seed=seed, network=network, numbers=numbers, test=test, **{**given, **more})


def test_only_held_images(folder):
    given = options(folder, "--seeds", "3", "--bits", "24", "--aware", "0", "--held")
    for part in ("images-idx3", "labels-idx1"):
        (folder / f"t10k-{part}-ubyte.gz").unlink()
    assert commands.compare(RECIPE, given) == 0
    rows = table(folder / "out" / "comparison.csv")
    assert [(row["network"], row["test"]) for row in rows] == [
        *([("control", "")] * 2),
        *([("pruned", "")] * 2),
    ]
    summaries = table(folder / "out" / "summary.csv")
    assert [(each["images"], each["mean"]) for each in summaries] == [
        ("held", row["validation"]) for row in rows
    ]


def test_summary():
    findings = [
        finding(1, "control", "float32", 90.0),
        finding(1, "control", "int8", 89.0, acc_bits=24),
        finding(1, "pruned", "int8", 88.0, acc_bits=8, sparsity=81.0),
        finding(2, "control", "float32", 92.0),
        finding(2, "control", "int8", 92.5, acc_bits=24),
        finding(2, "pruned", "int8", 91.0, acc_bits=8),
    ]
    summaries = summarise(findings)
    assert [(each.network, each.numbers, each.acc_bits) for each in summaries] == [
        ("control", "float32", None),
        ("control", "int8", 24),
        ("pruned", "int8", 8),
    ]
    last = summaries[-1]
    assert (last.images, last.seeds) == ("test", 2)
    assert (last.mean, last.low, last.high, last.sparsity) == (89.5, 88.0, 91.0, 80.0)
    assert last.deviation == pytest.approx(4.5**0.5)
    # To the control of the same seed: 1 and 1.5 points, and 2 and 1 to its floats.
    assert (last.loss, last.float_loss) == (1.25, 1.5)
    assert [each.loss for each in summaries[:2]] == [0, 0]
    (alone,) = summarise(findings[:1])
    assert alone.deviation is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--seeds", "1", "1"], "seeds must be different values, not [1, 1]"),
        (["--bits", "8", "24", "8"], "bits must be different values, not [8, 24, 8]"),
        (["--bits", "24", "7"], "acc_bits must be 8 … 32, not 7"),
        (["--seeds", "1", "-1"], "seed must be 0 … 4294967295, not -1"),
        (
            ["--epochs", "1", "1", "0"],
            "epochs of stage fine must be 1 or more: accuracies are those behind it",
        ),
    ],
)
def test_refusals_before_any_training(folder, monkeypatch, capsys, arguments, message):
    monkeypatch.setattr(flow, "learn", lambda *_, **__: pytest.fail("training"))
    assert commands.compare(RECIPE, options(folder, *arguments)) == 2
    assert capsys.readouterr().err == f"error: {message}\n"


@pytest.mark.parametrize("option", [["--seed", "5"], ["--acc-bits", "16"]])
def test_what_it_has_several_of_is_not_given_once(folder, capsys, option):
    with pytest.raises(SystemExit):
        commands.compare(RECIPE, options(folder, *option))
    assert f"unrecognized arguments: {' '.join(option)}" in capsys.readouterr().err


def test_only_one_process(folder, capsys, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert commands.compare(RECIPE, options(folder)) == 2
    assert capsys.readouterr().err == "error: compare runs in one process, not in 2\n"


def test_nothing_is_compared_without_widths(tmp_path):
    with pytest.raises(compare.CspError, match=r"^bits must be different values, not \[\]$"):
        compare.compare(
            RECIPE,
            PLAN,
            striped(280),
            lambda: striped(9),
            seeds=[1],
            bits=[],
            work=tmp_path,
            out=tmp_path,
        )
