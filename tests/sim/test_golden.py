# SPDX-License-Identifier: Apache-2.0
"""The golden model against plain integers, and against a program of other people."""

import dataclasses
import itertools
import math
import pathlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto

from csp_algo.compress import compress
from csp_algo.errors import CspError
from csp_algo.geometry import Geometry
from csp_algo.integers import ActDtype, accumulate
from csp_algo.network import AvgPool, Concat, Flatten, Input, MaxPool, Network, Residual
from sim import golden
from tests.strategies import CASES, network_of, random_activations, random_geometry, random_layer
from tests.witness import conv_integer, onnx_run

INT8, UINT8, INT32 = ActDtype.INT8, ActDtype.UINT8, ActDtype.INT32
SEEDS = st.integers(0, 2**32 - 1)
#: Instructions that multiply u8 · s8 without a saturating 16-bit step.
VNNI = ("avx512_vnni", "avx_vnni")


def ref_rhu(x, s):
    return (x + 2 ** (s - 1)) >> s if s else x


def ref_clip(x, low, high):
    return min(max(x, low), high)


def ref_output(acc, t, bias, mult, shift, dtype, relu, residual=None):
    v = acc * 2**t + bias
    if dtype is INT32:
        return v
    z = ref_rhu(v * mult, shift)
    if residual is not None:
        z = ref_clip(z, -(2**15), 2**15 - 1) + residual
    if relu:
        z = max(z, 0)
    return ref_clip(z, *{INT8: (-128, 127), UINT8: (0, 255)}[dtype])


def ref_window(shape, x, group, y, column):
    """Give the taps of one pixel, a list of integers."""
    taps = []
    for r, s, c in itertools.product(*map(range, shape.kernel), range(shape.group_channels)):
        line = y * shape.stride[0] + r * shape.dilation[0] - shape.padding[0]
        place = column * shape.stride[1] + s * shape.dilation[1] - shape.padding[1]
        inside = 0 <= line < shape.in_shape[0] and 0 <= place < shape.in_shape[1]
        channel = group * shape.group_channels + c
        taps.append(int(x[line, place, channel]) if inside else 0)
    return taps


def ref_sums(matrix, weights, window, t, bits):
    """Give the partial sums of one pixel at the end, and how many were clipped."""
    acc, clipped = [0] * matrix.filters, 0
    surviving = [tap for tap in range(matrix.taps) if matrix.counts[tap] > 0]
    for start in range(0, len(surviving), matrix.period):
        block = surviving[start : start + matrix.period]
        for chunk in range(max(int(matrix.counts[tap]) for tap in block)):
            taps = [tap for tap in block if matrix.counts[tap] > chunk]
            for m in range(chunk * matrix.cols, min((chunk + 1) * matrix.cols, matrix.filters)):
                total = sum(int(weights[m, tap]) * window[tap] for tap in taps)
                wide = acc[m] + ref_rhu(total, t)
                acc[m] = ref_clip(wide, -(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
                clipped += acc[m] != wide
    return acc, clipped


def ref_layer(layer, x, bits, residual=None):
    """Give a layer's outputs as the text says them, one integer at a time."""
    shape = layer.geometry
    outputs = np.zeros((len(x), *shape.out_shape), dtype=np.int64)
    saturations = 0
    for n, y, column in itertools.product(*map(range, outputs.shape[:3])):
        for group, matrix in enumerate(layer.matrices):
            window = ref_window(shape, x[n], group, y, column)
            acc, clipped = ref_sums(matrix, layer.weights()[group], window, layer.acc_shift, bits)
            saturations += clipped
            for local, value in enumerate(acc):
                m = group * shape.group_filters + local
                added = None
                if layer.residual is not None:
                    r = int(residual[n, y, column, m])
                    added = ref_rhu(r * layer.residual.mult, layer.residual.shift)
                outputs[n, y, column, m] = ref_output(
                    value,
                    layer.acc_shift,
                    int(layer.bias[m]),
                    int(layer.mult[m]),
                    int(layer.shift[m]),
                    layer.dtype,
                    layer.relu,
                    added,
                )
    return outputs, saturations


def plain_convolution(layer, x):
    """Give Σ w · a, int64 [N, Ho, Wo, M], without taps, groups of matrices or blocks."""
    shape = layer.geometry
    weights = shape.matrices_to_weights(layer.weights()).astype(np.int64)
    top, left, bottom, right = shape.padding
    padded = np.pad(x.astype(np.int64), ((0, 0), (top, bottom), (left, right), (0, 0)))
    height, width, filters = shape.out_shape
    outputs = np.zeros((len(x), height, width, filters), dtype=np.int64)
    for m, c, r, s in np.ndindex(weights.shape):
        channel = m // shape.group_filters * shape.group_channels + c
        first_y, first_x = r * shape.dilation[0], s * shape.dilation[1]
        lines = slice(first_y, first_y + (height - 1) * shape.stride[0] + 1, shape.stride[0])
        places = slice(first_x, first_x + (width - 1) * shape.stride[1] + 1, shape.stride[1])
        outputs[..., m] += weights[m, c, r, s] * padded[:, lines, places, channel]
    return outputs


def plain(layer):
    """Give the layer with v = Σ w · a as its output."""
    bias = np.zeros(layer.geometry.filters, dtype=np.int32)
    return dataclasses.replace(layer, dtype=INT32, relu=False, acc_shift=0, bias=bias)


def small_layer(seed, case="mixed", **options):
    rng = np.random.default_rng(seed)
    signed = bool(rng.integers(2))
    layer = random_layer(
        rng, cols=4, case=case, max_taps=40, max_side=4, max_chunks=3, signed=signed, **options
    )
    shape = (int(rng.integers(1, 3)), *layer.geometry.in_shape)
    return layer, random_activations(rng, shape, INT8 if signed else UINT8, case=case)


@settings(max_examples=60, deadline=None)
@given(SEEDS, st.sampled_from(CASES))
def test_any_geometry_is_a_convolution(seed, case):
    layer, x = small_layer(seed, case)
    outputs, saturations = golden.layer_forward(plain(layer), x)
    assert outputs.dtype == np.int32
    np.testing.assert_array_equal(outputs, plain_convolution(layer, x))
    assert saturations == 0


@pytest.mark.parametrize("channels", [1, 3])
def test_depthwise_and_grouped_channels_stay_apart(channels):
    rng = np.random.default_rng(channels)
    shape = random_geometry(rng, channels=channels, filters=channels, groups=5, kernel=(3, 2))
    layer = plain(random_layer(rng, cols=4, geometry=shape, case="dense"))
    x = random_activations(rng, (2, *shape.in_shape))
    outputs, _ = golden.layer_forward(layer, x)
    np.testing.assert_array_equal(outputs, plain_convolution(layer, x))


@settings(max_examples=40, deadline=None)
@given(SEEDS, st.sampled_from(CASES), st.sampled_from([8, 9, 12, 16, 24, 31, 32]))
def test_small_sums_and_shifts_follow_the_text(seed, case, bits):
    layer, x = small_layer(seed, case, acc_bits=bits)
    outputs, saturations = golden.layer_forward(layer, x, acc_bits=bits)
    expected, clipped = ref_layer(layer, x, bits)
    np.testing.assert_array_equal(outputs, expected)
    assert saturations == clipped
    assert outputs.dtype == layer.dtype.numpy


def test_saturation_depends_on_the_order_of_blocks():
    # 127·127 + 127·127 clips at 14 bits; −127·127 then leads away from the limit.
    x = pixel(127, 127, 127)
    for period, value, clips in ((1, 8191 - 127 * 127, 2), (3, 8191, 1), (2, 8191 - 127 * 127, 1)):
        layer = one_pixel([127, 127, -127], period)
        outputs, saturations = golden.layer_forward(layer, x, acc_bits=14)
        assert (outputs.item(), saturations) == (value, clips)


@pytest.mark.parametrize("bits", [8, 13, 20, 31, 32])
@pytest.mark.parametrize("shift", [0, 3])
def test_runs_equal_the_one_integer_module(bits, shift):
    shift = min(shift, 32 - bits)
    layer, x = small_layer(bits, "dense", groups=1, acc_shift=shift, period=2)
    acc, clipped = np.int64(0), 0
    windows = layer.geometry.unfold(x)[0].astype(np.int64)
    for block in layer.matrices[0].blocks():
        run = windows[..., block] @ layer.weights()[0][:, block].T.astype(np.int64)
        acc, count = accumulate(acc, run, shift, bits)
        clipped += count
    sums = golden._PartialSums(layer, x, bits).parts()
    parts = [(values, count) for _, _, values, count in sums]
    np.testing.assert_array_equal(np.concatenate([values for values, _ in parts]), acc)
    assert sum(count for _, count in parts) == clipped


@settings(max_examples=25, deadline=None)
@given(SEEDS, st.sampled_from([8, 12, 24]))
def test_shortcuts_change_nothing(seed, bits):
    layer, x = small_layer(seed)
    expected = golden.layer_forward(layer, x, acc_bits=bits)

    class Slow(golden._PartialSums):
        def _group(self, group, taps, sums):
            self.proven[group] = False
            return self._runs(group, taps, sums)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(golden, "_PartialSums", Slow)
        followed = golden.layer_forward(layer, x, acc_bits=bits)
    np.testing.assert_array_equal(followed[0], expected[0])
    assert followed[1] == expected[1]


@settings(max_examples=25, deadline=None)
@given(SEEDS, st.integers(1, 200), st.integers(1, 60))
def test_parts_change_nothing(seed, windows, sums):
    layer, x = small_layer(seed)
    expected = golden.layer_forward(layer, x, acc_bits=16)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(golden, "WINDOW_LIMIT", windows)
        patch.setattr(golden, "SUM_LIMIT", sums)
        parted = golden.layer_forward(layer, x, acc_bits=16)
    np.testing.assert_array_equal(parted[0], expected[0])
    assert parted[1] == expected[1]


def one_pixel(weights, period=8):
    """Give a layer of one filter with these weights and v = Σ w · a as its output."""
    geometry = Geometry(in_shape=(1, 1, len(weights)), filters=1)
    layer = random_layer(np.random.default_rng(0), cols=4, geometry=geometry)
    matrix = compress(np.array([weights], dtype=np.int8), 4, period)
    return dataclasses.replace(plain(layer), matrices=(matrix,))


def pixel(*values):
    return np.array(values, dtype=np.uint8).reshape(1, 1, 1, -1)


@pytest.mark.parametrize(
    ("weights", "activation", "bits", "proven", "value"),
    [
        # 2^14 − 1 is the largest number of 15 bits, 2^14 clips.
        ([127, 2], 127, 15, True, 2**14 - 1),
        ([127, 1], 128, 15, False, 2**14 - 1),
        ([127, 1], 128, 16, True, 2**14),
        ([127, 2], 127, 14, False, 2**13 - 1),
    ],
)
def test_the_bound_decides_at_its_edge(weights, activation, bits, proven, value):
    layer, x = one_pixel(weights), pixel(activation, activation)
    assert golden._PartialSums(layer, x, bits).proven == [proven]
    outputs, saturations = golden.layer_forward(layer, x, acc_bits=bits)
    assert (outputs.item(), saturations) == (value, int(not proven))


@pytest.mark.parametrize("bits", [27, 32])
def test_sums_beyond_float32_are_exact(bits):
    # An odd sum above 2^24 has no float32.
    layer, x = one_pixel([127] * 601), pixel(*[255] * 601)
    assert golden.layer_forward(layer, x, acc_bits=bits)[0].item() == 601 * 127 * 255


def test_the_largest_sum_of_all_is_exact():
    layer = one_pixel([127] * 65_535, period=32)
    x = pixel(*[255] * 65_535)
    for proven in (True, False):
        sums = golden._PartialSums(layer, x, 32)
        assert sums.proven == [True]
        sums.proven = [proven]
        if not proven:
            sums._group = sums._runs
        ((_, _, acc, clipped),) = sums.parts()
        assert (acc.item(), clipped) == (65_535 * 127 * 255, 0)


# --- A layer's end ---------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(SEEDS, st.booleans(), st.sampled_from([INT8, UINT8]), st.sampled_from([INT8, UINT8]))
def test_residuals_follow_the_text(seed, relu, dtype, kind):
    layer, x = small_layer(seed, dtype=dtype, relu=relu)
    rng = np.random.default_rng(seed)
    mult, shift = int(rng.integers(2**15, 2**16)), int(rng.integers(8, 18))
    layer = dataclasses.replace(layer, residual=Residual(input="r", mult=mult, shift=shift))
    residual = random_activations(rng, (len(x), *layer.geometry.out_shape), kind)
    outputs, _ = golden.layer_forward(layer, x, residual=residual)
    np.testing.assert_array_equal(outputs, ref_layer(layer, x, 24, residual)[0])


def test_z_is_clipped_to_16_bits_before_a_residual():
    layer = random_layer(
        np.random.default_rng(0),
        cols=4,
        geometry=Geometry(in_shape=(1, 1, 1), filters=1),
        case="empty",
        dtype=INT8,
        relu=False,
        acc_shift=0,
    )
    layer = dataclasses.replace(
        layer,
        bias=np.array([2**30], dtype=np.int32),
        mult=np.array([2**15], dtype=np.uint16),
        shift=np.array([15], dtype=np.uint8),
        residual=Residual(input="r", mult=2**15, shift=7),
    )
    x = np.zeros((1, 1, 1, 1), dtype=np.uint8)
    residual = np.full((1, 1, 1, 1), -128, dtype=np.int8)
    # 2^15 − 1 − 2^15 = −1; without the first clip the sum would stay large.
    assert golden.layer_forward(layer, x, residual=residual)[0].item() == -1


# --- One pixel -------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(SEEDS, st.sampled_from(CASES), st.sampled_from([10, 24]))
def test_trace_ends_at_the_sums(seed, case, bits):
    layer, x = small_layer(seed, case, acc_bits=bits)
    rng = np.random.default_rng(seed)
    height, width, _ = layer.geometry.out_shape
    n, y, column = (int(rng.integers(limit)) for limit in (len(x), height, width))
    runs = golden.trace(layer, x, n, y, column, acc_bits=bits)
    for group, matrix in enumerate(layer.matrices):
        window = ref_window(layer.geometry, x[n], group, y, column)
        weights = layer.weights()[group]
        expected, clipped = ref_sums(matrix, weights, window, layer.acc_shift, bits)
        last = np.zeros((matrix.chunks, matrix.cols), dtype=np.int64)
        mine = [run for run in runs if run.group == group]
        for run in mine:
            before = last[run.chunk]
            after, clips = accumulate(before, run.run, layer.acc_shift, bits)
            np.testing.assert_array_equal(run.sums, after)
            assert run.saturations == clips
            last[run.chunk] = after
            assert (matrix.counts[run.taps] > run.chunk).all()
            filters = slice(run.chunk * 4, min(run.chunk * 4 + 4, matrix.filters))
            total = weights[filters][:, run.taps].astype(int) @ np.array(window)[run.taps]
            np.testing.assert_array_equal(run.run[: len(total)], total)
        np.testing.assert_array_equal(last.reshape(-1)[: matrix.filters], expected)
        assert not last.reshape(-1)[matrix.filters :].any()
        assert sum(run.saturations for run in mine) == clipped
        # Every stored word belongs to exactly one run.
        assert sum(len(run.taps) for run in mine) == matrix.counts.sum()
        assert [run[:3] for run in mine] == sorted(run[:3] for run in mine)


# --- Nodes and networks ----------------------------------------------------------------------


def ref_pool(node, x, reduce):
    """Give a pool by loops; reduce(values inside the map, elements with padding) -> value."""
    height, width, channels = node.out_shape(x.shape[1:])
    outputs = np.zeros((len(x), height, width, channels), dtype=np.int64)
    top, left, bottom, right = node.padding
    for n, y, column, c in np.ndindex(outputs.shape):
        inside, around = [], 0
        for r, s in itertools.product(*map(range, node.kernel)):
            line = y * node.stride[0] + r - top
            place = column * node.stride[1] + s - left
            if 0 <= line < x.shape[1] and 0 <= place < x.shape[2]:
                inside.append(int(x[n, line, place, c]))
            around += line < x.shape[1] + bottom and place < x.shape[2] + right
        outputs[n, y, column, c] = reduce(inside, around)
    return outputs


def random_pool(rng, kind, **options):
    kernel = tuple(int(side) for side in rng.integers(1, 4, 2))
    padding = tuple(int(rng.integers(0, min(kernel[axis % 2], 3))) for axis in range(4))
    return kind(
        name="pool",
        input="input",
        kernel=kernel,
        stride=tuple(int(step) for step in rng.integers(1, 4, 2)),
        padding=padding,
        ceil_mode=bool(rng.integers(2)),
        **options,
    )


def run_node(node, x, dtype):
    source = Input(name="input", shape=x.shape[1:], dtype=dtype, scale=1.0)
    network = Network(name="n", input=source, nodes=(node,), cols=4, period=1)
    return golden.run(network, x)


@settings(max_examples=60, deadline=None)
@given(SEEDS, st.sampled_from([INT8, UINT8]))
def test_padding_never_wins_a_max_pool(seed, dtype):
    rng = np.random.default_rng(seed)
    node = random_pool(rng, MaxPool)
    x = random_activations(rng, (2, *rng.integers(3, 7, 2), 2), dtype)
    if dtype is INT8:
        x = np.minimum(x, np.int8(-1))
    result = run_node(node, x, dtype).logits
    np.testing.assert_array_equal(result, ref_pool(node, x, lambda inside, _: max(inside)))
    assert result.dtype == x.dtype


@settings(max_examples=60, deadline=None)
@given(SEEDS, st.sampled_from([INT8, UINT8]), st.booleans())
def test_average_pools_round_half_up(seed, dtype, include):
    rng = np.random.default_rng(seed)
    shift = int(rng.integers(4, 16))
    node = random_pool(rng, AvgPool, count_include_pad=include, shift=shift)
    x = random_activations(rng, (2, *rng.integers(3, 7, 2), 2), dtype)

    def mean(inside, around):
        divisor = around if include else len(inside)
        pmult = math.floor(2**shift / divisor + 0.5)
        return ref_clip(ref_rhu(sum(inside) * pmult, shift), dtype.low, dtype.high)

    np.testing.assert_array_equal(run_node(node, x, dtype).logits, ref_pool(node, x, mean))


def test_means_stay_in_their_type():
    # 6 · 255 · round(16 / 6) / 16 = 287
    node = AvgPool(
        name="pool", input="input", kernel=(2, 3), stride=(1, 1), count_include_pad=True, shift=4
    )
    assert run_node(node, np.full((1, 2, 3, 1), 255, dtype=np.uint8), UINT8).logits.item() == 255
    assert run_node(node, np.full((1, 2, 3, 1), -128, dtype=np.int8), INT8).logits.item() == -128


def test_flatten_orders_y_x_c():
    x = np.arange(24, dtype=np.uint8).reshape(1, 2, 3, 4)
    result = run_node(Flatten(name="flat", input="input"), x, UINT8)
    assert result.logits.shape == (1, 1, 1, 24)
    assert result.logits.ravel().tolist() == list(range(24))


def branches(seed):
    """Give a network with a branch of every kind, and images for it."""
    rng = np.random.default_rng(seed)

    def layer(name, source, shape, filters, kernel, dtype, **options):
        side = kernel // 2
        geometry = Geometry(
            in_shape=shape, filters=filters, kernel=(kernel, kernel), padding=(side,) * 4
        )
        return random_layer(
            rng,
            cols=4,
            period=4,
            geometry=geometry,
            dtype=dtype,
            name=name,
            source=source,
            acc_shift=0,
            **options,
        )

    first = layer("a", "image", (6, 6, 3), 5, 3, UINT8)
    second = layer("b", "a", (6, 6, 5), 5, 1, UINT8)
    second = dataclasses.replace(second, residual=Residual(input="a", mult=2**15, shift=16))
    third = layer("c", "b", (6, 6, 5), 3, 3, UINT8)
    nodes = (
        first,
        second,
        third,
        Concat(name="d", inputs=("b", "c")),
        MaxPool(name="e", input="d", kernel=(2, 2), stride=(2, 2)),
        AvgPool(name="f", input="e", kernel=(2, 2), stride=(1, 1), count_include_pad=True, shift=8),
        Flatten(name="g", input="f"),
        layer("h", "g", (1, 1, 32), 7, 1, INT32),
    )
    # Scales of a concatenation must agree; all of them are 1 here.
    source = Input(name="image", shape=(6, 6, 3), dtype=UINT8, scale=1.0)
    network = Network(name="branches", input=source, nodes=nodes, cols=4, period=4)
    return network, random_activations(rng, (5, 6, 6, 3))


def test_network_computes_every_node():
    network, images = branches(1)
    result = golden.run(network, images)
    assert list(result.values) == ["image", *"abcdefgh"]
    a, b, c, d, g, h = (result.values[name] for name in "abcdgh")
    layers = {layer.name: layer for layer in network.layers()}
    np.testing.assert_array_equal(a, ref_layer(layers["a"], images, 24)[0])
    np.testing.assert_array_equal(b, ref_layer(layers["b"], a, 24, a)[0])
    np.testing.assert_array_equal(c, ref_layer(layers["c"], b, 24)[0])
    np.testing.assert_array_equal(d, np.concatenate([b, c], axis=3))
    np.testing.assert_array_equal(h, ref_layer(layers["h"], g, 24)[0])
    assert {name: value.shape[1:] for name, value in result.values.items()} == network.shapes()
    assert result.saturations == dict.fromkeys("abch", 0)
    assert result.logits is h


def test_batches_change_nothing(monkeypatch):
    network, images = branches(2)
    expected = golden.run(network, images, acc_bits=12)
    assert any(expected.saturations.values())
    monkeypatch.setattr(golden, "BATCH_LIMIT", 1)
    result = golden.run(network, images, acc_bits=12)
    assert result.saturations == expected.saturations
    for name, values in expected.values.items():
        np.testing.assert_array_equal(result.values[name], values)


def test_only_what_is_wanted_is_kept():
    network, images = branches(3)
    assert list(golden.run(network, images, keep=()).values) == ["h"]
    assert list(golden.run(network, images, keep=("c",)).values) == ["c", "h"]
    with pytest.raises(CspError, match="network branches: there is no value q to keep"):
        golden.run(network, images, keep=("q",))


def test_argmax_takes_the_first_of_equals():
    logits = np.array([[3, 7, 7], [7, 3, 7], [-1, -1, -1]]).reshape(3, 1, 1, 3)
    result = golden.GoldenResult(values={"z": logits}, saturations={}, output="z")
    assert result.argmax.tolist() == [1, 0, 0]


def test_no_images_are_no_error():
    network, images = branches(4)
    assert golden.run(network, images[:0]).argmax.shape == (0,)


# --- Refusals --------------------------------------------------------------------------------


def test_wrong_maps_are_refused():
    layer, x = small_layer(1)
    shape = list(layer.geometry.in_shape)
    with pytest.raises(CspError, match="layer layer: activations must be int8 or uint8, not int16"):
        golden.layer_forward(layer, x.astype(np.int16))
    with pytest.raises(CspError, match=r"layer layer: activations have shape .* not \[N, "):
        golden.layer_forward(layer, x[:, :, :, :0])
    with pytest.raises(CspError, match="layer layer: a residual must be given if and only if"):
        golden.layer_forward(layer, x, residual=x)
    added = dataclasses.replace(
        layer, dtype=INT8, relu=False, residual=Residual(input="r", mult=0, shift=0)
    )
    with pytest.raises(CspError, match="layer layer: the residual has shape "):
        golden.layer_forward(added, x, residual=np.zeros((9, 9, 9, 9), dtype=np.int8))
    network = network_of(layer, dtype=UINT8)
    with pytest.raises(CspError, match="network random: images must be uint8, not int8"):
        golden.run(network, np.zeros((1, *shape), dtype=np.int8))
    with pytest.raises(CspError, match=r"network random: images have shape .* not \[N, "):
        golden.run(network, np.zeros((1, 1, *shape), dtype=np.uint8))


@pytest.mark.parametrize("bits", [7, 33])
def test_sums_have_8_to_32_bits(bits):
    layer, x = small_layer(1)
    with pytest.raises(CspError, match=f"layer layer: acc_bits must be 8 … 32, not {bits}"):
        golden.layer_forward(layer, x, acc_bits=bits)


def test_sums_and_shift_fit_32_bits():
    layer, x = small_layer(1, acc_shift=8)
    golden.layer_forward(layer, x, acc_bits=24)
    with pytest.raises(CspError, match="acc_bits 25 and acc_shift 8 make more than 32 bits"):
        golden.layer_forward(layer, x, acc_bits=25)


def test_trace_refuses_pixels_outside():
    layer, x = small_layer(1)
    height = layer.geometry.out_shape[0]
    for place, name in (((len(x), 0, 0), "image"), ((0, height, 0), "y"), ((0, 0, -1), "x")):
        with pytest.raises(CspError, match=f"layer layer: {name} must be 0 … "):
            golden.trace(layer, x, *place)


# --- ONNX Runtime ----------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(SEEDS, st.sampled_from(CASES))
def test_onnx_runtime_agrees_on_every_sum(seed, case):
    layer, x = small_layer(seed, case)
    expected = conv_integer(layer, x)
    np.testing.assert_array_equal(golden.layer_forward(plain(layer), x)[0], expected)


def has_vnni():
    info = pathlib.Path("/proc/cpuinfo")
    return info.exists() and any(word in info.read_text() for word in VNNI)


@pytest.mark.parametrize("dtype", [INT8, UINT8])
@pytest.mark.parametrize(
    "limit",
    [
        # 2 · 255 · 63 < 2^15: no pair of products saturates at 16 bits, whatever the machine.
        63,
        pytest.param(
            127,
            marks=pytest.mark.skipif(not has_vnni(), reason=f"none of {VNNI}: u8·s8 saturates"),
        ),
    ],
)
def test_onnx_runtime_requantises_within_one(dtype, limit):
    for seed in range(25):
        rng = np.random.default_rng(seed)
        layer = random_layer(rng, cols=4, acc_shift=0, dtype=dtype, relu=False, case="dense")
        weights = np.clip(layer.weights(), -limit, limit)
        matrices = tuple(compress(group, 4, layer.matrices[0].period) for group in weights)
        layer = dataclasses.replace(
            layer, matrices=matrices, shift=np.maximum(layer.shift, 16).astype(np.uint8)
        )
        x = random_activations(rng, (2, *layer.geometry.in_shape), dtype)
        scales = (layer.mult / 2.0**layer.shift).astype(np.float32)
        zero = np.array(0, dtype=dtype.numpy)
        one = np.array(1, dtype=np.float32)
        arrays = {
            "x": np.ascontiguousarray(x.transpose(0, 3, 1, 2)),
            "x_scale": one,
            "x_zero": zero,
            "w": np.ascontiguousarray(layer.geometry.matrices_to_weights(weights)),
            "w_scale": scales,
            "w_zero": np.zeros(len(scales), dtype=np.int8),
            "y_scale": one,
            "y_zero": zero,
            "b": layer.bias,
        }
        kind = TensorProto.INT8 if dtype is INT8 else TensorProto.UINT8
        expected = onnx_run("QLinearConv", layer, arrays, kind).astype(int)
        outputs = golden.layer_forward(layer, x)[0].astype(int)
        # A filter with mult 0 is dead here; a scale of 0 means the same there.
        assert np.abs(outputs - expected).max() <= 1, seed
        assert np.ptp(outputs) > 20
