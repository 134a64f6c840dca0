# SPDX-License-Identifier: Apache-2.0
"""ONNX graphs as float networks, with ONNX Runtime as the witness."""

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from csp_algo.errors import CspError
from csp_algo.integers import ActDtype
from csp_algo.network import Concat
from csp_algo.onnx import witness
from csp_algo.onnx.importer import import_graph
from csp_algo.quantize import FloatLayer, quantise
from sim import golden
from tests.csp_algo.graphs import Graph, Random, runtime

SEEDS = st.integers(0, 2**32 - 1)


def images(rng, shape, count=2):
    """Give int8 images [N, H, W, C] and the same as [N, C, H, W] of floats."""
    x = rng.integers(-128, 128, (count, *shape)).astype(np.int8)
    return x.transpose(0, 2, 3, 1), x.astype(np.float64)


def check(path, model, x, floats):
    """Import a graph and compare all of its maps with ONNX Runtime's."""
    onnx.save(model, path)
    imported = import_graph(path)
    values = imported.network.forward(x)
    found = list(witness.run(imported, model.SerializeToString(), floats))
    for name in found[0]:
        expected = np.concatenate([each[name] for each in found])
        size = max(1.0, float(np.abs(expected).max()))
        np.testing.assert_allclose(values[name] / size, expected / size, atol=1e-5, err_msg=name)
    (expected,) = runtime(model, floats)
    last = imported.network.nodes[-1].name
    _, index = imported.tensors[last]
    own = values[last].reshape(len(x), -1)[:, index]
    if not imported.host:
        scale = float(np.abs(expected).max()) or 1.0
        np.testing.assert_allclose(own / scale, expected / scale, atol=1e-5)
    return imported, values


@settings(max_examples=60)
@given(SEEDS, st.integers(1, 6))
def test_any_graph_is_what_onnxruntime_runs(tmp_path_factory, seed, steps):
    random = Random(seed)
    model, shape = random.whole(steps)
    x, floats = images(random.rng, shape)
    path = tmp_path_factory.mktemp("graph") / "g.onnx"
    imported, _ = check(path, model, x, floats)
    assert set(imported.origins) <= {layer.name for layer in imported.network.layers()}


@settings(max_examples=25)
@given(SEEDS, st.integers(1, 4))
def test_golden_integers_follow_onnxruntime(tmp_path_factory, seed, steps):
    """Quantised, a small graph still answers as ONNX Runtime does, to a few percent."""
    random = Random(seed)
    model, shape = random.whole(steps)
    x, floats = images(random.rng, shape, count=6)
    path = tmp_path_factory.mktemp("graph") / "g.onnx"
    onnx.save(model, path)
    imported = import_graph(path)
    try:
        network = quantise(imported.network, x, cols=4, period=4)
    except CspError as error:
        if "ratio of scales" not in str(error):  # a 16-bit multiplier, too, has an end
            raise
        return
    result = golden.run(network, x)
    (expected,) = runtime(model, floats)
    scale = network.scales()[network.output.name]
    found = result.logits.reshape(expected.shape) * scale
    assert np.linalg.norm(found - expected) <= 0.25 * np.linalg.norm(expected) + 0.02
    assert not any(result.saturations.values())


def small(rng):
    return Graph(rng, (1, 3, 6, 6))


@pytest.fixture
def rng():
    return np.random.default_rng(5)


def test_what_follows_a_layer_grows_into_it(rng, tmp_path):
    graph = small(rng)
    made = graph.norm(graph.conv("x", 4, 3, (3, 3), pads=[1, 1, 1, 1]), 4)
    made = graph.add("Relu", graph.add("Dropout", made))
    other = graph.conv(made, 4, 4)
    made = graph.add("Relu", graph.add("Add", graph.conv(made, 4, 4), other))
    imported, _ = check(tmp_path / "g.onnx", graph.model(made), *images(rng, (3, 6, 6)))
    first, second, third = imported.network.layers()
    assert first.relu
    assert not second.relu
    assert third.relu
    assert third.residual == second.name
    assert set(imported.origins) == {first.name, second.name, third.name}


def test_what_others_read_gets_a_layer_of_its_own(rng, tmp_path):
    graph = small(rng)
    made = graph.conv("x", 4, 3)
    made = graph.add("Add", graph.add("Relu", made, name="alone"), made)
    imported, _ = check(tmp_path / "g.onnx", graph.model(made), *images(rng, (3, 6, 6)))
    conv, alone, both = imported.network.layers()
    assert (conv.relu, conv.residual) == (False, None)
    assert (alone.name, alone.geometry.groups, alone.relu) == ("alone", 4, True)
    assert (both.input, both.residual, both.relu) == ("alone", conv.name, False)
    assert set(imported.origins) == {conv.name}


def test_maps_may_be_added_in_any_order(rng, tmp_path):
    """Here the first one is the layer that can still grow, and it is moved behind the other."""
    graph = small(rng)
    early = graph.conv("x", 4, 3)
    late = graph.add("Relu", graph.conv("x", 4, 3))
    made = graph.add("Add", early, late)
    imported, _ = check(tmp_path / "g.onnx", graph.model(made), *images(rng, (3, 6, 6)))
    assert [layer.residual for layer in imported.network.layers()] == [None, "n1"]


def test_pools_are_added_and_doubled(rng, tmp_path):
    graph = small(rng)
    pool = graph.add("MaxPool", graph.conv("x", 4, 3), kernel_shape=[2, 2])
    both = graph.add("Add", pool, pool)
    check(tmp_path / "g.onnx", graph.model(both), *images(rng, (3, 6, 6)))


def test_a_concatenation_is_one(rng, tmp_path):
    graph = small(rng)
    made = graph.add("Concat", graph.conv("x", 2, 3), graph.conv("x", 5, 3), "x", axis=-3)
    made = graph.conv(made, 3, 10)
    imported, _ = check(tmp_path / "g.onnx", graph.model(made), *images(rng, (3, 6, 6)))
    assert sum(isinstance(node, Concat) for node in imported.network.nodes) == 1


def test_channels_last_and_computed_shapes(rng, tmp_path):
    """As converters from TensorFlow write it: transposes everywhere, shapes computed."""
    graph = Graph(rng, (1, 6, 5, 3))
    x = graph.add("Transpose", graph.add("Cast", "x", to=TensorProto.FLOAT), perm=[0, 3, 1, 2])
    made = graph.conv(x, 4, 3, (3, 3), pads=[1, 1, 1, 1], bias=False)
    made = graph.add("Transpose", made, perm=[0, 2, 3, 1])
    made = graph.add("Add", made, graph.add("Identity", graph.random(1, 1, 1, 4)))
    made = graph.add("Relu", graph.add("Mul", made, graph.random(4)))
    batch = graph.add("Gather", graph.add("Shape", made), graph.constant(0, np.int64), axis=0)
    batch = graph.add("Unsqueeze", batch, graph.constant([0], np.int64))
    target = graph.add("Concat", batch, graph.constant([-1], np.int64), axis=0)
    flat = graph.add("Reshape", made, target)
    logits = graph.add("MatMul", flat, graph.random(6 * 5 * 4, 2, scale=0.1))
    x = rng.integers(-128, 128, (2, 6, 5, 3)).astype(np.int8)
    imported, _ = check(tmp_path / "g.onnx", graph.model(logits), x, x.astype(np.float64))
    assert imported.network.input.shape == (6, 5, 3)


def test_a_node_with_the_name_of_the_input_is_called_by_its_output(rng, tmp_path):
    graph = small(rng)
    made = graph.conv("x", 4, 3, name="x")
    imported, _ = check(tmp_path / "g.onnx", graph.model(made), *images(rng, (3, 6, 6)))
    assert [layer.name for layer in imported.network.layers()] == ["t0"]


def test_a_name_may_be_taken_twice(rng, tmp_path):
    graph = small(rng)
    made = graph.conv(graph.conv("x", 4, 3, name="t1"), 4, 4, name="t1")
    message = r"node t1 \(Conv\): there are two nodes of the name t1$"
    refused(tmp_path / "g.onnx", graph.model(made), message)


def test_tokens_lie_along_x(rng, tmp_path):
    graph = Graph(rng, (1, 7, 5))
    made = graph.add("MatMul", "x", graph.random(5, 4))
    made = graph.add("Relu", graph.add("Add", made, graph.random(4)))
    x = rng.integers(-128, 128, (2, 1, 7, 5)).astype(np.int8)
    floats = x[:, 0].astype(np.float64)
    imported, _ = check(tmp_path / "g.onnx", graph.model(made), x, floats)
    assert imported.network.layers()[0].geometry.in_shape == (1, 7, 5)


@pytest.mark.parametrize("mode", ["edge", "lowest", "rectified"])
def test_padding_before_a_maximum_never_wins(mode, rng, tmp_path):
    graph = small(rng)
    made = graph.conv("x", 4, 3)
    if mode == "rectified":
        made = graph.add("Relu", made)
    pads = graph.constant([0, 0, 0, 0, 0, 0, 1, 1], np.int64)
    value = [graph.constant(-np.inf)] if mode == "lowest" else []
    made = graph.add("Pad", made, pads, *value, mode="edge" if mode == "edge" else "constant")
    made = graph.add("MaxPool", made, kernel_shape=[3, 3], strides=[2, 2])
    check(tmp_path / "g.onnx", graph.model(made), *images(rng, (3, 6, 6)))


@pytest.mark.parametrize("kind", ["MaxPool", "AveragePool"])
@pytest.mark.parametrize("pads", [[0, 0, 0, 0], [1, 1, 1, 1]])
def test_ceil_mode(kind, pads, rng, tmp_path):
    graph = small(rng)
    made = graph.conv("x", 4, 3)
    made = graph.add(kind, made, kernel_shape=[3, 3], strides=[2, 2], pads=pads, ceil_mode=1)
    check(tmp_path / "g.onnx", graph.model(made), *images(rng, (3, 6, 6)))


def test_quantised_graphs_are_read_as_floats(rng, tmp_path):
    """QuantizeLinear and DequantizeLinear: weights are theirs, a type from 0 on is a ReLU."""
    graph = small(rng)
    levels = rng.integers(-127, 128, (4, 3, 3, 3))
    scales = graph.constant(rng.uniform(0.01, 0.02, 4))
    zeros = graph.constant(np.zeros(4), np.int8)
    weights = graph.add("DequantizeLinear", graph.constant(levels, np.int8), scales, zeros, axis=0)
    made = graph.add("Conv", "x", weights, pads=[1, 1, 1, 1])
    scale, zero = graph.constant(0.5), graph.constant(0, np.uint8)
    made = graph.add("QuantizeLinear", made, scale, zero)
    made = graph.add("DequantizeLinear", made, scale, zero)
    onnx.save(graph.model(made), tmp_path / "g.onnx")
    imported = import_graph(tmp_path / "g.onnx")
    (layer,) = imported.network.layers()
    assert layer.relu
    x, floats = images(rng, (3, 6, 6))
    (expected,) = runtime(graph.model(made), floats)
    found = imported.network.forward(x)[layer.name].transpose(0, 3, 1, 2)
    inside = expected < 127
    assert inside.mean() > 0.5
    np.testing.assert_allclose(found[inside], expected[inside], atol=0.2501)


@pytest.mark.parametrize("kind", [TensorProto.INT8, TensorProto.UINT8])
def test_a_type_may_be_told_without_a_zero_point(kind, rng, tmp_path):
    graph = small(rng)
    made = graph.add(
        "QuantizeLinear", graph.conv("x", 4, 3), graph.constant(0.5), output_dtype=kind
    )
    path = graph.save(
        tmp_path / "g.onnx", graph.add("DequantizeLinear", made, graph.constant(0.5)), opset=21
    )
    (layer,) = import_graph(path).network.layers()
    assert layer.relu == (kind == TensorProto.UINT8)


def test_padding_may_lie_before_a_relu(rng, tmp_path):
    graph = small(rng)
    pads = graph.constant([0, 0, 1, 0, 0, 0, 1, 2], np.int64)
    made = graph.add("Relu", graph.add("Pad", graph.conv("x", 4, 3), pads))
    made = graph.conv(made, 2, 4, (3, 3))
    imported, _ = check(tmp_path / "g.onnx", graph.model(made), *images(rng, (3, 6, 6)))
    assert len(imported.network.layers()) == 2


def test_a_map_of_which_only_the_shape_is_asked_is_left_out(rng, tmp_path):
    graph = small(rng)
    made = graph.conv("x", 4, 3, name="read")
    shape = graph.add("Shape", graph.conv("x", 4, 3, name="asked"))
    made = graph.add("Reshape", made, shape)
    imported, _ = check(tmp_path / "g.onnx", graph.model(made), *images(rng, (3, 6, 6)))
    assert [node.name for node in imported.network.nodes] == ["read"]
    assert list(imported.origins) == ["read"]


def test_the_end_may_stay_on_the_host(rng, tmp_path):
    graph = small(rng)
    made = graph.add("Flatten", graph.conv("x", 4, 3))
    made = graph.add("ArgMax", graph.add("Softmax", made, name="soft"), name="best", axis=1)
    model = graph.model(made, kind=TensorProto.INT64)
    onnx.save(model, tmp_path / "g.onnx")
    imported = import_graph(tmp_path / "g.onnx")
    assert [(node.name, node.kind) for node in imported.host] == [
        ("soft", "Softmax"),
        ("best", "ArgMax"),
    ]
    assert "no such operator" in imported.host[0].why
    assert len(imported.network.nodes) == 1


def test_float16_and_dead_nodes(rng, tmp_path):
    graph = Graph(rng, (2, 3, 4, 4), kind=TensorProto.FLOAT16, batch=None)
    weights = graph.constant(rng.standard_normal((2, 3, 1, 1)), np.float16)
    made = graph.add("Conv", "x", weights)
    graph.add("Sigmoid", made)
    model = graph.model(made, kind=TensorProto.FLOAT16)
    onnx.save(model, tmp_path / "g.onnx")
    imported = import_graph(tmp_path / "g.onnx", name="half")
    assert imported.network.name == "half"
    assert imported.network.input.dtype is ActDtype.INT8
    assert not imported.host
    assert imported.graph.shape == (2, 3, 4, 4)


# --- What is refused -------------------------------------------------------------------------


def refused(path, model, message):
    onnx.save(model, path)
    with pytest.raises(CspError, match=message) as caught:
        import_graph(path)
    assert str(caught.value).startswith(str(path))


def pooled(**options):
    def make(g):
        return g.add("MaxPool", g.conv("x", 2, 3), **{"kernel_shape": [2, 2], **options})

    return make


def reading(kind, *constants, **options):
    """Give a graph of one node that reads a convolution of 4 filters and some constants."""

    def make(g):
        return g.add(kind, g.conv("x", 4, 3), *(g.constant(*each) for each in constants), **options)

    return make


def indices(g):
    return g.add("MaxPool", g.conv("x", 2, 3), outputs=2, kernel_shape=[2, 2]) + "'"


def middle(g):
    return g.conv(g.add("Sigmoid", g.conv("x", 2, 3), name="s"), 2, 2)


def split(g):
    made = g.conv("x", 2, 3)
    other = g.conv("x", 2, 3)
    return g.add("Mul", g.add("Sigmoid", made), g.add("Tanh", other))


def weight(value):
    values = np.ones((2, 3, 1, 1))
    values[1, 2] = value
    return lambda g: g.add("Conv", "x", g.constant(values))


def unlike(g):
    first = g.add("Reshape", g.conv("x", 4, 3), g.constant([0, -1], np.int64))
    second = g.add("Transpose", g.conv("x", 4, 3), perm=[0, 2, 3, 1])
    return g.add("Add", first, g.add("Flatten", second))


def negative(g):
    norm = [np.ones(4), np.zeros(4), np.zeros(4), np.full(4, -1.0)]
    return g.add("BatchNormalization", g.conv("x", 4, 3), *map(g.constant, norm))


def padded(g):
    return g.add("Pad", g.conv("x", 4, 3), g.constant([0, 0, 0, 0, 0, 0, 1, 1], np.int64))


def rounded_up(g, kind):
    """Give a graph whose last windows hold nothing but what Pad has put there."""
    pads = g.constant([0, 0, 0, 0, 0, 0, 1, 1], np.int64)
    padded = g.add("Pad", g.add("Relu", g.conv("x", 4, 3)), pads)
    return g.add(kind, padded, kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1)


def flat_and_not(g):
    mean = g.add("GlobalAveragePool", "x")
    return g.add("Concat", mean, g.add("Flatten", mean), axis=1)


REFUSED = {
    "dilated pool": (pooled(dilations=[2, 2]), r"node n1 \(MaxPool\): dilations are \[2, 2\]"),
    "long padding": (pooled(pads=[1, 1, 2, 1]), r"node n1 \(MaxPool\): pool n1: padding \(1, 1, 2"),
    "indices": (indices, r"node n1 \(MaxPool\): its indices are wanted"),
    "sigmoid": (middle, r"node n2 \(Conv\): cannot run on the core: it is behind s \(Sigmoid\)"),
    "transposed": (
        reading("ConvTranspose", (np.ones((4, 1, 2, 2)),), group=2),
        r"node n1 \(ConvTranspose\): cannot run on the core: the core has no such operator",
    ),
    "two maps": (split, r"the host reads 2 maps \(n0, n1\), only 1 is possible"),
    "nan": (weight(np.nan), r"node n0 \(Conv\): its weight c0 \[1, 2, 0, 0\] is nan$"),
    "infinite": (weight(np.inf), r"its weight c0 \[1, 2, 0, 0\] is inf$"),
    "negative variance": (negative, r"node n1 \(BatchNormalization\): .*variance"),
    "weights computed": (
        lambda g: g.add("MatMul", g.add("Flatten", "x"), g.add("Flatten", "x")),
        r"node n2 \(MatMul\): its weight t1 is not a constant",
    ),
    "two factors": (
        reading("Gemm", (np.ones((4, 2)),)),
        r"node n1 \(Gemm\): reads a tensor of 4 dimensions, not 2",
    ),
    "pixels differ": (
        reading("Add", (np.arange(36.0).reshape(6, 6),)),
        r"node n1 \(Add\): its constant differs within a channel",
    ),
    "constant too large": (
        reading("Mul", (np.ones((2, 4, 6, 6)),)),
        r"node n1 \(Mul\): its constant c2 has shape \[2, 4, 6, 6\]",
    ),
    "zero": (reading("Div", (0.0,)), r"node n1 \(Div\): divides by 0"),
    "batch moved": (
        reading("Transpose", perm=[1, 0, 2, 3]),
        r"node n1 \(Transpose\): perm \[1, 0, 2, 3\] moves the batch",
    ),
    "batch flattened": (
        reading("Reshape", ([-1], np.int64)),
        r"node n1 \(Reshape\): shape \[144\] does not keep the batch of 1 first",
    ),
    "batch meant": (
        reading("ReduceMean", axes=[0, 2, 3]),
        r"node n1 \(ReduceMean\): axes \[0, 2, 3\] are not the lines and columns",
    ),
    "lines joined": (
        lambda g: g.add("Concat", g.conv("x", 3, 3), "x", axis=2),
        r"node n1 \(Concat\): joins along another axis than the channels",
    ),
    "layouts added": (unlike, r"node n5 \(Add\): adds maps of different shape or layout"),
    "padding that wins": (
        lambda g: g.add(
            "MaxPool",
            g.add("Pad", g.conv("x", 3, 3), g.constant([0, 0, 0, 0, 0, 0, 1, 1], np.int64)),
            kernel_shape=[2, 2],
        ),
        r"node n2 \(MaxPool\): reads a padded map that may be negative",
    ),
    "reflected": (
        reading("Pad", ([0, 0, 0, 0, 0, 0, 1, 1], np.int64), mode="reflect"),
        r"node n1 \(Pad\): mode is reflect",
    ),
    "padding without end": (
        reading("Pad", ([0, 0, 0, 0, 0, 0, 2**40, 1], np.int64)),
        r"node n1 \(Pad\): pads are \[.*\], 0 … 255 are possible but for the batch",
    ),
    "padded batch": (
        reading("Pad", ([1, 0, 0, 0, 0, 0, 0, 0], np.int64)),
        r"node n1 \(Pad\): pads are \[1, 0, 0, 0, 0, 0, 0, 0\]",
    ),
    "more zeros than dimensions": (
        reading("Reshape", ([0, 0, 0, 0, 0, 0], np.int64)),
        r"node n1 \(Reshape\): shape \[1, 4, 6, 6, 0, 0\] does not keep the batch",
    ),
    "no step": (
        lambda g: g.conv("x", 2, 3, strides=[0, 1], auto_pad="SAME_UPPER"),
        r"node n0 \(Conv\): strides are \[0, 1\], not above 0",
    ),
    "squeezed batch": (
        reading("Squeeze", ([0], np.int64)),
        r"node n1 \(Squeeze\): takes the batch away",
    ),
    "unsqueezed batch": (
        reading("Unsqueeze", ([0], np.int64)),
        r"node n1 \(Unsqueeze\): puts a dimension before the batch",
    ),
    "flattened further": (
        reading("Flatten", axis=2),
        r"node n1 \(Flatten\): axis is 2, only 1 is possible",
    ),
    "batch joined": (
        lambda g: g.add("Concat", g.conv("x", 3, 3), "x", axis=0),
        r"node n1 \(Concat\): axis 0 is the batch",
    ),
    "flattened and joined": (
        lambda g: g.add("Concat", g.add("Flatten", "x"), g.add("Flatten", "x"), axis=1),
        r"node n2 \(Concat\): joins flattened maps",
    ),
    "cast": (
        reading("Cast", to=TensorProto.INT32),
        r"node n1 \(Cast\): casts a map to something other than float",
    ),
    "two maps multiplied": (
        lambda g: g.add("Mul", g.conv("x", 3, 3), "x"),
        r"node n1 \(Mul\): reads two maps, only Add can",
    ),
    "divided by a map": (
        lambda g: g.add("Div", g.constant(1.0), g.conv("x", 3, 3)),
        r"node n1 \(Div\): divides by a map",
    ),
    "transA": (
        lambda g: g.add("Gemm", g.add("Flatten", g.conv("x", 3, 3)), g.random(1, 4), transA=1),
        r"node n2 \(Gemm\): transA is 1, only 0 is possible",
    ),
    "other inputs": (
        lambda g: g.add("MatMul", g.add("Flatten", "x"), g.random(9, 4)),
        r"node n1 \(MatMul\): its weight has 9 inputs, its input 108",
    ),
    "channels not last": (
        lambda g: g.add("MatMul", "x", g.random(6, 4)),
        r"node n0 \(MatMul\): reads a tensor whose last dimension is not the channels",
    ),
    "one dimension": (
        lambda g: g.add(
            "Conv", g.add("Reshape", "x", g.constant([0, 3, 36], np.int64)), g.random(2, 3, 1)
        ),
        r"node n1 \(Conv\): its weight has 3 dimensions, only convolutions of 2",
    ),
    "transposed map": (
        lambda g: g.conv(g.add("Transpose", "x", perm=[0, 1, 3, 2]), 2, 3),
        r"node n1 \(Conv\): reads a tensor that is not \[N, C, H, W\] of a whole map",
    ),
    "a scale for each channel": (
        lambda g: g.add(
            "QuantizeLinear", g.conv("x", 3, 3), g.constant([1, 2, 3]), g.constant([0] * 3, np.int8)
        ),
        r"node n1 \(QuantizeLinear\): has 3 scales, only 1 is possible for a map",
    ),
    "mean of the rest": (
        reading("ReduceMean", axes=[2]),
        r"node n1 \(ReduceMean\): axes \[2\] are not the lines and columns of its map",
    ),
    "random": (
        lambda g: g.add("Add", g.conv("x", 4, 3), g.add("RandomNormal", shape=[4, 1, 1])),
        r"node n1 \(RandomNormal\): the operator is not supported",
    ),
    "kernel": (
        lambda g: g.conv("x", 2, 3, (3, 3), kernel_shape=[2, 2]),
        r"node n0 \(Conv\): kernel_shape is \[2, 2\], its weight has \[3, 3\]",
    ),
    "too large": (
        lambda g: g.conv("x", 2, 3, (5, 7)),
        r"node n0 \(Conv\): a kernel of extent 7 does not fit 6 columns",
    ),
    "no layer": (lambda g: g.add("Relu", g.add("Flatten", "x")), None),
    "dropped at random": (
        reading("Dropout", (0.5,), (True, np.bool_)),
        r"node n1 \(Dropout\): training_mode is 1, only 0 is possible",
    ),
    "a dimension twice": (
        reading("Unsqueeze", ([4, 4], np.int64)),
        r"node n1 \(Unsqueeze\): axes \[4, 4\] name a dimension twice",
    ),
    "dimensions joined": (
        flat_and_not,
        r"node n2 \(Concat\): joins tensors of shapes \[3, 1, 1\] and \[3\] without",
    ),
    "padded with a map": (
        lambda g: g.add("Pad", "x", g.constant([0, 0, 0, 0, 0, 0, 1, 1], np.int64), "x"),
        r"node n0 \(Pad\): its value x is not a constant",
    ),
    "no integers": (
        reading("QuantizeLinear", (0.5,), (0.0,)),
        r"node n1 \(QuantizeLinear\): its zero point is float32 \[\], not one integer",
    ),
    "zero point of a map": (
        lambda g: g.add(
            "DequantizeLinear",
            g.add("QuantizeLinear", g.conv("x", 4, 3), g.constant(0.5)),
            g.constant(0.5),
            "x",
        ),
        r"node n2 \(DequantizeLinear\): its zero point x is not a constant",
    ),
    "padded and rounded up": (
        lambda g: rounded_up(g, "MaxPool"),
        r"node n3 \(MaxPool\): reads a padded map and rounds up to \[4, 4\] windows, not \[3, 3\]",
    ),
    "padded and rounded up, mean": (
        lambda g: rounded_up(g, "AveragePool"),
        r"node n3 \(AveragePool\): reads a padded map and rounds up to \[4, 4\] windows",
    ),
    "training": (
        lambda g: g.add(
            "BatchNormalization",
            g.conv("x", 4, 3),
            *[g.constant(np.ones(4)) for _ in range(4)],
            training_mode=1,
            outputs=3,
        ),
        r"node n1 \(BatchNormalization\): training_mode is 1",
    ),
    "padding for the host": (
        lambda g: g.add("Sigmoid", padded(g)),
        r"node n2 \(Sigmoid\): reads a part of a map, or a padded one",
    ),
    "padding at the end": (padded, r"output t1: reads a part of a map, or a padded one"),
    "another zero point": (
        lambda g: g.add(
            "DequantizeLinear",
            g.add("QuantizeLinear", g.conv("x", 4, 3), g.constant(0.5), g.constant(0, np.int8)),
            g.constant(0.25),
            g.constant(0, np.int8),
        ),
        r"node n2 \(DequantizeLinear\): has another scale or zero point",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_expressed_is_told(case, rng, tmp_path):
    make, message = REFUSED[case]
    graph = small(rng)
    output = make(graph)
    if message is None:  # a lone ReLU is a layer
        onnx.save(graph.model(output), tmp_path / "g.onnx")
        assert len(import_graph(tmp_path / "g.onnx").network.layers()) == 1
    else:
        refused(tmp_path / "g.onnx", graph.model(output), message)


def test_a_graph_without_layers_is_refused(rng, tmp_path):
    graph = small(rng)
    output = graph.add("MaxPool", "x", kernel_shape=[2, 2])
    refused(tmp_path / "g.onnx", graph.model(output), "no convolution and no linear layer$")


def test_an_output_without_the_input_is_refused(rng, tmp_path):
    graph = small(rng)
    output = graph.add("Identity", graph.random(2))
    message = "the output t0 does not depend on the input$"
    refused(tmp_path / "g.onnx", graph.model(output), message)


@pytest.mark.parametrize(
    ("dims", "message"),
    [
        (["N", 3, "height", 6], r"input x: extent 2 is dynamic \(height\), only the batch may be$"),
        (["N", 3, None, 6], r"input x: extent 2 is dynamic \(unknown\), only the batch may be$"),
        (["N"], r"input x: has 1 dimensions, 2 … 4 are possible$"),
    ],
)
def test_shapes_must_be_known(dims, message, rng, tmp_path):
    graph = small(rng)
    graph.input = helper.make_tensor_value_info("x", TensorProto.FLOAT, dims)
    refused(tmp_path / "g.onnx", graph.model(graph.add("Relu", "x")), message)


def test_a_wrong_declared_shape_is_refused(rng, tmp_path):
    graph = small(rng)
    model = graph.model(graph.conv("x", 4, 3))
    output = helper.make_tensor_value_info("t0", TensorProto.FLOAT, ["N", 4, 6, 7])
    model.graph.output[0].CopyFrom(output)
    message = r"node n0 \(Conv\): makes t0 of shape \[1, 4, 6, 6\], declared as \[\?, 4, 6, 7\]$"
    refused(tmp_path / "g.onnx", model, message)


def test_other_inputs_and_outputs_are_refused(rng, tmp_path):
    graph = small(rng)
    made = graph.conv("x", 4, 3)
    model = graph.model(made, graph.add("Relu", made))
    refused(tmp_path / "g.onnx", model, r"the graph has 2 outputs \(t0, t1\), only 1 is possible$")
    graph.input = helper.make_tensor_value_info("x", TensorProto.INT32, [1, 3, 6, 6])
    refused(tmp_path / "g.onnx", graph.model(made), r"input x: must be float, not int32$")


@pytest.mark.parametrize("data", [b"", b"not a graph at all", None])
def test_a_corrupt_file_is_told(data, tmp_path, rng):
    path = tmp_path / "broken.onnx"
    if data is None:
        graph = small(rng)
        data = graph.model(graph.conv("x", 4, 3)).SerializeToString()[:-40]
    path.write_bytes(data)
    with pytest.raises(CspError, match=rf"^{path}: is no valid ONNX: "):
        import_graph(path)


@pytest.mark.parametrize("name", ["g.json", "g.textproto", "g.onnxtxt"])
def test_a_name_does_not_tell_the_format(name, rng, tmp_path):
    graph = small(rng)
    path = graph.save(tmp_path / "g.onnx", graph.conv("x", 4, 3)).rename(tmp_path / name)
    assert import_graph(path).network.layers()
    path.write_bytes(b"{ nonsense")
    with pytest.raises(CspError, match=rf"^{path}: is no valid ONNX: "):
        import_graph(path)


@pytest.mark.parametrize("opset", [4, 6])
def test_old_operators_are_refused(opset, rng, tmp_path):
    """They broadcast in another way, and have attributes where inputs are now."""
    graph = small(rng)
    model = graph.model(graph.conv("x", 4, 3), opset=opset)
    refused(tmp_path / "g.onnx", model, rf": has opset {opset}, at least 7 is needed$")


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(CspError, match=r"none\.onnx: there is no such file$"):
        import_graph(tmp_path / "none.onnx")


def test_layers_carry_their_weights_origin(rng, tmp_path):
    graph = small(rng)
    made = graph.add("Flatten", graph.conv("x", 4, 3))
    made = graph.add("Gemm", made, graph.random(144, 2))
    onnx.save(graph.model(made), tmp_path / "g.onnx")
    imported = import_graph(tmp_path / "g.onnx")
    for layer in imported.network.layers():
        assert isinstance(layer, FloatLayer)
        origin = imported.origins[layer.name]
        values = imported.graph.initialisers[origin.tensor]
        np.testing.assert_array_equal(layer.weights.ravel()[origin.index], values)
