# SPDX-License-Identifier: Apache-2.0
"""The core in two simulators, of which one knows unknown bits: the same in every cycle."""

import numpy as np
import pytest

from csp_hw.config import preset
from sim import execute
from sim.cosim.build import ICARUS, VERILATOR
from sim.cosim.core.build import build_core
from sim.cosim.core.process import run_core_jobs
from sim.cosim.core.protocol import CHANNELS
from tests.cosim.tools import needs_icarus
from tests.sim.networks import random_network
from tests.strategies import random_activations

CONFIG = preset("tiny_4x4")
MEMORY_BYTES = 1 << 18


def agree(seed, stalls):
    rng = np.random.default_rng(seed)
    network = random_network(rng, CONFIG)
    inputs = random_activations(rng, (1, *network.input.shape), network.input.dtype)
    task = execute.Task.make(network, CONFIG, inputs)
    runs = []
    for simulator in (VERILATOR, ICARUS):
        built = build_core(CONFIG, simulator=simulator, memory_bytes=MEMORY_BYTES)
        outcomes = list(
            run_core_jobs(built, execute.jobs(task, stalls=stalls, seed=seed), progress=None)
        )
        assert not any(run.different for run in execute.compared(task, iter(outcomes)))
        runs.append(
            [
                (outcome.cycles, outcome.cycle, outcome.registers, outcome.traffic)
                for outcome in outcomes
            ]
        )
    assert runs[0] == runs[1]


@needs_icarus
def test_both_simulators_agree():
    agree(2, dict.fromkeys((*CHANNELS, "registers"), 0.2))


@needs_icarus
@pytest.mark.soak
@pytest.mark.parametrize("seed", range(10, 16))
def test_both_simulators_agree_on_more(seed):
    agree(seed, dict.fromkeys(CHANNELS, 0.3) if seed % 2 else {})
