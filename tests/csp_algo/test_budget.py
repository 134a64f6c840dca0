# SPDX-License-Identifier: Apache-2.0
"""The choice of levels, against all choices on small cases."""

import itertools

import numpy as np
import pytest

from csp_algo.budget import Curve, choose
from csp_algo.errors import CspError


def curves(rng, layers=4, levels=5):
    """Give curves of which costs fall and damages rise, and are not convex."""
    return [
        Curve(
            name=f"layer{number}",
            costs=np.sort(rng.uniform(1, 10, levels))[::-1],
            damages=np.sort(rng.uniform(0, 1, levels)),
        )
        for number in range(layers)
    ]


def totals(given, levels):
    costs = sum(float(curve.costs[levels[curve.name]]) for curve in given)
    return costs, sum(float(curve.damages[levels[curve.name]]) for curve in given)


def everything(given):
    """Give cost and damage of all choices, the cheapest first."""
    names = [curve.name for curve in given]
    return sorted(
        totals(given, dict(zip(names, each, strict=True)))
        for each in itertools.product(*(range(len(curve.costs)) for curve in given))
    )


@pytest.mark.parametrize("seed", range(20))
def test_choices_are_the_best_of_all_choices(seed):
    """At the costs of the Lagrangian they are the best; between, as good as a step allows."""
    rng = np.random.default_rng(seed)
    given = curves(rng)
    whole = sum(float(curve.costs.max()) for curve in given)
    choices = everything(given)
    exact, last = 0, -1.0
    for budget in np.linspace(choices[0][0] / whole, 1, 60):
        cost, damage = totals(given, choose(given, float(budget), whole, {}))
        assert cost <= budget * whole * (1 + 1e-9)
        assert cost >= last
        last = cost
        best = min(each for price, each in choices if price <= budget * whole * (1 + 1e-9))
        exact += damage <= best + 1e-12
        # By the price of the budget no choice can be better than the hull, and the hull is at
        # most one step away.
        assert damage - best <= max(float(np.ptp(curve.damages)) for curve in given)
    assert exact >= 30


@pytest.mark.parametrize("seed", range(20))
def test_steps_along_the_hull_are_optimal(seed):
    """Convex curves, and budgets at which the best steps fit to the end: exactly the best."""
    rng = np.random.default_rng(seed)
    given = []
    for number in range(4):
        steps = rng.uniform(1, 3, 4)
        slopes = np.sort(rng.uniform(0.1, 1, 4))
        costs = np.concatenate(([0.0], np.cumsum(steps)))[::-1] + 1
        damages = np.concatenate(([0.0], np.cumsum(slopes * steps[::-1])))
        given.append(Curve(name=f"layer{number}", costs=costs, damages=damages))
    whole = sum(float(curve.costs.max()) for curve in given)
    choices = everything(given)
    # The steps of all layers, the best first, are the prices λ.
    steps = sorted(
        (
            (curve.damages[n] - curve.damages[n + 1]) / (curve.costs[n] - curve.costs[n + 1]),
            float(curve.costs[n] - curve.costs[n + 1]),
        )
        for curve in given
        for n in range(4)
    )
    spent = sum(float(curve.costs.min()) for curve in given)
    for _, cost in steps:
        spent += cost
        levels = choose(given, spent / whole, whole, {})
        found, damage = totals(given, levels)
        assert found == pytest.approx(spent)
        best = min(each for price, each in choices if price <= spent * (1 + 1e-9))
        assert damage == pytest.approx(best)


def test_what_is_left_goes_to_smaller_steps():
    large = Curve(name="large", costs=np.array([11.0, 1.0]), damages=np.array([0.0, 10.0]))
    small = Curve(name="small", costs=np.array([3.0, 1.0]), damages=np.array([0.0, 0.1]))
    assert choose([large, small], 0.5, 14.0, {}) == {"large": 1, "small": 0}
    assert choose([large, small], 13 / 14, 14.0, {}) == {"large": 0, "small": 1}


def test_a_dearer_level_that_does_more_damage_is_never_chosen():
    odd = Curve(
        name="odd", costs=np.array([4.0, 3.0, 2.0, 2.0]), damages=np.array([1.0, 0.5, 3.0, 2.0])
    )
    assert odd.cheapest == 3
    assert choose([odd], 1.0, 4.0, {}) == {"odd": 1}


def test_budgets_out_of_reach_are_told():
    one = Curve(name="one", costs=np.array([8.0, 2.0]), damages=np.array([0.0, 1.0]))
    message = (
        "a budget of 0.1 is out of reach: the least is 0.5000 of the dense network's, "
        "60% of it in first"
    )
    with pytest.raises(CspError, match=f"^{message}$"):
        choose([one], 0.1, 10.0, {"first": 3.0})
    assert choose([one], 0.5, 10.0, {"first": 3.0}) == {"one": 1}


@pytest.mark.parametrize(
    ("costs", "damages", "message"),
    [
        ([1.0], [1.0, 2.0], r"damages must be \[L\], not \[2\]"),
        ([], [], r"costs must be \[L\], not \[0\]"),
        ([np.inf], [1.0], "costs hold a value that is not finite"),
        ([1.0], [np.nan], "damages hold a value that is not finite"),
    ],
)
def test_wrong_curves_are_told(costs, damages, message):
    with pytest.raises(CspError, match=f"^layer one: {message}$"):
        Curve(name="one", costs=np.array(costs), damages=np.array(damages))
