# SPDX-License-Identifier: Apache-2.0
"""Trained networks of packages on 1,024 PEs: real weights, pruned, and a photograph's activations.

What the VGG answers is held against the photograph, and what the Verilog computes against the
golden model; what the ResNet is, in tests/sim/test_real_pruning.py.
"""

import dataclasses

import numpy as np
import pytest

from csp_algo.errors import CspError
from csp_algo.network import Layer
from csp_hw.config import preset
from csp_hw.counters import CYCLES, SATURATIONS
from sim import execute, golden
from sim.cosim.build import build
from sim.cosim.core.jobs import Timing
from sim.cosim.process import run_jobs
from sim.cosim.runner import network_jobs
from sim.cosim.streams import Stress, job_of
from sim.model.bound import pass_bound
from sim.model.cycles import cycles
from sim.report.passes import broken_promises
from sim.schedule import Schedule
from sim.workloads import photo, resnet50, vgg16
from sim.workloads.integers import alone, pruned_integers
from sim.workloads.packages import package_file

pytestmark = pytest.mark.soak

CONFIG = preset("csp_h_32x32")
SPARSITY = 0.7
#: Products of a layer's tiles from which on one of them is enough, and without stalls.
LONG = 50_000
VGG16 = ("conv1_1", "conv1_2", "conv2_1", "conv2_2", "conv3_1", "conv4_1", "conv4_2", "conv5_3")
#: The first 7 × 7 with stride 2; 1 × 1 that reduce and expand (64 → 256), with and without
#: residual and stride; 3 × 3; logits.
RESNET50 = (
    "conv1",
    "conv2_1_reduce",
    "conv2_1_conv",
    "conv2_1_shortcut",
    "conv3_1_reduce",
    "conv3_1_shortcut",
    "conv3_2_expand",
    "conv4_1_shortcut",
    "conv4_2_conv",
    "conv5_1_conv",
    "conv5_2_reduce",
    "conv5_3_expand",
    "linear",
)


def image():
    try:
        package_file(*vgg16.WEIGHTS)
        package_file(*resnet50.GRAPH)
        return photo.photograph(resnet50.SIDE)
    except CspError as error:
        pytest.skip(str(error))


def integers(module):
    picture = image()
    network = pruned_integers(
        module.load(), picture, sparsity=SPARSITY, cols=CONFIG.cols, period=CONFIG.max_period
    )
    return network, picture


@pytest.fixture(scope="module")
def resnet():
    return integers(resnet50)


@pytest.fixture(scope="module")
def vgg():
    return integers(vgg16)


def test_the_vgg_sees_edges():
    """It was trained to: its second block with the package's own layer behind it finds them.

    With channels or filters in another order it does not; rows and columns it cannot tell apart.
    """
    import h5py

    image()
    side = 112
    picture = photo.photograph(side)
    network = vgg16.load(side)
    network = dataclasses.replace(network, nodes=network.nodes[:5])
    seen = network.forward(picture)["conv2_2"][0]
    with h5py.File(package_file(*vgg16.WEIGHTS)) as file:
        edges = seen @ np.asarray(file["dsn2/vars/0"], dtype=np.float64)[0, 0, :, 0]
    grey = picture[0].astype(np.float64).mean(axis=2)
    grey = grey.reshape(side // 2, 2, side // 2, 2).mean(axis=(1, 3))
    steps = np.hypot(*np.gradient(grey))
    assert np.corrcoef(edges.ravel(), steps.ravel())[0, 1] > 0.5


def some_tiles(schedule):
    """Give a schedule of a full tile in the middle, and if they are short of both ends, too."""
    count = len(schedule.tiles)
    middle = count // 2
    short = 3 * schedule.steps * schedule.tiles[middle].interleave < LONG
    numbers = sorted({0, middle, count - 1}) if short else [middle]
    chosen = tuple(schedule.tiles[number]._replace(number=n) for n, number in enumerate(numbers))
    return dataclasses.replace(schedule, tiles=chosen)


@pytest.mark.parametrize(("fixture", "names"), [("vgg", VGG16), ("resnet", RESNET50)])
def test_full_tiles_on_the_engine(fixture, names, request):
    network, picture = request.getfixturevalue(fixture)
    jobs = {job.layer.name: job for job in network_jobs(network, picture)[0]}
    works = []
    for number, name in enumerate(names):
        schedule = some_tiles(Schedule.make(jobs[name].layer, 0, CONFIG, 1))
        works.append((name, schedule, None))
        if schedule.issued < LONG:
            works.append((name, schedule, Stress.everywhere(0.2, number)))
    orders = [
        job_of(schedule, jobs[name].inputs, stress, residual=jobs[name].residual)
        for name, schedule, stress in works
    ]
    outcomes = run_jobs(build(CONFIG), orders)
    for (name, schedule, stress), outcome in zip(works, outcomes, strict=True):
        wanted = np.concatenate(list(schedule.results(jobs[name].expected)))
        np.testing.assert_array_equal(outcome.words, wanted, err_msg=name)
        assert outcome.counters[SATURATIONS] == 0
        assert outcome.counters["useful_macs"] == useful(schedule)
        if stress is None:
            assert outcome.counters[CYCLES] == cycles(CONFIG, schedule.work).cycles, name


def useful(schedule):
    """Give the products on live lanes and real filters of some tiles."""
    matrix = schedule.matrix
    chunk = np.arange(matrix.filters) // matrix.cols
    filters = (chunk[:, None] < matrix.counts).sum()
    return filters * sum(int(schedule.live(tile).sum()) for tile in schedule.tiles)


@pytest.fixture(scope="module")
def core():
    return execute.build(CONFIG)


def check(task, core):
    """Run a task: nothing differs, each port moves what was promised, each pass nears its bound."""
    timing = Timing()
    done = 0
    for run in execute.run(task, core, timing=timing):
        assert run.different in (0, None), run.step.title
        assert not broken_promises([run])
        assert pass_bound(run.step, timing).cycles <= run.cycles
        assert run.registers["SATURATIONS"] == 0
        done += run.compared
    return done


def test_the_whole_resnet_on_the_core(resnet, core):
    network, picture = resnet
    task = execute.Task.make(network, CONFIG, picture)
    # Nothing but maps that the pooler takes away stays unseen.
    assert check(task, core) == sum(task.values[step].size for step in written(task))


def written(task):
    return {step.node for step in task.program.passes}


def test_a_layer_of_the_vgg_on_the_core(vgg, core):
    network, picture = vgg
    name = "conv3_1"
    layer = next(node for node in network.nodes if node.name == name)
    assert isinstance(layer, Layer)
    values = golden.run(network, picture, keep={layer.input}).values
    task = execute.Task.make(alone(network, layer), CONFIG, values[layer.input])
    assert check(task, core) == task.values[name].size
