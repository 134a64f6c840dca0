# SPDX-License-Identifier: Apache-2.0
import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from csp_algo import container
from csp_algo.compress import compress
from csp_algo.errors import CspError
from csp_algo.geometry import Geometry, flatten_order
from csp_algo.integers import ActDtype, rhu, sat
from csp_algo.network import AvgPool, Concat, Flatten, Input, Layer, MaxPool, Network
from csp_algo.quantize import (
    BIAS_LIMIT,
    BatchNorm,
    FloatLayer,
    FloatNetwork,
    activation_scale,
    choose_shift,
    fold_batch_norm,
    multiplier,
    quantise,
    quantise_values,
    quantise_weights,
    safe_shift,
    safe_shifts,
    weight_scales,
)


def ref_forward(network: Network, images: np.ndarray, bits: int = 24) -> dict[str, np.ndarray]:
    """Every map of an integer network, from the formulas, a block at a time."""
    values = {network.input.name: images.astype(np.int64)}
    for node in network.nodes:
        x = values[node.sources[0]]
        if isinstance(node, Layer):
            values[node.name] = ref_layer(node, x, values, bits)
        elif isinstance(node, MaxPool):
            values[node.name] = node.unfold(x, fill=-(2**40)).max(axis=(3, 4))
        elif isinstance(node, AvgPool):
            total = node.unfold(x, fill=0).sum(axis=(3, 4))
            mults = node.multipliers(x.shape[1:])
            values[node.name] = rhu(total * mults[..., None], node.shift)
        elif isinstance(node, Concat):
            values[node.name] = np.concatenate([values[name] for name in node.inputs], axis=-1)
        else:
            values[node.name] = x.reshape(len(x), 1, 1, -1)
    return values


def ref_layer(layer: Layer, x: np.ndarray, values: dict, bits: int) -> np.ndarray:
    outputs = []
    for matrix, windows in zip(layer.matrices, layer.geometry.unfold(x), strict=True):
        weights = matrix.decompress().astype(np.int64)
        acc = np.zeros((*windows.shape[:3], matrix.filters), dtype=np.int64)
        for taps in matrix.blocks():
            run = windows[..., taps] @ weights[:, taps].T
            acc = sat(acc + rhu(run, layer.acc_shift), bits)
        outputs.append(acc)
    v = (np.concatenate(outputs, axis=-1) << layer.acc_shift) + layer.bias
    if layer.dtype is ActDtype.INT32:
        return v
    z = rhu(v * layer.mult, layer.shift)
    if layer.residual is not None:
        r = values[layer.residual.input] * layer.residual.mult
        z = sat(z, 16) + rhu(r, layer.residual.shift)
    z = np.maximum(z, 0) if layer.relu else z
    return np.clip(z, layer.dtype.low, layer.dtype.high)


def signal_to_noise(real: np.ndarray, got: np.ndarray) -> float:
    """Decibels of the signal over the error."""
    return 10 * math.log10(np.square(real).sum() / np.square(real - got).sum())


def float_layer(
    rng: np.random.Generator, name: str, source: str, geometry: Geometry, **options
) -> FloatLayer:
    shape = (geometry.filters, geometry.group_channels, *geometry.kernel)
    weights = rng.normal(size=shape) / math.sqrt(geometry.taps)
    # Weights of the filters differ in size: one scale for all would show.
    weights *= rng.uniform(0.2, 5, size=(len(weights), 1, 1, 1))
    options = {"relu": True, **options}
    return FloatLayer(
        name=name,
        input=source,
        geometry=geometry,
        weights=weights,
        bias=rng.normal(size=geometry.filters) * 0.3,
        **options,
    )


def pixels(shape: tuple[int, int, int], dtype: ActDtype = ActDtype.UINT8) -> Input:
    return Input(name="x", shape=shape, dtype=dtype, scale=1 / 255)


def some_images(rng: np.random.Generator, count: int, source: Input) -> np.ndarray:
    low, high = source.dtype.low, source.dtype.high
    return rng.integers(low, high + 1, size=(count, *source.shape)).astype(source.dtype.numpy)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


@pytest.fixture
def every_node(rng) -> FloatNetwork:
    """All kinds of nodes: groups, stride, residual, both pools, concatenation, flatten."""
    convolution = Geometry(
        in_shape=(9, 9, 3), filters=8, kernel=(3, 3), stride=(2, 2), padding=(1, 1, 1, 1)
    )
    inner = Geometry(in_shape=(5, 5, 8), filters=8, kernel=(3, 3), padding=(1,) * 4, groups=2)
    point = Geometry(in_shape=(5, 5, 8), filters=4)
    return FloatNetwork(
        name="every_node",
        input=pixels((9, 9, 3)),
        nodes=(
            float_layer(rng, "a", "x", convolution),
            float_layer(rng, "b", "a", inner, relu=False),
            float_layer(rng, "c", "b", inner, residual="a"),
            float_layer(rng, "d", "c", point),
            Concat(name="e", inputs=("c", "d")),
            MaxPool(name="f", input="e", kernel=(2, 2), stride=(2, 2), ceil_mode=True),
            AvgPool(
                name="g",
                input="f",
                kernel=(2, 2),
                stride=(1, 1),
                padding=(1, 0, 0, 0),
                count_include_pad=False,
                shift=15,
            ),
            Flatten(name="h", input="g"),
            float_layer(rng, "i", "h", Geometry(in_shape=(1, 1, 72), filters=10), relu=False),
        ),
    )


class TestFolding:
    def test_equals_the_two_steps(self, rng):
        weights, bias = rng.normal(size=(6, 2, 3, 3)), rng.normal(size=6)
        norm = BatchNorm(
            gamma=rng.normal(size=6),
            beta=rng.normal(size=6),
            mean=rng.normal(size=6),
            variance=rng.uniform(0.1, 2, size=6),
            epsilon=1e-3,
        )
        window = rng.normal(size=(2, 3, 3))
        plain = np.tensordot(weights, window, axes=3)
        for old in (bias, None):
            y = plain + (0 if old is None else old)
            want = norm.gamma * (y - norm.mean) / np.sqrt(norm.variance + 1e-3) + norm.beta
            folded, offset = fold_batch_norm(weights, old, norm)
            np.testing.assert_allclose(np.tensordot(folded, window, axes=3) + offset, want)

    def test_refuses_no_variance(self):
        one = np.ones(1)
        norm = BatchNorm(gamma=one, beta=one, mean=one, variance=one * 0, epsilon=0.0)
        with pytest.raises(CspError, match=r"variance \+ epsilon 0.0, not above 0"):
            fold_batch_norm(np.ones((1, 1, 1, 1)), None, norm)


class TestWeights:
    def test_largest_of_each_filter_is_127(self, rng):
        matrix = rng.normal(size=(5, 40)) * [[1e-6], [0.1], [1], [30], [1e6]]
        scales = weight_scales(matrix, np.zeros(5), 1 / 255)
        levels = quantise_weights(matrix, scales)
        assert levels.dtype == np.int8
        assert np.abs(levels.astype(int)).max(axis=1).tolist() == [127] * 5
        assert (np.abs(levels * scales[:, None] - matrix) <= scales[:, None] * 0.5000001).all()

    def test_zero_stays_zero_and_is_not_stored(self, rng):
        matrix = rng.normal(size=(16, 40))
        matrix[8:, ::2] = 0
        matrix[:, ::5] = 0
        levels = quantise_weights(matrix, weight_scales(matrix, np.zeros(16), 1.0))
        assert set(compress(levels, 8, 16).counts[::5]) == {0}
        assert not levels[matrix == 0].any()

    def test_logits_share_a_scale(self, rng):
        matrix = rng.normal(size=(5, 40)) * [[1], [2], [3], [4], [5]]
        scales = weight_scales(matrix, np.zeros(5), 1.0, per_filter=False)
        assert len(set(scales)) == 1
        assert np.abs(quantise_weights(matrix, scales)[-1].astype(int)).max() == 127

    def test_scale_grows_for_a_large_bias(self):
        scales = weight_scales(np.full((1, 1), 1e-9), np.array([2.0]), 0.5)
        assert 2.0 / (scales[0] * 0.5) == pytest.approx(BIAS_LIMIT)

    def test_dead_filters(self):
        scales = weight_scales(np.zeros((2, 3)), np.array([0.0, 1.0]), 1.0)
        assert scales[0] == 0
        assert scales[1] > 0
        assert not quantise_weights(np.zeros((2, 3)), scales).any()


class TestMultiplier:
    @given(st.floats(min_value=2.0**-32, max_value=65535.0))
    def test_is_normalised_and_near(self, ratio):
        mult, shift = multiplier(ratio)
        assert 2**15 <= mult < 2**16
        assert 0 <= shift <= 47
        assert abs(mult / 2**shift - ratio) <= ratio * 2**-16

    @pytest.mark.parametrize(
        ("ratio", "want"),
        [
            (1.0, (2**15, 15)),
            (1 - 2**-20, (2**15, 15)),  # rounds up to the next power of two
            (2.0**-32, (2**15, 47)),
            (2.0**-33, (0, 0)),
            (0.0, (0, 0)),
            (2.0**16 - 1, (2**16 - 1, 0)),
        ],
    )
    def test_corners(self, ratio, want):
        assert multiplier(ratio) == want

    @pytest.mark.parametrize("ratio", [2.0**16, 65535.9, 1e30])
    def test_refuses_large(self, ratio):
        with pytest.raises(CspError, match="it must be below 65536"):
            multiplier(ratio)

    @pytest.mark.parametrize("ratio", [-1.0, math.nan, math.inf])
    def test_refuses_nonsense(self, ratio):
        with pytest.raises(CspError, match="finite and not negative"):
            multiplier(ratio)


class TestActivationScale:
    def test_exact_where_possible(self):
        assert activation_scale(np.arange(256) * 0.25, ActDtype.UINT8) == 0.25
        assert activation_scale(np.arange(-127, 128) * 0.5, ActDtype.INT8) == 0.5

    def test_clips_a_lone_outlier(self, rng):
        values = np.append(rng.uniform(0, 1, size=200_000), 1.3)
        assert activation_scale(values, ActDtype.UINT8) * 255 < 1.2

    def test_least_squared_error(self, rng):
        values = rng.exponential(size=5000)

        def error(scale: float) -> float:
            got = quantise_values(values, ActDtype.UINT8, scale) * scale
            return float(np.square(got - values).sum())

        chosen = activation_scale(values, ActDtype.UINT8)
        others = [values.max() / 255 * share for share in (1, 0.9, 0.8, 0.6, 0.4)]
        assert error(chosen) <= min(error(scale) for scale in others) * 1.001

    def test_zeros(self):
        assert activation_scale(np.zeros(4), ActDtype.UINT8) == 1.0

    def test_rounding_noise_does_not_show(self, rng):
        values = rng.exponential(size=5000)
        noisy = values * (1 + rng.uniform(-1e-14, 1e-14, size=5000))
        scale = activation_scale(values, ActDtype.UINT8)
        assert activation_scale(noisy, ActDtype.UINT8) == scale


class TestShifts:
    @pytest.mark.parametrize("dtype", [ActDtype.UINT8, ActDtype.INT8])
    @pytest.mark.parametrize("period", [1, 7, 32])
    @pytest.mark.parametrize("bits", [16, 18, 20])
    def test_smallest_safe_is_sharp(self, rng, dtype, period, bits):
        # Positive weights and activations of one sign reach the bound itself.
        weights = rng.integers(0, 128, size=(6, 90)).astype(np.int8)
        weights[:, rng.random(90) < 0.3] = 0
        matrix = compress(weights, 4, period)
        t = safe_shift([matrix], dtype, bits)
        assert t is not None
        extreme = np.full(90, dtype.high if dtype is ActDtype.UINT8 else dtype.low)

        def saturates(shift: int) -> bool:
            acc = np.zeros(6, dtype=np.int64)
            for taps in matrix.blocks():
                exact = acc + rhu(weights[:, taps].astype(np.int64) @ extreme[taps], shift)
                if (exact != sat(exact, bits)).any():
                    return True
                acc = exact
            return False

        assert not saturates(t)
        # Downwards one more value fits, so int8 may pass one step earlier than its bound says.
        if t and dtype is ActDtype.UINT8:
            assert saturates(t - 1)

    def test_none_is_safe(self):
        matrix = compress(np.full((1, 4000), 127, dtype=np.int8), 4, 1)
        assert safe_shift([matrix], ActDtype.UINT8, 8) is None
        assert safe_shift([matrix], ActDtype.UINT8, 31) == 0
        assert safe_shift([matrix], ActDtype.UINT8, 28) == 0
        assert safe_shift([matrix], ActDtype.UINT8, 27) == 1
        assert safe_shift([matrix], ActDtype.UINT8, 26) == 2

    def test_worst_group_decides(self):
        small, large = (np.full((2, 50), w, dtype=np.int8) for w in (1, 127))
        groups = [compress(small, 4, 8), compress(large, 4, 8)]
        assert safe_shift(groups, ActDtype.UINT8, 16) == safe_shift(groups[1:], ActDtype.UINT8, 16)
        assert safe_shift(groups[:1], ActDtype.UINT8, 16) == 0

    def test_empty_matrix(self):
        matrix = compress(np.zeros((3, 5), dtype=np.int8), 4, 8)
        assert safe_shift([matrix], ActDtype.UINT8, 8) == 0

    @pytest.mark.parametrize("bits", [7, 33])
    def test_width_is_checked(self, bits):
        with pytest.raises(CspError, match=f"acc_bits must be 8 … 32, not {bits}"):
            safe_shift([], ActDtype.UINT8, bits)

    @pytest.mark.parametrize("bits", [8, 12, 16])
    def test_choice_has_the_least_error(self, rng, every_node, bits):
        images = some_images(rng, 6, every_node.input)
        network = quantise(every_node, images, cols=4, period=8)
        values = ref_forward(network, images)
        layer = network.layers()[0]
        chosen = choose_shift(layer, images, ActDtype.UINT8, bits)
        safe = safe_shift(layer.matrices, ActDtype.UINT8, bits)
        errors = {}
        for t in range((15 if safe is None else safe) + 1):
            got = ref_layer(dataclasses.replace(layer, acc_shift=t), images, values, bits)
            errors[t] = int(np.square(got - values[layer.name]).sum())
        assert errors[chosen] == min(errors.values())
        assert chosen == max(t for t, error in errors.items() if error == errors[chosen])

    def test_of_equals_the_safest(self, rng, every_node):
        images = some_images(rng, 2, every_node.input)
        layer = quantise(every_node, images, cols=4, period=8).layers()[0]
        safe = safe_shift(layer.matrices, ActDtype.UINT8, 16)
        assert safe
        assert choose_shift(layer, images * 0, ActDtype.UINT8, 16) == safe

    def test_narrow_sums_choose_below_safe(self, rng, every_node):
        images = some_images(rng, 4, every_node.input)
        wide = quantise(every_node, images, cols=4, period=8, acc_bits=24)
        assert [layer.acc_shift for layer in wide.layers()] == [0] * 5
        narrow = quantise(every_node, images, cols=4, period=8, acc_bits=12)
        safe = safe_shifts(narrow, 12)
        chosen = {layer.name: layer.acc_shift for layer in narrow.layers()}
        assert all(safe[name] is None or chosen[name] <= safe[name] for name in chosen)
        assert any(0 < t != safe[name] for name, t in chosen.items())
        real = every_node.forward(images)["i"]
        got = ref_forward(narrow, images, bits=12)["i"] * narrow.layers()[-1].scale
        assert signal_to_noise(real, got) > 15


class TestNetwork:
    def test_is_near_the_float_network(self, rng, every_node):
        calibration, images = (some_images(rng, n, every_node.input) for n in (40, 20))
        network = quantise(every_node, calibration, cols=4, period=8)
        real = every_node.forward(images)
        got = ref_forward(network, images)
        scales = network.scales()
        for name, least in {**dict.fromkeys("abc", 30), **dict.fromkeys("defghi", 25)}.items():
            assert signal_to_noise(real[name], got[name] * scales[name]) > least, name
        assert (real["i"].argmax(-1) == got["i"].argmax(-1)).mean() > 0.9

    def test_types(self, rng, every_node):
        network = quantise(every_node, some_images(rng, 4, every_node.input), cols=4, period=8)
        kinds = {name: kind.value for name, kind in network.dtypes().items()}
        assert kinds == {"b": "int8", "i": "int32", **dict.fromkeys("xacdefgh", "uint8")}
        scales = network.scales()
        assert len({scales[name] for name in "cdefgh"}) == 1
        assert len({scales[name] for name in "abc"}) == 3
        assert network.layers()[-1].scale == scales["i"]

    def test_signed_input(self, rng):
        source = pixels((1, 6, 12), ActDtype.INT8)
        geometry = Geometry(in_shape=(1, 6, 12), filters=9)
        layer = float_layer(rng, "y", "x", geometry, relu=True)
        last = float_layer(rng, "z", "y", dataclasses.replace(geometry, in_shape=(1, 6, 9)))
        network = FloatNetwork(name="tokens", input=source, nodes=(layer, last))
        images = some_images(rng, 30, source)
        integer = quantise(network, images, cols=4, period=16)
        got = ref_forward(integer, images)["z"] * integer.scales()["z"]
        assert integer.dtypes()["z"] is ActDtype.UINT8
        assert signal_to_noise(network.forward(images)["z"], got) > 30

    def test_flatten_moves_the_taps(self, rng):
        """The float network counts (c, y, x), as others do; computed here without csp_algo."""
        height, width, channels, classes = 3, 4, 5, 7
        kernels = rng.normal(size=(channels, 2, 1, 1))
        matrix = rng.normal(size=(classes, channels * height * width))
        images = rng.integers(0, 256, size=(10, height, width, 2)).astype(np.uint8)
        maps = np.einsum("nyxi,ci->ncyx", images / 255, kernels[:, :, 0, 0])
        want = np.maximum(maps, 0).reshape(10, -1) @ matrix.T
        first = FloatLayer(
            name="conv",
            input="x",
            geometry=Geometry(in_shape=(height, width, 2), filters=channels),
            weights=kernels,
            bias=np.zeros(channels),
            relu=True,
        )
        shape = (height, width, channels)
        last = FloatLayer(
            name="linear",
            input="flat",
            geometry=Geometry(in_shape=(1, 1, math.prod(shape)), filters=classes),
            weights=matrix[:, flatten_order(shape)],
            bias=np.zeros(classes),
            relu=False,
        )
        network = FloatNetwork(
            name="flat",
            input=pixels((height, width, 2)),
            nodes=(first, Flatten(name="flat", input="conv"), last),
        )
        np.testing.assert_allclose(network.forward(images)["linear"][:, 0, 0], want)
        integer = quantise(network, images, cols=4, period=8)
        got = ref_forward(integer, images)["linear"][:, 0, 0] * integer.scales()["linear"]
        assert signal_to_noise(want, got) > 35

    def test_dead_filter_keeps_its_bias(self, rng):
        geometry = Geometry(in_shape=(2, 2, 3), filters=4)
        layer = float_layer(rng, "y", "x", geometry)
        layer.weights[1:3] = 0
        layer.bias[1:3] = (0.75, 0.0)
        network = FloatNetwork(name="dead", input=pixels((2, 2, 3)), nodes=(layer,))
        images = some_images(rng, 5, network.input)
        integer = quantise(network, images, cols=4, period=8)
        got = ref_forward(integer, images)["y"] * integer.scales()["y"]
        assert np.abs(got[..., 1] - 0.75).max() <= integer.scales()["y"] / 2
        assert not got[..., 2].any()
        assert integer.layers()[0].mult[2] == 0

    def test_bias_is_rounded(self, rng, every_node):
        images = some_images(rng, 4, every_node.input)
        network = quantise(every_node, images, cols=4, period=8)
        first, real = network.layers()[0], every_node.nodes[0]
        units = weight_scales(real.matrices[0], real.bias, 1 / 255) / 255
        assert first.bias.tolist() == [round(b / u) for b, u in zip(real.bias, units, strict=True)]

    def test_one_signed_map_makes_all_signed(self, rng):
        geometry = Geometry(in_shape=(2, 2, 3), filters=3)
        layers = [float_layer(rng, n, "x", geometry, relu=n == "y") for n in "yz"]
        both = Concat(name="both", inputs=("y", "z"))
        network = FloatNetwork(name="n", input=pixels((2, 2, 3)), nodes=(*layers, both))
        integer = quantise(network, some_images(rng, 2, network.input), cols=4, period=8)
        assert {integer.dtypes()[name] for name in ("y", "z", "both")} == {ActDtype.INT8}

    def test_container_is_reproducible(self, rng, every_node):
        images = some_images(rng, 6, every_node.input)
        first, second = (
            container.to_bytes(quantise(every_node, images, cols=4, period=8)) for _ in range(2)
        )
        assert first == second
        assert container.to_bytes(container.from_bytes(first)) == first

    def test_max_pool_of_negative_values(self, rng):
        geometry = Geometry(in_shape=(4, 4, 3), filters=4)
        layer = dataclasses.replace(
            float_layer(rng, "y", "x", geometry, relu=False), bias=np.full(4, -30.0)
        )
        pool = MaxPool(name="p", input="y", kernel=(3, 3), stride=(2, 2), padding=(1,) * 4)
        network = FloatNetwork(name="below", input=pixels((4, 4, 3)), nodes=(layer, pool))
        images = some_images(rng, 3, network.input)
        assert network.forward(images)["p"].max() < 0
        integer = quantise(network, images, cols=4, period=8)
        assert integer.dtypes()["p"] is ActDtype.INT8


class TestRefusals:
    @pytest.mark.parametrize(
        ("images", "message"),
        [
            (np.zeros((0, 9, 9, 3), np.uint8), "with N above 0"),
            (np.zeros((1, 9, 8, 3), np.uint8), r"have shape \[1, 9, 8, 3\]"),
            (np.zeros((1, 9, 9, 3), np.int8), "images are int8, not uint8"),
        ],
    )
    def test_images(self, every_node, images, message):
        with pytest.raises(CspError, match=f"network every_node: calibration .*{message}"):
            quantise(every_node, images, cols=4, period=8)

    def test_not_finite(self, rng):
        layer = float_layer(rng, "y", "x", Geometry(in_shape=(2, 2, 3), filters=4))
        for field in ("weights", "bias"):
            bad = np.full_like(getattr(layer, field), np.nan)
            with pytest.raises(CspError, match=f"layer y: {field} hold a value that is NaN"):
                dataclasses.replace(layer, **{field: bad})

    def test_shapes(self, rng):
        layer = float_layer(rng, "y", "x", Geometry(in_shape=(2, 2, 3), filters=4))
        with pytest.raises(CspError, match=r"layer y: bias has shape \[3\], not \[4\]"):
            dataclasses.replace(layer, bias=np.zeros(3))
        with pytest.raises(CspError, match=r"layer y: weights have shape"):
            dataclasses.replace(layer, weights=np.zeros((4, 4, 1, 1)))

    def test_graph(self, every_node):
        with pytest.raises(CspError, match="network n: b reads a, which no earlier node makes"):
            FloatNetwork(name="n", input=every_node.input, nodes=every_node.nodes[1:])
        with pytest.raises(CspError, match="two values have the name x"):
            FloatNetwork(name="n", input=every_node.input, nodes=(Flatten(name="x", input="x"),))
        with pytest.raises(CspError, match="there are no nodes"):
            FloatNetwork(name="n", input=every_node.input, nodes=())

    def test_signed_beside_the_unsigned_input(self, rng):
        layer = float_layer(rng, "y", "x", Geometry(in_shape=(2, 2, 3), filters=3), relu=False)
        both = Concat(name="z", inputs=("x", "y"))
        network = FloatNetwork(name="n", input=pixels((2, 2, 3)), nodes=(layer, both))
        images = some_images(rng, 2, network.input)
        with pytest.raises(CspError, match="layer y without ReLU shares its type with the uint8"):
            quantise(network, images, cols=4, period=8)
        layer = dataclasses.replace(layer, relu=True)
        network = dataclasses.replace(network, nodes=(layer, both))
        assert quantise(network, images, cols=4, period=8).scales()["y"] == 1 / 255
