# SPDX-License-Identifier: Apache-2.0
"""Tables as CSV files, which are written whole or not at all."""

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

from csp_algo.container import write_atomically


def write(names: Sequence[str], rows: Iterable[Sequence[object]], path: Path) -> None:
    """Write a header line and rows; None is an empty cell.

    Raises
    ------
    CspError, OSError
        The file, or a folder above it, cannot be written.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    writer.writerows(rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, text.getvalue().encode())
