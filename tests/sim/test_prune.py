# SPDX-License-Identifier: Apache-2.0
"""The command ``csp prune`` on small graphs."""

import re

import numpy as np
import onnx
import pytest

from csp_algo import container
from csp_algo.onnx import witness
from csp_algo.onnx.importer import import_graph
from csp_algo.prune import Rule
from csp_hw.config import preset
from sim import golden
from sim import prune as csp_prune
from sim.cosim.core.jobs import Timing
from sim.costs import Of
from sim.model.core.passes import pass_cycles
from sim.program.compiler import compile_network
from tests.command import csp
from tests.csp_algo.graphs import Graph


@pytest.fixture
def rng():
    return np.random.default_rng(4)


@pytest.fixture
def model(rng, tmp_path):
    """Give a residual network that ends in a Softmax."""
    graph = Graph(rng, (1, 3, 8, 8))
    stem = graph.add("Relu", graph.conv("x", 16, 3, (3, 3), pads=[1, 1, 1, 1], name="stem"))
    inner = graph.add("Relu", graph.norm(graph.conv(stem, 32, 16, name="inner"), 32))
    outer = graph.conv(inner, 16, 32, (3, 3), pads=[1, 1, 1, 1], name="outer")
    both = graph.add("Relu", graph.add("Add", outer, stem))
    mean = graph.add("GlobalAveragePool", both, name="mean")
    flat = graph.add("Flatten", mean)
    logits = graph.add("Gemm", flat, graph.random(16, 5), graph.random(5), name="logits")
    return graph.save(tmp_path / "net.onnx", graph.add("Softmax", logits, name="soft"))


@pytest.fixture
def samples(rng, tmp_path):
    path = tmp_path / "samples.npz"
    np.savez(path, x=rng.integers(0, 256, (6, 3, 8, 8)).astype(np.float32) / 255)
    return path


def run(model, samples, output, *more, target=0.6):
    common = ["--samples", samples, "-o", output, "--preset", "tiny_4x4"]
    return csp("prune", model, "--target", target, *common, *more)


@pytest.mark.parametrize("rule", list(Rule))
@pytest.mark.parametrize("order", ["--reorder", "--no-reorder"])
def test_a_graph_becomes_a_network(rule, order, model, samples, tmp_path, capfd):
    output, pruned = tmp_path / "net.csp", tmp_path / "pruned.onnx"
    assert run(model, samples, output, "--onnx", pruned, "--rule", rule, order) == 0
    out = capfd.readouterr().out
    network = container.load(output)
    weights, kept = csp_prune.totals(network, ("inner", "outer"))
    assert abs(1 - kept / weights - 0.6) < 0.03
    assert f"{kept:,} of {weights:,} weights kept in 2 layers" in out
    assert re.search(r"stem +layer, whole +core", out)
    assert re.search(r"inner +layer +core", out)
    assert re.search(r"soft +Softmax +host", out)
    assert f"wrote {output}" in out
    assert "ONNX Runtime equal" in out
    moved = [layer.name for layer in network.layers() if (np.diff(layer.filter_order) != 1).any()]
    assert moved == (["stem", "inner", "outer"] if order == "--reorder" else [])
    # The integers answer what ONNX Runtime computes of the pruned graph.
    imported = import_graph(pruned)
    with np.load(samples) as file:
        x = file["x"]
    levels = np.rint(x.transpose(0, 2, 3, 1) / network.input.scale).astype(np.uint8)
    result = golden.run(network, levels)
    data = pruned.read_bytes()
    for number, maps in enumerate(witness.run(imported, data, x, ["logits"])):
        found = result.logits[number] * network.scales()["logits"]
        np.testing.assert_allclose(found, maps["logits"][0], atol=0.1 * np.abs(found).max())


def test_what_was_pruned_can_be_pruned_again(model, samples, tmp_path):
    """As after fine-tuning under masks: at the same target nothing more goes."""
    pruned, files = tmp_path / "pruned.onnx", [tmp_path / "one.csp", tmp_path / "two.csp"]
    assert run(model, samples, files[0], "--no-reorder", "--onnx", pruned) == 0
    assert run(pruned, samples, files[1], "--no-reorder") == 0
    one, two = (container.load(file) for file in files)
    for first, second in zip(one.layers(), two.layers(), strict=True):
        np.testing.assert_array_equal(first.weights(), second.weights())


def test_what_the_core_cannot_run_is_told(rng, samples, tmp_path, capfd):
    graph = Graph(rng, (1, 3, 8, 8))
    made = graph.conv("x", 16, 3, (3, 3), strides=[3, 3], name="steps")
    path = graph.save(tmp_path / "net.onnx", graph.conv(made, 16, 16))
    assert run(path, samples, tmp_path / "net.csp") == 0
    out = " ".join(capfd.readouterr().out.split())
    assert "preset tiny_4x4 cannot run it: layer steps: stride (3, 3) must be 1, 2 or 4" in out
    assert "golden model" in out


def test_a_difference_is_an_exit_code(model, samples, tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(csp_prune, "TOLERANCE", 0.0)
    pruned = tmp_path / "pruned.onnx"
    assert run(model, samples, tmp_path / "net.csp", "--onnx", pruned) == 1
    assert "ONNX Runtime differs by more than 0" in " ".join(capfd.readouterr().out.split())


def test_what_is_no_number_differs():
    """As where ONNX Runtime's float32 overflows."""
    found, own = {"a": np.full((1, 1, 1, 1), np.nan)}, {"a": np.ones((1, 1, 1, 1))}
    difference = csp_prune._difference([found], own, 1, lambda *_: None)
    result = csp_prune.Pruned(network=None, noise={}, difference=difference, spent=None)
    assert not result.equal


def test_names_are_no_markup(rng, samples, tmp_path, capfd):
    graph = Graph(rng, (1, 3, 8, 8))
    made = graph.conv(graph.conv("x", 16, 3), 16, 16, (3, 3), strides=[3, 3], name="[/odd]")
    path = graph.save(tmp_path / "net.onnx", graph.add("Softmax", made, name="[/soft]"))
    (tmp_path / "[bold]").mkdir()
    output, pruned = tmp_path / "[bold]" / "net.csp", tmp_path / "[bold]" / "net.onnx"
    assert run(path, samples, output, "--onnx", pruned) == 0
    out = capfd.readouterr().out
    assert f"wrote {output}\n" in out
    assert f"wrote {pruned}: ONNX Runtime equal" in " ".join(out.split())
    assert "host: [/soft] (Softmax)" in out
    assert "cannot run it: layer [/odd]" in " ".join(out.split())


def test_a_layer_may_be_sparser_than_all_of_them(rng, samples, tmp_path):
    """It counts with its own zeros while filters are put in order, one without a weight not."""
    for few in (4, 0):
        graph = Graph(rng, (1, 3, 8, 8))
        weights = rng.standard_normal((16, 16, 1, 1))
        weights[:, few:] = 0
        made = graph.add("Relu", graph.conv("x", 16, 3))
        thin = graph.add("Conv", made, graph.constant(weights), graph.random(16), name="thin")
        made = graph.conv(graph.conv(thin, 32, 16, name="thick"), 10, 32)
        path = graph.save(tmp_path / "net.onnx", made)
        output = tmp_path / "net.csp"
        assert run(path, samples, output, target=0.5) == 0
        weights, kept = csp_prune.totals(container.load(output), ("thin", "thick"))
        assert abs(1 - kept / weights - 0.5) < 0.03
        assert budgeted(path, samples, output, budget=0.8) == 0


def budgeted(model, samples, output, *more, budget=0.5):
    common = ["--samples", samples, "-o", output, "--preset", "tiny_4x4"]
    return csp("prune", model, "--budget", budget, *common, *more)


@pytest.mark.parametrize(
    ("of", "options"),
    [
        (Of.WEIGHTS, ["--of", "weights", "--no-reorder"]),
        (Of.CYCLES, []),
        (Of.ENERGY, ["--of", "energy"]),
    ],
)
def test_a_budget_is_met(of, options, model, samples, tmp_path, capfd):
    output, pruned = tmp_path / "net.csp", tmp_path / "pruned.onnx"
    assert budgeted(model, samples, output, "--onnx", pruned, *options, budget=0.8) == 0
    out = " ".join(capfd.readouterr().out.split())
    unit = {"weights": "weights", "cycles": "cycles", "energy": "µJ"}[of]
    shown = re.search(
        rf"([\d,.]+) of ([\d,.]+) {unit} of the dense network: ([\d.]+)%, budget 80.00%", out
    )
    found, whole = (float(shown[number].replace(",", "")) for number in (1, 2))
    assert float(shown[3]) == pytest.approx(100 * found / whole, abs=0.05)
    # Weights that do not fit the chip are read again for each tile: there is no step up to 80 %.
    assert (45 if of is Of.ENERGY else 75) < float(shown[3]) <= 80
    network = container.load(output)
    assert network.metadata["pruning"] == f"budget 0.8 of {of}, no training"
    if of is Of.CYCLES:
        passes = compile_network(network, preset("tiny_4x4"), 1).passes
        assert sum(pass_cycles(step, Timing()).cycles for step in passes) == found
    assert "ONNX Runtime equal" in out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "one of --target and --budget must be given"),
        (["--target", 0.5, "--budget", 0.5], "one of --target and --budget must be given"),
        (["--budget", 1.0], "--budget must be above 0 and below 1, not 1.0"),
        (["--budget", "nan"], "--budget must be above 0 and below 1, not nan"),
        (
            ["--target", 0.5, "--of", "energy"],
            "--of energy goes with --budget, not with --target",
        ),
        (
            ["--budget", 0.5, "--rule", "tails"],
            "--rule tails goes with --target, not with --budget",
        ),
    ],
)
def test_options_that_do_not_go_together_are_told(options, message, model, samples, capfd):
    output = model.with_name("net.csp")
    assert csp("prune", model, "--samples", samples, "-o", output, *options) == 2
    assert capfd.readouterr().err == f"csp: {message}\n"
    assert not output.exists()


@pytest.mark.parametrize(
    ("output", "onnx", "message"),
    [
        ("net.csp", "net.csp", "net.csp: is the file of -o and of --onnx"),
        ("net.csp", "x/../net.csp", "net.csp: is the file of -o and of --onnx"),
        ("net.onnx", None, "net.onnx: is the file of MODEL and of -o"),
        ("net.csp", "net.onnx", "net.onnx: is the file of MODEL and of --onnx"),
        ("samples.npz", None, "samples.npz: is the file of --samples and of -o"),
    ],
)
def test_no_file_takes_the_place_of_another(output, onnx, message, model, samples, tmp_path, capfd):
    (tmp_path / "x").mkdir()
    before = {path: path.read_bytes() for path in (model, samples)}
    more = [] if onnx is None else ["--onnx", tmp_path / onnx]
    err = refused(capfd, model, samples, tmp_path / output, *more)
    assert err.endswith(f"{message}\n")
    assert all(path.read_bytes() == data for path, data in before.items())
    assert not (tmp_path / "net.csp").exists()


def test_a_missing_folder_is_told_before_the_work(model, samples, tmp_path, capfd):
    output = tmp_path / "none" / "net.csp"
    assert run(model, samples, output) == 2
    assert capfd.readouterr() == (
        "",
        f"csp: {output}: cannot be written: {output.parent} is no folder\n",
    )


def test_nothing_is_written_if_the_graph_cannot_be(rng, samples, tmp_path, capfd):
    graph = Graph(rng, (1, 3, 8, 8))
    weights = graph.add("Mul", graph.random(16, 16, 1, 1), graph.constant(2.0), name="twice")
    made = graph.add("Conv", graph.conv("x", 16, 3), weights, name="computed")
    path = graph.save(tmp_path / "net.onnx", made)
    output, pruned = tmp_path / "net.csp", tmp_path / "pruned.onnx"
    assert run(path, samples, output, "--onnx", pruned) == 2
    assert "layer computed: node twice (Mul): computes" in capfd.readouterr().err
    assert not output.exists()
    assert not pruned.exists()


def test_a_budget_out_of_reach_is_told(model, samples, tmp_path, capfd):
    assert budgeted(model, samples, tmp_path / "net.csp", budget=0.01) == 2
    err = capfd.readouterr().err
    assert re.fullmatch(
        rf"csp: {re.escape(str(model))}: network \S+: a budget of 0\.01 is out of reach: the least "
        r"is 0\.\d{4} of the dense network's, \d+% of it in stem\n",
        err,
    )


def refused(capfd, *arguments, **options):
    assert run(*arguments, **options) == 2
    err = capfd.readouterr().err
    assert err.startswith("csp: ")
    assert err.count("\n") == 1
    return err


@pytest.mark.parametrize("target", [0, 1, 1.5, -0.2, "nan"])
def test_targets_out_of_range_are_told(target, model, samples, tmp_path, capfd):
    output = tmp_path / "net.csp"
    shown = float(target)
    message = f"csp: --target must be above 0 and below 1, not {shown}\n"
    assert refused(capfd, model, samples, output, target=target) == message
    assert not output.exists()


def test_a_target_out_of_reach_is_told(rng, samples, tmp_path, capfd):
    """What is sparser already cannot become denser."""
    graph = Graph(rng, (1, 3, 8, 8))
    weights = rng.standard_normal((16, 16, 1, 1))
    weights[:, 4:] = 0
    made = graph.add("Conv", graph.conv("x", 16, 3), graph.constant(weights), name="thin")
    path = graph.save(tmp_path / "thin.onnx", made)
    err = refused(capfd, path, samples, tmp_path / "net.csp", target=0.3)
    assert err.startswith(f"csp: {path}: network small: 1 layers: a sparsity of 0.3 ± 0.03125 ")
    assert err.endswith("is out of reach with chunks of 4 filters; the closest is 0.7500\n")


def test_wrong_files_are_told(model, samples, rng, tmp_path, capfd):
    output = tmp_path / "net.csp"
    assert f"csp: {samples}: is no valid ONNX: " in refused(capfd, samples, samples, output)
    wrong = tmp_path / "wrong.npy"
    np.save(wrong, np.zeros((2, 8, 8, 3)))
    err = refused(capfd, model, wrong, output)
    assert err == (
        f"csp: {wrong}: samples have shape [2, 8, 8, 3], not [N, 3, 8, 8] with N above 0\n"
    )
    graph = Graph(rng, (1, 3, 8, 8))
    thin = graph.save(tmp_path / "thin.onnx", graph.conv("x", 4, 3))
    err = refused(capfd, thin, samples, output)
    assert err == f"csp: {thin}: no layer has 16 channels and 16 filters, nothing can be pruned\n"
    assert not output.exists()
    graph = onnx.load(model)
    graph.graph.node[0].op_type = "ConvTranspose"
    onnx.save(graph, tmp_path / "other.onnx")
    err = refused(capfd, tmp_path / "other.onnx", samples, output)
    assert "node stem (ConvTranspose)" in err
