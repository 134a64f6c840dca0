# SPDX-License-Identifier: Apache-2.0
"""MiniLM of a package, pruned: its 36 linear layers whole on the core, a sentence's tokens in."""

import numpy as np
import pytest

from csp_algo import cascade, container
from csp_algo.errors import CspError
from csp_algo.integers import affine
from csp_hw.config import preset
from sim import execute, golden
from sim.report.passes import broken_promises
from sim.workloads import minilm
from sim.workloads.encoder_integers import hosted_layers, hosted_linear
from sim.workloads.encoder_pruning import linear_inputs, moments_of, pruned, reordered
from tests.witness import conv_integer

pytestmark = pytest.mark.soak

CONFIG = preset("csp_8x8")
SPARSITY = 0.7
#: Share of the cycles in which each channel of the memory stands still.
STALLS = dict.fromkeys(("ar", "r", "aw", "w", "b"), 0.2)
SENTENCES = ("The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium.")
#: Their cosines, as the authors of the network publish them (sentence-transformers, README).
COSINES = ((1.0, 0.6660, 0.1046), (0.6660, 1.0, 0.1411), (0.1046, 0.1411, 1.0))
LONG = (
    "Each input keeps its first groups of filters and nothing after them, so that no index is "
    "stored, what was pruned is never fetched, and no unit waits for another one: a small count "
    "says everything, and the array multiplies what is left without a bubble, whatever it is."
)


@pytest.fixture(scope="module")
def dense():
    try:
        return minilm.load()
    except CspError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def texts():
    try:
        return minilm.tokenise(SENTENCES)
    except CspError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def small(dense, texts):
    """Give the encoder pruned, and its linear layers in integers."""
    moments = moments_of(linear_inputs(dense, texts))
    encoder, _ = reordered(dense, moments, SPARSITY, CONFIG.cols)
    encoder = pruned(encoder, moments_of(linear_inputs(encoder, texts)), SPARSITY, CONFIG.cols)
    inputs = linear_inputs(encoder, texts)
    return encoder, hosted_layers(encoder, inputs, cols=CONFIG.cols, period=CONFIG.max_period)


def test_the_embeddings_are_those_that_its_authors_publish(dense, texts):
    found = dense.embed(texts)
    np.testing.assert_allclose(found @ found.T, COSINES, atol=1e-4)


def test_every_linear_layer_is_pruned_and_its_sums_are_those_of_onnx_runtime(small, texts):
    encoder, layers = small
    assert len(layers) == 36
    for name, x in linear_inputs(encoder, texts).items():
        (layer,) = layers[name].network.layers()
        zeros = cascade.sparsity(layer.weights())
        # Rounding makes some more, where outliers are among a filter's weights.
        assert SPARSITY - 0.01 < zeros < SPARSITY + 0.05, name
        images = layers[name].images(x)
        found, clipped = golden.layer_forward(layer, images)
        assert (layer.acc_shift, clipped) == (0, 0), name
        np.testing.assert_array_equal(
            found, affine(conv_integer(layer, images), 0, layer.bias), err_msg=name
        )


@pytest.fixture(scope="module")
def core():
    return execute.build(CONFIG)


def on_the_core(core, network, images, **options):
    """Give the sums of a network of one layer, whole on the core, and how many were compared."""
    task = execute.Task.make(network, CONFIG, images)
    compared = 0
    for run in execute.run(task, core, **options):
        assert run.different in (0, None), run.step.title
        assert not broken_promises([run])
        assert run.registers["SATURATIONS"] == 0
        compared += run.compared
    return task.values[task.output], compared


def test_a_sentence_is_embedded_with_all_linear_layers_on_the_core(small, texts, core, tmp_path):
    """From containers, a full tile or more of every layer; attention and norms are the host's."""
    encoder, layers = small
    path, compared = tmp_path / "layer.csp", []

    def sums(network, images):
        container.save(network, path)
        found, count = on_the_core(core, container.load(path), images)
        compared.append(count)
        return found

    tokens = texts[1]
    assert len(tokens) > CONFIG.rows
    found = encoder.embed([tokens], hosted_linear(layers, sums))
    np.testing.assert_array_equal(found, encoder.embed([tokens], hosted_linear(layers)))
    assert compared == [len(tokens) * len(encoder.bias(name)) for name in encoder.linears]


def test_a_block_with_a_long_sentence_while_the_memory_stalls(small, core):
    encoder, layers = small
    inputs = linear_inputs(encoder, minilm.tokenise([LONG]))
    for number, name in enumerate(encoder.linears[: len(minilm.LINEARS)]):
        images = layers[name].images(inputs[name])
        assert len(images) > 7 * CONFIG.rows
        network = layers[name].network
        _, compared = on_the_core(core, network, images, stalls=STALLS, seed=number)
        assert compared == len(images) * len(encoder.bias(name))
