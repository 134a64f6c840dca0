# SPDX-License-Identifier: Apache-2.0
import dataclasses
import io
import math
import re

import numpy as np
import pytest
from rich.console import Console

from csp_algo import container
from csp_algo.inspect import bars, describe, summarise
from tests.csp_algo.examples import network


def printed(example, path=None, width=120) -> str:
    console = Console(width=width, file=io.StringIO())
    for item in describe(example, path):
        console.print(item)
    return console.file.getvalue()


@pytest.mark.parametrize("case", ["mixed", "dense", "empty", "gaps"])
def test_figures_equal_those_of_the_weights(case):
    example = network(4, case=case)
    for layer in example.layers():
        summary, weights = summarise(layer), layer.weights()
        counts = np.concatenate([matrix.counts for matrix in layer.matrices])
        assert summary.chunks == layer.geometry.chunks(4)
        assert summary.histogram.tolist() == [
            int((counts == count).sum()) for count in range(summary.chunks + 1)
        ]
        assert (summary.taps, summary.survivors) == (counts.size, np.count_nonzero(counts))
        assert (summary.weights, summary.nonzero) == (weights.size, np.count_nonzero(weights))
        assert summary.sparsity == pytest.approx(np.mean(weights == 0))
        assert summary.words == counts.sum()
        assert summary.bytes == 4 * counts.sum() + counts.size
        if not weights.any():
            assert math.isnan(summary.bits_per_nonzero)
        else:
            bits = 8 * summary.bytes / np.count_nonzero(weights)
            assert summary.bits_per_nonzero == pytest.approx(bits)


def test_what_is_printed_names_everything(tmp_path):
    example = network()
    path = tmp_path / "a.csp"
    container.save(example, path)
    text = printed(example, path, width=300)
    assert f"{path}, {path.stat().st_size:,} bytes" in text
    assert container.digest(example) in text
    for words in (
        "image: 9×9×3 uint8",
        "logits: 1×1×7 int32",
        "4 columns, blocks of T = 4 taps",
        "accuracy",
        "3×3; padding 1, 1, 1, 1; 2 groups; t = ",
        "3×3; stride 2×2",
        "1×1×180",
        "conv, grouped",
        "2×45",
        "/180",
    ):
        assert words in text
    for summary in map(summarise, example.layers()):
        assert f"{summary.sparsity:.1%}" in text
        assert f"{summary.bits_per_nonzero:.2f}" in text


def test_without_a_file_there_is_no_line_for_it():
    assert "file" not in printed(network())


def test_a_layer_without_weights_has_no_bits_per_weight():
    assert "none" in printed(dataclasses.replace(network(case="empty"), metadata={}))


def test_80_columns_are_enough_for_small_networks():
    lines = printed(network(), width=80).splitlines()
    assert max(map(len, lines)) <= 80
    assert any(re.fullmatch(r" conv .* \d+\.\d\d *", line) for line in lines)


def test_a_file_can_neither_use_markup_nor_replace_the_digest():
    example = network(name="[red]network[/red]")
    example = dataclasses.replace(example, metadata={"digest": "0" * 64, "note": "[blink]"})
    text = printed(example)
    assert "[red]network[/red]" in text
    assert "[blink]" in text
    assert container.digest(example) in text


def test_stride_dilation_and_relu_are_shown():
    example = network()
    first = example.layers()[0]
    shape = dataclasses.replace(
        first.geometry, stride=(2, 1), dilation=(1, 2), padding=(0, 0, 0, 0)
    )
    layer = dataclasses.replace(first, geometry=shape, relu=True)
    text = printed(dataclasses.replace(example, nodes=(layer,)))
    assert f"3×3; stride 2×1; dilation 1×2; t = {layer.acc_shift}; ReLU" in text


@pytest.mark.parametrize(
    ("histogram", "expected"),
    [
        ([8, 4, 0], "█▄ "),
        ([0, 1], " █"),
        ([0, 0], "  "),
        ([100, 1], "█▁"),
        ([1] * 16, "█" * 16),
        ([2, *[1] * 30], "█" * 16),
    ],
)
def test_bars(histogram, expected):
    assert bars(np.array(histogram)) == expected
