# SPDX-License-Identifier: Apache-2.0
"""Random networks on the core, one start for all passes, in a memory that stalls at random."""

import numpy as np
import pytest

from csp_algo.errors import CspError
from csp_algo.network import Layer
from csp_hw.config import BufferStyle, preset
from sim import execute
from sim.cosim.core.jobs import CoreJob
from sim.cosim.core.process import run_core_jobs
from tests.cosim.core_attacks import BEATS, random_stress
from tests.sim.networks import random_config, random_network
from tests.strategies import random_activations

TINY = preset("tiny_4x4")
DONE = 0b1010


def random_task(rng, config, *, most_images=3):
    """Give a network with images that fits a core, and for which there is something to do."""
    while True:
        shift = (None, 0)[rng.integers(2)]
        try:
            network = random_network(rng, config, size=int(rng.integers(1, 7)), acc_shift=shift)
            shape = (int(rng.integers(1, most_images + 1)), *network.input.shape)
            images = random_activations(rng, shape, network.input.dtype)
            task = execute.Task.make(network, config, images)
        except CspError:  # a buffer of a few words, or 255 chunks, do not hold everything
            continue
        if task.program.passes:
            return task


def job_of(task, rng):
    """Give the run of a task."""
    program = task.program
    image = program.memory(task.inputs)
    image = np.pad(image, (0, -len(image) % 64))
    writes = [
        *execute.window(image),
        ("DESCRIPTORS", program.descriptors[0]),
        ("COUNT", len(program.passes)),
        ("STATUS", execute.CLEAR),
        ("CONTROL", execute.START),
    ]
    outputs = [step.output for step in program.passes if not step.output.on_chip]
    low = min(output.offset for output in outputs)
    high = max(output.end for output in outputs)
    return CoreJob(
        image=image,
        guard=(low, high),
        writes=writes,
        reads=("STATUS", "LAYER_COUNT", *BEATS),
        timeout=20_000_000,
        **random_stress(rng),
    )


def look(task, outcome, name):
    """Compare all maps, and what moved, with golden and the compiler."""
    program = task.program
    assert outcome.registers["STATUS"] == DONE, name
    assert outcome.registers["LAYER_COUNT"] == len(program.passes), name
    for register, beats in BEATS.items():
        promised = sum(getattr(step, beats) for step in program.passes)
        assert outcome.registers[register] == promised, (name, register)
    assert set(program.shown) == set(program.maps), name
    differ = program.mismatches(outcome.memory[0], task.values)
    assert not any(differ.values()), (name, differ)


def run(config, seed, least, **options):
    """Run random networks until they have so many layers; tell how much that was."""
    rng = np.random.default_rng(seed)
    built = execute.build(config)
    tasks, layers = [], 0

    def jobs():
        nonlocal layers
        while layers < least:
            task = random_task(rng, config, **options)
            tasks.append(task)
            layers += sum(isinstance(node, Layer) for node in task.program.network.nodes)
            yield job_of(task, rng)

    looked = 0
    for outcome in run_core_jobs(built, jobs()):
        look(tasks[looked], outcome, f"network {looked} of seed {seed} on {config}")
        looked += 1
    assert looked == len(tasks)
    assert layers >= least
    passes = sum(len(task.program.passes) for task in tasks)
    kept = sum(step.kept_beats for task in tasks for step in task.program.passes)
    print(
        f"{looked} networks, {layers} layers, {passes} passes: all equal, {kept} beats on the chip"
    )
    return kept


def test_random_layers():
    assert run(TINY, 1, 60) == 0


@pytest.mark.parametrize(("map_bytes", "most_images"), [(1 << 13, 12), (1 << 16, 4)])
def test_maps_on_the_chip(map_bytes, most_images):
    """All maps find a place in the large memory, some of them in the small one."""
    assert run(TINY.replace(map_bytes=map_bytes), 3, 40, most_images=most_images) > 0


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(100, 108))
def test_random_layers_on_random_cores(seed):
    rng = np.random.default_rng(seed)
    styles = list(BufferStyle)
    config = random_config(rng).replace(style=styles[rng.integers(len(styles))])
    run(config, seed, 100)


@pytest.mark.soak
@pytest.mark.parametrize("name", ["tiny_4x4", "csp_8x8"])
def test_random_layers_on_presets(name):
    run(preset(name), 2, 200)
