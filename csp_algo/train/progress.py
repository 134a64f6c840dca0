# SPDX-License-Identifier: Apache-2.0
"""A bar of progress over the steps of an epoch; only where somebody looks at a terminal."""

from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

Item = TypeVar("Item")


def steps_shown(
    items: Iterable[Item], total: int, title: str, *, console: Console | None = None
) -> Iterator[Item]:
    """Pass items on while a bar shows how many of ``total`` there were, and the time left."""
    console = console or Console()
    if not console.is_terminal:
        yield from items
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(title, total=total)
        for item in items:
            yield item
            bar.advance(task)
