# SPDX-License-Identifier: Apache-2.0
"""The hazard unit against a list of when each place was last written."""

import itertools

import pytest

from csp_hw.config import PRESETS
from csp_hw.hazard import HazardUnit
from csp_hw.pe.control import FORWARD_DISTANCE, STAGE, Addend
from tests.csp_hw.bench import between, chance, controls, play, rng_of

CONFIG = PRESETS["tiny_4x4"]
NOTHING = dict.fromkeys(("valid", "last", "fresh", "bank", "word", "last_chunk", "live"), 0)


def check(products, config=CONFIG, rng=None):
    """Play products (None: no product in this cycle) and compare every field of every cycle."""
    products = [*products, *[None] * 5]
    rng = rng or rng_of(0)
    steps = []
    for product in products:
        noise = {
            "fresh": between(rng, 0, 1),
            "bank": between(rng, 0, 1),
            "word": between(rng, 0, config.half_depth - 1),
        }
        full = NOTHING | (noise if product is None else {**product, "valid": 1})
        if product is not None and not product["last"]:
            full["fresh"] = noise["fresh"]  # counts with a run's last product only
        steps.append({"product": full})
    seen = [at["control"] for at in play(HazardUnit(config), steps, ["control"])]
    for n, (at, expected) in enumerate(zip(seen, controls(products, len(products)), strict=True)):
        needed = {name: value for name, value in expected.items() if value is not None}
        assert {name: at[name] for name in needed} == needed, f"cycle {n}"
        assert (at["shift"], at["take"], at["take_bank"]) == (0, 0, 0)


def product(word, *, bank=0, last=1, fresh=0):
    return {"last": last, "fresh": fresh, "bank": bank, "word": word}


def test_codes():
    # The model in bench.py speaks of these numbers.
    assert (Addend.ZERO, Addend.BANK0, Addend.BANK1) == (0, 2, 3)
    assert (Addend.SUM_NEXT, Addend.SUM_NOW, Addend.SUM_OLDER, Addend.SUM_OLDEST) == (4, 5, 6, 7)
    assert STAGE["write_address"] == FORWARD_DISTANCE == 4


def test_every_pattern_of_five_cycles():
    # In each cycle nothing, a run that ends at the watched place, one that ends elsewhere, or a
    # product of an unfinished run; five cycles hold every distance and every pair of distances.
    choices = [None, product(1), product(2), product(1, last=0)]
    products = []
    for pattern in itertools.product(choices, repeat=4):
        products += [*pattern, product(1), *[None] * 4]
    check(products)


@pytest.mark.parametrize("distance", range(1, 8))
@pytest.mark.parametrize("fresh", [0, 1])
def test_distance(distance, fresh):
    between_them = [product(2, bank=1)] * (distance - 1)
    check([product(3, bank=1), *between_them, product(3, bank=1, fresh=fresh)])


def test_same_word_of_the_other_bank_is_another_place():
    for distance in range(1, 6):
        check([product(1, bank=0), *[None] * (distance - 1), product(1, bank=1)])


def test_same_entry_in_every_cycle():
    check([product(0, fresh=int(n == 0)) for n in range(20)])


@pytest.mark.parametrize("depth", [4, 16])
@pytest.mark.parametrize("seed", range(2))
def test_random(depth, seed):
    config = CONFIG.replace(depth=depth)
    rng = rng_of(seed, depth)
    products = []
    for _ in range(400):
        if chance(rng, 0.15):
            products.append(None)
            continue
        products.append(
            product(
                between(rng, 0, min(3, depth // 2 - 1)),
                bank=between(rng, 0, 1),
                last=between(rng, 0, 3) > 0,
                fresh=between(rng, 0, 4) == 0,
            )
        )
    check(products, config, rng)
