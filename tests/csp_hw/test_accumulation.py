# SPDX-License-Identifier: Apache-2.0
"""Both styles of the accumulation buffer's bank against one dict."""

import pytest

from csp_hw.config import PRESETS, BufferStyle
from csp_hw.pe.accumulation import MemoryBank, RegBinBank, create_bank
from csp_hw.pe.accumulation.regbin import bins
from tests.csp_hw.bench import between, chance, play, rng_of

TINY = PRESETS["tiny_4x4"]


def test_bins():
    assert bins(2) == [range(1), range(1, 2)]
    assert bins(8) == [range(1), range(1, 2), range(2, 4), range(4, 8)]
    for half_depth in (2, 4, 8, 16, 64, 256):
        assert [entry for entries in bins(half_depth) for entry in entries] == list(
            range(half_depth)
        )


@pytest.mark.parametrize("style", BufferStyle)
@pytest.mark.parametrize("depth", [4, 8, 32])
@pytest.mark.parametrize("acc_bits", [8, 32])
def test_random(style, depth, acc_bits):
    config = TINY.replace(style=style, depth=depth, acc_bits=acc_bits)
    rng = rng_of(depth, acc_bits)
    limit = 1 << (acc_bits - 1)
    steps, expected, kept = [], [None], {}
    for _ in range(300):
        step = {
            "read_enable": int(chance(rng, 0.7)),
            "read_address": between(rng, 0, depth // 2 - 1),
            "write_enable": int(chance(rng, 0.6)),
            "write_address": between(rng, 0, depth // 2 - 1),
            "write_data": between(rng, -limit, limit - 1),
        }
        collides = step["write_enable"] and step["write_address"] == step["read_address"]
        word = None if collides else kept.get(step["read_address"])
        expected.append(word if step["read_enable"] else expected[-1])
        if step["write_enable"]:
            kept[step["write_address"]] = step["write_data"]
        steps.append(step)
    dut = create_bank(config)
    assert isinstance(dut, {"memory": MemoryBank, "regbin": RegBinBank}[style.value])
    seen = play(dut, steps, ["read_data"])
    assert sum(value is not None for value in expected) > 100
    for cycle, (at, value) in enumerate(zip(seen, expected[:-1], strict=True)):
        assert value in (None, at["read_data"]), f"cycle {cycle}"


@pytest.mark.parametrize("style", BufferStyle)
def test_a_word_is_seen_in_the_cycle_after_its_write(style):
    config = TINY.replace(style=style, depth=8)
    steps = []
    for entry in range(4):
        both = {"read_enable": 1, "write_address": entry}
        steps += [
            {**both, "write_enable": 1, "write_data": 100 + entry, "read_address": entry ^ 1},
            {**both, "write_enable": 0, "write_data": -1, "read_address": entry},
        ]
    steps.append(steps[-1])
    seen = play(create_bank(config), steps, ["read_data"])
    assert [at["read_data"] for at in seen[2::2]] == [100, 101, 102, 103]
