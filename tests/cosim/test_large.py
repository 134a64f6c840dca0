# SPDX-License-Identifier: Apache-2.0
"""The large preset: 1,024 PEs, generated, built, and one tile of a real layer on it."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from csp_algo import container
from csp_hw.config import preset
from sim.cosim.build import build
from sim.cosim.mismatch import single_tile
from sim.cosim.process import run_jobs
from sim.cosim.runner import network_jobs
from sim.cosim.streams import Stress, job_of
from sim.schedule import Schedule

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "fashion_mnist"


@pytest.mark.soak
def test_generated_in_300_megabytes(tmp_path):
    """How long it takes, benchmarks/generation.py tells."""
    command = [sys.executable, "-m", "sim", "generate", "--preset", "csp_h_32x32", "-o", "out"]
    measure = (
        "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True); "
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    path = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    done = subprocess.run(
        [sys.executable, "-c", measure, *command],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    memory = done.stdout.splitlines()[-1]
    assert int(memory) < 300 * 1024  # KiB on Linux
    assert sum(path.stat().st_size for path in (tmp_path / "out").glob("*.v")) < 2_000_000


@pytest.mark.soak
def test_a_tile_of_each_real_layer():
    config = preset("csp_h_32x32")
    network = container.repack(container.load(EXAMPLE / "network.csp"), config.cols, 32)
    with np.load(EXAMPLE / "images.npz") as file:
        images = file["images"][:2]
    images = images.reshape(len(images), *network.input.shape)
    jobs, _ = network_jobs(network, images, acc_bits=config.acc_bits)
    orders, wanted = [], []
    for number, job in enumerate(jobs):
        schedule = single_tile(Schedule.make(job.layer, 0, config, len(images)), 0)
        orders.append(job_of(schedule, job.inputs))
        orders.append(job_of(schedule, job.inputs, Stress.everywhere(0.3, number)))
        wanted += 2 * [np.concatenate(list(schedule.results(job.expected)))]
    for outcome, words in zip(run_jobs(build(config), orders), wanted, strict=True):
        np.testing.assert_array_equal(outcome.words, words)
