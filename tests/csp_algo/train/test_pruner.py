# SPDX-License-Identifier: Apache-2.0
import copy
import dataclasses
import re

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

pytest.importorskip("torch", reason="training needs the extra 'train': make train-test")

import torch
from torch import nn

from csp_algo import cascade, prefix, prune
from csp_algo.errors import CspError
from csp_algo.geometry import Geometry
from csp_algo.integers import ActDtype
from csp_algo.network import Input
from csp_algo.quantize import FloatLayer, FloatNetwork
from csp_algo.train import pruner
from csp_algo.train.layers import prunable
from csp_algo.train.method import Method
from tests.csp_algo.train.small import small_images, small_model, torch_images
from tests.strategies import random_geometry

SAMPLES = torch_images(small_images(8))


def module_of(geometry: Geometry, rng: np.random.Generator) -> nn.Conv2d | nn.Linear:
    """A module with the weights of a layer of that shape, random ones of uneven size."""
    if geometry.kernel == (1, 1) and geometry.groups == 1:
        module = nn.Linear(geometry.in_shape[2], geometry.filters)
    else:
        module = nn.Conv2d(
            geometry.in_shape[2],
            geometry.filters,
            geometry.kernel,
            stride=geometry.stride,
            dilation=geometry.dilation,
            groups=geometry.groups,
        )
    spread = rng.uniform(0.1, 2, module.weight.shape)
    weights = torch.from_numpy(rng.normal(0, spread))
    with torch.no_grad():
        module.weight.copy_(weights)
    return module


@given(st.integers(0, 2**32 - 1), st.integers(1, 5), st.floats(0.05, 0.8))
def test_masks_are_those_of_the_numpy_pruner(seed, cols, target):
    rng = np.random.default_rng(seed)
    geometry = random_geometry(rng, max_filters=12)
    module = module_of(geometry, rng)
    weights = module.weight.detach().double().numpy()
    layer = FloatLayer(
        name="0",
        input="x",
        geometry=geometry,
        weights=weights,
        bias=np.zeros(geometry.filters),
        relu=True,
    )
    source = Input(name="x", shape=geometry.in_shape, dtype=ActDtype.INT8, scale=1.0)
    network = FloatNetwork(name="net", input=source, nodes=(layer,))
    model = nn.Sequential(module)
    try:
        wanted = prune.prune(network, {"0": target}, cols).nodes[0]
    except CspError as error:
        # Out of reach for one is out of reach for the other, for the same reason.
        reason = str(error).partition("layer 0: ")[2]
        with pytest.raises(CspError) as other:
            pruner.prune(model, {"0": target}, cols)
        assert str(other.value) == f"0: {reason}"
        return
    pruned = pruner.prune(model, {"0": target}, cols)["0"]
    got = module.weight.detach().double().numpy()
    np.testing.assert_array_equal(got, wanted.weights.reshape(got.shape))
    mask = pruned.mask.numpy()
    np.testing.assert_array_equal(got, weights * mask)
    assert pruned.sparsity == pytest.approx(1 - mask.mean())
    check_cascade(model, cols)


@given(st.integers(0, 2**32 - 1), st.integers(1, 5), st.floats(0.05, 0.8))
def test_masks_of_the_best_prefixes_are_those_of_numpy(seed, cols, target):
    rng = np.random.default_rng(seed)
    model = nn.Sequential(module_of(random_geometry(rng, max_filters=12), rng))
    weights = pruner.to_arrays(prunable(model)["0"])
    try:
        (counts,) = prefix.price_for_sparsity([weights], cols, target, name="0")[1]
    except CspError as error:
        with pytest.raises(CspError, match=re.escape(str(error))):
            pruner.prune(model, {"0": target}, cols, method=Method.PREFIX)
        return
    pruner.prune(model, {"0": target}, cols, method=Method.PREFIX)
    kept = cascade.mask_of(counts, weights.shape[1], cols)
    np.testing.assert_array_equal(pruner.to_arrays(prunable(model)["0"]), weights * kept)
    check_cascade(model, cols)


def check_cascade(model: nn.Module, cols: int) -> None:
    """Each mask keeps whole chunks, and with a chunk of a tap all earlier ones."""
    for layer in prunable(model).values():
        mask = pruner.mask_of(layer)
        if mask is None:
            continue
        matrices = pruner.to_arrays(dataclasses.replace(layer, module=Holder(mask, layer)))
        for matrix in matrices:
            chunks = [matrix[start : start + cols] for start in range(0, len(matrix), cols)]
            some = np.array([chunk.any(axis=0) for chunk in chunks])
            assert (some == [chunk.all(axis=0) for chunk in chunks]).all(), layer.name
            assert (some[1:] <= some[:-1]).all(), layer.name


class Holder(nn.Module):
    """Has a mask in place of a layer's weight."""

    def __init__(self, mask: torch.Tensor, layer) -> None:
        super().__init__()
        self.register_buffer(layer.attribute, mask)


@given(st.integers(0, 2**32 - 1), st.integers(1, 5), st.floats(0, 3))
def test_masks_obey_the_cascade_at_any_strength(seed, cols, q):
    rng = np.random.default_rng(seed)
    attention = nn.MultiheadAttention(6, 2, kdim=4) if seed % 2 else nn.MultiheadAttention(6, 2)
    model = nn.ModuleList([module_of(random_geometry(rng), rng), attention])
    try:
        pruner.prune_at(model, {"*": q}, cols)
    except pruner.ErasedError:
        assume(False)
    check_cascade(model, cols)
    for layer in prunable(model).values():
        counts = cascade.counts_at(unmasked(layer), cols, q)
        kept = cascade.mask_of(counts, layer.matrices.shape[1], cols)
        np.testing.assert_array_equal(pruner.to_arrays(layer), unmasked(layer) * kept)


def unmasked(layer) -> np.ndarray:
    """The matrices before pruning: the parameter is stored masked, so they are kept apart."""
    return layer.module.before[layer.attribute]


@pytest.fixture(autouse=True)
def remember(monkeypatch):
    """Let modules keep what their weights were before a mask came on."""
    register = pruner.parametrize.register_parametrization

    def spy(module: nn.Module, attribute: str, mask: nn.Module) -> None:
        if not hasattr(module, "before"):
            module.before = {}
        for layer in prunable(module).values():
            if layer.attribute == attribute and layer.module is module:
                module.before[attribute] = pruner.to_arrays(layer)
        register(module, attribute, mask)

    monkeypatch.setattr(pruner.parametrize, "register_parametrization", spy)


def test_chunks_by_themselves_are_no_cascade():
    model = small_model()
    pruned = pruner.prune(model, {"8": 0.6}, 4, method=Method.SSL)["8"]
    matrix = pruner.to_arrays(prunable(model)["8"])[0]
    alive = matrix.reshape(5, 4, -1).any(axis=1)
    assert (alive == (matrix.reshape(5, 4, -1) != 0).all(axis=1)).all()
    assert (alive[1:] > alive[:-1]).any()
    assert abs(pruned.sparsity - 0.6) < 0.01


def test_other_layers_are_left_alone():
    model = small_model()
    before = copy.deepcopy(model)
    pruner.prune(model, {"0": 0.3, "3": 0.5}, 4)
    assert set(model.state_dict()) > {"3.parametrizations.weight.original"}
    for name in ("8", "11"):
        assert pruner.mask_of(prunable(model)[name]) is None
        old, new = (each.get_submodule(name).weight for each in (before, model))
        assert torch.equal(old, new)


def test_a_later_pattern_overrides():
    model = small_model()
    pruned = pruner.prune(model, {"*": 0.3, "8": 0.6}, 4)
    assert list(pruned) == ["0", "3", "8", "11"]
    assert pruned["8"].sparsity == pytest.approx(0.6, abs=0.01)
    assert pruned["3"].sparsity == pytest.approx(0.3, abs=0.01)


def test_a_kind_of_module():
    pruned = pruner.prune(small_model(), {"*": 0.3}, 4, kinds=(nn.Linear,))
    assert list(pruned) == ["8", "11"]


def test_no_gradient_reaches_what_is_masked_and_the_mask_can_be_taken_off():
    model = small_model().eval()
    mask = pruner.prune(model, {"3": 0.5}, 4)["3"].mask
    images = torch.rand(2, 2, 10, 10)
    before = model(images)
    before.sum().backward()
    grad = model[3].parametrizations.weight.original.grad
    assert not grad[~mask].any()
    assert grad[mask].any()
    pruner.release(model)
    assert type(model[3]) is nn.Conv2d
    assert torch.equal(model(images), before)
    assert not model[3].weight[~mask].any()
    pruner.release(model)


def test_the_memory_format_stays():
    model = nn.Sequential(nn.Conv2d(4, 16, 3)).to(memory_format=torch.channels_last)
    mask = pruner.prune(model, {"0": 0.5}, 4)["0"].mask
    for tensor in (mask, model[0].weight):
        assert tensor.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    ("strengths", "error", "message"),
    [
        ({"9": 0.5}, CspError, "there is no layer 9 to prune; there are: 0, 3, 8, 11"),
        ({"b*": 0.5}, CspError, r"there is no layer b\* to prune; there are: 0, 3, 8, 11"),
        ({"8": 1e9}, pruner.ErasedError, r"8: strength q 1e\+09 leaves no weight"),
        ({"8": -1.0}, CspError, "8: strength q must be finite and not negative, not -1.0"),
    ],
)
@pytest.mark.parametrize("method", Method)
def test_refusals(strengths, error, message, method):
    with pytest.raises(error, match=f"^{message}$"):
        pruner.prune_at(small_model(), strengths, 4, method=method, samples=SAMPLES)


def test_a_mask_cannot_come_on_twice():
    model = small_model()
    pruner.prune(model, {"8": 0.6}, 4)
    with pytest.raises(CspError, match=r"^8: is masked already$"):
        pruner.prune(model, {"8": 0.7}, 4)
