# SPDX-License-Identifier: Apache-2.0
import copy

import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs the extra 'train': make train-test")

import torch
from torch import nn

from csp_algo.integers import ActDtype
from csp_algo.network import Input
from csp_algo.quantize import quantise
from csp_algo.train import (
    export,
    fashion_mnist,
    fashion_mnist_resnet20,
    fashion_mnist_resnet20_wide,
    fashion_mnist_wide,
    pruner,
)
from csp_algo.train.layers import prunable, resolve
from csp_algo.train.regulariser import model_regulariser
from csp_algo.train.transformer import TinyTransformer
from csp_hw.config import PRESETS
from sim import golden
from sim.program.compiler import compile_network


@pytest.mark.parametrize(("size", "channels"), [(28, 1), (32, 3)])
def test_resnet20_compiles_and_its_integers_follow_the_floats(size, channels):
    torch.manual_seed(1)
    model = fashion_mnist_resnet20.build_model(size=size, channels=channels).eval()
    layers = prunable(model)
    # 19 3×3 convolutions, 2 shortcuts and a linear layer: 20 layers deep.
    assert len(layers) == 22
    assert sum(layer.weight.numel() for layer in layers.values()) == 270_608 + 288 * (channels == 3)
    pruned = pruner.prune(model, fashion_mnist_resnet20.TARGETS, 8)
    assert set(pruned) == set(layers) - {"stem", "linear"}
    pruner.release(model)
    source = Input(name="image", shape=(size, size, channels), dtype=ActDtype.UINT8, scale=1 / 255)
    assert compiled(model, source) >= 22


@pytest.mark.parametrize(
    ("network", "weights", "exempt"),
    [
        (fashion_mnist, 201_616, {"conv1", "linear7"}),
        (fashion_mnist_wide, 598_672, {"conv1", "linear7"}),
        (fashion_mnist_resnet20_wide, 1_080_864, {"stem", "linear"}),
    ],
)
def test_networks_compile_and_their_integers_follow_the_floats(network, weights, exempt):
    torch.manual_seed(1)
    model = network.build_model().eval()
    layers = prunable(model)
    assert sum(layer.weight.numel() for layer in layers.values()) == weights
    pruned = pruner.prune(model, network.TARGETS, 8)
    assert set(pruned) == set(layers) - exempt
    pruner.release(model)
    zero = sum(int((layer.weight == 0).sum()) for layer in prunable(model).values())
    assert zero > 0.8 * weights
    source = Input(name="image", shape=(28, 28, 1), dtype=ActDtype.UINT8, scale=1 / 255)
    assert compiled(model, source) >= len(layers)


def compiled(model: nn.Sequential, source: Input) -> int:
    """Compare the integers with the floats; give the passes of a program for two images."""
    floats = export.to_float_network(model, source, name="some")
    images = np.random.default_rng(2).integers(0, 256, (2, *source.shape)).astype(np.uint8)
    network = quantise(floats, images, cols=8, period=16)
    want = floats.forward(images)[floats.nodes[-1].name]
    got = golden.run(network, images, keep=[]).logits * network.output.scale
    assert np.square(got - want).mean() < 0.02 * want.var()
    return len(compile_network(network, PRESETS["csp_8x8"], 2).passes)


class TestTransformer:
    @pytest.fixture
    def model(self) -> TinyTransformer:
        torch.manual_seed(1)
        return TinyTransformer(width=16, heads=2)

    def test_what_can_be_pruned(self, model):
        parts = ("self_attn.in_proj", "self_attn.out_proj", "linear1", "linear2")
        inner = [f"encoder.layers.{layer}.{part}" for layer in range(2) for part in parts]
        assert list(prunable(model)) == ["embed", *inner, "classify"]
        only = prunable(model, kinds=(nn.Linear,), names=["encoder.*.linear?"])
        assert list(only) == [name for name in inner if "linear" in name]
        assert list(resolve(only, {"*1": 0.5})) == [name for name in only if "linear1" in name]

    def test_it_is_pruned_and_trains_under_masks(self, model):
        targets = {"encoder.*": 0.6, "encoder.*.in_proj": 0.5}
        pruned = pruner.prune(model, targets, 4)
        assert len(pruned) == 8
        for name, result in pruned.items():
            assert result.sparsity == pytest.approx(0.5 if "in_proj" in name else 0.6, abs=0.02)
        images, labels = torch.rand(16, 1, 28, 28), torch.arange(16) % 10
        optimiser = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
        losses = []
        for _ in range(12):
            loss = nn.functional.cross_entropy(model(images), labels)
            loss = loss + 1e-3 * model_regulariser(prunable(model).values(), 4)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append(float(loss.detach()))
        assert losses[-1] < losses[0] - 0.1
        for name, layer in prunable(model).items():
            if name in pruned:
                mask = pruned[name].mask
                assert not layer.weight[~mask].any(), name
                assert layer.weight[mask].all(), name

    def test_inference_sees_the_masks(self, model):
        # PyTorch has a way of its own through an encoder in inference, past the modules.
        pruner.prune(model, {"encoder.*": 0.6}, 4)
        plain = copy.deepcopy(model)
        pruner.release(plain)
        images = torch.rand(3, 1, 28, 28)
        trained = model(images).detach()
        for each in (model, plain):
            each.eval()
            with torch.inference_mode():
                torch.testing.assert_close(each(images), trained, rtol=1e-4, atol=1e-5)

    def test_inputs_of_other_widths(self):
        attention = nn.MultiheadAttention(8, 2, kdim=12, vdim=6)
        layers = prunable(attention)
        shapes = {name: tuple(layer.matrices.shape) for name, layer in layers.items()}
        assert shapes == {
            "q_proj": (1, 8, 8),
            "k_proj": (1, 8, 12),
            "v_proj": (1, 8, 6),
            "out_proj": (1, 8, 8),
        }
        pruned = pruner.prune(attention, {"k_proj": 0.5}, 4)
        assert not attention.k_proj_weight[~pruned["k_proj"].mask].any()
