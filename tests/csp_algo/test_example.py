# SPDX-License-Identifier: Apache-2.0
"""The committed Fashion-MNIST networks are what their READMEs say."""

import csv
import re
from pathlib import Path

import numpy as np
import pytest

from csp_algo import cascade, container
from csp_algo.network import Network
from csp_algo.quantize import safe_shifts
from csp_algo.train.evaluate import integer_accuracy, integer_forward

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module", params=["fashion_mnist", "fashion_mnist_resnet8"])
def example(request) -> Path:
    return EXAMPLES / request.param


@pytest.fixture(scope="module")
def network(example) -> Network:
    return container.load(example / "network.csp")


def readme_figure(example: Path, label: str) -> float:
    """The last number of the README's table row that starts with a label."""
    text = (example / "README.md").read_text(encoding="utf-8")
    row = re.search(rf"^\| {re.escape(label)} .*?([\d.]+) %? ?\|$", text, re.MULTILINE)
    assert row, label
    return float(row[1])


def test_sparsity(example, network):
    weights = [layer.weights() for layer in network.layers()]
    zeros = sum(cascade.sparsity(matrix) * matrix.size for matrix in weights)
    share = 100 * zeros / sum(matrix.size for matrix in weights)
    assert round(share, 2) == readme_figure(example, "weight sparsity")
    assert share > 75


def test_sums_of_24_bits_are_exact(network):
    assert set(safe_shifts(network, 24).values()) == {0}


def test_sample_images(example, network):
    samples = np.load(EXAMPLES / "fashion_mnist" / "images.npz")
    images, labels = samples["images"], samples["labels"]
    assert (images.shape, images.dtype) == ((256, 28, 28, 1), np.uint8)
    assert np.bincount(labels, minlength=10).min() > 10
    accuracy = integer_accuracy(network, images, labels)
    assert round(accuracy, 2) == readme_figure(example, "int8, first 256 test images")
    assert integer_forward(network, images[:2], acc_bits=24).shape == (2, 1, 1, 10)


def test_log_and_readme_agree(example):
    with (example / "training.csv").open(encoding="utf-8") as file:
        tested = {row["stage"]: float(row["test"]) for row in csv.DictReader(file) if row["test"]}
    assert list(tested) == ["dense", "fine", "int8"]
    assert tested["dense"] == readme_figure(example, "dense, float32")
    assert tested["fine"] == readme_figure(example, "pruned and fine-tuned, float32")
    assert tested["int8"] == readme_figure(example, "int8, all 10,000 test images")
    assert tested["fine"] - tested["int8"] < 0.7
