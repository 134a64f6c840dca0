# SPDX-License-Identifier: Apache-2.0
"""Maps that stay on the chip: trained networks with them, and a core that is given wrong things."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from csp_algo import container
from csp_algo.integers import ActDtype
from csp_algo.network import MaxPool
from csp_hw.axi.ports import LOCAL_OFFSET
from csp_hw.config import preset
from csp_hw.descriptor import DESCRIPTOR_BYTES, pack
from csp_hw.register_map import ErrorCode
from sim import demo, execute
from sim.cosim.core.jobs import Inject, Timing
from sim.cosim.core.process import run_core_jobs
from sim.program.compiler import compile_network
from sim.program.layout import Layout
from sim.program.maps import FeatureMap
from sim.program.passes import pooling
from sim.program.places import Copy
from sim.program.plan import Choices
from sim.program.pooling import pool_windows
from tests.cosim import attack_lists as lists
from tests.cosim.core_attacks import ABORT, Bed, error_of, small_task, withstand
from tests.cosim.test_core_attacks import KIB, told
from tests.cosim.test_core_cycles import chain_of, look
from tests.strategies import random_activations

TINY = preset("tiny_4x4").replace(map_bytes=8 * KIB)
EIGHT = preset("csp_8x8").replace(map_bytes=64 * KIB)
EXAMPLES = Path(__file__).parents[2] / "examples"
#: Of each network: images, and the beats of its maps through the ports without and with 64 KiB.
NETWORKS = {
    "fashion_mnist": (2, 11_568, 1_584),
    "fashion_mnist_resnet8": (2, 37_288, 8_640),
}


def map_beats(program):
    """Give the beats of maps that a program moves through the ports."""
    names = ("input_beats", "residual_beats", "result_beats")
    return sum(getattr(step, name) for step in program.passes for name in names)


@pytest.mark.parametrize("name", NETWORKS)
def test_networks(name):
    """All layers are equal, and so are cycles and beats, as copied maps are compared, or not."""
    count, before, after = NETWORKS[name]
    network = demo.fitted(container.load(EXAMPLES / name / "network.csp"), EIGHT)
    images = demo.load_images(demo.IMAGES, count, network.input).pixels
    assert map_beats(compile_network(network, EIGHT.replace(map_bytes=0), count)) == before
    assert map_beats(compile_network(network, EIGHT, count)) == after
    built = execute.build(EIGHT)
    timing = Timing(read_rate=4)
    for choices in (Choices(expose=True), Choices()):
        task = execute.Task.make(network, EIGHT, images, choices)
        compared = set()
        for run in execute.run(task, built, timing=timing):
            assert not run.different, run.step.title
            look([run.step], run.registers, timing, run.step.title)
            if run.different is not None:
                compared.add(run.step.node)
        written = {step.node for step in task.program.passes}
        assert compared == (written if choices.expose else written & set(task.program.shown))
        assert network.output.name in compared


# --- Errors ---------------------------------------------------------------------------------------


def residual_task(*, expose=False):
    """Give a chain whose maps are on the chip, one of them a residual."""
    layers = ((16, 1, {}), (16, 3, {}), (16, 1, {"residual": "n0"}), (8, 3, {}))
    network = chain_of(np.random.default_rng(3), (5, 6, 4), *layers)
    images = random_activations(np.random.default_rng(4), (2, 5, 6, 4), ActDtype.UINT8)
    task = execute.Task.make(network, TINY, images, Choices(expose=expose))
    places = [(step.input.on_chip, step.output.on_chip) for step in task.program.passes]
    assert expose or places == [(False, True), (True, True), (True, True), (True, False)]
    return task


#: Its pass with a residual.
ADDED = 2


def local_places(bed):
    """Send passes beside the map memory and out of their range in it."""
    end = LOCAL_OFFSET + TINY.map_bytes
    last = (1 << 32) - TINY.cols
    for number in range(len(bed.steps)):
        fields = bed.fields(number)
        free = {"output": {"output_low": 0, "output_high": last}}
        for area in ("input", "add", "output"):
            if area == "add" and not fields["residual"]:
                continue
            for how, place in {
                "behind": end,
                "over the end of": end - TINY.cols,
                "just before": LOCAL_OFFSET - TINY.cols,
                "far behind": last,
            }.items():
                changes = free.get(area, {}) | {f"{area}_offset": place}
                yield f"{area} {how} the memory", number, changes
        for table in ("params", "tiles", "counts", "weights"):
            yield f"{table} in the memory", number, {f"{table}_offset": LOCAL_OFFSET}
        low, high = fields["output_low"], fields["output_high"]
        for changes in (
            {"output_low": low + TINY.cols},
            {"output_high": high - TINY.cols},
            {"output_offset": fields["output_offset"] + TINY.cols},
        ):
            yield f"range {changes}", number, changes


def shortened(bed):
    """Give passes that move a run less than they compute."""
    for number in range(len(bed.steps)):
        fields = bed.fields(number)
        for area in ("input", "add", "output")[: 3 if number == ADDED else 1]:
            loop = "count1" if fields[f"{area}_count1"] > 1 else "beats"
            yield f"{area} is short", number, {f"{area}_{loop}": fields[f"{area}_{loop}"] - 1}


def test_wrong_places():
    bed = Bed(residual_task(), size=128 * KIB)
    attacks = [bed.attack(*each, codes=[ErrorCode.RANGE]) for each in local_places(bed)]
    attacks += [bed.attack(*each) for each in shortened(bed)]
    told(withstand(bed, execute.build(TINY), attacks, np.random.default_rng(1)))


@pytest.mark.parametrize("name", ["addresses", "streams", "bus", "silence", "anything"])
def test_attacks(name):
    """Attacks on a program with maps in memory and on the chip."""
    rng = np.random.default_rng(2)
    bed = Bed(small_task(TINY), size=256 * KIB)
    if name == "anything":
        attacks = list(lists.anything(bed, rng, 40))
    else:
        attacks = list(getattr(lists, name)(bed))[:: 12 if name == "silence" else 6]
    told(withstand(bed, execute.build(TINY), attacks, rng, every=4, races=True))


@pytest.mark.parametrize("make", [lists.aborts, lists.resets])
def test_abort_and_reset_at_random_times(make):
    rng = np.random.default_rng(3)
    bed = Bed(residual_task(expose=True), size=256 * KIB)
    told(withstand(bed, execute.build(TINY), list(make(bed, rng, 5)), rng, fresh=4))


# --- What the map memory holds ------------------------------------------------------------------


def copy_of_all(bed, source, target):
    """Give the place of a descriptor that copies as many bytes as the map memory has."""
    layout = Layout.dense(16, TINY.cols)
    height = TINY.map_bytes // 256
    maps = Copy(
        *(
            FeatureMap(
                name="all",
                images=1,
                shape=(height, 16, 16),
                dtype=ActDtype.INT8,
                layout=layout,
                offset=offset,
                image=TINY.map_bytes,
                line=256,
                pixel=16,
            )
            for offset in (source, target)
        )
    )
    node = MaxPool(name="copy", input="all", kernel=(1, 1), stride=(1, 1))
    (window,) = pool_windows(node, maps.source.shape, 4, TINY)
    step = pooling("copy", window, maps, TINY, range(1))
    return bed.store(pack(step.fields), DESCRIPTOR_BYTES)


def test_nothing_is_written_outside_of_the_range():
    """After an error, whatever its time, the map memory holds what it held outside of the range."""
    rng = np.random.default_rng(5)
    bed = Bed(residual_task(), size=256 * KIB)
    pattern = rng.integers(0, 256, TINY.map_bytes, dtype=np.uint8)
    place, shown = bed.store(pattern.tobytes()), bed.store(bytes(TINY.map_bytes))
    fill, show = copy_of_all(bed, place, LOCAL_OFFSET), copy_of_all(bed, LOCAL_OFFSET, shown)
    attacks = [bed.attack(*each) for each in (*local_places(bed), *shortened(bed))]
    for number in range(len(bed.steps)):
        changes, low, _ = bed.private(number, "weights")
        options = {"inject": Inject(low=low, high=low + TINY.cols), "reset": True}
        attacks.append(bed.attack("bus", number, changes, options=options))
    for number, time in lists.times(bed, rng, 12):
        attacks.append(bed.attack(f"abort after {time} cycles", number, abort=time))
    looked = []  # for each job the attack that it looks at, if it does

    def jobs():
        for attack in attacks:
            looked.append(None)
            guard = (0, bed.window)
            yield bed.start(fill, count=1, image=bed.memory, guard=guard, reset=True, regions=())
            options = {"regions": (), **attack.options, "wait": attack.abort}
            looked.append(None)
            yield bed.start(attack.descriptors, **options)
            if attack.abort is not None:
                looked.append(None)
                yield bed.only([("CONTROL", ABORT)], regions=())
            looked.append(attack)
            yield bed.start(show, count=1, regions=[(shown, shown + TINY.map_bytes)])

    codes = set()
    for number, outcome in enumerate(run_core_jobs(execute.build(TINY), jobs())):
        codes.add(error_of(outcome))
        attack = looked[number]
        if attack is not None:
            changed = outcome.memory[0] != pattern
            low, high = (max(0, each - LOCAL_OFFSET) for each in (attack.low, attack.high))
            changed[low:high] = False
            assert not changed.any(), attack.name
            assert outcome.registers["STATUS"] == 0b1010, attack.name
    assert codes >= {None, ErrorCode.RANGE, ErrorCode.BUS, ErrorCode.ABORTED}
    assert codes & {ErrorCode.STREAM_SHORT, ErrorCode.STREAM_LONG}


def test_a_window_of_all_offsets():
    """The map memory is on no bus, however large the window: its tables are out of range."""
    bed = Bed(residual_task(), size=128 * KIB)
    wrong = [bed.attack(*each) for each in local_places(bed)]
    wrong = [attack for attack in wrong if "in the memory" in attack.name]
    wrong.append(None)

    def jobs():
        first = {"image": bed.memory, "guard": bed.guard, "reset": True}
        for attack in wrong:
            descriptors = LOCAL_OFFSET if attack is None else attack.descriptors
            job = bed.start(descriptors, count=1, regions=(), **first)
            sizes = [("SIZE_LOW", 0), ("SIZE_HIGH", 1)]
            start = [write for write in job.writes if write[0] != "SIZE_LOW"]
            yield dataclasses.replace(job, writes=[*sizes, *start])
            first = {}

    for outcome in run_core_jobs(execute.build(TINY), jobs()):
        assert error_of(outcome) is ErrorCode.RANGE
        assert not outcome.faults
