# SPDX-License-Identifier: Apache-2.0
"""Levels of layers under a budget of a small network."""

import dataclasses

import numpy as np
import pytest

from csp_algo.errors import CspError
from csp_algo.prune import keep, tap_moments
from csp_algo.quantize import quantise
from csp_algo.sensitivity import SHARES
from csp_hw.config import preset
from sim.costs import Of
from sim.targets import measure
from tests.csp_algo.examples import residual_network

CONFIG = preset("tiny_4x4")
LAYERS = ("inner", "side", "outer", "last")


@pytest.fixture(scope="module")
def floats():
    return residual_network(np.random.default_rng(7))


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(8).integers(-128, 128, (2, 6, 6, 4)).astype(np.int8)


@pytest.fixture(scope="module", params=list(Of))
def measured(request, floats, images):
    return measure(
        floats,
        LAYERS,
        images,
        of=request.param,
        config=CONFIG,
        moments=tap_moments(floats, images),
    )


def total(measured, levels):
    return sum(measured.costs_of(measured.counts(levels)).values())


def damage(measured, levels):
    return sum(float(measured.errors[name][level]) ** 2 for name, level in levels.items())


def test_budgets_are_met_by_the_integers(measured, floats, images):
    whole, last = sum(measured.whole.values()), 0.0
    for budget in (0.4, 0.5, 0.6, 0.75, 0.9, 0.99):
        levels = measured.choose(budget)
        pruned = keep(floats, measured.counts(levels), CONFIG.cols)
        integers = quantise(pruned, images, cols=CONFIG.cols, period=CONFIG.max_period)
        cost = sum(measured.meter.nodes(integers).values())
        assert cost == pytest.approx(total(measured, levels))
        assert budget - 0.06 < cost / whole <= budget
        # A larger budget is never used less.
        assert cost >= last
        last = cost


def test_automatic_is_no_worse_than_uniform(measured):
    """By the damage that was measured, at the cost of the same share for all layers."""
    whole, better = sum(measured.whole.values()), 0
    for level in range(2, len(SHARES)):
        uniform = dict.fromkeys(LAYERS, level)
        levels = measured.choose(total(measured, uniform) / whole)
        assert damage(measured, levels) <= damage(measured, uniform) * (1 + 1e-9)
        better += damage(measured, levels) < 0.99 * damage(measured, uniform)
    assert better > 5


def test_budgets_out_of_reach_are_told(measured):
    costs = measured.costs_of(measured.counts(dict.fromkeys(LAYERS, len(SHARES) - 1)))
    least = sum(costs.values()) / sum(measured.whole.values())
    most = max(costs, key=costs.__getitem__)
    message = (
        rf"^network net: a budget of 0\.02 is out of reach: the least is {least:.4f} of the dense "
        rf"network's, {costs[most] / sum(costs.values()):.0%} of it in {most}$"
    )
    with pytest.raises(CspError, match=message):
        measured.choose(0.02)


def test_what_layers_cost_only_together_is_reckoned(measured):
    """Levels are chosen anew until the whole network, not the sum of its layers, fits."""

    class Dearer:
        def nodes(self, network):
            return {**measured.meter.nodes(network), "more": more}

    whole = sum(measured.whole.values())
    more = 0.1 * whole
    dearer = dataclasses.replace(measured, meter=Dearer())
    levels = dearer.choose(0.6)
    assert total(measured, levels) <= 0.5 * whole
    assert total(measured, levels) == total(measured, measured.choose(0.5))
