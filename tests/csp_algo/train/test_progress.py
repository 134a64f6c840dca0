# SPDX-License-Identifier: Apache-2.0
import io

from rich.console import Console

from csp_algo.train.progress import steps_shown


def test_a_terminal_sees_a_bar():
    console = Console(file=io.StringIO(), force_terminal=True, width=80)
    assert list(steps_shown(iter("abc"), 3, "dense 1/2", console=console)) == list("abc")
    assert "dense 1/2" in console.file.getvalue()
    assert "3/3" in console.file.getvalue()


def test_a_file_does_not():
    console = Console(file=io.StringIO(), force_terminal=False)
    assert list(steps_shown(iter("abc"), 3, "dense 1/2", console=console)) == list("abc")
    assert console.file.getvalue() == ""
