# SPDX-License-Identifier: Apache-2.0
"""Random layers through the Verilog, all streams stalling at random: every integer is golden's."""

import dataclasses
import itertools

import numpy as np
import pytest

from csp_algo.geometry import Geometry
from csp_algo.integers import ActDtype
from csp_algo.network import Residual
from csp_hw.config import BufferStyle, CspConfig
from csp_hw.counters import CYCLES, SATURATIONS, SPENT, WORDS
from sim import golden
from sim.cosim.build import ICARUS, build
from sim.cosim.protocol import STREAMS
from sim.cosim.runner import LayerJob, run_layers
from sim.cosim.streams import Stress
from tests.cosim.tools import needs_icarus
from tests.strategies import CASES, random_activations, random_layer

STYLES = list(BufferStyle)
ACC_BITS = (8, 12, 16, 24)
PERIODS = (1, 4, 8, 32)
INTERLEAVES = (1, 4, 8)
#: Random layers for each of the eight configurations of the routine run.
LAYERS = 30

#: Small, and nothing in it is a power of two unless it must be.
SMALL = CspConfig(rows=3, cols=4, depth=32, max_period=32, max_interleave=8, lookahead=4)


def shaped(rng, **options):
    """Give a linear layer of a shape: filters, taps, pixels."""
    shape = (1, options.pop("pixels"), options.pop("taps"))
    geometry = Geometry(in_shape=shape, filters=options.pop("filters"))
    return random_layer(rng, geometry=geometry, **options)


def special_layers(rng, config, **options):
    """Give the layers whose shape, rather than whose counts, is the difficulty."""
    rows, cols = config.rows, config.cols
    options |= {"cols": cols, "case": "dense"}
    # K = I = T = 1: the same entry in every cycle.
    yield shaped(rng, filters=cols, taps=50, pixels=rows, period=1, **options)
    # Two full tiles back to back, with and without room for both.
    pixels = 2 * rows * config.max_interleave
    yield shaped(rng, filters=cols, taps=9, pixels=pixels, period=4, **options)
    filters = cols * config.depth // config.max_interleave
    yield shaped(rng, filters=filters, taps=9, pixels=pixels, period=4, **options)
    # All of the buffer for one pixel.
    yield shaped(rng, filters=cols * config.depth, taps=5, pixels=rows + 1, period=2, **options)
    for period, interleave in itertools.product(PERIODS, INTERLEAVES):
        pixels = rows * interleave
        taps = 2 * period + 1
        yield shaped(rng, filters=cols, taps=taps, pixels=pixels, period=period, **options)


def random_layers(rng, config, count, **options):
    """Give layers of all cases and periods."""
    for number in range(count):
        yield random_layer(
            rng,
            cols=config.cols,
            period=PERIODS[number // len(CASES) % len(PERIODS)],
            case=CASES[number % len(CASES)],
            max_taps=int(rng.choice([8, 64, 150])),
            **options,
        )


def job_of(rng, layer, config, *, signed, case="mixed"):
    """Give a layer with random activations and golden's outputs and saturations."""
    shape = (int(rng.integers(1, 4)), *layer.geometry.in_shape)
    inputs = random_activations(rng, shape, ActDtype.INT8 if signed else ActDtype.UINT8, case=case)
    residual = None
    if layer.dtype is not ActDtype.INT32 and rng.random() < 0.5:
        mult, shift = int(rng.integers(2**15, 2**16)), int(rng.integers(14, 18))
        layer = dataclasses.replace(layer, residual=Residual(input="r", mult=mult, shift=shift))
        dtype = ActDtype.INT8 if rng.integers(2) else ActDtype.UINT8
        residual = random_activations(rng, (len(inputs), *layer.geometry.out_shape), dtype)
    expected, saturations = golden.layer_forward(
        layer, inputs, acc_bits=config.acc_bits, residual=residual
    )
    job = LayerJob(layer=layer, inputs=inputs, expected=expected, residual=residual)
    return job, saturations


def random_stress(rng):
    """Give stalls of some streams, or None."""
    if rng.random() < 0.2:
        return None
    stalls = {name: float(rng.choice([0, 0.1, 0.5, 0.9])) for name in STREAMS}
    ahead = bool(rng.random() < 0.3)
    return Stress(stalls=stalls, seed=int(rng.integers(1 << 30)), ahead=ahead)


def check(simulator, jobs, rng):
    """Run jobs and hold everything to golden; give the interleaves that were used."""
    stresses = {}

    def stress(number):
        return stresses.setdefault(number, random_stress(rng))

    seen = set()
    numbers = itertools.count()
    done = 0
    for run, (_, saturations) in zip(
        run_layers(simulator, [job for job, _ in jobs], stress=stress), jobs, strict=True
    ):
        assert run.mismatch is None, str(run.mismatch)
        assert run.total[SATURATIONS] == saturations
        for schedule, counters in zip(run.schedules, run.counters, strict=True):
            assert counters[CYCLES] == sum(counters[name] for name in SPENT)
            assert counters["issued"] == schedule.issued
            assert counters["useful_macs"] == schedule.useful
            assert counters["gated_macs"] == schedule.gated(jobs[done][0].inputs)
            bound = schedule.bound()
            moved = {name: getattr(bound, name.removesuffix("_words")) for name in WORDS}
            disturbed = stress(next(numbers))
            if disturbed is None or not disturbed.ahead:
                assert moved == {name: counters[name] for name in WORDS}
            seen |= {tile.interleave for tile in schedule.tiles}
        np.testing.assert_array_equal(run.outputs, jobs[done][0].expected)
        done += 1
    assert done == len(jobs)
    return seen


def jobs_for(rng, config, count):
    """Give random and special jobs for a configuration."""
    options = {"acc_bits": config.acc_bits}
    layers = [*random_layers(rng, config, count, **options)]
    layers += special_layers(rng, config, **options)
    return [
        job_of(
            rng,
            layer,
            config,
            signed=bool(rng.integers(2)),
            case="extreme" if number % len(CASES) == CASES.index("extreme") else "mixed",
        )
        for number, layer in enumerate(layers)
    ]


@pytest.mark.parametrize("acc_bits", ACC_BITS)
@pytest.mark.parametrize("style", STYLES, ids=lambda style: style.value)
def test_random_layers(style, acc_bits):
    config = SMALL.replace(style=style, acc_bits=acc_bits)
    rng = np.random.default_rng([acc_bits, STYLES.index(style)])
    seen = check(build(config), jobs_for(rng, config, LAYERS), rng)
    assert seen >= set(INTERLEAVES)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("style", STYLES, ids=lambda style: style.value)
def test_more_random_layers(style, seed):
    rng = np.random.default_rng([2, STYLES.index(style), seed])
    config = CspConfig(
        rows=int(rng.integers(1, 7)),
        cols=int(rng.choice([4, 8, 12])),
        depth=int(rng.choice([8, 16, 64])),
        max_period=32,
        max_interleave=int(rng.choice([1, 2, 8])),
        acc_bits=int(rng.choice([8, 13, 16, 24, 32])),
        style=style,
        lookahead=int(rng.choice([1, 2, 8])),
        row_blocks=int(rng.choice([2, 4])),
    )
    layers = random_layers(rng, config, 300, acc_bits=config.acc_bits)
    check(build(config), [job_of(rng, layer, config, signed=False) for layer in layers], rng)


@needs_icarus
@pytest.mark.parametrize("style", STYLES, ids=lambda style: style.value)
def test_icarus(style):
    """A second simulator, which knows unknown values, on a few layers."""
    config = SMALL.replace(style=style, depth=16)
    rng = np.random.default_rng(STYLES.index(style))
    layers = random_layers(rng, config, len(CASES), acc_bits=config.acc_bits, max_side=4)
    jobs = [job_of(rng, layer, config, signed=True) for layer in layers]
    check(build(config, simulator=ICARUS), jobs, rng)
