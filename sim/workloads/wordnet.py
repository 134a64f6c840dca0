# SPDX-License-Identifier: Apache-2.0
"""Definitions of English nouns by WordNet (Princeton University), as texts to measure with.

The file is that of WordNet 3.0 (2006), in Debian's package wordnet-base. Its format: wndb(5WN).
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from csp_algo.errors import CspError

NOUNS = Path("/usr/share/wordnet/data.noun")
#: How to get it.
INSTALL = "sudo apt-get install wordnet-base"
#: Of a definition to measure with.
LEAST_WORDS = 5


class Noun(NamedTuple):
    """A meaning: the nouns that have it, its definition, and which of 26 fields it belongs to."""

    words: tuple[str, ...]
    definition: str
    field: int

    @property
    def keys(self) -> frozenset[str]:
        """Words and definition, to find what two nouns have in common."""
        return frozenset(text.lower() for text in (*self.words, self.definition))

    @property
    def tells(self) -> bool:
        """Whether the definition has a word that it defines, or a part of one."""
        return not _parts(self.words).isdisjoint(_parts([self.definition]))


class Split(NamedTuple):
    """Nouns to measure with, and all those that have neither a word nor a definition of theirs."""

    held: tuple[Noun, ...]
    rest: tuple[Noun, ...]


def load(path: Path = NOUNS) -> tuple[Noun, ...]:
    """Give all nouns in the order of the file.

    Raises
    ------
    CspError
        There is no such file, or a line is not one of WordNet's.
    """
    if not path.is_file():
        raise CspError(f"there is no {path}: {INSTALL}")
    nouns = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if line.startswith("  "):  # the licence
            continue
        data, bar, gloss = line.partition(" | ")
        fields = data.split()
        try:
            # offset, field, type, words, then each word with a number; all but field are hex
            field, words = int(fields[1]), fields[4 : 4 + 2 * int(fields[3], 16) : 2]
        except (IndexError, ValueError):
            words, field = [], 0
        if not (bar and words):
            raise CspError(f"{path}: line {number} is no noun of WordNet: {line[:40]!r}")
        # Examples follow in quotes, further definitions behind a semicolon.
        definition = re.split(r";|\s\"", gloss)[0].strip()
        nouns.append(Noun(tuple(word.replace("_", " ") for word in words), definition, field))
    return tuple(nouns)


def split(nouns: Sequence[Noun], count: int, *, seed: int = 0) -> Split:
    """Take nouns to measure with at random, and all that has nothing in common with them.

    Held are nouns whose definition has five words or more and none of the words that it defines.
    No two of them have a word or the definition in common.

    Raises
    ------
    CspError
        There are not so many.
    """
    held: list[Noun] = []
    taken: set[str] = set()
    for number in np.random.default_rng(seed).permutation(len(nouns)):
        noun = nouns[number]
        long = len(noun.definition.split()) >= LEAST_WORDS
        if len(held) < count and long and not noun.tells and taken.isdisjoint(noun.keys):
            held.append(noun)
            taken |= noun.keys
    if len(held) < count:
        raise CspError(f"there are {len(held)} nouns to hold, not {count}")
    return Split(tuple(held), tuple(noun for noun in nouns if taken.isdisjoint(noun.keys)))


def _parts(texts: Sequence[str]) -> set[str]:
    return {part for text in texts for part in re.findall(r"[a-z]+", text.lower())}
