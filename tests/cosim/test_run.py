# SPDX-License-Identifier: Apache-2.0
"""The two example networks as a user runs them: whole, on the core, from the command line."""

import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from rich.console import Console

from csp_algo import container
from csp_algo.errors import CspError
from csp_hw.config import PRESETS
from csp_hw.register_map import ErrorCode
from sim import demo, execute
from sim.cosim.core.jobs import Timing
from sim.model.bound import pass_bound, tile_beats
from sim.report import passes
from sim.report.passes import broken_promises
from tests.command import csp

CONFIG = PRESETS["csp_8x8"]
NAMES = ("fashion_mnist", "fashion_mnist_resnet8")
#: Cycles of each pass that its bound does not have, at most.
FIXED = 110


def path_of(name):
    return Path(__file__).parents[2] / "examples" / name / "network.csp"


def task_of(name, images):
    network = container.load(path_of(name))
    return execute.Task.make(
        network, CONFIG, demo.load_images(demo.IMAGES, images, network.input).pixels
    )


@pytest.fixture(scope="module")
def built():
    return execute.build(CONFIG)


@pytest.mark.usefixtures("built")
@pytest.mark.parametrize("name", NAMES)
def test_network(name, capsys):
    assert csp("run", path_of(name), "--images", 2) == 0
    out = capsys.readouterr().out
    assert re.search(r"[\d,]+ output integers in memory, all equal to the golden model", out)
    assert "each port moved as many beats as planned" in out
    assert "2 of 2 images right, on the core as in the golden model" in out


@pytest.mark.soak
@pytest.mark.parametrize("name", ["fashion_mnist_wide", "fashion_mnist_resnet20_wide"])
def test_sums_of_eight_bits(name, capsys):
    """Networks that were trained for them, with their own T."""
    options = ("--images", 2, "--acc-bits", 8, "--max-period", 32)
    assert csp("run", path_of(name), *options) == 0
    out = capsys.readouterr().out
    assert re.search(r"[\d,]+ output integers in memory, all equal to the golden model", out)
    assert "2 of 2 images right, on the core as in the golden model" in out


def test_maps_on_the_chip(capsys):
    arguments = ("run", path_of(NAMES[1]), "--images", 1, "--map-bytes", 1 << 16)
    assert csp(*arguments) == 0
    copied = capsys.readouterr().out
    assert re.search(r"block1.conv1 +on the chip +0xfe\d+ +12,544 +\d+ … \d+", copied)
    assert "copy of block1.conv1" in copied
    assert "not compared" not in copied
    assert csp(*arguments, "--no-copies") == 0
    plain = capsys.readouterr().out
    assert "17,852 beats of maps stayed on the chip" in plain
    assert "on the chip only, not compared: stem, block1.conv1," in plain
    assert "copy of" not in plain


@pytest.mark.parametrize("name", NAMES)
def test_every_input_is_read_once_and_the_bound_is_near(name, built):
    task = task_of(name, 8)
    timing = Timing(read_latency=20, write_latency=20)
    cycles = bound = 0
    for run in execute.run(task, built, timing=timing):
        step = run.step
        geometry = task.program.network
        assert not broken_promises([run])
        assert run.different in (0, None)
        # The whole input map, each beat of it once, padding channels included.
        assert step.again == 0
        source = next(node for node in geometry.nodes if node.name == step.nodes[0]).sources[0]
        if step.input_beats * CONFIG.cols != task.program.maps[source].span:
            # A strided 1×1 layer reads what it uses.
            assert step.input_beats * CONFIG.cols < task.program.maps[source].span
            assert step.fields["kernel_h"] == step.fields["kernel_w"] == 1
        limit = pass_bound(step, timing).cycles
        assert limit <= run.cycles
        # What the bound does not have: the last burst of results leaves when it is complete, the
        # last line of a fused pooling after the map; then the end is noticed and told.
        assert limit + 0.04 * run.cycles + FIXED >= run.cycles, step.title
        if run.cycles > 20 * FIXED:
            assert limit / run.cycles >= 0.95, step.title
        cycles, bound = cycles + run.cycles, bound + limit
    assert bound / cycles >= 0.95


def test_slow_memory_changes_no_result(built):
    task = task_of(NAMES[1], 1)
    for rate in (4, 2, 1):
        timing = Timing(read_latency=60, write_latency=30, read_rate=rate, write_rate=rate)
        for run in execute.run(task, built, timing=timing):
            assert run.different in (0, None)
            assert not broken_promises([run])
            assert pass_bound(run.step, timing).cycles <= run.cycles


def test_random_stalls_change_no_result(built):
    task = task_of(NAMES[0], 1)
    stalls = {"ar": 0.5, "r": 0.3, "aw": 0.5, "w": 0.3, "b": 0.5}
    for run in execute.run(task, built, stalls=stalls, seed=3):
        assert run.different in (0, None)
        assert not broken_promises([run])


@pytest.mark.soak
@pytest.mark.parametrize("name", NAMES)
def test_sixty_four_images(name, built):
    task = task_of(name, 64)
    assert sum(run.different or 0 for run in execute.run(task, built)) == 0


@pytest.mark.usefixtures("built")
def test_a_difference_is_told(monkeypatch, capsys):
    """The golden model is made wrong in one integer."""
    real = execute.golden.run

    def wrong(*arguments, **options):
        result = real(*arguments, **options)
        result.values["conv3"][0, 3, 4, 5] ^= 1
        return result

    monkeypatch.setattr(execute.golden, "run", wrong)
    assert csp("run", path_of(NAMES[0]), "--images", 1) == 1
    assert re.search(r"1 of [\d,]+ output integers differ", capsys.readouterr().out)


def test_an_error_of_the_core_is_told(built):
    task = task_of(NAMES[0], 1)
    job = next(iter(execute.jobs(task)))
    image = job.image.copy()
    image[task.program.descriptors[0]] |= 0x03  # kind 3
    broken = execute.dataclasses.replace(job, image=image)
    outcomes = execute.run_core_jobs(built, [broken])
    with pytest.raises(CspError, match=r"^layer conv1: the core reports DESCRIPTOR, check kind$"):
        next(execute.compared(task, outcomes))


def test_a_network_without_work(capsys):
    assert passes.show(Console(), [], [])
    assert "0 output integers in memory, all equal to the golden model" in capsys.readouterr().out


def test_errors_of_the_core_have_names():
    task = task_of(NAMES[0], 1)
    status = 1 << 2 | ErrorCode.RANGE << 8
    outcome = SimpleNamespace(registers={"STATUS": status, "ERROR_DETAIL": 0})
    with pytest.raises(CspError, match=r"^layer conv1: the core reports RANGE$"):
        next(execute.compared(task, iter([outcome])))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rate", "3"], "csp: --rate must divide 8 bytes, not 3"),
        (["--rate", "0"], "csp: --rate must divide 8 bytes, not 0"),
        (["--rate", "-8"], "csp: --rate must divide 8 bytes, not -8"),
        (["--latency", "0"], "csp: --latency must be 1 … 65535, not 0"),
        (["--images", "0"], "csp: --images must be 1 … 256, not 0"),
        (["--preset", "none"], "csp: unknown preset 'none'"),
        (["--acc-bits", "7"], "csp: acc_bits must be 8 … 32, not 7"),
        (["--map-bytes", "1"], "csp: map_bytes must be 0 or 8192 … 16777216, not 1"),
    ],
)
def test_bad_input(arguments, message, capsys):
    assert csp("run", path_of(NAMES[0]), *arguments) == 2
    assert capsys.readouterr().err.startswith(message)


@pytest.mark.parametrize("number", [0, -1])
def test_beats_of_a_tile(number):
    """Against a look at every pixel that the tile's taps touch."""
    for name in NAMES:
        for step in task_of(name, 2).program.passes:
            fields, tile = step.fields, step.schedule.tiles[number]
            places = step.schedule.places(tile)
            last = 0
            for r, s in np.ndindex(fields["kernel_h"], fields["kernel_w"]):
                y = (places.y << fields["stride_y"]) + r * fields["dilation_y"] - fields["pad_top"]
                x = (places.x << fields["stride_x"]) + s * fields["dilation_x"] - fields["pad_left"]
                inside = places.live & (y >= 0) & (y < fields["height"])
                inside &= (x >= 0) & (x < fields["width"])
                pixel = (places.image * fields["height"] + y) * fields["width"] + x
                last = max(last, int((pixel[inside] + 1).max(initial=0)))
            assert last * fields["beats"] <= tile_beats(step, number) <= step.input_beats
