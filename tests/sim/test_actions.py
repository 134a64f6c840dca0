# SPDX-License-Identifier: Apache-2.0
"""Counts of actions against a walk over every tile, block, chunk, pixel and tap."""

import collections

import numpy as np
import pytest

from csp_algo.errors import CspError
from csp_algo.geometry import Geometry
from csp_hw.config import BufferStyle, CspConfig, preset
from csp_hw.pe.accumulation.regbin import bins
from sim import execute
from sim.model import actions
from sim.model.actions import count, expected_zeros
from sim.program.compiler import compile_network
from tests.sim.networks import random_config, random_network
from tests.strategies import network_of, random_activations, random_layer

TINY = preset("tiny_4x4")
#: Buffers so small that weights and counts are read again for each tile.
SCARCE = TINY.replace(weight_bytes=256, count_bytes=128, max_interleave=1)

#: Windows over the map's edges, with steps.
PADDED = Geometry(in_shape=(5, 6, 3), filters=7, kernel=(3, 2), stride=(2, 1), padding=(1, 1, 2, 0))


def walk(step, inputs):
    """Count a convolution's actions one by one, in the order of the dataflow."""
    schedule, config = step.schedule, step.config
    counts = schedule.matrix.counts.tolist()
    survivors = [tap for tap, each in enumerate(counts) if each]
    period, chunks = schedule.matrix.period, schedule.matrix.chunks
    blocks = [survivors[n : n + period] for n in range(0, len(survivors), period)]
    edges = bins(config.half_depth)
    seen = collections.Counter()
    places = {kind: [0] * len(edges) for kind in ("written", "read", "drained")}
    elements = config.rows * config.cols

    def touch(kind, tile, chunk, pixel, pes):
        entry = chunk * tile.interleave + pixel
        word = entry if 2 * chunks * tile.interleave <= config.depth else entry // 2
        number = next(n for n, edge in enumerate(edges) if word in edge)
        places[kind][number] += pes

    # Values [I, rows, taps] of each tile, padding and dead lanes 0.
    for tile, values, live in schedule._gathered(inputs):
        filled, before = set(), None
        for block in blocks:
            for pixel in range(tile.interleave):
                for tap in block:
                    seen["row_written"] += 1
                    word = place(schedule, tap), pixel
                    seen["line_turned"] += word != before
                    before = word
            for chunk in range(chunks):
                run = [tap for tap in block if counts[tap] > chunk]
                for pixel in range(tile.interleave if run else 0):
                    touch("written", tile, chunk, pixel, elements)
                    if (chunk, pixel) in filled:
                        touch("read", tile, chunk, pixel, elements)
                    filled.add((chunk, pixel))
                    seen["runs"] += elements
                    for tap in run:
                        seen["issued"] += 1
                        taken = values[pixel, :, survivors.index(tap)][live[pixel]]
                        real = min(config.cols, schedule.matrix.filters - chunk * config.cols)
                        multiplied = config.cols * int(np.count_nonzero(taken))
                        seen["multiplied"] += multiplied
                        seen["accumulated"] += elements if tap == run[-1] else multiplied
                        seen["useful"] += real * len(taken)
                        seen["gated"] += real * int(np.count_nonzero(taken == 0))
                seen["run_written"] += len(run)
            seen["blocks"] += 1
            seen["survivors"] += len(block)
        for pixel in range(tile.interleave):
            for chunk in range(chunks):
                seen["sums"] += config.rows
                touch("drained", tile, chunk, pixel, elements)
    return seen, places


def place(schedule, tap):
    """Give where a tap lies, from a lane's own position: in number, phase and word."""
    geometry, cols = schedule.layer.geometry, schedule.config.cols
    kernel, channel = divmod(tap, geometry.group_channels)
    number, phases = 0, []
    for axis, at in enumerate(divmod(kernel, geometry.kernel[1])):
        line, phase = divmod(
            at * geometry.dilation[axis] - geometry.padding[axis], geometry.stride[axis]
        )
        number = number * schedule.grid.pitch + line
        phases.append(phase)
    return number, *phases, (schedule.group * geometry.group_channels + channel) // cols


def tasks(rng, config, number):
    """Give so many passes of convolutions of networks that fit."""
    found = 0
    while found < number:
        try:
            network = random_network(rng, config, size=int(rng.integers(1, 4)))
            images = random_activations(rng, (2, *network.input.shape), network.input.dtype)
            task = execute.Task.make(network, config, images)
        except CspError:
            continue
        for step in task.program.passes:
            if step.schedule is not None:
                found += 1
                yield task, step


def names_of(seed):
    return {1: TINY, 2: SCARCE}.get(seed) or random_config(np.random.default_rng(seed))


@pytest.mark.parametrize("seed", range(1, 6))
def test_every_action_one_by_one(seed):
    rng, config = np.random.default_rng([seed, 3]), names_of(seed)
    for task, step in tasks(rng, config, 40):
        inputs = task.read(step)
        found = count(step, step.schedule.zeros(inputs))
        seen, places = walk(step, inputs)
        assert {name: getattr(found, name) for name in seen} == seen
        for name, wanted in places.items():
            assert getattr(found, name).tolist() == wanted, name
        assert found.run_read == found.row_read == found.issued
        assert found.line_read == found.row_written
        assert found.slots == found.issued * config.rows * config.cols
        # Words go into the buffers as often as beats come through the port.
        parts = step.weight_parts
        assert found.weights_written == parts["weights"]
        assert found.counts_written * config.lookahead == parts["counts"] * config.cols
        tiles = len(step.schedule.tiles)
        assert found.weights_read == found.run_written
        once = tiles == 1 or not step.fields["weights_resident"]
        assert found.weights_once == once * found.weights_read


def test_expected_zeros_are_those_of_many_maps():
    """Padding exactly, the rest on average: within four deviations of 200 maps."""
    rng = np.random.default_rng(4)
    layer = random_layer(rng, cols=4, geometry=PADDED)
    (step,) = compile_network(network_of(layer), TINY, 1).passes
    shape = (1, *step.schedule.layer.geometry.in_shape)
    drawn = [step.schedule.zeros((rng.random(shape) < 0.3).astype(np.uint8)) for _ in range(200)]
    wanted = expected_zeros(step.schedule, 0.3)
    error = np.sqrt(np.var(drawn, axis=0) / len(drawn))
    assert (np.abs(np.mean(drawn, axis=0) - wanted) <= 4 * error + 1e-9).all()
    ones = step.schedule.zeros(np.ones(shape, dtype=np.uint8))
    np.testing.assert_array_equal(expected_zeros(step.schedule, 1.0), ones)
    none = step.schedule.zeros(np.zeros(shape, dtype=np.uint8))
    np.testing.assert_array_equal(expected_zeros(step.schedule, 0.0), none)


def test_actions_are_added_and_scaled():
    rng = np.random.default_rng(9)
    (task, first), (_, second) = list(tasks(rng, TINY, 2))[:2]
    one, two = count(first), count(second)
    assert one.issued == 0  # no zeros given: only what moves is known
    both = actions.together([one, two])
    assert both.input_beats == first.input_beats + second.input_beats
    assert both.scaled(0.5).input_beats == both.input_beats / 2
    assert task.program.config is TINY


def test_bins_of_both_styles_are_counted_alike():
    config = CspConfig(rows=2, cols=4, depth=8, max_period=2, max_interleave=2, lookahead=2)
    rng = np.random.default_rng(2)
    layer = random_layer(rng, cols=4, case="dense", period=2, geometry=PADDED)
    found = []
    for style in BufferStyle:
        (step, *_) = compile_network(network_of(layer), config.replace(style=style), 1).passes
        found.append(count(step, expected_zeros(step.schedule, 0.5)).written.tolist())
    assert found[0] == found[1]
    assert sum(found[0]) > 0
