# SPDX-License-Identifier: Apache-2.0
"""Transformer base (Vaswani et al., arXiv:1706.03762): 6 + 6 layers, d 512, feed-forward 2048.

Only products with weights: those of attention, activations with activations, are no layer here, nor
are embeddings. Totals: 44,040,192 weights, 96 matrices, which is the sum of the first 96 rows of
the CSP authors' public training log (``data/transformer.csv``); 65 M parameters with embeddings of
37,000 words (the paper, table 3).
"""

from csp_algo.geometry import Geometry
from sim.workloads.shapes.layer import BIAS, LayerShape

LAYERS, WIDTH, INNER = 6, 512, 2048
#: The four matrices of an attention, in this order.
ATTENTION = ("query", "key", "value", "output")


def transformer(*, source: int = 32, target: int = 32) -> tuple[LayerShape, ...]:
    """Give 36 linear layers of the encoder and 60 of the decoder.

    Parameters
    ----------
    source, target : int
        Tokens of the two sentences; 32 is our choice.
    """
    layers: list[LayerShape] = []
    for block in range(1, LAYERS + 1):
        layers += _attention(f"encoder{block}.self", source, source)
        layers += _feed_forward(f"encoder{block}", source)
    for block in range(1, LAYERS + 1):
        layers += _attention(f"decoder{block}.self", target, target)
        layers += _attention(f"decoder{block}.cross", target, source)
        layers += _feed_forward(f"decoder{block}", target)
    return tuple(layers)


def _linear(
    name: str, tokens: int, inputs: int, filters: int, *, before: bool = False, behind: bool = False
) -> LayerShape:
    return LayerShape(
        name=name,
        geometry=Geometry(in_shape=(1, tokens, inputs), filters=filters),
        per_filter=BIAS,
        rectified_in=before,
        rectified_out=behind,
    )


def _attention(name: str, asking: int, asked: int) -> list[LayerShape]:
    tokens = (asking, asked, asked, asking)
    return [
        _linear(f"{name}.{part}", count, WIDTH, WIDTH)
        for part, count in zip(ATTENTION, tokens, strict=True)
    ]


def _feed_forward(name: str, tokens: int) -> list[LayerShape]:
    return [
        _linear(f"{name}.ff1", tokens, WIDTH, INNER, behind=True),
        _linear(f"{name}.ff2", tokens, INNER, WIDTH, before=True),
    ]
