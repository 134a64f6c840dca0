# SPDX-License-Identifier: Apache-2.0
"""A small encoder with random weights, and random texts."""

import numpy as np

from sim.workloads.minilm import LINEARS, UP, Encoder

WIDTH, INNER, HEADS, WORDS, PLACES = 16, 48, 4, 50, 12


def small_encoder(rng, blocks=2):
    tensors = {}

    def add(name, *shape, spread=0.3, mean=0.0):
        tensors[name] = (mean + rng.normal(0, spread, shape)).astype(np.float32)

    def norm(name):
        add(f"{name}.LayerNorm.weight", WIDTH, mean=1.0)
        add(f"{name}.LayerNorm.bias", WIDTH)

    for kind, count in (("word", WORDS), ("position", PLACES), ("token_type", 2)):
        add(f"embeddings.{kind}_embeddings.weight", count, WIDTH, spread=1.0)
    norm("embeddings")
    for number in range(blocks):
        block = Encoder.block(number)
        for part in LINEARS:
            filters = INNER if part == UP else WIDTH
            taps = INNER if part == "output.dense" else WIDTH
            add(f"{block}.{part}.weight", filters, taps)
            add(f"{block}.{part}.bias", filters)
        norm(f"{block}.attention.output")
        norm(f"{block}.output")
    return Encoder(tensors=tensors, heads=HEADS)


def random_texts(rng, count=9):
    return [rng.integers(0, WORDS, int(rng.integers(2, PLACES))) for _ in range(count)]
