# SPDX-License-Identifier: Apache-2.0
import copy
import re

import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs the extra 'train': make train-test")

import torch
from torch import nn

from csp_algo import cascade, prefix
from csp_algo.errors import CspError
from csp_algo.train import activations, pruner
from csp_algo.train.activations import explained
from csp_algo.train.layers import prunable, to_matrices
from csp_algo.train.method import Method
from csp_algo.train.residual import BasicBlock
from tests.csp_algo.train.small import small_images, small_model, small_residual_model, torch_images

SAMPLES = torch_images(small_images(40))


def test_what_is_explained():
    rng = np.random.default_rng(0)
    dense = rng.normal(5, [1, 2, 3, 4], (20_000, 4))
    other = rng.normal(5, 1, len(dense))
    pruned = np.stack([dense[:, 0], 7 - 0.1 * dense[:, 1], np.full(len(dense), 9.0), other], axis=1)
    # All of it, all of it under another scale and offset, nothing of a constant, nothing by chance.
    np.testing.assert_allclose(explained(dense, pruned), [1, 4, 0, 0], rtol=0.05, atol=0.01)
    mixed = dense[:, :1] + other[:, None]
    np.testing.assert_allclose(explained(dense[:, :1], mixed), [0.5], rtol=0.05)


def test_noise_of_rounding_is_no_variance():
    dense = np.random.default_rng(0).normal(size=(1000, 2))
    pruned = np.stack([dense[:, 0], 3 + 1e-7 * dense[:, 1]], axis=1)
    found = explained(dense, pruned)
    assert found[1] == activations.FLOOR * found[0] / 2


@pytest.mark.parametrize("make", [small_model, small_residual_model])
def test_a_first_layer_sees_the_images_as_they_are(make):
    model = make()
    (name, layer), *_ = prunable(model).items()
    options = {"method": Method.SEQUENTIAL, "samples": SAMPLES}
    pruned = pruner.prune(copy.deepcopy(model), {name: 0.4}, 4, **options)[name]
    variance = SAMPLES.double().numpy().var(axis=(0, 2, 3))
    taps = layer.matrices.shape[2]
    moments = np.tile(variance, taps // len(variance))[None]
    matrices = pruner.to_arrays(layer)
    _, (counts,) = prefix.price_for_sparsity([matrices], 4, 0.4, moments=[moments])
    got = to_matrices(pruned.mask, layer.groups).numpy()
    np.testing.assert_array_equal(got, cascade.mask_of(counts, matrices.shape[1], 4))


def dying_block() -> tuple[nn.Sequential, torch.Tensor]:
    """A block whose first convolution has half of its filters so small that they are pruned."""
    torch.manual_seed(0)
    model = nn.Sequential(BasicBlock(8, 16))
    with torch.no_grad():
        model[0].conv1.weight[8:] *= 0.1
        model[0].conv2.weight[:, 8:] *= 3
    return model, torch.rand(16, 8, 6, 6)


TARGETS = {"0.conv1": 0.5, "0.conv2": 0.6}


def test_taps_of_dead_filters_are_worth_nothing():
    model, samples = dying_block()
    masks = {}
    for method in (Method.PREFIX, Method.SEQUENTIAL):
        pruned = pruner.prune(copy.deepcopy(model), TARGETS, 8, method=method, samples=samples)
        masks[method] = pruned["0.conv2"].mask
        assert not pruned["0.conv1"].mask[8:].any()
        assert pruned["0.conv2"].sparsity == pytest.approx(0.6, abs=0.01)
    assert masks[Method.PREFIX][:, 8:].sum() > masks[Method.PREFIX][:, :8].sum()
    assert not masks[Method.SEQUENTIAL][:, 8:].any()


def test_a_target_below_the_share_of_dead_taps_is_met():
    model, samples = dying_block()
    targets = {"0.conv1": 0.5, "0.conv2": 0.2}
    pruned = pruner.prune(model, targets, 8, method=Method.SEQUENTIAL, samples=samples)
    assert pruned["0.conv2"].sparsity == pytest.approx(0.2, abs=0.01)
    # What reads living filters stays first.
    assert pruned["0.conv2"].mask[:, :8].all()


def test_statistics_are_those_of_the_samples():
    model, samples = dying_block()
    masks = []
    for mean in (0.0, 100.0):
        model[0].norm1.running_mean.fill_(mean)
        options = {"method": Method.SEQUENTIAL, "samples": samples}
        masks.append(pruner.prune(copy.deepcopy(model), TARGETS, 8, **options)["0.conv2"].mask)
    assert torch.equal(*masks)


def test_layers_are_pruned_in_the_order_of_their_calls():
    class Swapped(nn.Module):
        def __init__(self):
            super().__init__()
            self.second = nn.Linear(16, 16)
            self.first = nn.Linear(8, 16)

        def forward(self, x):
            return self.second(self.first(x))

    torch.manual_seed(0)
    model = Swapped()
    with torch.no_grad():
        model.first.weight[8:] *= 0.1
        model.second.weight[:, 8:] *= 30
    targets = {"second": 0.6, "first": 0.5}
    pruned = pruner.prune(model, targets, 8, method=Method.SEQUENTIAL, samples=torch.rand(50, 8))
    assert list(pruned) == ["second", "first"]
    assert not pruned["second"].mask[:, 8:].any()


def test_one_strength_gives_the_masks_that_it_was_found_for():
    model = small_residual_model()
    options = {"method": Method.SEQUENTIAL, "samples": SAMPLES}
    wanted = pruner.prune(copy.deepcopy(model), {"*": 0.5}, 4, **options)
    strengths = {name: each.q for name, each in wanted.items()}
    got = pruner.prune_at(model, strengths, 4, **options)
    for name, each in wanted.items():
        assert torch.equal(got[name].mask, each.mask), name


def test_the_model_is_only_masked():
    model = small_model().train()
    before = copy.deepcopy(model.state_dict())
    pruner.prune(model, {"*": 0.4}, 4, method=Method.SEQUENTIAL, samples=SAMPLES)
    assert all(module.training for module in model.modules())
    masks = {name: pruner.mask_of(layer) for name, layer in prunable(model).items()}
    pruner.release(model)
    for name, value in model.state_dict().items():
        mask = masks.get(name.removesuffix(".weight"))
        assert torch.equal(value, before[name] if mask is None else before[name] * mask), name


class Beside(nn.Module):
    """A layer that is never called."""

    def __init__(self):
        super().__init__()
        self.used, self.unused = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x):
        return self.used(x)


@pytest.mark.parametrize(
    ("model", "samples", "message"),
    [
        (Beside(), None, "method sequential needs samples"),
        (Beside(), torch.rand(4, 8), "unused: no sample reaches it"),
        (
            nn.MultiheadAttention(8, 2),
            torch.rand(4, 8),
            "in_proj: what an attention's projections read is not known",
        ),
    ],
)
def test_errors_leave_the_model_as_it_is(model, samples, message):
    with pytest.raises(CspError, match=f"^{re.escape(message)}$"):
        pruner.prune(model, {"*": 0.5}, 4, method=Method.SEQUENTIAL, samples=samples)
    assert all(pruner.mask_of(layer) is None for layer in prunable(model).values())
