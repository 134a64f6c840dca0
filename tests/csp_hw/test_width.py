# SPDX-License-Identifier: Apache-2.0
"""The width converter against slices."""

import gc

import pytest
from amaranth import unsigned
from amaranth.lib import data

from csp_hw.width import WidthConverter, WidthGather
from tests.csp_hw.bench import between, pass_through, rng_of


@pytest.mark.parametrize(("beat", "word"), [(32, 12), (8, 16), (8, 0), (0, 8), (0, 0)])
@pytest.mark.filterwarnings("ignore::amaranth.hdl.UnusedElaboratable")
def test_widths(beat, word):
    message = f"^a beat of {beat} bits does not consist of words of {word} bits$"
    with pytest.raises(ValueError, match=message):
        WidthConverter(beat, word)
    gc.collect()  # what was refused is never elaborated, and says so when it goes


def check(ratio, beats, *, gaps=(0.0, 0.0), seed=0):
    lanes = 2
    dut = WidthConverter(16 * ratio, data.ArrayLayout(unsigned(8), lanes))
    rng = rng_of(seed, ratio)
    sent = [[between(rng, 0, 255) for _ in range(lanes * ratio)] for _ in range(beats)]
    source, sink = pass_through(
        dut,
        dut.i,
        [int.from_bytes(bytes(beat), "little") for beat in sent],
        dut.o,
        beats * ratio,
        constants={},
        gaps=gaps,
        seed=seed,
    )
    assert sink.words == [beat[lanes * n : lanes * (n + 1)] for beat in sent for n in range(ratio)]
    return source, sink


@pytest.mark.parametrize("ratio", [1, 2, 3, 8])
@pytest.mark.parametrize("gaps", [(0.5, 0.0), (0.0, 0.5), (0.5, 0.5), (0.9, 0.2)])
def test_random(ratio, gaps):
    check(ratio, 40, gaps=gaps, seed=int(10 * gaps[0]))


@pytest.mark.parametrize("ratio", [1, 2, 3, 8])
def test_one_word_a_cycle(ratio):
    source, sink = check(ratio, 20)
    first = source.cycles[0] + 1
    assert sink.cycles == list(range(first, first + 20 * ratio))


def test_ready_waits_for_no_other_ready():
    """Of two beats that nobody takes the second one is kept, too."""
    source, _ = check(4, 3, gaps=(0.0, 0.95), seed=1)
    assert source.cycles[1] == source.cycles[0] + 1
    assert source.cycles[2] > source.cycles[1] + 4


@pytest.mark.parametrize(("beat", "word"), [(8, 8), (16, 8), (12, 32), (0, 8)])
@pytest.mark.filterwarnings("ignore::amaranth.hdl.UnusedElaboratable")
def test_gathered_widths(beat, word):
    message = f"^a word of {word} bits does not consist of beats of {beat} bits$"
    with pytest.raises(ValueError, match=message):
        WidthGather(beat, word)
    gc.collect()


@pytest.mark.parametrize("ratio", [2, 3])
@pytest.mark.parametrize("gaps", [(0.0, 0.0), (0.5, 0.0), (0.0, 0.5), (0.5, 0.5)])
def test_gather(ratio, gaps):
    rng = rng_of(ratio, int(10 * gaps[0]))
    words = [int.from_bytes(rng.bytes(4 * ratio), "little") for _ in range(30)]
    beats = [word >> 32 * n & 0xFFFFFFFF for word in words for n in range(ratio)]
    dut = WidthGather(32, 32 * ratio)
    source, sink = pass_through(dut, dut.i, beats, dut.o, 30, constants={}, gaps=gaps)
    assert sink.words == words
    if not any(gaps):
        assert source.cycles == list(range(source.cycles[0], source.cycles[0] + 30 * ratio))
