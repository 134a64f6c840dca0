# SPDX-License-Identifier: Apache-2.0
"""What the model says of how often parts act, against the hardware's own counters and signals."""

from pathlib import Path

import numpy as np
import pytest

from csp_algo import container
from csp_algo.errors import CspError
from csp_algo.geometry import Geometry
from csp_hw.config import BufferStyle, preset
from csp_hw.feeder import lines
from csp_hw.feeder.bank import LineBank
from sim import demo, execute
from sim.cosim.core.process import run_core_jobs
from sim.model.actions import count, line_turns
from tests.cosim.probe import Probe
from tests.cosim.test_core_networks import random_task
from tests.csp_hw.feeder_bench import feed, make_pass, random_geometry
from tests.sim.networks import random_config
from tests.strategies import CASES, network_of, random_activations, random_layer

TINY = preset("tiny_4x4")
EXAMPLES = Path(__file__).parents[2] / "examples"

#: Registers of the last pass, and those since the start, with the action that each counts.
COUNTERS = {
    "ISSUED": "issued",
    "COUNTS_WORDS": "counts_read",
    "WEIGHTS_WORDS": "weights_read",
    "ACTIVATIONS_WORDS": "row_written",
    "RESULTS_WORDS": "results",
}
LONG_COUNTERS = {"USEFUL_MACS": "useful", "GATED_MACS": "gated"}
BEATS = {
    "ACTIVATION_BEATS": "input_beats",
    "RESIDUAL_BEATS": "residual_beats",
    "WEIGHT_PORT_BEATS": "weight_beats",
    "RESULT_BEATS": "result_beats",
}
#: Actions that are others by how the core is made.
SAME = {
    "run_written": "weights_read",
    "run_read": "issued",
    "row_read": "issued",
    "line_written": "input_beats",
    "line_read": "row_written",
}


def look(task, step, registers, name):
    """Hold a pass to the registers after it."""
    convolves = step.schedule is not None
    actions = count(step, step.schedule.zeros(task.read(step)) if convolves else None)
    wanted = {register: getattr(actions, action) for register, action in BEATS.items()}
    if convolves:  # a pooling leaves the counters of the pass before
        wanted |= {register: getattr(actions, action) for register, action in COUNTERS.items()}
        for register, action in LONG_COUNTERS.items():
            value = registers[f"{register}_LOW"] | registers[f"{register}_HIGH"] << 32
            assert value == getattr(actions, action), (name, register)
        for action, other in SAME.items():
            assert getattr(actions, action) == getattr(actions, other), (name, action)
    found = {register: registers[register] for register in wanted}
    assert found == wanted, name
    return actions


def hold(tasks, built, stalls=None):
    """Run tasks pass by pass; give how many convolutions were looked at."""
    looked = 0
    for number, task in enumerate(tasks):
        outcomes = run_core_jobs(built, execute.jobs(task, stalls=stalls, seed=number))
        for done in execute.compared(task, outcomes):
            look(task, done.step, done.registers, f"network {number}, {done.step.title}")
            looked += done.step.schedule is not None
    return looked


def random_tasks(rng, config, least):
    """Give networks of so many passes of convolutions."""
    passes = 0
    while passes < least:
        task = random_task(rng, config)
        passes += sum(step.schedule is not None for step in task.program.passes)
        yield task


def test_random_layers():
    """Also with stalls: what is done does not depend on when."""
    built = execute.build(TINY)
    rng = np.random.default_rng(5)
    assert hold(random_tasks(rng, TINY, 30), built) >= 30
    stalls = dict.fromkeys(("ar", "r", "aw", "w", "b"), 0.3)
    assert hold(random_tasks(rng, TINY, 10), built, stalls) >= 10


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(4))
def test_more_random_layers(seed):
    rng = np.random.default_rng([seed, 6])
    config = TINY if seed == 0 else random_config(rng)
    assert hold(random_tasks(rng, config, 100), execute.build(config)) >= 100


@pytest.mark.parametrize("name", ["fashion_mnist", "fashion_mnist_resnet8"])
def test_examples(name):
    config = preset("csp_8x8")
    network = container.load(EXAMPLES / name / "network.csp")
    images = demo.load_images(demo.IMAGES, 1, network.input).pixels
    task = execute.Task.make(network, config, images)
    layers = sum(step.schedule is not None for step in task.program.passes)
    assert hold([task], execute.build(config)) == layers > 5


def one_pass(rng, config, **options):
    """Give a layer that takes one pass."""
    while True:
        layer = random_layer(rng, cols=4, max_taps=8, max_side=3, groups=1, **options)
        shape = (int(rng.integers(1, 4)), *layer.geometry.in_shape)
        try:
            images = random_activations(rng, shape)
            task = execute.Task.make(network_of(layer), config, images)
        except CspError:  # a stride that the core does not know
            continue
        if len(task.program.passes) == 1:
            return task


def look_inside(task):
    """Hold what happens cycle by cycle at the array's edge to the model; give the places' kind."""
    (step,) = task.program.passes
    schedule, inputs, config = step.schedule, task.read(step), step.config
    actions = count(step, schedule.zeros(inputs))
    seen = Probe(schedule).play(inputs)
    elements = config.rows * config.cols
    assert seen.issued == actions.issued
    assert seen.multiplied * config.cols == actions.multiplied
    assert seen.runs * elements == actions.runs == actions.written.sum()
    assert [each * elements for each in seen.written] == actions.written.tolist()
    assert [each * elements for each in seen.read] == actions.read.tolist()
    assert [each * config.cols for each in seen.drained] == actions.drained.tolist()
    assert seen.requests == actions.sums
    # What clocks registers in the PEs.
    clocked = seen.clocked
    assert clocked.weights == actions.slots
    assert clocked.operands == actions.multiplied
    assert clocked.runs == actions.accumulated
    assert clocked.sums == actions.runs
    assert clocked.words == (actions.read + actions.drained).tolist()
    assert clocked.written == actions.written.tolist()
    # A group takes an address for all its PEs, or for a row of them that is drained.
    groups = actions.read.sum() / config.share**2 + actions.drained.sum() / config.share
    assert clocked.addresses == groups
    # Of a sum's group and all groups below it.
    passed = actions.sums * config.group_cols * (config.group_rows + 1) / 2
    assert clocked.passed == passed
    return config.overlaps(schedule.matrix.chunks, schedule.tiles[0].interleave)


#: Half of a buffer is four entries.
SMALL = TINY.replace(rows=2, depth=8, style=BufferStyle.REGBIN)
#: More chunks than that.
DEEP = Geometry(in_shape=(1, 3, 4), filters=21)


def test_inside_the_array():
    """Bins, runs, and operands that multipliers take; an entry in its own half, and across both."""
    rng = np.random.default_rng(7)
    assert [look_inside(one_pass(rng, SMALL, case=case)) for case in ("mixed", "gaps")] == [1, 1]
    assert not look_inside(one_pass(rng, SMALL, geometry=DEEP))
    groups = SMALL.replace(rows=4, share=2)
    assert [look_inside(one_pass(rng, groups, case=case)) for case in ("mixed", "gaps")] == [1, 1]


def test_the_line_buffer_is_read_for_other_words_only(monkeypatch):
    """Passes of the feeder, of any interleaving, with gaps on all sides."""
    rng = np.random.default_rng(9)
    banks = []

    def recorded(config):
        banks.append(LineBank(config))
        return banks[-1]

    monkeypatch.setattr(lines, "LineBank", recorded)
    passes = []
    while len(passes) < 12:
        geometry = random_geometry(rng, side=6, channels=9)
        if made := make_pass(rng, TINY, geometry):
            passes.append(made)
    reads = 0

    async def watch(ctx):
        nonlocal reads
        while True:
            _, _, read = await ctx.tick().sample(banks[0].read)
            reads += read

    feed(TINY, passes, gaps=(0.2, 0.2, 0.2, 0.2, 0.2), beside=[watch])
    assert reads == sum(line_turns(each.schedule) for each in passes)
    assert reads < 0.9 * sum(len(each.words()) for each in passes)


@pytest.mark.soak
@pytest.mark.parametrize("style", list(BufferStyle), ids=lambda style: style.value)
def test_more_inside_the_array(style):
    rng = np.random.default_rng(8)
    for config in (SMALL, SMALL.replace(rows=4, share=2), SMALL.replace(rows=8, share=4)):
        for case in CASES:
            look_inside(one_pass(rng, config.replace(style=style), case=case))
