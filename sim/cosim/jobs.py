# SPDX-License-Identifier: Apache-2.0
"""What one layer command asks of the engine: its streams as beats, and what came back."""

import dataclasses
import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sim.cosim.protocol import SOURCES

Beats = npt.NDArray[np.uint8]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Job:
    """The streams of one layer command.

    Parameters
    ----------
    beats : mapping of str to uint8 [n, bytes]
        For each input stream its beats, padded to whole bytes; ``layer`` has one.
    results : int
        Result words that the engine owes.
    stalls : mapping of str to float
        For each stream named, the probability that it is held back in a cycle; input streams do
        not offer a beat, ``results`` is not ready.
    seed : int
        Of the stalls.
    ahead : bool
        Whether the other streams begin before the layer's command was taken.
    """

    beats: Mapping[str, Beats]
    results: int
    stalls: Mapping[str, float] = dataclasses.field(default_factory=dict)
    seed: int = 0
    ahead: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Outcome:
    """What a job gave.

    Parameters
    ----------
    words : uint8 [n, cols]
        Result words.
    counters : dict of str to int
        The engine's counters when the last result had left.
    cycles : int
        From the cycle in which the layer command was taken to the one in which the last result
        was, without the former: 1 if they follow each other.
    """

    words: Beats
    counters: dict[str, int]
    cycles: int


def write_job(path: Path, job: Job) -> None:
    """Write a job to a file, which appears complete."""
    arrays: dict[str, npt.NDArray[np.generic]] = {name: job.beats[name] for name in SOURCES}
    arrays["results"] = np.array(job.results)
    arrays["seed"] = np.array(job.seed)
    arrays["ahead"] = np.array(job.ahead)
    arrays["stalled"] = np.array(list(job.stalls), dtype=str)
    arrays["probability"] = np.array(list(job.stalls.values()), dtype=float)
    _write(path, arrays)


def read_job(path: Path) -> Job:
    """Read what :func:`write_job` wrote."""
    with np.load(path) as file:
        names, probabilities = file["stalled"].tolist(), file["probability"].tolist()
        return Job(
            beats={name: file[name] for name in SOURCES},
            results=int(file["results"]),
            stalls=dict(zip(names, probabilities, strict=True)),
            seed=int(file["seed"]),
            ahead=bool(file["ahead"]),
        )


def write_outcome(path: Path, outcome: Outcome) -> None:
    """Write an outcome to a file, which appears complete."""
    _write(
        path,
        {
            "words": outcome.words,
            "names": np.array(list(outcome.counters), dtype=str),
            "counters": np.array(list(outcome.counters.values()), dtype=np.int64),
            "cycles": np.array(outcome.cycles),
        },
    )


def read_outcome(path: Path) -> Outcome:
    """Read what :func:`write_outcome` wrote."""
    with np.load(path) as file:
        counters = zip(file["names"].tolist(), file["counters"].tolist(), strict=True)
        return Outcome(words=file["words"], counters=dict(counters), cycles=int(file["cycles"]))


def _write(path: Path, arrays: Mapping[str, npt.NDArray[np.generic]]) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    partial = path.with_suffix(".part")
    partial.write_bytes(buffer.getbuffer())
    partial.replace(path)
