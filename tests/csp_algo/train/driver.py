# SPDX-License-Identifier: Apache-2.0
"""The training command on a very small network, for tests that need a process of their own.

``python driver.py STEP …``: the process kills itself, as ``kill -9`` would, within training step
STEP (0: never); what follows are options of the command.
"""

import os
import signal
import sys
from collections import OrderedDict
from pathlib import Path

import torch
from torch import nn

from csp_algo.train import commands, flow, schedule


def build_model() -> nn.Sequential:
    """All that has a state: both normalisations; dropout draws from the global chance."""
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(1, 8, 3, stride=2, padding=1, bias=False),
            norm1=nn.BatchNorm2d(8),
            relu1=nn.ReLU(),
            conv2=nn.Conv2d(8, 16, 3, stride=2, padding=1, groups=2),
            relu2=nn.ReLU(),
            pool=nn.MaxPool2d(2, ceil_mode=True),
            flatten=nn.Flatten(),
            drop=nn.Dropout(float(os.environ.get("DROPOUT", "0.2"))),
            linear3=nn.Linear(16 * 16, 24, bias=False),
            norm3=nn.BatchNorm1d(24),
            relu3=nn.ReLU(),
            linear4=nn.Linear(24, 10),
        )
    )


def recipe() -> flow.Recipe:
    plan = flow.Plan(
        targets={"conv2": 0.4, "linear3": 0.6},
        cols=4,
        period=8,
        strength=2e-3,
        epochs=(2, 1, 2),
        validation=80,
        aware=1,
        acc_bits=12,
    )
    return flow.Recipe(name="driver", build=build_model, plan=plan)


def gloo_threads() -> int:
    """Count the threads of this process that may hold tensors of collectives."""
    names = Path("/proc/self/task").glob("*/comm")
    return sum(name.read_text(encoding="utf-8") == "pt_gloo_runloop\n" for name in names)


def main() -> int:
    left, augment = int(sys.argv[1]), schedule.augment

    def counted(pixels: torch.Tensor, generator: torch.Generator, *, shift: int) -> torch.Tensor:
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return augment(pixels, generator, shift=shift)

    schedule.augment = counted
    status = commands.train(recipe(), sys.argv[2:])
    print(f"{gloo_threads()} threads of gloo are left")
    return status


if __name__ == "__main__":
    sys.exit(main())
