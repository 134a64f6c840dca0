# SPDX-License-Identifier: Apache-2.0
"""The trained integers are the golden model's, with gradients of what was not clipped."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("torch", reason="training needs the extra 'train': make train-test")

import torch

from csp_algo.errors import CspError
from csp_algo.geometry import Geometry
from csp_algo.integers import ActDtype, accumulate, rhu
from csp_algo.network import Layer, Network
from csp_algo.quantize import FloatLayer, FloatNetwork, quantise
from csp_algo.train import export, pruner, schedule
from csp_algo.train.aware import AwareNetwork
from csp_algo.train.evaluate import integer_forward
from csp_algo.train.straight import half_up, nearest, partial_sums
from sim import golden
from tests.csp_algo.examples import network as example
from tests.csp_algo.train.small import (
    SMALL_INPUT,
    small_images,
    small_model,
    small_residual_model,
    torch_images,
)
from tests.strategies import CASES, network_of, random_activations, random_layer


def floats_of(network: Network) -> FloatNetwork:
    """Floats that quantise to a network's integers, or nearly: a scale is that of the largest."""
    nodes = []
    for node in network.nodes:
        if isinstance(node, Layer):
            matrices = np.stack([matrix.decompress() for matrix in node.matrices])
            weights = node.geometry.matrices_to_weights(matrices.astype(np.float64))
            node = FloatLayer(
                name=node.name,
                input=node.input,
                geometry=node.geometry,
                weights=weights,
                bias=node.bias * network.values[node.input].scale,
                relu=node.relu,
                residual=None if node.residual is None else node.residual.input,
            )
        nodes.append(node)
    return FloatNetwork(name=network.name, input=network.input, nodes=tuple(nodes))


def assert_golden(aware: AwareNetwork, images: np.ndarray, bits: int) -> golden.GoldenResult:
    """Every map of a trained network equals that of the exported one in the golden model."""
    want = golden.run(aware.export(), images, acc_bits=bits)
    maps = aware.maps(torch.from_numpy(images.astype(np.float32)))
    for name, values in want.values.items():
        np.testing.assert_array_equal(maps[name].detach().numpy(), values, err_msg=name)
    return want


@settings(max_examples=40)
@given(st.data())
@pytest.mark.parametrize("case", CASES)
def test_one_layer_equals_the_golden_model(case, data):
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    bits = data.draw(st.sampled_from([8, 10, 12, 16, 24, 32]))
    kind = data.draw(st.sampled_from([ActDtype.UINT8, ActDtype.INT8]))
    layer = random_layer(rng, cols=3, case=case, acc_bits=bits, max_taps=40)
    network = network_of(layer, dtype=kind)
    images = random_activations(rng, (2, *layer.geometry.in_shape), kind, case=case)
    aware = AwareNetwork(floats_of(network), network, acc_bits=bits)
    assert_golden(aware, images, bits)


@pytest.mark.parametrize("bits", [8, 12, 24])
@pytest.mark.parametrize("seed", range(3))
def test_every_kind_of_node_equals_the_golden_model(bits, seed):
    network = example(seed)
    nodes = tuple(
        dataclasses.replace(node, acc_shift=min(node.acc_shift, 32 - bits))
        if isinstance(node, Layer)
        else node
        for node in network.nodes
    )
    network = dataclasses.replace(network, nodes=nodes)
    rng = np.random.default_rng(seed)
    images = random_activations(rng, (2, *network.input.shape), ActDtype.UINT8)
    aware = AwareNetwork(floats_of(network), network, acc_bits=bits)
    result = assert_golden(aware, images, bits)
    if bits == 8:
        assert sum(result.saturations.values())


def quantised(build, bits: int) -> tuple[FloatNetwork, Network]:
    """A pruned network that was quantised for sums of some bits."""
    model = build().eval()
    names = {small_model: ("3", "8"), small_residual_model: ("c.conv2", "d")}[build]
    pruner.prune(model, dict.fromkeys(names, 0.5), 4)
    pruner.release(model)
    floats = export.to_float_network(model, SMALL_INPUT, name="small")
    network = quantise(floats, small_images(20), cols=4, period=8, acc_bits=bits)
    return floats, network


@pytest.mark.parametrize("build", [small_model, small_residual_model])
@pytest.mark.parametrize("bits", [10, 16, 24])
def test_it_starts_as_quantisation_left_it(build, bits):
    floats, network = quantised(build, bits)
    aware = AwareNetwork(floats, network, acc_bits=bits)
    for old, new in zip(network.layers(), aware.export().layers(), strict=True):
        np.testing.assert_array_equal(old.weights(), new.weights())
        np.testing.assert_array_equal(old.bias, new.bias)
    images = small_images(9)
    want = integer_forward(network, images, acc_bits=bits).reshape(9, -1)
    got = aware(torch_images(images))
    assert got.dtype == torch.float32
    np.testing.assert_allclose(got.detach().numpy(), want * network.output.scale, rtol=1e-6)
    assert any(layer.acc_shift for layer in network.layers()) == (bits < 24)


@pytest.mark.parametrize("build", [small_model, small_residual_model])
def test_training_learns_and_stays_golden_and_a_cascade(build):
    bits = 10
    floats, network = quantised(build, bits)
    aware = AwareNetwork(floats, network, acc_bits=bits)
    images = small_images(64)
    # What the float network says is learnt: truncation made the integers forget some of it.
    wanted = floats.forward(images)[floats.nodes[-1].name].reshape(64, -1).argmax(axis=1)
    labels = torch.from_numpy(wanted)
    loss = torch.nn.functional.cross_entropy
    before = float(loss(aware(torch_images(images)), labels).detach())
    optimiser = torch.optim.SGD(aware.parameters(), lr=1e-3, momentum=0.9)
    for _ in range(30):
        optimiser.zero_grad()
        loss(aware(torch_images(images)), labels).backward()
        optimiser.step()
    assert float(loss(aware(torch_images(images)), labels).detach()) < 0.8 * before
    result = assert_golden(aware, images, bits)
    assert sum(result.saturations.values())
    changed = 0
    for old, new in zip(network.layers(), aware.export().layers(), strict=True):
        changed += int((old.weights() != new.weights()).sum())
        for first, second in zip(old.matrices, new.matrices, strict=True):
            assert (second.counts <= first.counts).all()
    assert changed > 20
    zero = sum(int((layer.weights() == 0).sum()) for layer in aware.export().layers())
    total = sum(layer.weights().size for layer in aware.export().layers())
    assert aware.zeros() == pytest.approx(100 * zero / total)


def test_the_loop_of_training_takes_it():
    floats, network = quantised(small_model, 12)
    aware = AwareNetwork(floats, network, acc_bits=12)
    pixels = torch_images(small_images(64))
    labels = torch.arange(64) % 5
    stage = schedule.Stage(name="aware", epochs=1, rate=1e-3, decay=0.0, batch=32, seed=1)

    rows = schedule.train(aware, stage, pixels, labels, measure=AwareNetwork.zeros)
    assert [row.sparsity for row in rows] == [aware.zeros()]
    assert rows[0].loss is not None


class TestGradients:
    """Each against autograd on elementary functions, which is another way to the same."""

    @staticmethod
    def elementary(x: torch.Tensor, w: torch.Tensor, period: int, t: int, bits: int):
        """Partial sums with autograd's own clamp, rounding by detaching."""
        limit = 1 << (bits - 1)
        acc = torch.zeros(len(x), w.shape[1], dtype=torch.float64)
        for start in range(0, len(w), period):
            run = x[:, start : start + period] @ w[start : start + period]
            shifted = run / 2**t
            rounded = torch.from_numpy(rhu(run.detach().numpy().astype(np.int64), t))
            wanted = acc + shifted + (rounded - shifted).detach()
            # Sums come out whole; a clamp at the very limit passes nothing only beyond it.
            acc = wanted.clamp(-limit, limit - 1)
        return acc

    @pytest.mark.parametrize(
        ("t", "bits", "clips"), [(0, 24, False), (0, 14, True), (3, 10, True), (5, 16, False)]
    )
    def test_partial_sums(self, t, bits, clips):
        rng = np.random.default_rng(1)
        x = torch.from_numpy(rng.integers(0, 256, (50, 37)).astype(np.float64))
        w = torch.from_numpy(rng.integers(-127, 128, (37, 6)).astype(np.float64))
        toward = torch.from_numpy(rng.normal(size=(50, 6)))
        results = []
        for function in (self.elementary, None):
            leaves = [each.clone().requires_grad_() for each in (x, w)]
            if function is None:
                one, other = (leaf.float() for leaf in leaves)
                sums = partial_sums(one, other, period=8, t=t, bits=bits)
            else:
                sums = function(*leaves, 8, t, bits)
            (sums * toward).sum().backward()
            results.append((sums.detach().round(), *(leaf.grad for leaf in leaves)))
        (sums, *wanted), (got, *grads) = results
        assert torch.equal(sums, got.double())
        acc, clipped = np.zeros((50, 6), np.int64), 0
        for start in range(0, 37, 8):
            run = (x[:, start : start + 8] @ w[start : start + 8]).numpy().astype(np.int64)
            acc, more = accumulate(acc, run, t, bits)
            clipped += more
        np.testing.assert_array_equal(acc, got.numpy())
        assert bool(clipped) == clips
        for want, grad in zip(wanted, grads, strict=True):
            torch.testing.assert_close(grad, want, rtol=1e-4, atol=1e-3)

    @pytest.mark.parametrize(
        "geometry",
        [
            Geometry(in_shape=(7, 6, 4), filters=6, kernel=(3, 2), padding=(1, 0, 2, 1)),
            Geometry(
                in_shape=(9, 8, 4),
                filters=6,
                kernel=(3, 3),
                groups=2,
                stride=(2, 1),
                dilation=(1, 2),
                padding=(1, 1, 1, 1),
            ),
            Geometry(in_shape=(1, 1, 40), filters=5),
        ],
    )
    def test_blocks_and_one_convolution_are_the_same(self, geometry):
        rng = np.random.default_rng(3)
        weights = rng.normal(size=(geometry.filters, geometry.taps))
        weights[:, rng.random(geometry.taps) < 0.3] = 0
        floats = FloatLayer(
            name="l",
            input="x",
            geometry=geometry,
            weights=geometry.matrices_to_weights(
                weights.reshape(geometry.groups, -1, geometry.taps)
            ),
            bias=np.zeros(geometry.filters),
            relu=True,
        )
        source = dataclasses.replace(SMALL_INPUT, shape=geometry.in_shape)
        images = rng.integers(0, 256, (3, *geometry.in_shape)).astype(np.uint8)
        network = FloatNetwork(name="n", input=source, nodes=(floats,))
        aware = AwareNetwork(network, quantise(network, images, cols=2, period=8), acc_bits=24)
        (layer,) = aware.layers
        toward = torch.from_numpy(rng.normal(size=(3, *geometry.out_shape))).float()
        results = []
        for function in (layer._convolution, layer._blocks):
            x = torch.from_numpy(images.astype(np.float32)).requires_grad_()
            layer.zero_grad()
            sums = function(x, layer.integers().float())
            (sums * toward).sum().backward()
            results.append((sums.detach(), x.grad, layer.weight.grad))
        for one, other in zip(*results, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-3)
        assert torch.equal(results[0][0], results[1][0])

    @pytest.mark.parametrize(("t", "bits"), [(0, 32), (0, 26), (3, 26)])
    def test_sums_that_float32_cannot_hold(self, t, bits):
        rng = np.random.default_rng(2)
        x, w = rng.integers(200, 256, (5, 2001)), rng.integers(100, 128, (2001, 3))
        acc = np.zeros((5, 3), np.int64)
        for start in range(0, 2001, 32):
            taps = slice(start, start + 32)
            acc, _ = accumulate(acc, x[:, taps] @ w[taps], t, bits)
        one, other = (torch.from_numpy(each).float() for each in (x, w))
        got = partial_sums(one, other, period=32, t=t, bits=bits)
        np.testing.assert_array_equal(got.numpy(), acc)
        assert t or (acc > 1 << 24).all()

    def test_rounding_passes_gradients(self):
        x = torch.tensor([-2.5, -0.5, 0.49, 1.5, 2.5], dtype=torch.float64, requires_grad=True)
        nearest(x).sum().backward()
        assert nearest(x).tolist() == [-2, 0, 0, 2, 2]
        assert x.grad.tolist() == [1] * 5

    @given(st.lists(st.integers(-(2**47), 2**47), min_size=1), st.integers(0, 47))
    def test_half_up(self, values, shift):
        x = torch.tensor(values, dtype=torch.float64, requires_grad=True)
        got = half_up(x, torch.tensor(2.0**shift, dtype=torch.float64))
        assert got.tolist() == rhu(values, shift).tolist()
        got.sum().backward()
        assert x.grad.tolist() == [2.0**-shift] * len(values)

    def test_weights_that_rounding_made_zero_may_come_back(self):
        geometry = Geometry(in_shape=(1, 1, 3), filters=1)
        weights = np.array([[1.0, 0.001, 0.0]])
        layer = FloatLayer(
            name="l", input="x", geometry=geometry, weights=weights, bias=np.zeros(1), relu=False
        )
        source = dataclasses.replace(SMALL_INPUT, shape=(1, 1, 3))
        floats = FloatNetwork(name="n", input=source, nodes=(layer,))
        network = quantise(floats, np.full((4, 1, 1, 3), 200, np.uint8), cols=1, period=8)
        aware = AwareNetwork(floats, network, acc_bits=24)
        assert aware.export().layers()[0].matrices[0].counts.tolist() == [1, 0, 0]
        aware(torch.ones(2, 3, 1, 1)).sum().backward()
        grad = aware.layers[0].weight.grad[0, 0]
        # The real output is Σ w·a, whatever the scales; what was pruned stays away.
        torch.testing.assert_close(grad, torch.tensor([2.0, 2.0, 0.0], dtype=torch.float64))


class TestRefusals:
    def test_another_network(self):
        floats, network = quantised(small_model, 24)
        other = dataclasses.replace(floats, nodes=floats.nodes[:1])
        with pytest.raises(CspError, match=r"^layer 3 is not in the float network small$"):
            AwareNetwork(other, network, acc_bits=24)

    def test_too_many_bits(self):
        floats, network = quantised(small_model, 10)
        with pytest.raises(CspError, match=r"^layer .: acc_bits 32 and acc_shift .* than 32 bits$"):
            AwareNetwork(floats, network, acc_bits=32)
        with pytest.raises(CspError, match=r"^acc_bits must be 8 … 32, not 33$"):
            AwareNetwork(floats, network, acc_bits=33)
