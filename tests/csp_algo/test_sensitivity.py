# SPDX-License-Identifier: Apache-2.0
"""Errors of the output when one layer is pruned."""

import itertools

import numpy as np
import pytest

from csp_algo.prune import keep, tap_moments
from csp_algo.quantize import FloatLayer, FloatNetwork
from csp_algo.sensitivity import MEASURED, SHARES, errors, interpolated, ladders, losses
from tests.csp_algo.examples import residual_network


@pytest.fixture
def rng():
    return np.random.default_rng(8)


@pytest.fixture
def images(rng):
    return rng.integers(-128, 128, (3, 6, 6, 4)).astype(np.int8)


def test_errors_are_those_of_the_whole_network(rng, images):
    network = residual_network(rng)
    moments = tap_moments(network, images)
    names = ("stem", "inner", "side", "outer", "last")
    counts = ladders(network, names, 4, moments=moments, shares=(0.6, 0.2))
    found = errors(network, counts, 4, images)
    before = network.forward(images)["mean"]
    assert list(found) == list(names)
    for name in names:
        assert found[name].shape == (2,)
        for error, some in zip(found[name], counts[name], strict=True):
            after = keep(network, {name: some}, 4).forward(images)["mean"]
            expected = np.linalg.norm(after - before) / np.linalg.norm(before)
            assert error == pytest.approx(expected, rel=1e-12)
            assert error > 0


def test_a_layer_that_nobody_reads_does_no_harm(rng, images):
    network = residual_network(rng)
    nodes = (*network.nodes[:2], *network.nodes[4:])
    nodes = tuple(
        FloatLayer(**{**vars(node), "input": "stem"}) if node.name == "last" else node
        for node in nodes
    )
    network = FloatNetwork(name="net", input=network.input, nodes=nodes)
    counts = ladders(network, ["inner"], 4, moments=tap_moments(network, images), shares=(0.2,))
    assert errors(network, counts, 4, images)["inner"].tolist() == [0]


def test_layers_keep_at_most_their_share(rng, images):
    network = residual_network(rng)
    counts = ladders(network, ["inner"], 4, moments=tap_moments(network, images))
    (levels,) = counts.values()
    kept = []
    for share, each in zip(SHARES, levels, strict=True):
        (layer,) = (n for n in keep(network, {"inner": each}, 4).nodes if n.name == "inner")
        kept.append(np.count_nonzero(layer.weights) / layer.weights.size)
        assert share - 0.01 < kept[-1] <= share
    assert kept[0] == 1
    for more, fewer in itertools.pairwise(levels):
        assert (fewer <= more).all()


def test_losses_are_those_of_the_squares(rng, images):
    network = residual_network(rng)
    moments = tap_moments(network, images)
    counts = ladders(network, ["inner"], 4, moments=moments, shares=(1.0, 0.6, 0.2))
    found = losses(network, counts, 4, moments=moments)["inner"]
    inner = network.nodes[1]
    for lost, each in zip(found, counts["inner"], strict=True):
        after = keep(network, {"inner": each}, 4).nodes[1]
        norms = [(layer.matrices**2 * moments["inner"][:, None]).sum() for layer in (inner, after)]
        assert lost == pytest.approx(np.sqrt(1 - norms[1] / norms[0]))
    assert found[0] == 0 < found[1] < found[2]


def test_errors_between_are_interpolated():
    lost = np.linspace(0, 1, len(SHARES)) ** 2
    found = interpolated(np.array([0.1, 0.3, 0.2, 0.5, 0.8]), lost)
    assert len(found) == len(SHARES)
    by_share = dict(zip(SHARES, found, strict=True))
    assert by_share[1.0] == 0
    assert [by_share[share] for share in MEASURED] == pytest.approx([0.1, 0.3, 0.3, 0.5, 0.8])
    left, middle, right = (lost[SHARES.index(share)] for share in (0.9, 0.75, 0.7))
    assert by_share[0.75] == pytest.approx(0.1 + 0.2 * (middle - left) / (right - left))
    assert (np.diff(found) >= 0).all()
