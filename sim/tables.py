# SPDX-License-Identifier: Apache-2.0
"""Tables of published numbers: CSV files with comments that say where they are from."""

import csv
import dataclasses
from pathlib import Path

from csp_algo.errors import CspError

#: Begins the comment that names the source.
SOURCE = "# source: "


@dataclasses.dataclass(frozen=True, kw_only=True)
class Table:
    """Rows of a table, with the source of its numbers."""

    name: str
    source: str
    rows: tuple[dict[str, str], ...]


def read_table(path: Path) -> Table:
    """Read a table.

    Raises
    ------
    CspError
        It does not say where its numbers are from, or a row has too few or too many values.
    """
    lines = path.read_text(encoding="utf-8").splitlines()
    comments = [line for line in lines if line.startswith("#")]
    sources = [line.removeprefix(SOURCE) for line in comments if line.startswith(SOURCE)]
    if len(sources) != 1:
        raise CspError(f"{path.name}: one comment must begin with {SOURCE!r}, not {len(sources)}")
    reader = csv.DictReader(line for line in lines if not line.startswith("#"))
    rows = tuple(reader)
    for number, row in enumerate(rows, 1):
        if None in row or None in row.values():
            raise CspError(f"{path.name}: row {number} has not the columns of the header")
    return Table(name=path.name, source=sources[0], rows=rows)
