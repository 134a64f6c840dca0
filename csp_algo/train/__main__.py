# SPDX-License-Identifier: Apache-2.0
"""The command line of training: ``python -m csp_algo.train COMMAND NETWORK …``."""

import argparse
import sys
from collections.abc import Callable, Sequence

from csp_algo.train import (
    commands,
    fashion_mnist,
    fashion_mnist_resnet8,
    fashion_mnist_resnet20,
    fashion_mnist_resnet20_wide,
    fashion_mnist_wide,
)
from csp_algo.train.flow import Recipe

NETWORKS: dict[str, Callable[[], Recipe]] = {
    "fashion_mnist": fashion_mnist.recipe,
    "fashion_mnist_wide": fashion_mnist_wide.recipe,
    "fashion_mnist_resnet8": fashion_mnist_resnet8.recipe,
    "fashion_mnist_resnet20": fashion_mnist_resnet20.recipe,
    "fashion_mnist_resnet20_wide": fashion_mnist_resnet20_wide.recipe,
}
COMMANDS: dict[str, Callable[[Recipe, Sequence[str] | None], int]] = {
    "train": commands.train,
    "choose": commands.choose,
    "compare": commands.compare,
    "ablate": commands.ablate,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the result is the exit status."""
    parser = argparse.ArgumentParser(prog=f"python -m {__package__}")
    parser.add_argument("command", choices=COMMANDS, help="each has a --help behind the network")
    parser.add_argument("network", choices=NETWORKS)
    given = list(sys.argv[1:] if arguments is None else arguments)
    # What follows belongs to the command, its --help too.
    chosen = parser.parse_args(given[:2])
    return COMMANDS[chosen.command](NETWORKS[chosen.network](), given[2:])


if __name__ == "__main__":
    sys.exit(main())
