# SPDX-License-Identifier: Apache-2.0
import dataclasses
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from csp_algo.errors import CspError
from csp_algo.geometry import Geometry
from csp_algo.integers import ActDtype
from csp_algo.network import AvgPool, Concat, Flatten, Input, MaxPool, Network, Residual
from tests.csp_algo.examples import network
from tests.strategies import random_layer

NODES = {node.name: node for node in network().nodes}


def changed(name: str, **changes: object) -> Network:
    """The example with some fields of one node changed."""
    nodes = (
        dataclasses.replace(node, **changes) if node.name == name else node
        for node in network().nodes
    )
    return dataclasses.replace(network(), nodes=tuple(nodes))


def vector(name: str, field: str, value: int) -> np.ndarray:
    array = getattr(NODES[name], field).copy()
    array[2] = value
    return array


def test_shapes_types_and_scales_follow_the_graph():
    example = network()
    assert example.shapes() == {
        "image": (9, 9, 3),
        "conv": (9, 9, 10),
        "grouped": (9, 9, 10),
        "both": (9, 9, 20),
        "max": (5, 5, 20),
        "avg": (3, 3, 20),
        "flat": (1, 1, 180),
        "logits": (1, 1, 7),
    }
    assert example.dtypes()["flat"] is ActDtype.UINT8
    assert example.dtypes()["logits"] is ActDtype.INT32
    assert example.scales() == {name: 0.5 if name == "image" else 1.0 for name in example.shapes()}
    assert [layer.name for layer in example.layers()] == ["conv", "grouped", "logits"]
    assert example.output.name == "logits"


def test_sources_and_weights():
    assert NODES["conv"].sources == ("image",)
    assert NODES["grouped"].sources == ("conv", "conv")
    assert NODES["both"].sources == ("conv", "grouped")
    weights = NODES["grouped"].weights()
    assert weights.shape == (2, 5, 45)
    np.testing.assert_array_equal(weights[1], NODES["grouped"].matrices[1].decompress())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": ""}, "a name must be 1 … 200 printable characters, not ''"),
        ({"name": "x" * 201}, "a name must be 1 … 200 printable characters, not 'xxx"),
        ({"name": "a\x1b[31m"}, "a name must be 1 … 200 printable characters, not 'a\\x1b"),
        ({"name": 3}, "a name must be 1 … 200 printable characters, not 3"),
        ({"shape": (9, 9, 0)}, "input image: shape must be 1 … 65535, not 0"),
        ({"dtype": "uint8"}, "input image: dtype must be an ActDtype, not 'uint8'"),
        ({"dtype": ActDtype.INT32}, "input image: dtype must be int8 or uint8, not int32"),
        ({"scale": float("nan")}, "input image: scale must be a finite float above 0, not nan"),
        ({"scale": float("inf")}, "input image: scale must be a finite float above 0, not inf"),
        ({"scale": 0.0}, "input image: scale must be a finite float above 0, not 0.0"),
        ({"scale": 1}, "input image: scale must be a finite float above 0, not 1"),
    ],
)
def test_inputs_check_themselves(changes, message):
    good = {"name": "image", "shape": (9, 9, 3), "dtype": ActDtype.UINT8, "scale": 0.5}
    with pytest.raises(CspError) as caught:
        Input(**{**good, **changes})
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"input": ""}, "a name must be "),
        ({"mult": 65_536}, "residual a: mult must be 0 … 65535, not 65536"),
        ({"mult": 32_767}, "residual a: mult must be 0 or 32768 … 65535, not 32767"),
        ({"shift": 48}, "residual a: shift must be 0 … 47, not 48"),
    ],
)
def test_residuals_check_themselves(changes, message):
    Residual(input="a", mult=0, shift=47)
    with pytest.raises(CspError) as caught:
        Residual(**{"input": "a", "mult": 32_768, "shift": 0, **changes})
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "a\nb"}, "a name must be 1 … 200 printable characters, not 'a\\nb'"),
        ({"input": ""}, "a name must be 1 … 200 printable characters, not ''"),
        ({"acc_shift": 16}, "layer conv: acc_shift must be 0 … 15, not 16"),
        ({"relu": 1}, "layer conv: relu must be a bool, not 1"),
        ({"dtype": "int8"}, "layer conv: dtype must be an ActDtype, not 'int8'"),
        ({"scale": -1.0}, "layer conv: scale must be a finite float above 0, not -1.0"),
        (
            {"dtype": ActDtype.INT32, "relu": True},
            "layer conv: an int32 output takes neither ReLU nor a residual",
        ),
        (
            {
                "dtype": ActDtype.INT32,
                "relu": False,
                "residual": Residual(input="a", mult=0, shift=0),
            },
            "layer conv: an int32 output takes neither ReLU nor a residual",
        ),
        ({"matrices": ()}, "layer conv: there are 0 matrices for 1 groups"),
        ({"matrices": NODES["logits"].matrices}, "layer conv: matrix 0 is [7, 180], not [10, 27]"),
        (
            {"bias": np.zeros(10, np.int64)},
            "layer conv: bias must be int32 [10], not int64 [10]",
        ),
        ({"mult": np.zeros(9, np.uint16)}, "layer conv: mult must be uint16 [10], not uint16 [9]"),
        (
            {"mult": vector("conv", "mult", 32_767)},
            "layer conv: mult of filter 2 must be 0 or 32768 … 65535, not 32767",
        ),
        (
            {"shift": vector("conv", "shift", 48)},
            "layer conv: shift of filter 2 must be 0 … 47, not 48",
        ),
        (
            {"filter_order": np.ones(10, np.int32)},
            "layer conv: filter_order is not a permutation of 0 … 9",
        ),
    ],
)
def test_layers_check_themselves(changes, message):
    with pytest.raises(CspError) as caught:
        dataclasses.replace(NODES["conv"], **changes)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": ""}, "a name must be "),
        ({"input": ""}, "a name must be "),
        ({"kernel": (0, 2)}, "pool p: kernel must be 1 … 255, not 0"),
        ({"stride": (2, 256)}, "pool p: stride must be 1 … 255, not 256"),
        ({"padding": (0, 0, 0, -1)}, "pool p: padding must be 0 … 255, not -1"),
        ({"padding": (0, 2, 0, 0)}, "pool p: padding (0, 2, 0, 0) must be below the kernel (2, 2)"),
        ({"ceil_mode": 0}, "pool p: ceil_mode must be a bool, not 0"),
    ],
)
def test_pools_check_themselves(changes, message):
    good = {"name": "p", "input": "x", "kernel": (2, 2), "stride": (2, 2)}
    with pytest.raises(CspError) as caught:
        MaxPool(**{**good, **changes})
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"count_include_pad": None}, "pool avg: count_include_pad must be a bool, not None"),
        ({"shift": 48}, "pool avg: shift must be 0 … 47, not 48"),
    ],
)
def test_average_pools_check_themselves(changes, message):
    with pytest.raises(CspError) as caught:
        dataclasses.replace(NODES["avg"], **changes)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("inputs", [(), ("",)])
def test_concatenations_check_themselves(inputs):
    with pytest.raises(CspError, match=r"^concat c: (there are no inputs|a name must be .*)$"):
        Concat(name="c", inputs=inputs)


@st.composite
def pools(draw):
    """An average pool and a map that it fits."""
    kernel = draw(st.tuples(*[st.integers(1, 4)] * 2))
    padding = tuple(draw(st.integers(0, kernel[axis % 2] - 1)) for axis in range(4))
    pool = AvgPool(
        name="p",
        input="x",
        kernel=kernel,
        stride=draw(st.tuples(*[st.integers(1, 4)] * 2)),
        padding=padding,
        ceil_mode=draw(st.booleans()),
        count_include_pad=draw(st.booleans()),
        shift=15,
    )
    shape = (draw(st.integers(1, 7)), draw(st.integers(1, 7)), draw(st.integers(1, 3)))
    for axis in (0, 1):
        assume(shape[axis] + padding[axis] + padding[axis + 2] >= kernel[axis])
    return pool, shape


@given(pools())
def test_windows_of_pools_equal_a_loop(case):
    pool, shape = case
    x = np.arange(1, 1 + 2 * np.prod(shape)).reshape(2, *shape)
    result, divisors = pool.unfold(x, 0), pool.divisors(shape)
    out = pool.out_shape(shape)
    assert result.shape == (2, *out[:2], *pool.kernel, shape[2])
    top, left, bottom, right = pool.padding
    for oy, ox in np.ndindex(*out[:2]):
        inside = padded = 0
        for r, s in np.ndindex(*pool.kernel):
            y, z = oy * pool.stride[0] + r - top, ox * pool.stride[1] + s - left
            valid = 0 <= y < shape[0] and 0 <= z < shape[1]
            inside += valid
            padded += y < shape[0] + bottom and z < shape[1] + right
            expected = x[:, y, z] if valid else 0
            assert (result[:, oy, ox, r, s] == expected).all()
        assert inside > 0
        assert divisors[oy, ox] == (padded if pool.count_include_pad else inside)


@given(st.integers(0, 30), st.integers(1, 15), st.integers(1, 15))
def test_multipliers_are_rounded_half_up(shift, rows, cols):
    pool = AvgPool(
        name="p",
        input="x",
        kernel=(rows, cols),
        stride=(1, 1),
        count_include_pad=False,
        shift=shift,
    )
    expected = (Fraction(2**shift, rows * cols) + Fraction(1, 2)).__floor__()
    if 1 <= expected <= 65_535:
        assert pool.multipliers((rows, cols, 1)).tolist() == [[expected]]
    else:
        message = f"^shift {shift} makes pmult {expected}, not 1 … 65535$"
        with pytest.raises(CspError, match=message):
            pool.multipliers((rows, cols, 1))


def with_nodes(*nodes: object, **changes: object) -> Network:
    return dataclasses.replace(network(), nodes=nodes, **changes)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (with_nodes, "network example: there are no nodes"),
        (
            lambda: with_nodes(NODES["logits"]),
            "network example: layer logits: reads flat, which no earlier node makes",
        ),
        (
            lambda: with_nodes(Flatten(name="a", input="a")),
            "network example: flatten a: reads a, which no earlier node makes",
        ),
        (
            lambda: with_nodes(NODES["conv"], NODES["conv"]),
            "network example: two values have the name conv",
        ),
        (
            lambda: with_nodes(Flatten(name="image", input="image")),
            "network example: two values have the name image",
        ),
        (
            lambda: with_nodes(*network().nodes, Flatten(name="end", input="logits")),
            "network example: flatten end: reads logits, which is int32 and can only be an output",
        ),
        (
            lambda: changed(
                "conv", input="image", geometry=Geometry(in_shape=(1, 1, 27), filters=10)
            ),
            "network example: layer conv: the input image has shape (9, 9, 3), not (1, 1, 27)",
        ),
        (
            lambda: changed("grouped", residual=Residual(input="image", mult=0, shift=0)),
            "network example: layer grouped: the residual image has shape (9, 9, 3), not (9, 9",
        ),
        (
            lambda: changed("grouped", dtype=ActDtype.INT8),
            "network example: concat both: input grouped is (9, 9, 10) int8 of scale 1, input 0 ",
        ),
        (
            lambda: changed("grouped", scale=0.25),
            "network example: concat both: input grouped is (9, 9, 10) uint8 of scale 0.25, ",
        ),
        (
            lambda: changed("max", kernel=(10, 2), ceil_mode=False),
            "network example: maxpool max: a kernel (10, 2) does not fit the map (9, 9, 20)",
        ),
        (
            lambda: changed("avg", shift=30),
            "network example: avgpool avg: shift 30 makes pmult 119304647, not 1 … 65535",
        ),
        (
            lambda: with_nodes(
                Flatten(name="flat", input="image"),
                input=dataclasses.replace(network().input, shape=(300, 300, 3)),
            ),
            "network example: flatten flat: output must be 1 … 65535, not 270000",
        ),
        (
            lambda: dataclasses.replace(network(), cols=8),
            "network example: layer conv: matrix 0 has cols 4 and period 4, the network 8 and 4",
        ),
        (
            lambda: dataclasses.replace(network(), period=2),
            "network example: layer conv: matrix 0 has cols 4 and period 4, the network 4 and 2",
        ),
        (
            lambda: dataclasses.replace(network(), cols=0),
            "network example: cols must be 1 … 256, not 0",
        ),
        (
            lambda: dataclasses.replace(network(), period=33),
            "network example: period must be 1 … 32, not 33",
        ),
        (
            lambda: dataclasses.replace(network(), metadata={"a": 1}),
            "network example: metadata must be printable text, not 1",
        ),
        (
            lambda: dataclasses.replace(network(), metadata={"a\x1b": "b"}),
            "network example: metadata must be printable text, not 'a\\x1b'",
        ),
        (lambda: dataclasses.replace(network(), name=""), "a name must be "),
    ],
)
def test_networks_check_themselves(make, message):
    with pytest.raises(CspError) as caught:
        make()
    assert str(caught.value).startswith(message)


def test_metadata_may_have_lines():
    dataclasses.replace(network(), metadata={"note": "one\ntwo"})


def test_tokens_of_a_linear_layer_lie_along_x():
    layer = random_layer(
        np.random.default_rng(0),
        cols=4,
        geometry=Geometry(in_shape=(1, 7, 20), filters=5),
        dtype=ActDtype.INT8,
        source="tokens",
    )
    tokens = Input(name="tokens", shape=(1, 7, 20), dtype=ActDtype.INT8, scale=1.0)
    result = Network(
        name="n", input=tokens, nodes=(layer,), cols=4, period=layer.matrices[0].period
    )
    assert result.shapes()["layer"] == (1, 7, 5)
    assert result.metadata == {}
