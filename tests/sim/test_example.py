# SPDX-License-Identifier: Apache-2.0
"""The golden model and the quick forward pass of training agree on the committed networks."""

from pathlib import Path

import numpy as np
import pytest

from csp_algo import container
from csp_algo.train.evaluate import integer_forward
from sim import golden

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.parametrize(
    ("name", "acc_bits"),
    [
        ("fashion_mnist", 24),
        ("fashion_mnist_resnet8", 24),
        ("fashion_mnist_wide", 8),
        ("fashion_mnist_resnet20_wide", 8),
    ],
)
def test_logits_and_saturations(name, acc_bits):
    network = container.load(EXAMPLES / name / "network.csp")
    images = np.load(EXAMPLES / "fashion_mnist" / "images.npz")["images"][:32]
    result = golden.run(network, images, acc_bits=acc_bits, keep=())
    logits = integer_forward(network, images, acc_bits=acc_bits)
    np.testing.assert_array_equal(result.logits, logits)
    # Sums of 8 bits are saturated now and then, and training knew it.
    assert any(result.saturations.values()) == (acc_bits == 8)
