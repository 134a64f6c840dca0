# SPDX-License-Identifier: Apache-2.0
"""The register slice: order, rate, and that neither side sees the other in the same cycle."""

import pytest

from csp_hw.slice import RegisterSlice
from tests.csp_hw.bench import between, pass_through, rng_of


def check(words, *, gaps=(0.0, 0.0), seed=0):
    dut = RegisterSlice(16)
    rng = rng_of(seed, words)
    sent = [between(rng, 0, 65535) for _ in range(words)]
    source, sink = pass_through(dut, dut.i, sent, dut.o, words, constants={}, gaps=gaps, seed=seed)
    assert sink.words == sent
    return source, sink


@pytest.mark.parametrize("gaps", [(0.5, 0.0), (0.0, 0.5), (0.5, 0.5), (0.9, 0.2), (0.2, 0.9)])
@pytest.mark.parametrize("seed", range(3))
def test_random(gaps, seed):
    check(60, gaps=gaps, seed=seed)


def test_one_word_a_cycle():
    source, sink = check(20)
    first = source.cycles[0]
    assert source.cycles == list(range(first, first + 20))
    assert sink.cycles == [cycle + 1 for cycle in source.cycles]


def test_ready_waits_for_no_other_ready():
    """Of two words that nobody takes the second one is kept, too."""
    source, sink = check(3, gaps=(0.0, 0.95), seed=1)
    assert source.cycles[1] == source.cycles[0] + 1
    assert source.cycles[2] > sink.cycles[0]
