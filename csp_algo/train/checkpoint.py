# SPDX-License-Identifier: Apache-2.0
"""The state of a training stage in a file, so that a run that was ended can go on."""

import dataclasses
import hashlib
import json
import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from csp_algo.errors import CspError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A file with the state of one stage; a state of other settings is not taken.

    Attributes
    ----------
    path : Path
    settings : mapping
        All that the state depends on; of what JSON knows.
    """

    path: Path
    settings: Mapping[str, object]

    @classmethod
    def of(cls, folder: Path, name: str, settings: Mapping[str, object]) -> "Checkpoint":
        """Give the checkpoint of a stage in a folder, where each setting has its own file."""
        text = json.dumps(settings, sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()[:12]
        return cls(path=folder / f"{name}-{digest}.pt", settings=settings)

    @property
    def key(self) -> str:
        """The settings as text."""
        return json.dumps(self.settings, sort_keys=True)

    def load(self) -> dict[str, Any] | None:
        """Give what was saved with the same settings, or None.

        Raises
        ------
        CspError
            The file is no whole checkpoint.
        """
        if not self.path.exists():
            return None
        try:
            saved = torch.load(self.path, weights_only=True)
            return saved if saved["settings"] == self.key else None
        except (OSError, RuntimeError, EOFError, KeyError, pickle.UnpicklingError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise CspError(f"{self.path}: is no checkpoint: {reason}") from error

    def save(self, state: Mapping[str, object]) -> None:
        """Write a state. Whoever is ended meanwhile leaves the old one whole."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        new = self.path.with_suffix(".new")
        with new.open("wb") as file:
            torch.save({"settings": self.key, **state}, file)
            # Else the name could reach the disk before the bytes do.
            file.flush()
            os.fsync(file.fileno())
        new.replace(self.path)
