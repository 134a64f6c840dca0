# SPDX-License-Identifier: Apache-2.0
"""Encoders, their pruning and their integers; the package's own in test_real_encoder.py."""

import math

import numpy as np
import pytest

from csp_algo import cascade
from csp_algo.compress import counts_of
from csp_algo.errors import CspError
from sim.workloads import minilm, retrieval, wordnet
from sim.workloads.encoder_integers import hosted_layers, hosted_linear
from sim.workloads.encoder_pruning import linear_inputs, moments_of, pruned, reordered
from tests.sim.encoders import random_texts, small_encoder

COLS = 4


@pytest.fixture
def rng():
    return np.random.default_rng(5)


def test_gelu_is_that_of_erf():
    x = np.linspace(-9, 9, 2001, dtype=np.float32)
    exact = [value * (1 + math.erf(value / math.sqrt(2))) / 2 for value in x.astype(float)]
    np.testing.assert_allclose(minilm.gelu(x), exact, atol=2e-6)


def test_batches_hold_each_text_once_and_texts_of_one_length():
    texts = [np.zeros(length, dtype=np.int64) for length in (3, 5, 3, 3, 5, 9)]
    found = list(minilm.batches(texts, 6))
    assert found == [[0, 2], [3], [1], [4], [5]]


def test_what_a_text_becomes_does_not_hang_on_the_others(rng):
    encoder, texts = small_encoder(rng), random_texts(rng)
    alone = np.concatenate([encoder.embed([text]) for text in texts])
    np.testing.assert_allclose(encoder.embed(texts), alone, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(alone, axis=1), 1, rtol=1e-6)


def test_a_tensor_that_is_missing_or_of_another_shape_is_named(rng):
    tensors = dict(small_encoder(rng).tensors)
    name = "encoder.layer.1.attention.self.key.weight"
    whole = tensors[name]
    tensors[name] = whole[:-1]
    with pytest.raises(CspError, match=r"^encoder: .*1.*key.weight is \[15, 16\], not \[16, 16\]$"):
        minilm.Encoder(tensors=tensors, heads=4)
    del tensors[name]
    with pytest.raises(CspError, match=r"^encoder: there is no tensor encoder\.layer\.1\.at"):
        minilm.Encoder(tensors=tensors, heads=4)
    with pytest.raises(CspError, match=r"^encoder: 5 heads do not divide a width of 16$"):
        minilm.Encoder(tensors={**tensors, name: whole}, heads=5)
    tensors = {name: each for name, each in tensors.items() if not name.startswith("encoder")}
    with pytest.raises(CspError, match=r"^encoder: there are no blocks$"):
        minilm.Encoder(tensors=tensors, heads=4)


def test_another_order_changes_nothing_but_the_order(rng):
    encoder, texts = small_encoder(rng), random_texts(rng)
    moments = moments_of(linear_inputs(encoder, texts))
    moved, order = reordered(encoder, moments, 0.5, COLS)
    assert sorted(order) == list(range(16)) != list(order)
    np.testing.assert_allclose(moved.embed(texts), encoder.embed(texts)[:, order], atol=1e-6)
    changed = [name for name in encoder.linears if (moved.bias(name) != encoder.bias(name)).any()]
    assert changed == list(encoder.linears)


def test_every_linear_layer_becomes_a_cascade_of_the_target(rng):
    encoder, texts = small_encoder(rng), random_texts(rng)
    after = pruned(encoder, moments_of(linear_inputs(encoder, texts)), 0.6, COLS)
    assert len(after.linears) == 12
    for name in after.linears:
        weights = after.weights(name)
        assert cascade.sparsity(weights) == pytest.approx(0.6, abs=cascade.reach(weights.shape[1]))
        counts = counts_of((weights != 0).astype(np.int8), COLS)
        kept = cascade.mask_of(counts, len(weights), COLS)
        np.testing.assert_array_equal(weights, encoder.weights(name) * kept)


def test_integers_are_near_the_floats_and_outliers_spoil_nothing(rng):
    encoder, texts = small_encoder(rng), random_texts(rng, 30)
    large = dict.fromkeys(["embeddings.LayerNorm.weight", "embeddings.LayerNorm.bias"])
    for name in large:
        large[name] = encoder.tensors[name] * np.where(np.arange(16) == 3, 60, 1)
    encoder = encoder.with_tensors(large)
    inputs = linear_inputs(encoder, texts)
    layers = hosted_layers(encoder, inputs, cols=COLS, period=8)
    assert tuple(layers) == encoder.linears
    compute = hosted_linear(layers)
    for name, x in inputs.items():
        exact, found = encoder.linear(name, x), compute(name, x)
        difference = np.linalg.norm(found - exact, axis=0) / np.linalg.norm(exact, axis=0)
        assert 0 < np.median(difference) < 0.02, name
    assert layers[name].images(x).shape == (len(x), 1, 1, 48)
    cosines = (encoder.embed(texts, compute) * encoder.embed(texts)).sum(axis=1)
    assert np.median(cosines) > 0.999


def test_a_channel_and_a_filter_of_zeros_are_possible(rng):
    encoder = small_encoder(rng, blocks=1)
    name = encoder.linears[4]
    weights = encoder.weights(name).copy()
    weights[5] = 0
    encoder = encoder.with_tensors({f"{name}.weight": weights})
    inputs = linear_inputs(encoder, random_texts(rng, 30))
    inputs[name][:, 2] = 0
    found = hosted_linear(hosted_layers(encoder, inputs, cols=COLS, period=8))
    exact = encoder.linear(name, inputs[name])
    np.testing.assert_allclose(found(name, inputs[name]), exact, atol=0.05 * np.abs(exact).max())


def test_quality_of_what_is_known(rng):
    definitions = rng.normal(size=(40, 8))
    definitions /= np.linalg.norm(definitions, axis=1, keepdims=True)
    same = np.zeros(40, dtype=int)
    found = retrieval.quality(definitions, definitions, same, definitions)
    assert (found.first.value, found.first.error) == (1, 0)
    assert (found.field.value, found.rank.value) == (1, pytest.approx(1))
    words = definitions.copy()
    words[[0, 1]] = words[[1, 0]]
    other = retrieval.quality(definitions, words, np.arange(40), rng.permutation(definitions))
    lost = found.first.less(other.first)
    assert lost.value == pytest.approx(0.05)
    assert lost.error == pytest.approx(math.sqrt(0.05 * 0.95 / 39))
    assert 0.95 < other.reciprocal.value < 1
    assert other.field.value == 0
    assert other.rank.value < 0.5


def test_equals_are_no_find():
    places = retrieval.places_of(np.array([[1.0, 1.0, 0.0], [0.0, 1.0, 0.5], [1.0, 2.0, 0.5]]))
    np.testing.assert_array_equal(places, [2, 1, 3])


def test_spearman_sees_ranks_only():
    values = np.array([0.3, -1.0, 2.0, 0.5])
    assert retrieval.spearman(values, np.exp(values)) == pytest.approx(1)
    assert retrieval.spearman(values, -values) == pytest.approx(-1)
    assert retrieval.spearman(np.array([1.0, 2, 3, 4]), np.array([2.0, 1, 3, 4])) == pytest.approx(
        0.8
    )


LINES = """  1 This is the licence.
00001740 03 n 01 entity 0 001 ~ 00001930 n 0000 | that which is known or inferred to exist; "x"
00001930 05 n 02 hot_dog 0 frank 1 000 | a smooth sausage that is eaten warm "two of them"
00001931 05 n 01 Frank 0 000 | a person of the people of the Rhine
00001932 06 n 01 pan 0 000 | a flat pan for food on fire
00001933 06 n 01 tin 0 000 | short one
00001934 06 n 01 pot 0 000 | a vessel to boil water in
"""


def test_wordnet_is_read(tmp_path):
    path = tmp_path / "data.noun"
    path.write_text(LINES)
    nouns = wordnet.load(path)
    assert len(nouns) == 6
    assert nouns[0] == (("entity",), "that which is known or inferred to exist", 3)
    assert nouns[1] == (("hot dog", "frank"), "a smooth sausage that is eaten warm", 5)
    path.write_text(LINES + "0000 06 n 0z pot 0 000 | a vessel\n")
    with pytest.raises(CspError, match=r"data\.noun: line 8 is no noun of WordNet: '0000 06 n"):
        wordnet.load(path)
    with pytest.raises(CspError, match=r"^there is no .*/none: sudo apt-get install wordnet-base$"):
        wordnet.load(tmp_path / "none")


def test_held_nouns_share_nothing_with_each_other_and_the_rest(tmp_path):
    path = tmp_path / "data.noun"
    path.write_text(LINES)
    nouns = wordnet.load(path)
    for seed in range(8):
        held, rest = wordnet.split(nouns, 3, seed=seed)
        # Of the two franks one is held, and the other one is nowhere; a pan that is called a pan
        # and a short definition may be learned from, not measured with.
        assert {noun.words[-1].lower() for noun in held} == {"entity", "frank", "pot"}
        assert {noun.words[0] for noun in rest} == {"pan", "tin"}
    with pytest.raises(CspError, match=r"^there are 3 nouns to hold, not 4$"):
        wordnet.split(nouns, 4)
