# SPDX-License-Identifier: Apache-2.0
"""Densities of networks, and zeros drawn from them."""

import numpy as np
import pytest

from csp_algo.errors import CspError
from sim.tables import read_table
from sim.workloads import draw
from sim.workloads.catalogue import SHAPES, Work, workload
from sim.workloads.operands import Pruning, operands, prunings


@pytest.mark.parametrize(
    ("filters", "taps", "cols", "density"),
    [(64, 300, 32, 0.3), (100, 77, 32, 0.05), (512, 128, 32, 0.9), (16, 40, 32, 0.5), (5, 3, 2, 0)],
)
def test_counts_keep_the_share_of_weights(filters, taps, cols, density):
    counts = draw.cascade_counts(
        np.random.default_rng(1), filters=filters, taps=taps, cols=cols, density=density
    )
    assert counts.min() >= 0
    assert counts.max() <= -(-filters // cols)
    kept = draw.cascade_mask(counts, filters=filters, cols=cols).sum()
    assert abs(kept - density * filters * taps) <= min(cols, filters)


def test_counts_are_a_cascade():
    counts = draw.cascade_counts(
        np.random.default_rng(2), filters=96, taps=50, cols=32, density=0.4
    )
    mask = draw.cascade_mask(counts, filters=96, cols=32)
    assert np.array_equal(mask.reshape(3, 32, 50).all(axis=1), mask.reshape(3, 32, 50).any(axis=1))
    assert np.array_equal(mask.reshape(3, 32, 50)[:, 0].sum(axis=0), counts)
    assert (np.diff(mask.astype(int), axis=0) <= 0).all()


@pytest.mark.parametrize("density", [0.0, 0.031, 0.4, 1.0])
def test_unstructured_masks_have_exactly_their_weights(density):
    mask = draw.unstructured_mask(np.random.default_rng(3), filters=600, taps=70, density=density)
    assert mask.sum() == round(density * 600 * 70)


def test_stretches_differ_by_the_concentration():
    def deviation(concentration):
        mask = draw.unstructured_mask(
            np.random.default_rng(4),
            filters=512,
            taps=1280,
            density=0.3,
            concentration=concentration,
        )
        return mask.reshape(512, 10, 128).mean(axis=2).std()

    # Variance of the drawn density ρ(1 − ρ)/(ν + 1), and of 128 draws with it.
    drawn = 0.21 / 21
    assert deviation(20.0) == pytest.approx(np.sqrt(drawn + (0.21 - drawn) / 128), rel=0.05)
    assert deviation(1e6) == pytest.approx(np.sqrt(0.21 / 128), rel=0.05)


def test_activations_have_exactly_their_density_and_uneven_channels():
    mask = draw.activation_mask(np.random.default_rng(5), shape=(20, 20, 64), density=0.45)
    assert mask.sum() == round(0.45 * mask.size)
    assert mask.mean(axis=(0, 1)).std() == pytest.approx(np.sqrt(0.45 * 0.55 / 5), rel=0.25)


def test_the_same_seed_gives_the_same_zeros():
    work = workload("resnet50").works[5]
    first, again, other = (operands(work, Pruning.UNSTRUCTURED, seed=seed) for seed in (0, 0, 1))
    assert np.array_equal(first.weights, again.weights)
    assert np.array_equal(first.inputs, again.inputs)
    assert not np.array_equal(first.weights, other.weights)


def test_both_prunings_have_equal_sparsity_and_the_same_activations():
    work = workload("alexnet").works[1]
    assert prunings(work) == (Pruning.CASCADE, Pruning.UNSTRUCTURED)
    cascade, free = (operands(work, pruning) for pruning in prunings(work))
    assert cascade.weights.shape == free.weights.shape == (2, 128, 1200)
    assert cascade.weights.mean() == pytest.approx(free.weights.mean(), abs=32 / 128 / 1200)
    assert np.array_equal(cascade.inputs, free.inputs)


def test_published_weights_have_their_own_densities():
    network = workload("resnet50")
    kept = sum(work.published * work.shape.weights for work in network.works)
    # The paper has 81.27 % zeros; its figures for the layers are rounded.
    assert kept / sum(work.shape.weights for work in network.works) == pytest.approx(
        1 - 0.8127, abs=1e-4
    )
    work = network.works[1]
    assert prunings(work) == tuple(Pruning)
    masks = operands(work, Pruning.PUBLISHED)
    assert masks.weights.sum() == round(work.published * work.shape.weights)
    assert work.published != work.weights
    assert np.array_equal(masks.inputs, operands(work, Pruning.CASCADE).inputs)
    assert "arXiv:2002.03231" in network.published_source


def test_where_nobody_published_densities_it_is_said():
    network = workload("inception_v3")
    assert network.published_source.startswith("none found")
    with pytest.raises(CspError, match="no density of unstructured weights was published"):
        operands(network.works[0], Pruning.PUBLISHED)


def test_a_table_of_published_densities_must_have_all_layers(monkeypatch, tmp_path):
    monkeypatch.setattr("sim.workloads.catalogue.DATA", tmp_path)
    table = tmp_path / "resnet50_unstructured.csv"
    table.write_text("# source: x\nlayer,weights\nconv1,0.5\n")
    message = "resnet50_unstructured.csv: layer conv2_1_conv of resnet50 is missing"
    with pytest.raises(CspError, match=message):
        workload("resnet50")
    table.write_text("# source: x\nlayer,weights\nconv9,0.5\n")
    with pytest.raises(CspError, match=r"_unstructured.csv: resnet50 has no layer conv9$"):
        workload("resnet50")


@pytest.mark.parametrize("name", SHAPES)
def test_every_workload_says_where_its_zeros_are_from(name):
    network = workload(name)
    lines = list(network.provenance())
    assert len(lines) == 4
    for line in lines[1:3]:
        assert "arXiv" in line or "log" in line or "assumed" in line
    assert workload(name) == network


def test_published_densities_are_used():
    alexnet = {work.shape.name: work for work in workload("alexnet").works}
    assert alexnet["conv3"].weights == 0.346
    assert alexnet["conv3"].inputs == 0.275
    assert alexnet["conv2"].outputs == 0.275
    assert alexnet["fc8"].outputs == 1.0
    assert workload("transformer").density == pytest.approx(4_106_496 / 44_040_192)
    words = " ".join(workload("vgg16").provenance())
    assert "from memory" in words


def test_drawn_densities_have_their_means_and_say_so():
    network = workload("inception_v3")
    inner = [work for work in network.works if work.shape.rectified_in]
    assert np.mean([work.weights for work in inner]) == pytest.approx(0.25, abs=0.03)
    assert np.mean([work.inputs for work in inner]) == pytest.approx(0.45, abs=0.04)
    assert network.works[0].weights == network.works[0].inputs == 1.0
    assert workload("inception_v3", seed=1).density != network.density


def test_what_is_no_density_is_refused():
    shape = workload("alexnet").works[0].shape
    with pytest.raises(CspError, match=r"^conv1: inputs must be a density of 0 … 1, not 1.5$"):
        Work(shape=shape, weights=0.5, inputs=1.5, outputs=1)
    with pytest.raises(CspError, match=r"^mean must be a density of 0 … 1, not -1$"):
        draw.beta(np.random.default_rng(0), -1, 1.0, 3)
    with pytest.raises(CspError, match=r"^concentration must be positive, not 0$"):
        draw.beta(np.random.default_rng(0), 0.5, 0.0, 3)


def test_an_unknown_network_is_refused():
    with pytest.raises(CspError, match=r"^no workload 'lenet'; there are alexnet, vgg16"):
        workload("lenet")


def test_a_table_of_another_network_is_refused(tmp_path, monkeypatch):
    (tmp_path / "alexnet.csv").write_text("# source: none\nlayer,weights,inputs\nconv9,1,1\n")
    monkeypatch.setattr("sim.workloads.catalogue.DATA", tmp_path)
    with pytest.raises(CspError, match=r"^alexnet.csv: alexnet has no layer conv9$"):
        workload("alexnet")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("layer\na\n", "one comment must begin with '# source: ', not 0"),
        ("# source: x\nlayer,weights\na,1\nb\n", "row 2 has not the columns of the header"),
        ("# source: x\nlayer\na,1\n", "row 1 has not the columns of the header"),
    ],
)
def test_a_bad_table_is_refused(tmp_path, text, message):
    path = tmp_path / "bad.csv"
    path.write_text(text)
    with pytest.raises(CspError, match=f"^bad.csv: {message}$"):
        read_table(path)
