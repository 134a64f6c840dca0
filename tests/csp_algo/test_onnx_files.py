# SPDX-License-Identifier: Apache-2.0
"""Samples for an ONNX graph, and the pruned graph's file."""

import subprocess
import sys

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from csp_algo.errors import CspError
from csp_algo.integers import ActDtype
from csp_algo.onnx import witness
from csp_algo.onnx.export import pruned_model
from csp_algo.onnx.importer import import_graph
from csp_algo.onnx.samples import load_samples
from csp_algo.prune import Rule, prunable, prune
from tests.csp_algo.graphs import Graph, runtime


@pytest.fixture
def rng():
    return np.random.default_rng(11)


@pytest.fixture
def imported(rng, tmp_path):
    graph = Graph(rng, (1, 3, 4, 5))
    return import_graph(graph.save(tmp_path / "g.onnx", graph.conv("x", 4, 3)))


# --- Samples ---------------------------------------------------------------------------------


def test_pixels_stay_what_they_are(imported, tmp_path):
    pixels = np.arange(120, dtype=np.uint8).reshape(2, 3, 4, 5)
    np.save(tmp_path / "s.npy", pixels)
    samples = load_samples(tmp_path / "s.npy", imported)
    assert (samples.input.dtype, samples.input.scale) == (ActDtype.UINT8, 1.0)
    np.testing.assert_array_equal(samples.images, pixels.transpose(0, 2, 3, 1))
    np.testing.assert_array_equal(samples.floats, pixels)


def test_floats_get_a_scale(imported, rng, tmp_path):
    values = rng.standard_normal((3, 3, 4, 5)).astype(np.float32)
    np.savez(tmp_path / "s.npz", other=np.zeros(3), x=values)
    samples = load_samples(tmp_path / "s.npz", imported, limit=2)
    assert samples.input.dtype is ActDtype.INT8
    assert samples.images.dtype == np.int8
    inside = np.abs(samples.images.transpose(0, 3, 1, 2)) < 127
    error = np.abs(samples.floats - values[:2])
    assert (error[inside] <= samples.input.scale / 2 + 1e-12).all()
    assert samples.input.scale < 4 / 127
    # Every integer is told in the layout of the graph.
    np.testing.assert_array_equal(
        samples.floats, samples.images.transpose(0, 3, 1, 2) * samples.input.scale
    )


def test_a_folder_holds_one_sample_a_file(imported, tmp_path):
    for number in (2, 0, 1):
        shape = (3, 4, 5) if number else (1, 3, 4, 5)
        np.save(tmp_path / f"s{number}.npy", np.full(shape, number))
    (tmp_path / "notes.txt").write_text("none")
    samples = load_samples(tmp_path, imported, limit=2)
    assert samples.images[:, 0, 0, 0].tolist() == [0, 1]


def test_the_limit_is_one_of_samples_not_of_files(imported, tmp_path):
    for number in (0, 1):
        np.save(tmp_path / f"s{number}.npy", np.full((3, 3, 4, 5), number))
    samples = load_samples(tmp_path, imported, limit=4)
    assert samples.images[:, 0, 0, 0].tolist() == [0, 0, 0, 1]


def nan(position):
    values = np.zeros((2, 3, 4, 5))
    values[position] = np.nan
    return values


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros((2, 4, 5, 3)), r"have shape \[2, 4, 5, 3\], not \[N, 3, 4, 5\] with N above 0$"),
        (np.zeros((0, 3, 4, 5)), r"have shape \[0, 3, 4, 5\], not \[N, 3, 4, 5\]"),
        (nan((1, 2, 0, 4)), r"sample \[1, 2, 0, 4\] is nan$"),
        (-np.inf + np.zeros((1, 3, 4, 5)), r"sample \[0, 0, 0, 0\] is -inf$"),
        (np.full((1, 3, 4, 5), "a"), r"samples are <U1, not numbers$"),
        (np.full((1, 3, 4, 5), {}), r"is not a file of arrays: Object arrays cannot be loaded"),
    ],
)
def test_wrong_samples_are_told(values, message, imported, tmp_path):
    path = tmp_path / "s.npy"
    np.save(path, values, allow_pickle=True)
    with pytest.raises(CspError, match=message) as caught:
        load_samples(path, imported)
    assert str(caught.value).startswith(f"{path}: ")


def test_wrong_files_are_told(imported, tmp_path):
    path = tmp_path / "s.npz"
    np.savez(path, a=np.zeros(1), b=np.zeros(1))
    with pytest.raises(CspError, match=r"s\.npz: holds the arrays a, b, none of them is called x$"):
        load_samples(path, imported)
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(CspError, match=r"s\.npz: is not a file of arrays: "):
        load_samples(path, imported)
    with pytest.raises(CspError, match=r"none\.npy: cannot be read: No such file"):
        load_samples(tmp_path / "none.npy", imported)
    (tmp_path / "empty").mkdir()
    with pytest.raises(CspError, match=r"empty: there is no \.npy in this folder$"):
        load_samples(tmp_path / "empty", imported)
    np.savez(path)
    with pytest.raises(CspError, match=r"s\.npz: holds no array$"):
        load_samples(path, imported)


# --- The pruned graph ------------------------------------------------------------------------


def deep(rng):
    """Give a graph with weights as they are, transposed, reshaped, flattened and shared."""
    graph = Graph(rng, (1, 16, 4, 5))
    made = graph.norm(graph.conv("x", 32, 16, (3, 3), pads=[1, 1, 1, 1]), 32)
    made = graph.add("Relu", made)
    flat = graph.add("Reshape", graph.random(32, 32), graph.constant([32, 32, 1, 1], np.int64))
    made = graph.add("Relu", graph.add("Conv", made, flat))
    shared = graph.random(32, 32, 1, 1)
    for _ in range(2):
        made = graph.add("Conv", made, graph.add("Identity", shared))
    weights = graph.add("Transpose", graph.random(16, 640, scale=0.05), perm=[1, 0])
    made = graph.add("MatMul", graph.add("Flatten", made), weights)
    return graph, graph.add("Gemm", made, graph.random(16, 16))


@pytest.mark.parametrize("rule", [Rule.TAILS, Rule.PREFIX])
def test_the_pruned_file_is_what_was_pruned(rule, rng, tmp_path):
    graph, output = deep(rng)
    imported = import_graph(graph.save(tmp_path / "g.onnx", output))
    names = prunable(imported.network)
    assert len(names) == len(imported.network.layers()) == 6
    after = prune(imported.network, dict.fromkeys(names, 0.6), 4, rule=rule)
    data = pruned_model(imported, after)
    x = rng.integers(-128, 128, (2, 4, 5, 16)).astype(np.int8)
    floats = x.transpose(0, 3, 1, 2).astype(np.float64)
    expected = after.forward(x)
    for number, maps in enumerate(witness.run(imported, data, floats)):
        assert set(maps) == set(imported.tensors) - {"x"}
        for name, values in maps.items():
            own = expected[name][number : number + 1]
            np.testing.assert_allclose(values, own, atol=1e-5 * np.abs(own).max(), err_msg=name)
    # Nothing changed but zeros.
    before, now = imported.graph.model, onnx.load_model_from_string(data)
    changed = 0
    for one, other in zip(before.graph.initializer, now.graph.initializer, strict=True):
        old, new = numpy_helper.to_array(one), numpy_helper.to_array(other)
        np.testing.assert_array_equal(new[new != 0], old[new != 0])
        changed += (new != old).any()
        other.CopyFrom(one)
    assert changed == 5
    assert before.SerializeToString() == now.SerializeToString()


def test_weights_may_have_the_shape_of_a_map(rng, tmp_path):
    graph = Graph(rng, (1, 16, 1, 1))
    shape = graph.add(
        "Concat", graph.constant([16], np.int64), graph.add("Shape", "x", start=1), axis=0
    )
    made = graph.add("Conv", "x", graph.add("Reshape", graph.random(16, 16), shape), name="conv")
    model = graph.model(made)
    output = helper.make_tensor_value_info(made, TensorProto.FLOAT, ["N", 16, 1, 1])
    model.graph.output[0].CopyFrom(output)
    onnx.save(model, tmp_path / "g.onnx")
    imported = import_graph(tmp_path / "g.onnx")
    after = prune(imported.network, {"conv": 0.5}, 4)
    model = onnx.load_model_from_string(pruned_model(imported, after))
    found = numpy_helper.to_array(model.graph.initializer[1])
    kept = after.layers()[0].weights.reshape(16, 16)
    np.testing.assert_array_equal(found, kept.astype(np.float32))


def test_quantised_weights_lose_to_their_zero_point(rng, tmp_path):
    graph = Graph(rng, (1, 16, 4, 5))
    levels = graph.constant(rng.integers(-127, 128, (16, 16, 1, 1)), np.int8)
    zeros = graph.constant(rng.integers(-5, 6, 16), np.int8)
    scales = graph.constant(rng.uniform(0.01, 0.02, 16))
    weights = graph.add("DequantizeLinear", levels, scales, zeros, axis=0)
    made = graph.add("Conv", "x", weights)
    imported = import_graph(graph.save(tmp_path / "g.onnx", made))
    after = prune(imported.network, dict.fromkeys(prunable(imported.network), 0.5), 4)
    model = onnx.load_model_from_string(pruned_model(imported, after))
    x = rng.integers(-128, 128, (1, 4, 5, 16)).astype(np.int8)
    (found,) = runtime(model, x.transpose(0, 3, 1, 2))
    own = after.forward(x)[after.nodes[-1].name].transpose(0, 3, 1, 2)
    np.testing.assert_allclose(found, own, atol=1e-5 * np.abs(own).max())


@pytest.mark.parametrize("kind", ["moved", "blocks"])
def test_zero_points_are_those_of_the_elements(kind, rng, tmp_path):
    """Of integers that were moved before they became floats, and of blocks of 8 of them."""
    graph = Graph(rng, (1, 16, 1, 1))
    levels = graph.constant(rng.integers(-127, 128, (16, 32)), np.int8)
    if kind == "moved":
        levels = graph.add("Transpose", levels, perm=[1, 0])
        shape, options = (32,), {"axis": 0}
    else:
        shape, options = (2, 32), {"axis": 0, "block_size": 8}
    zeros = graph.constant(rng.integers(-5, 6, shape), np.int8)
    scales = graph.constant(rng.uniform(0.01, 0.02, shape))
    weights = graph.add("DequantizeLinear", levels, scales, zeros, **options)
    flat = graph.add("Flatten", "x")
    made = graph.add("Gemm", flat, weights, transB=int(kind == "moved"))
    imported = import_graph(graph.save(tmp_path / "g.onnx", made, opset=21))
    after = prune(imported.network, dict.fromkeys(prunable(imported.network), 0.5), 4)
    model = onnx.load_model_from_string(pruned_model(imported, after))
    x = rng.integers(-128, 128, (1, 1, 1, 16)).astype(np.int8)
    (found,) = runtime(model, x.transpose(0, 3, 1, 2))
    own = after.forward(x)[after.nodes[-1].name].ravel()
    np.testing.assert_allclose(found.ravel(), own, atol=1e-5 * np.abs(own).max())


def test_computed_weights_cannot_be_pruned_in_the_file(rng, tmp_path):
    graph = Graph(rng, (1, 16, 4, 5))
    weights = graph.add("Mul", graph.random(16, 16, 1, 1), graph.constant(2.0), name="twice")
    imported = import_graph(graph.save(tmp_path / "g.onnx", graph.add("Conv", "x", weights)))
    after = prune(imported.network, dict.fromkeys(prunable(imported.network), 0.5), 4)
    message = r"g\.onnx: layer n1: node twice \(Mul\): computes t0, which is no initialiser"
    with pytest.raises(CspError, match=message):
        pruned_model(imported, after)
    assert pruned_model(imported, imported.network)


def test_layers_that_share_weights_must_agree(rng, tmp_path):
    graph = Graph(rng, (1, 16, 4, 5))
    shared = graph.random(16, 16, 1, 1)
    made = graph.add("Conv", graph.add("Conv", "x", shared), shared)
    imported = import_graph(graph.save(tmp_path / "g.onnx", made))
    after = prune(imported.network, {"n0": 0.5, "n1": 0.25}, 4)
    with pytest.raises(CspError, match=r"layer n1: shares c0 with layer n0, which keeps other w"):
        pruned_model(imported, after)


def test_a_layer_that_lost_nothing_keeps_what_it_shares(rng, tmp_path):
    graph = Graph(rng, (1, 16, 4, 5))
    shared = graph.random(16, 16, 1, 1)
    twice = graph.add("Mul", shared, graph.constant(2.0), name="twice")
    made = graph.add("Conv", graph.add("Conv", "x", shared), shared)
    imported = import_graph(graph.save(tmp_path / "g.onnx", made))
    after = prune(imported.network, {"n2": 0.5}, 4)
    with pytest.raises(CspError, match=r"layer n\d: shares c0 with layer n\d, which keeps other w"):
        pruned_model(imported, after)
    made = graph.add("Conv", graph.add("Conv", "x", shared), twice)
    imported = import_graph(graph.save(tmp_path / "g.onnx", made))
    after = prune(imported.network, {"n3": 0.5}, 4)
    with pytest.raises(CspError, match=r"layer n4: node twice \(Mul\): computes t0"):
        pruned_model(imported, after)


# --- Without the extra -----------------------------------------------------------------------


def test_a_missing_extra_is_told():
    code = (
        "import importlib.util as u; find = u.find_spec\n"
        "u.find_spec = lambda name, *rest: None if name == 'onnx' else find(name, *rest)\n"
        "from csp_algo.errors import CspError\n"
        "try:\n    import csp_algo.onnx\nexcept CspError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    expected = "the package onnx is not installed: pip install 'csp-accelerator[onnx]'\n"
    assert done.stdout == expected
