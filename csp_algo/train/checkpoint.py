# SPDX-License-Identifier: Apache-2.0
"""The state of a training stage in a file, so that a run that was ended can go on."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch


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

    @property
    def key(self) -> str:
        """The settings as text."""
        return json.dumps(self.settings, sort_keys=True)

    def load(self) -> dict[str, Any] | None:
        """Give what was saved with the same settings, or None."""
        if not self.path.exists():
            return None
        saved = torch.load(self.path, weights_only=True)
        return saved if saved["settings"] == self.key else None

    def save(self, state: Mapping[str, object]) -> None:
        """Write a state. Whoever is ended meanwhile leaves the old one whole."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        new = self.path.with_suffix(".new")
        torch.save({"settings": self.key, **state}, new)
        new.replace(self.path)
