# SPDX-License-Identifier: Apache-2.0
"""The cycle model of the core against the RTL's counters, with memories of all speeds."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from csp_algo import container
from csp_algo.errors import CspError
from csp_algo.geometry import Geometry
from csp_algo.integers import ActDtype
from csp_algo.network import Input, Layer, MaxPool, Network, Residual
from csp_hw.config import PRESETS, preset
from sim import demo, execute
from sim.cosim.core.jobs import Timing, WriteOrder
from sim.cosim.core.process import run_core_jobs
from sim.model.core.passes import PORTS, pass_cycles
from tests.cosim.test_core_networks import job_of, random_task
from tests.sim.networks import random_config
from tests.strategies import random_activations, random_layer

TINY = preset("tiny_4x4")
EXAMPLES = Path(__file__).parents[2] / "examples"
NETWORKS = ("fashion_mnist", "fashion_mnist_resnet8")
#: Latency, and the part of a beat that each port moves in a cycle.
SPEEDS = ((1, 1), (20, 1), (100, 1), (20, 2), (100, 4))


def timing_of(latency, part, cols):
    """Give a memory of some speed."""
    rate = cols // part
    return Timing(read_latency=latency, write_latency=latency, read_rate=rate, write_rate=rate)


def random_timing(rng, cols):
    """Give a memory with ports of their own speeds, some of which are no part of a beat."""
    return {
        port: Timing(
            read_latency=int(rng.choice([1, 2, 7, 20, 45, 100])),
            write_latency=int(rng.choice([1, 3, 20, 100])),
            read_rate=int(rng.choice([cols, cols, rng.integers(1, cols + 1)])),
            write_rate=int(rng.choice([cols, cols, rng.integers(1, cols + 1)])),
            outstanding=int(rng.choice([16, 16, 1, 2, 5])),
        )
        for port in PORTS
    }


def look(steps, registers, timing, name):
    """Compare cycles and counters of the passes of a start with the model's."""
    passes = [pass_cycles(step, timing) for step in steps]
    promised = {"core_cycles_low": 1 + sum(one.cycles for one in passes)}
    for one in passes:
        for counter, value in one.counters.items():
            # The engine's begin anew with each layer, the others with a start.
            before = promised.get(counter, 0) if counter.endswith("_beats") else 0
            promised[counter] = before + value
    found = {counter: registers[counter.upper()] for counter in promised}
    assert found == promised, name


def run_random(config, seed, least):
    """Run random networks until they have so many layers, pass by pass or all of them at once."""
    rng = np.random.default_rng(seed)
    built = execute.build(config)
    starts, layers = [], 0

    def jobs():
        nonlocal layers
        while layers < least:
            task = random_task(rng, config)
            layers += sum(isinstance(node, Layer) for node in task.program.network.nodes)
            timing = random_timing(rng, config.cols)
            steps = task.program.passes
            if rng.random() < 0.2:
                starts.append((steps, timing))
                job = job_of(task, rng)
                yield dataclasses.replace(job, timing=timing, stalls={}, reads=None)
                continue
            for step, job in zip(steps, execute.jobs(task, timing=timing), strict=True):
                starts.append(([step], timing))
                yield job

    looked = 0
    for outcome in run_core_jobs(built, jobs()):
        steps, timing = starts[looked]
        titles = ", ".join(step.title for step in steps)
        look(steps, outcome.registers, timing, f"{titles} of start {looked}, seed {seed}, {timing}")
        looked += 1
    assert looked == len(starts)
    assert layers >= least
    print(f"{layers} layers, {sum(len(steps) for steps, _ in starts)} passes: all cycles equal")


def run_network(name, config, images, speeds):
    """Run a trained network with memories of some speeds."""
    network = demo.fitted(container.load(EXAMPLES / name / "network.csp"), config)
    pixels = demo.load_images(demo.IMAGES, images, network.input).pixels
    task = execute.Task.make(network, config, pixels)
    built = execute.build(config)
    for latency, part in speeds:
        timing = timing_of(latency, part, config.cols)
        for run in execute.run(task, built, timing=timing):
            where = f"{run.step.title} of {name}, latency {latency}, 1/{part} of a beat"
            look([run.step], run.registers, timing, where)


@pytest.mark.parametrize("share", [1, 2, 4])
def test_random_layers(share):
    run_random(TINY.replace(share=share), 1, 40)


@pytest.mark.parametrize("map_bytes", [1 << 13, 1 << 16])
def test_maps_on_the_chip(map_bytes):
    run_random(TINY.replace(map_bytes=map_bytes), 4, 40)


@pytest.mark.parametrize("name", NETWORKS)
def test_networks(name):
    run_network(name, TINY, 1, ((20, 2),))


def chain_of(rng, shape, *layers):
    """Give a network of layers behind each other, each (filters, kernel, options)."""
    nodes, source = [], "input"
    for number, (filters, kernel, options) in enumerate(layers):
        pool = options.pop("pool", None)
        added = options.pop("residual", None)
        geometry = Geometry(
            in_shape=shape,
            filters=filters,
            kernel=(kernel, kernel),
            padding=(kernel // 2,) * 4,
            stride=(options.pop("stride", 1),) * 2,
        )
        layer = random_layer(
            rng,
            cols=TINY.cols,
            period=8,
            case="mixed",
            geometry=geometry,
            acc_shift=0,
            name=f"n{number}",
            source=source,
            **{"dtype": ActDtype.UINT8, **options},
        )
        if added is not None:
            residual = Residual(input=added, mult=2**15, shift=15)
            layer = dataclasses.replace(layer, residual=residual)
        nodes.append(layer)
        source, shape = layer.name, geometry.out_shape
        if pool is not None:
            node = MaxPool(name=f"p{number}", input=source, kernel=pool, stride=(1, 1))
            nodes.append(node)
            source = node.name
            shape = (shape[0] - pool[0] + 1, shape[1] - pool[1] + 1, shape[2])
    first = Input(name="input", shape=nodes[0].geometry.in_shape, dtype=ActDtype.UINT8, scale=1.0)
    return Network(name="chain", input=first, nodes=tuple(nodes), cols=TINY.cols, period=8)


#: Networks in which one stage after the other is what binds, and queues run full.
CHAINS = {
    "results": ((16, 16, 4), ((16, 1, {}), (16, 1, {}))),
    "residuals": ((16, 16, 4), ((16, 1, {}), (16, 3, {}), (16, 1, {"residual": "n0"}))),
    "windows": ((16, 16, 4), ((16, 1, {"pool": (3, 3)}), (8, 1, {"pool": (2, 2)}))),
    "logits": ((16, 16, 4), ((16, 1, {"dtype": ActDtype.INT32}),)),
    "lanes": ((40, 40, 4), ((4, 1, {"density": 0.5}), (4, 3, {"stride": 4}), (4, 1, {}))),
    "kernel": ((12, 12, 4), ((4, 11, {"density": 0.1}), (4, 11, {"density": 0.02}))),
}


@pytest.mark.parametrize("name", CHAINS)
def test_what_binds(name):
    rng = np.random.default_rng(1)
    shape, layers = CHAINS[name]
    network = chain_of(rng, shape, *((filters, side, dict(more)) for filters, side, more in layers))
    images = random_activations(rng, (1, *shape), ActDtype.UINT8)
    task = execute.Task.make(network, TINY, images)
    built = execute.build(TINY)
    for read, write in ((4, 4), (4, 1), (3, 3)):
        timing = Timing(read_latency=1, write_latency=20, read_rate=read, write_rate=write)
        for run in execute.run(task, built, timing=timing):
            look([run.step], run.registers, timing, f"{run.step.title}, {timing}")


def test_order_of_writes():
    rng = np.random.default_rng(1)
    step = random_task(rng, TINY).program.passes[0]
    with pytest.raises(CspError, match="memory that takes data first"):
        pass_cycles(step, Timing(order=WriteOrder.DATA_FIRST))


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(100, 108))
def test_random_layers_on_random_cores(seed):
    config = random_config(np.random.default_rng(seed))
    run_random(config, seed, 100)


@pytest.mark.soak
@pytest.mark.parametrize("name", ["tiny_4x4", "csp_8x8"])
def test_random_layers_on_presets(name):
    run_random(preset(name), 2, 600)


@pytest.mark.soak
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("size", PRESETS)
def test_networks_at_all_speeds(name, size):
    run_network(name, preset(size), 4, SPEEDS)
