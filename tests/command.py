# SPDX-License-Identifier: Apache-2.0
"""The command line in the process of a test."""

import pytest

from sim import cli


def csp(*arguments):
    """Run the command line with some arguments; give its exit code."""
    with pytest.raises(SystemExit) as exit_:
        cli.main([str(argument) for argument in arguments])
    return exit_.value.code or 0
