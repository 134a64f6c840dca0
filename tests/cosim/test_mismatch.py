# SPDX-License-Identifier: Apache-2.0
"""Faults that are put into the Verilog, or into what is expected, are found where they are."""

import dataclasses

import numpy as np
import pytest

from csp_algo.compress import compress
from csp_algo.geometry import Geometry
from csp_algo.integers import ActDtype
from csp_algo.network import Residual
from csp_hw.counters import counters_layout
from csp_hw.generate import engine_verilog
from sim import golden
from sim.cosim import mismatch as module
from sim.cosim.build import build
from sim.cosim.mismatch import Difference, single_tile, truncated
from sim.cosim.runner import LayerJob, network_jobs, run_layers
from sim.schedule import Schedule
from tests.cosim.tools import TINY
from tests.strategies import network_of, random_activations, random_layer

#: Faults that only certain data wake, so that one build serves all tests: a weight −127 in column 0
#: is read as −126; one in column 1 is, once 64 results have left; and a bias 0x5a5a is one less.
RESULTS = counters_layout()["results_words"].offset
FAULTS = {
    ".i__payload(weights__payload)": (
        ".i__payload({weights__payload[31:16],"
        f" weights__payload[15:8] + (weights__payload[15:8] == 8'h81 & counters[{RESULTS + 6}]),"
        " weights__payload[7:0] + (weights__payload[7:0] == 8'h81)})"
    ),
    ".params__payload(params__payload)": (
        ".params__payload(params__payload - (params__payload[31:0] == 32'h5a5a))"
    ),
}


def mutant(config):
    text = engine_verilog(config)
    for line, fault in FAULTS.items():
        assert text.count(line) == 1
        text = text.replace(line, fault)
    return text


@pytest.fixture(scope="module")
def faulty():
    return build(TINY, verilog=mutant(TINY))


def linear(rng, *, taps=40, filters=10, pixels=9, period=2, dtype=ActDtype.INT32, bias=0):
    """Give a layer whose weights and biases wake no fault."""
    layer = random_layer(
        rng,
        cols=TINY.cols,
        period=period,
        geometry=Geometry(in_shape=(1, pixels, taps), filters=filters),
        dtype=dtype,
        acc_shift=0,
        name="linear",
    )
    weights = rng.integers(-100, 101, (filters, taps)).astype(np.int8)
    return with_weights(dataclasses.replace(layer, bias=np.full(filters, bias, np.int32)), weights)


def with_weights(layer, weights):
    matrix = layer.matrices[0]
    return dataclasses.replace(layer, matrices=(compress(weights, matrix.cols, matrix.period),))


def job_of(rng, layer, images=2):
    inputs = random_activations(rng, (images, *layer.geometry.in_shape))
    inputs[inputs == 0] = 1  # every product counts
    expected, _ = golden.layer_forward(layer, inputs, acc_bits=TINY.acc_bits)
    return LayerJob(layer=layer, inputs=inputs, expected=expected)


def last_run(simulator, jobs):
    *_, run = run_layers(simulator, jobs)
    return run


def test_dormant_faults_change_nothing(faulty):
    rng = np.random.default_rng(0)
    for run in run_layers(faulty, [job_of(rng, linear(rng)) for _ in range(2)]):
        assert run.mismatch is None
        assert run.mismatches == 0


@pytest.mark.parametrize(("tap", "chunk"), [(0, 0), (25, 1), (39, 2)])
def test_wrong_weight(faulty, tap, chunk):
    rng = np.random.default_rng(tap)
    layer = linear(rng)
    weights = layer.matrices[0].decompress()
    weights[chunk * TINY.cols, tap] = -127
    layer = with_weights(layer, weights)
    good, bad, never = job_of(rng, linear(rng)), job_of(rng, layer), job_of(rng, linear(rng))
    runs = list(run_layers(faulty, [good, bad, never]))
    assert [run.mismatches > 0 for run in runs] == [False, True]
    run = runs[1]
    # One wrong integer a pixel; its words come first for the first pixel.
    assert run.mismatches == run.outputs.size // layer.geometry.filters
    found = run.mismatch
    delta = int(bad.inputs[0, 0, 0, tap])
    filter = chunk * TINY.cols
    expected = int(bad.expected[0, 0, 0, filter])
    assert found.layer == "linear"
    assert found.difference == Difference(
        group=0, tile=0, image=0, y=0, x=0, filter=filter, expected=expected, got=expected + delta
    )
    blocks = layer.matrices[0].blocks()
    assert tap in blocks[found.block]
    assert (found.chunk, found.filter) == (chunk, filter)
    assert found.got == found.expected + delta
    (right,) = [
        step.sums[0]
        for step in golden.trace(layer, bad.inputs, 0, 0, 0)
        if (step.block, step.chunk) == (found.block, found.chunk)
    ]
    assert found.expected == right
    assert str(found) == (
        f"layer linear, image 0, y 0, x 0, filter {filter}: expected {expected}, "
        f"got {expected + delta} (group 0, tile 0); first wrong partial sum: "
        f"block {found.block}, chunk {chunk}, filter {filter}, expected {right}, "
        f"got {right + delta}"
    )
    assert found.options() == ["--layer", "linear", "--group", "0", "--tile", "0"]


def test_many_blocks(faulty, monkeypatch):
    """The search for the block takes several rounds, and ends at the right one."""
    monkeypatch.setattr(module, "PROBES", 3)
    rng = np.random.default_rng(3)
    layer = linear(rng, taps=120, period=1, dtype=ActDtype.UINT8, filters=3)
    weights = layer.matrices[0].decompress()
    weights[0, [77, 90]] = -127
    job = job_of(rng, with_weights(layer, weights))
    run = last_run(faulty, [dataclasses.replace(job, expected=job.expected ^ 0x80)])
    assert run.mismatch.block == 77
    assert run.mismatch.chunk == 0


def test_wrong_bias(faulty):
    rng = np.random.default_rng(4)
    layer = linear(rng)
    layer.bias[6] = 0x5A5A
    job = job_of(rng, layer)
    found = last_run(faulty, [job]).mismatch
    assert found.difference.filter == 6
    assert found.difference.got == found.difference.expected - 1
    assert found.block is None
    assert found.finding == "all partial sums of the pixel are right: the output stage is wrong"


def test_fault_that_needs_what_came_before(faulty):
    rng = np.random.default_rng(5)
    layer = linear(rng, pixels=40)
    weights = layer.matrices[0].decompress()
    weights[5, 3] = -127
    run = last_run(faulty, [job_of(rng, with_weights(layer, weights), images=1)])
    found = run.mismatch
    assert found.difference.tile > 0
    assert found.difference.filter == 5
    assert found.block is None
    assert found.finding.startswith("the tile alone gives the right results")


@pytest.mark.parametrize("dtype", [ActDtype.INT8, ActDtype.INT32])
def test_wrong_expectation(faulty, dtype):
    """The very integer that is not as expected is named: image, y, x and filter."""
    rng = np.random.default_rng(6)
    layer = random_layer(
        rng,
        cols=TINY.cols,
        period=2,
        geometry=Geometry(in_shape=(5, 6, 4), filters=14, kernel=(3, 2), groups=2),
        dtype=dtype,
        name="conv",
    )
    job = job_of(rng, layer, images=3)
    expected = job.expected.copy()
    expected[2, 1, 3, 9] ^= 1
    expected[2, 2, 0, 8] ^= 1
    run = last_run(faulty, [dataclasses.replace(job, expected=expected)])
    assert run.mismatches == 2
    difference = run.mismatch.difference
    assert (difference.image, difference.y, difference.x, difference.filter) == (2, 1, 3, 9)
    assert difference.group == 1
    assert difference.expected == expected[2, 1, 3, 9]
    assert difference.got == job.expected[2, 1, 3, 9]
    np.testing.assert_array_equal(run.outputs, job.expected)
    assert run.mismatch.options()[-3:] == ["1", "--tile", str(difference.tile)]


def test_residual(faulty):
    """A layer adds its residual, and is traced like any other."""
    rng = np.random.default_rng(7)
    first = random_layer(
        rng, cols=4, period=2, geometry=Geometry(in_shape=(4, 4, 3), filters=6), dtype=ActDtype.INT8
    )
    first = dataclasses.replace(first, name="first")
    second = random_layer(
        rng,
        cols=4,
        period=2,
        geometry=Geometry(in_shape=(4, 4, 6), filters=6),
        dtype=ActDtype.INT8,
        source="first",
        signed=True,
    )
    residual = Residual(input="first", mult=40_000, shift=16)
    second = dataclasses.replace(second, name="second", residual=residual)
    network = network_of(first, second)
    jobs, result = network_jobs(network, random_activations(rng, (2, 4, 4, 3)))
    runs = list(run_layers(faulty, jobs))
    assert [run.mismatch for run in runs] == [None, None]
    assert runs[1].outputs.dtype == np.int8
    np.testing.assert_array_equal(runs[1].outputs, result.values["second"])

    jobs[1].expected[1, 2, 3, 4] ^= 1
    found = last_run(faulty, jobs).mismatch
    assert (found.difference.image, found.difference.filter) == (1, 4)
    assert found.finding.startswith("all partial sums of the pixel are right")
    with pytest.raises(module.CspError, match="layer second: a residual must be given if and only"):
        last_run(faulty, [dataclasses.replace(jobs[1], residual=None)])


def test_truncated_schedules_are_prefixes():
    rng = np.random.default_rng(8)
    layer = random_layer(
        rng,
        cols=TINY.cols,
        period=2,
        geometry=Geometry(in_shape=(3, 3, 8), filters=9, kernel=(2, 2)),
        acc_shift=2,
    )
    schedule = Schedule.make(layer, 0, TINY, 1)
    inputs = random_activations(rng, (1, 3, 3, 8))
    runs = golden.trace(layer, inputs, 0, 1, 1)
    for blocks in range(len(layer.matrices[0].blocks()) + 1):
        part = truncated(schedule, blocks).layer
        sums = np.zeros((3, 4), dtype=np.int64)
        for run in runs:
            if run.block < blocks:
                sums[run.chunk] = run.sums
        outputs, _ = golden.layer_forward(part, inputs)
        np.testing.assert_array_equal(outputs[0, 1, 1] >> 2, sums.ravel()[:9])


def test_no_such_tile():
    schedule = Schedule.make(linear(np.random.default_rng(9)), 0, TINY, 1)
    with pytest.raises(module.CspError, match=r"layer linear: tile must be 0 … \d+, not 99"):
        single_tile(schedule, 99)
