# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs the extra 'train': make train-test")

import torch
from torch import nn

from csp_algo import cascade, chunkwise
from csp_algo.geometry import Geometry
from csp_algo.train import pruner
from csp_algo.train.layers import prunable
from csp_algo.train.regulariser import cascade_regulariser, group_lasso, model_regulariser

PENALTIES = {cascade_regulariser: cascade.regulariser, group_lasso: chunkwise.regulariser}
penalties = pytest.mark.parametrize("penalty", PENALTIES, ids=lambda f: f.__name__)
#: Modules of every kind, and what their penalty is summed over: matrices [groups, M, J].
MODULES = {
    "convolution": (lambda: nn.Conv2d(3, 20, (3, 2)), (1, 20, 18)),
    "grouped": (lambda: nn.Conv2d(6, 20, (3, 2), groups=2), (2, 10, 18)),
    "depthwise": (lambda: nn.Conv2d(5, 5, 3, groups=5), (5, 1, 9)),
    "multiplied": (lambda: nn.Conv2d(3, 18, 3, groups=3), (3, 6, 9)),
    "linear": (lambda: nn.Linear(7, 10), (1, 10, 7)),
}


@penalties
@pytest.mark.parametrize("filters", [1, 8, 10, 32])
@pytest.mark.parametrize("cols", [4, 8])
def test_agrees_with_numpy(penalty, filters, cols):
    matrix = np.random.default_rng(filters).normal(size=(2, filters, 13))
    matrix[0, :, 3] = 0
    matrix[1, cols:, 4] = 0
    got = float(penalty(torch.from_numpy(matrix), cols))
    assert got == pytest.approx(PENALTIES[penalty](matrix, cols), rel=1e-12)


@penalties
@pytest.mark.parametrize("kind", MODULES)
def test_layouts(penalty, kind):
    make, shape = MODULES[kind]
    layer = make()
    (found,) = prunable(layer).values()
    if isinstance(layer, nn.Conv2d):
        geometry = Geometry(
            in_shape=(8, 8, layer.in_channels),
            filters=layer.out_channels,
            kernel=layer.kernel_size,
            groups=layer.groups,
        )
        matrices = geometry.weights_to_matrices(layer.weight.detach().numpy())
    else:
        matrices = layer.weight.detach().numpy()[None]
    assert matrices.shape == shape
    np.testing.assert_array_equal(pruner.to_arrays(found), matrices)
    got = float(model_regulariser([found], 4, penalty).detach())
    assert got == pytest.approx(PENALTIES[penalty](matrices, 4), rel=1e-5)


@penalties
def test_layout_of_attention(penalty):
    attention = nn.MultiheadAttention(8, 2)
    layers = prunable(attention)
    assert list(layers) == ["in_proj", "out_proj"]
    weight = attention.in_proj_weight.detach().numpy()
    parts = [PENALTIES[penalty](part, 4) for part in (weight[:8], weight[8:16], weight[16:])]
    got = float(model_regulariser([layers["in_proj"]], 4, penalty).detach())
    assert got == pytest.approx(sum(parts), rel=1e-5)


@penalties
@pytest.mark.parametrize("kind", MODULES)
def test_gradient(penalty, kind):
    torch.manual_seed(0)
    layer = MODULES[kind][0]().double()

    def value(weight: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            assert weight.shape == layer.weight.shape
        return torch.func.functional_call(Total(layer, penalty), {"layer.weight": weight}, ())

    weight = torch.randn_like(layer.weight).requires_grad_()
    assert torch.autograd.gradcheck(value, weight)


class Total(nn.Module):
    """A penalty as a module, so that a test may put in other weights."""

    def __init__(self, layer: nn.Module, penalty) -> None:
        super().__init__()
        self.layer, self.penalty = layer, penalty

    def forward(self) -> torch.Tensor:
        return model_regulariser(prunable(self.layer).values(), 4, self.penalty)


@penalties
@pytest.mark.parametrize("width", [8, 10])
def test_gradient_of_attention(penalty, width):
    torch.manual_seed(1)
    attention = nn.MultiheadAttention(width, 2).double()
    names = ["layer.in_proj_weight", "layer.out_proj.weight"]

    def value(*weights: torch.Tensor) -> torch.Tensor:
        chosen = dict(zip(names, weights, strict=True))
        return torch.func.functional_call(Total(attention, penalty), chosen, ())

    given = (attention.in_proj_weight, attention.out_proj.weight)
    weights = [torch.randn_like(weight).requires_grad_() for weight in given]
    assert torch.autograd.gradcheck(value, weights)


@penalties
def test_gradient_at_zero_is_zero(penalty):
    matrix = torch.randn(1, 12, 3)
    matrix[:, 4:, 1] = 0
    matrix[:, :, 2] = 0
    matrix.requires_grad_()
    penalty(matrix, 4).backward()
    grad = matrix.grad[0]
    assert torch.isfinite(grad).all()
    assert not grad[4:, 1].any()
    assert not grad[:, 2].any()
    assert grad[:4, 1].all()


def test_later_tails_are_pulled_harder():
    for penalty, grows in ((cascade_regulariser, True), (group_lasso, False)):
        matrix = torch.ones(16, 5, requires_grad=True)
        penalty(matrix, 4).backward()
        pull = matrix.grad[::4, 0]
        assert bool((pull[1:] > pull[:-1]).all()) == grows
