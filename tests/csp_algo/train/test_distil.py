# SPDX-License-Identifier: Apache-2.0
import re

import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs the extra 'train': make train-test")

import torch

from csp_algo.errors import CspError
from csp_algo.train import distil
from sim.workloads.encoder_pruning import linear_inputs, moments_of, pruned
from tests.sim.encoders import HEADS, WORDS, random_texts, small_encoder

COLS = 4
RECIPE = distil.Recipe(rate=3e-3)


@pytest.fixture
def rng():
    return np.random.default_rng(3)


@pytest.fixture
def encoders(rng):
    """Give an encoder, and the same one pruned to 60 %."""
    dense = small_encoder(rng)
    moments = moments_of(linear_inputs(dense, random_texts(rng, 20)))
    return dense, pruned(dense, moments, 0.6, COLS)


def batches_of(rng, count):
    return [rng.integers(0, WORDS, (16, int(rng.integers(3, 12)))) for _ in range(count)]


def test_embeddings_are_those_of_the_numpy_encoder(encoders, rng):
    for encoder in encoders:
        model = distil.Encoder(encoder.tensors, HEADS)
        for text in random_texts(rng):
            with torch.no_grad():
                found = distil.embedding(model(torch.from_numpy(text[None]))[-1])
            np.testing.assert_allclose(found.numpy(), encoder.embed([text]), atol=2e-6)


def test_the_loss_of_the_teacher_itself_is_zero(encoders, rng):
    dense, student = (distil.Encoder(each.tensors, HEADS) for each in encoders)
    ids = torch.from_numpy(batches_of(rng, 1)[0])
    assert float(distil.loss_of(dense(ids), dense(ids)).detach()) == pytest.approx(0, abs=1e-6)
    assert float(distil.loss_of(student(ids), dense(ids)).detach()) > 0.1


def test_a_student_comes_nearer_and_its_zeros_stay(encoders, rng):
    dense, student = encoders
    losses = []
    tensors = distil.distil(
        dense.tensors,
        student.tensors,
        batches_of(rng, 150),
        heads=HEADS,
        cols=COLS,
        recipe=RECIPE,
        report=lambda _, loss: losses.append(loss),
    )
    assert len(losses) == 150
    assert np.mean(losses[-10:]) < 0.5 * losses[0]
    after = student.with_tensors(tensors)
    texts = random_texts(rng, 40)
    wanted = dense.embed(texts)
    near, far = ((each.embed(texts) * wanted).sum(axis=1).mean() for each in (after, student))
    assert near > far + 0.05
    for name in student.linears:
        zeros = student.weights(name) == 0
        assert (after.weights(name)[zeros] == 0).all(), name
        assert (after.weights(name) != student.weights(name)).any(), name
    for name in ("word", "position", "token_type"):
        name = f"embeddings.{name}_embeddings.weight"
        np.testing.assert_array_equal(after.tensors[name], dense.tensors[name])


def test_what_is_wrong_is_told(encoders, rng):
    dense, student = encoders
    with pytest.raises(CspError, match=r"^there are no batches to distil with$"):
        distil.distil(dense.tensors, student.tensors, [], heads=HEADS, cols=COLS)
    for name in (
        "encoder.layer.1.output.dense.weight",
        "encoder.layer.0.intermediate.dense.bias",
        "embeddings.LayerNorm.bias",
        "embeddings.word_embeddings.weight",
    ):
        tensors = {each: dense.tensors[each] for each in dense.tensors if each != name}
        with pytest.raises(CspError, match=rf"^encoder: .*{re.escape(name)}"):
            distil.Encoder(tensors, HEADS)
    name = "encoder.layer.0.output.LayerNorm.bias"
    spoilt = {**student.tensors, name: student.tensors[name] * np.float32("nan")}
    with pytest.raises(FloatingPointError, match=r"^distillation: the loss of step 0 is not"):
        distil.distil(dense.tensors, spoilt, batches_of(rng, 2), heads=HEADS, cols=COLS)
