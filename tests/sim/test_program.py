# SPDX-License-Identifier: Apache-2.0
"""Programs of whole networks: a slow core executes their descriptors, the golden model judges."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from csp_algo import container
from csp_algo.compress import compress
from csp_algo.errors import CspError
from csp_algo.geometry import Geometry
from csp_algo.integers import ActDtype
from csp_algo.network import AvgPool, Concat, Flatten, Input, MaxPool, Network, Residual
from csp_hw.config import PRESETS, ConfigError
from csp_hw.descriptor import Kind, unpack
from sim import golden
from sim.demo import IMAGES, NETWORK, fitted
from sim.program import passes
from sim.program.compiler import compile_network
from sim.program.plan import Choices
from tests.csp_algo import examples
from tests.sim.interpreter import Core
from tests.sim.networks import random_config, random_network
from tests.strategies import random_activations, random_layer

INT8, UINT8, INT32 = ActDtype.INT8, ActDtype.UINT8, ActDtype.INT32
SEEDS = st.integers(0, 2**32 - 1)
TINY = PRESETS["tiny_4x4"]


def check(network, config, images, choices=None):
    """Compile, execute and compare everything that can be compared; give the program."""
    program = compile_network(network, config, len(images), choices)
    memory = program.memory(images)
    core = Core(config, memory)
    traffic = [core.run(offset) for offset in program.descriptors]
    values = golden.run(network, images, acc_bits=config.acc_bits).values
    values = {network.input.name: images, **values}
    assert set(program.maps) <= set(values)
    assert program.output.name == network.output.name
    for name in program.shown:
        np.testing.assert_array_equal(program.value(name, memory), values[name], name)
    assert not any(program.mismatches(memory, values).values())
    # What the program says it moves is what moved.
    for step, moved in zip(program.passes, traffic, strict=True):
        assert step.input_beats == moved.input
        assert step.weight_beats == moved.weight
        assert step.residual_beats == moved.residual
        assert step.result_beats == moved.result
    # Every byte that was written belongs to a map, none to the input or the constants.
    assert not core.written[program.start :].any()
    assert not core.written[program.input.offset : program.input.end].any()
    return program


def passes_of(program, node):
    """Give the passes that take part in computing a node."""
    return tuple(step for step in program.passes if node in step.nodes)


def images_for(network, count, seed=0):
    rng = np.random.default_rng(seed)
    return random_activations(rng, (count, *network.input.shape), network.input.dtype)


def network_of(shape, *nodes, cols=4, period=4, dtype=UINT8):
    """Give a network whose input is called ``input``."""
    source = Input(name="input", shape=shape, dtype=dtype, scale=1.0)
    return Network(name="net", input=source, nodes=nodes, cols=cols, period=period)


def layer(name, source, shape, filters, *, seed=0, case="mixed", cols=4, **options):
    """Give a layer; what Geometry knows goes there, the rest to random_layer."""
    names = {field.name for field in dataclasses.fields(Geometry)}
    form = {key: options.pop(key) for key in names & options.keys()}
    options = {"period": 4, "acc_shift": 0, "dtype": UINT8, **options}
    return random_layer(
        np.random.default_rng(seed),
        cols=cols,
        geometry=Geometry(in_shape=shape, filters=filters, **form),
        case=case,
        name=name,
        source=source,
        **options,
    )


SAME = {"kernel": (3, 3), "padding": (1, 1, 1, 1)}


# --- Whole networks --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("preset", "images"), [("tiny_4x4", 2), ("csp_8x8", 3), ("csp_h_32x32", 3)]
)
def test_the_real_network_is_exact_on_every_preset(preset, images):
    config = PRESETS[preset]
    network = fitted(container.load(NETWORK), config)
    pixels = np.load(IMAGES)["images"][:images].reshape(images, 28, 28, 1)
    program = check(network, config, pixels)
    assert {"conv1", "conv5"}.isdisjoint(program.maps)
    assert program.size % 64 == 0
    # Each map is read once, but the input of the layer whose sums do not fit.
    for step in program.passes:
        assert step.again == (256 * images if step.chunks == range(16, 32) else 0)


def test_the_real_network_as_a_table():
    config = PRESETS["csp_8x8"]
    program = compile_network(container.load(NETWORK), config, 4)
    rows = program.summary()
    assert [row.number for row in rows] == list(range(7))
    assert [row.nodes for row in rows] == [
        ("conv1", "pool1"),
        ("conv2",),
        ("conv3",),
        ("conv4", "pool4"),
        ("conv5", "pool5"),
        ("linear6",),
        ("linear7",),
    ]
    first = rows[0]
    assert first.kind == "convolve"
    assert (first.groups, first.chunks, first.columns, first.images) == (
        (0, 0),
        (0, 1),
        (0, 13),
        (0, 3),
    )
    # Beats of 8 bytes: 32 of the descriptor, 16 parameters, 79 tiles, 9 positions, 18 words.
    assert program.passes[0].weight_parts == {
        "descriptor": 32,
        "params": 16,
        "tiles": 40,
        "counts": 9,
        "weights": 18,
    }
    assert (first.input_beats, first.weight_beats, first.result_beats) == (4 * 784, 115, 4 * 392)
    assert (first.tiles, first.interleave) == (79, 5)
    assert first.steps == 18 * 4 * 784 // 8
    assert (first.weights_resident, first.counts_resident) == (True, True)
    assert {row.again_beats for row in rows} == {0}
    assert passes_of(program, "pool1") == passes_of(program, "conv1") == program.passes[:1]


def test_descriptors_lie_where_the_program_says():
    program = compile_network(container.load(NETWORK), PRESETS["csp_8x8"], 1)
    constants = program.constants
    for step, offset in zip(program.passes, program.descriptors, strict=True):
        assert offset % 256 == 0
        raw = constants[offset - program.start :][:256].tobytes()
        assert {name: value for name, value in unpack(raw).items() if value} == {
            name: value for name, value in step.fields.items() if value
        }
        number = program.passes.index(step)
        for name in ("params", "tiles", "counts", "weights"):
            region = program.regions[f"{number} {name}"]
            assert region.offset == step.fields[f"{name}_offset"]
            assert region.size == len(step.data[name])
            data = constants[region.offset - program.start :][: region.size].tobytes()
            assert data == step.data[name]
    for name, region in program.regions.items():
        assert region.offset % (4096 if name.startswith("map") else 64) == 0
        assert region.offset + region.size <= program.size


@settings(max_examples=70, deadline=None)
@given(SEEDS, st.booleans())
def test_any_network_on_any_core(seed, on_chip):
    rng = np.random.default_rng(seed)
    config = random_config(rng)
    shift = (None, 0)[rng.integers(2)]
    network = random_network(rng, config, size=int(rng.integers(1, 7)), acc_shift=shift)
    images = images_for(network, int(rng.integers(1, 4)), seed)
    choices = Choices(fuse=bool(rng.random() < 0.8), merge=bool(rng.random() < 0.7))
    if on_chip:
        config = config.replace(map_bytes=int(rng.choice([1 << 13, 1 << 14, 1 << 16])))
        choices = dataclasses.replace(choices, expose=bool(rng.random() < 0.7))
    try:
        compile_network(network, config, len(images), choices)
    except CspError as error:
        refusal = str(error)
    else:
        program = check(network, config, images, choices)
        assert choices.expose or config.map_bytes or program.shown == program.maps
        assert not choices.expose or set(program.shown) == set(program.maps)
        return
    # A buffer of a few words does not hold everything; the node and the value are named.
    assert "\n" not in refusal
    assert any(f" {node.name}: " in refusal for node in network.nodes)
    assert any(char.isdigit() for char in refusal.partition(": ")[2])


@settings(max_examples=15, deadline=None)
@given(SEEDS, st.integers(1, 3), st.booleans(), st.booleans())
def test_a_network_with_every_kind_of_node(seed, images, fuse, merge):
    network = examples.network(seed)
    choices = Choices(fuse=fuse, merge=merge)
    program = check(network, TINY, images_for(network, images, seed), choices)
    assert set(program.maps) == set(network.values)


# --- Groups ----------------------------------------------------------------------------------


def depthwise(**options):
    return network_of(
        (6, 6, 10), layer("dw", "input", (6, 6, 10), 10, groups=10, **SAME, **options)
    )


def test_depthwise_channels_share_beats():
    network = depthwise()
    program = check(network, TINY, images_for(network, 2))
    # Four channels a pass; each map is read and written once.
    assert [len(step.groups) for step in program.passes] == [4, 4, 2]
    assert program.maps["dw"].layout.chunks == 3
    assert [step.input_beats for step in program.passes] == [72, 72, 72]
    assert [step.result_beats for step in program.passes] == [72, 72, 72]
    assert sum(step.again for step in program.passes) == 0
    assert {step.fields["strobe_low"] for step in program.passes} == {15}


@pytest.mark.parametrize("options", [{"acc_shift": 3}, {"case": "extreme", "acc_bits": 12}])
def test_blocks_of_rounded_or_clipped_sums_are_not_mixed(options):
    network = depthwise(**options)
    config = dataclasses.replace(TINY, acc_bits=options.get("acc_bits", 24))
    program = check(network, config, images_for(network, 2))
    assert [list(step.groups) for step in program.passes] == [[group] for group in range(10)]
    assert [step.fields["strobe_low"] for step in program.passes] == [1, 2, 4, 8, 1, 2, 4, 8, 1, 2]
    assert program.maps["dw"].layout.chunks == 3
    # Each beat is read for four channels.
    assert sum(step.again for step in program.passes) == 7 * 72


@pytest.mark.parametrize(("weight", "passes"), [(1, 1), (2, 2)])
def test_the_largest_sum_decides_whether_groups_mix(weight, passes):
    # 255 · 128 is below 2^15, 255 · 129 is not.
    one = layer("l", "input", (1, 2, 2), 2, groups=2, kernel=(1, 2))
    matrix = compress(np.array([[127, weight]], dtype=np.int8), 4, 4)
    network = network_of((1, 2, 2), dataclasses.replace(one, matrices=(matrix, matrix)))
    config = dataclasses.replace(TINY, acc_bits=16)
    program = check(network, config, np.full((2, 1, 2, 2), 255, dtype=np.uint8))
    assert len(program.passes) == passes


def test_apart_costs_the_same_steps():
    network = depthwise()
    images = images_for(network, 2)
    apart = check(network, TINY, images, Choices(merge=False))
    together = check(network, TINY, images)
    steps = [sum(row.steps for row in program.summary()) for program in (apart, together)]
    assert (len(apart.passes), len(together.passes)) == (10, 3)
    assert steps[1] <= steps[0]


def test_a_group_begins_with_a_beat():
    network = network_of(
        (4, 5, 6),
        layer("g", "input", (4, 5, 6), 15, groups=3),
        MaxPool(name="p", input="g", kernel=(2, 2), stride=(2, 2)),
    )
    program = check(network, TINY, images_for(network, 3))
    assert program.maps["p"].layout.places.tolist() == [
        0,
        1,
        2,
        3,
        4,
        8,
        9,
        10,
        11,
        12,
        16,
        17,
        18,
        19,
        20,
    ]
    # Channels 2 and 3 are in beat 0, 4 and 5 in beat 1.
    assert [step.fields["beats"] for step in program.passes] == [1, 1, 1]
    assert [step.again for step in program.passes] == [0, 60, 0]
    assert all(step.nodes == ("g", "p") for step in program.passes)


def test_int32_groups_have_words_of_their_own():
    network = network_of((1, 1, 4), layer("g", "input", (1, 1, 4), 6, groups=2, dtype=INT32))
    program = check(network, TINY, images_for(network, 5))
    assert program.maps["g"].layout.places.tolist() == [0, 1, 2, 4, 5, 6]
    assert program.maps["g"].beats == 8


# --- Filters ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options", [{}, {"acc_shift": 2}, {"acc_bits": 12}, {"dtype": INT32}], ids=str
)
def test_filters_beyond_the_depth_are_further_passes(options):
    one = layer("l", "input", (3, 3, 5), 4 * 20 + 1, period=3, **SAME, **options)
    network = network_of((3, 3, 5), one, period=3)
    config = dataclasses.replace(TINY, acc_bits=options.get("acc_bits", 24))
    program = check(network, config, images_for(network, 2))
    assert [step.chunks for step in program.passes] == [range(10), range(10, 21)]
    assert [step.again for step in program.passes] == [0, 36]
    survivors = [np.count_nonzero(step.schedule.matrix.counts) for step in program.passes]
    counts = one.matrices[0].counts
    kept = np.count_nonzero(counts > (10 if not options or "dtype" in options else 0))
    # Where blocks matter, a tap stays even if it has no weight left.
    assert survivors == [np.count_nonzero(counts), kept]


def test_more_chunks_than_a_count_tells_are_further_passes():
    # Each channel of the residual has a chunk of its own.
    shape = (1, 2, 1)
    many = Concat(name="c", inputs=("input",) * 256)
    one = dataclasses.replace(
        layer("l", "input", shape, 256), residual=Residual(input="c", mult=40_000, shift=16)
    )
    network = network_of(shape, many, one)
    program = check(network, dataclasses.replace(TINY, depth=512), images_for(network, 1))
    assert [step.chunks for step in passes_of(program, "l")] == [range(128), range(128, 256)]


def test_a_residual_decides_where_filters_lie():
    # 5 filters of two groups: elements 0 … 4 and 8 … 12; the other layer has no groups.
    first = layer("g", "input", (4, 4, 4), 10, groups=2, seed=1)
    second = dataclasses.replace(
        layer("l", "input", (4, 4, 4), 10, seed=2),
        residual=Residual(input="g", mult=40_000, shift=16),
    )
    third = dataclasses.replace(
        layer("m", "l", (4, 4, 10), 10, groups=2, seed=3, dtype=INT8),
        residual=Residual(input="l", mult=50_000, shift=16),
    )
    network = network_of((4, 4, 4), first, second, third)
    program = check(network, TINY, images_for(network, 2))
    for name in ("g", "l", "m"):
        assert program.maps[name].layout.places.tolist() == [0, 1, 2, 3, 4, 8, 9, 10, 11, 12]
    (step,) = passes_of(program, "l")
    assert step.residual_beats == 2 * 16 * 4
    assert step.fields["chunks"] == 4


@pytest.mark.parametrize("merge", [False, True])
@pytest.mark.parametrize("shift", [0, 1])
def test_groups_that_share_a_beat_with_a_dense_residual(merge, shift):
    wide = layer("d", "input", (3, 3, 4), 10, seed=1, dtype=INT8)
    grouped = dataclasses.replace(
        layer("g", "input", (3, 3, 4), 10, groups=2, seed=2, acc_shift=shift),
        residual=Residual(input="d", mult=40_000, shift=16),
    )
    network = network_of((3, 3, 4), wide, grouped)
    program = check(network, TINY, images_for(network, 2), Choices(merge=merge))
    chunks = [step.chunks for step in passes_of(program, "g")]
    # Beat 1 holds filter 4 of one group and filters 0 … 2 of the other.
    shared = [range(1, 2)] if merge and not shift else [range(1, 2)] * 2
    assert chunks == [range(1), *shared, range(2, 3)]


# --- Line buffer -----------------------------------------------------------------------------


def small(line_bytes, **options):
    return dataclasses.replace(TINY, line_bytes=line_bytes, **options)


def test_a_wide_map_is_cut_into_strips():
    network = network_of((9, 30, 8), layer("l", "input", (9, 30, 8), 6, **SAME))
    images = images_for(network, 2)
    whole = check(network, small(1024), images)
    assert len(whole.passes) == 1
    # 16 words a bank: 8 slots of 4 positions, and 3 lines of the map take 16.
    program = check(network, small(256), images)
    widths = [len(step.columns) for step in program.passes]
    assert sum(widths) == 30
    assert len(widths) == 3
    # Two inner edges, two columns of both beats each, 9 lines of 2 images.
    assert sum(step.again for step in program.passes) == 2 * 2 * 2 * 9 * 2
    starts = [step.fields["weights_offset"] for step in program.passes]
    assert len(set(starts)) == 1


def test_strips_that_allow_larger_tiles_save_weights():
    shape = (12, 28, 8)
    network = network_of(shape, layer("l", "input", shape, 4, case="dense", **SAME))
    sizes = {}
    for weight_bytes in (256, 4096):
        config = small(512, weight_bytes=weight_bytes)
        program = check(network, config, images_for(network, 1))
        sizes[weight_bytes] = [
            (len(step.columns), max(tile.interleave for tile in step.schedule.tiles))
            for step in program.passes
        ]
    # Weights that do not stay are read for each tile, and the whole map leaves room for I = 1.
    assert sizes == {256: [(14, 4), (14, 4)], 4096: [(28, 1)]}


def test_tiles_are_small_where_weights_stay_and_the_input_is_awaited():
    """A map of one tile would be read to its end before its first product."""
    shape = (4, 4, 128)
    network = network_of(shape, layer("l", "input", shape, 4, case="dense"))
    sizes = {}
    for weight_bytes in (512, 256):
        config = small(4096, weight_bytes=weight_bytes)
        (step,) = check(network, config, images_for(network, 1)).passes
        sizes[step.fields["weights_resident"]] = [t.interleave for t in step.schedule.tiles]
    assert sizes == {1: [1, 1, 1, 1], 0: [4]}


def test_strips_of_a_residual():
    shape = (9, 30, 8)
    one = layer("l", "input", shape, 8, **SAME)
    one = dataclasses.replace(one, residual=Residual(input="input", mult=40_000, shift=16))
    network = network_of(shape, one)
    program = check(network, small(256), images_for(network, 2))
    assert len(program.passes) == 3
    assert sum(step.residual_beats for step in program.passes) == 2 * 9 * 30 * 2


def test_tiles_are_as_large_as_the_line_buffer_allows():
    network = network_of((6, 8, 8), layer("l", "input", (6, 8, 8), 4, **SAME))
    images = images_for(network, 8)  # so that the wait for the first tile hardly counts
    # Two tiles and their surroundings: 9 + 2·4·I + 9 positions from −9 on.
    sizes = {}
    for size in (4096, 1024, 512, 256):
        program = check(network, small(size), images)
        (step,) = program.passes
        sizes[size] = (step.fields["ring_bits"], max(t.interleave for t in step.schedule.tiles))
    assert sizes == {4096: (7, 4), 1024: (5, 4), 512: (4, 4), 256: (3, 1)}


def test_a_long_vector_is_taken_as_a_line_of_pixels():
    # 40 beats do not fit 16 words; two slots of 8 beats do, and lanes for five pixels.
    network = network_of((2, 3, 160), layer("l", "input", (2, 3, 160), 5))
    program = check(network, small(256), images_for(network, 2))
    (step,) = program.passes
    fields = step.fields
    assert (fields["kernel_w"], fields["beats"], fields["images"]) == (5, 8, 12)
    assert fields["beats"] * 5 * 12 == step.input_beats == 12 * 40
    assert step.again == 0


def test_each_pixel_of_long_vectors_is_an_image():
    network = network_of((3, 4, 160), layer("l", "input", (3, 4, 160), 5))
    program = check(network, small(256), images_for(network, 1))
    assert program.passes[0].fields["images"] == 12


def test_a_vector_may_be_read_beyond_its_end():
    # 37 beats are no multiple of anything.
    network = network_of((1, 1, 148), layer("l", "input", (1, 1, 148), 5, dtype=INT32))
    program = check(network, small(256), images_for(network, 3))
    (step,) = program.passes
    assert step.input_beats == 3 * 40
    assert step.again == 3 * 3
    assert step.input.end <= program.size


def test_more_long_vectors_than_a_pass_has_images(monkeypatch):
    monkeypatch.setattr(passes, "IMAGE_BITS", 4)
    network = network_of((2, 3, 160), layer("l", "input", (2, 3, 160), 5))
    program = check(network, small(256), images_for(network, 3))
    assert [step.images for step in program.passes] == [range(n, n + 1) for n in range(3)]
    network = network_of((4, 4, 160), layer("l", "input", (4, 4, 160), 5))
    refused(network, "layer l: 16 long vectors in one pass, at most 15 are", small(256))


@pytest.mark.parametrize("images", [1, 2])
@pytest.mark.parametrize("shape", [(8, 8, 8), (7, 7, 8)])
def test_a_strided_layer_without_neighbours_reads_what_it_uses(images, shape):
    network = network_of(shape, layer("l", "input", shape, 8, stride=(2, 2)))
    program = check(network, TINY, images_for(network, images))
    (step,) = program.passes
    pixels = 49 if images == 2 and shape[0] == 7 else 16
    assert step.input_beats == images * pixels * 2


def test_strides_that_are_never_taken_do_not_matter():
    network = network_of(
        (5, 5, 3), layer("l", "input", (5, 5, 3), 4, kernel=(5, 5), stride=(5, 3), dilation=(1, 1))
    )
    check(network, TINY, images_for(network, 3))


@pytest.mark.parametrize("images", [1, 3])
@pytest.mark.parametrize(
    ("shape", "options"),
    [
        ((5, 4, 3), {"kernel": (3, 3), "stride": (3, 3)}),
        ((5, 4, 3), {"kernel": (3, 3), "stride": (1, 5), "padding": (0, 1, 0, 1)}),
        ((3, 9, 3), {"kernel": (2, 3), "stride": (7, 2), "dilation": (2, 1)}),
        ((2, 4, 3), {"stride": (5, 6)}),
        ((2, 4, 160), {"stride": (5, 7)}),
    ],
)
def test_what_lies_behind_the_only_window_is_not_computed(images, shape, options):
    network = network_of(shape, layer("l", "input", shape, 4, **options))
    check(network, small(256), images_for(network, images))


@pytest.mark.parametrize("side", [1, 2, 9])
def test_windows_of_padding_only(side):
    shape = (side, side, 3)
    edge = (31, 4, 3, 31)
    network = network_of(shape, layer("l", "input", shape, 4, kernel=(3, 3), padding=edge))
    check(network, TINY, images_for(network, 2))
    # Strips for the pooler, each of which sees something, or else none.
    pool = MaxPool(name="p", input="l", kernel=(2, 2), stride=(2, 2))
    network = network_of(shape, *network.nodes, pool)
    check(network, dataclasses.replace(TINY, pool_words=4), images_for(network, 1))


def test_images_are_computed_apart_where_two_loops_do_not_reach():
    # A strip of a group's channels of several images: pixels, lines and images are apart.
    shape = (5, 30, 16)
    first = layer("a", "input", shape, 16)
    flat = Flatten(name="flat", input="a")
    one = MaxPool(name="one", input="a", kernel=(5, 30), stride=(5, 30))
    # Between the images of "a" lies what belongs to "one".
    both = Concat(name="both", inputs=("flat", "one"))
    grouped = layer("g", "a", shape, 16, groups=2, **SAME)
    network = network_of(shape, first, flat, one, both, grouped)
    program = check(network, small(256), images_for(network, 2))
    assert {len(step.images) for step in passes_of(program, "a")} == {2}
    assert {len(step.images) for step in passes_of(program, "g")} == {1}
    assert len(passes_of(program, "g")) > 4


# --- Concatenation ---------------------------------------------------------------------------


def test_nested_concatenations_are_one_map():
    shape = (3, 4, 5)
    nodes = [layer(name, "input", shape, 6, seed=n) for n, name in enumerate("abc")]
    inner = Concat(name="inner", inputs=("a", "b"))
    outer = Concat(name="outer", inputs=("inner", "c"))
    reader = layer("l", "outer", (3, 4, 18), 3)
    other = layer("m", "inner", (3, 4, 12), 3)
    network = network_of(shape, *nodes, inner, outer, reader, other)
    program = check(network, TINY, images_for(network, 2))
    assert len(program.passes) == 5
    places = [program.maps[name] for name in ("a", "b", "inner", "c", "outer")]
    assert {place.pixel for place in places} == {24}
    first = program.maps["outer"].offset
    assert [place.offset - first for place in places] == [0, 8, 0, 16, 0]
    # Holes of 6 channels in 8 bytes.
    assert program.maps["outer"].layout.places.tolist() == [n // 6 * 8 + n % 6 for n in range(18)]


def test_what_cannot_be_written_in_place_is_copied():
    shape = (3, 4, 5)
    one = layer("a", "input", shape, 6)
    twice = Concat(name="twice", inputs=("a", "input", "a"))
    network = network_of(shape, one, twice)
    program = check(network, TINY, images_for(network, 2))
    # The input is a map of its own, and a map has one place.
    assert [step.kind for step in program.passes] == [Kind.CONVOLVE, Kind.POOL, Kind.POOL]
    assert [step.node for step in program.passes] == ["a", "twice", "twice"]
    assert program.maps["a"].offset == program.maps["twice"].offset


def test_a_flattened_map_is_a_view():
    shape = (3, 4, 5)
    a, b = (layer(name, "input", shape, 6, seed=n) for n, name in enumerate("ab"))
    flat = Flatten(name="flat", input="a")
    again = Flatten(name="again", input="flat")
    wide = Concat(name="wide", inputs=("a", "b"))
    line = Concat(name="line", inputs=("again", "flat"))
    logits = layer("logits", "line", (1, 1, 144), 5, dtype=INT32)
    network = network_of(shape, a, b, flat, again, wide, line, logits)
    program = check(network, TINY, images_for(network, 2))
    # Flattened, it may have no gaps between its pixels: the wide map gets a copy.
    assert program.maps["a"].pixel == 8
    assert program.maps["a"].offset == program.maps["flat"].offset == program.maps["line"].offset
    assert program.maps["a"].image == 2 * 12 * 8
    assert [step.node for step in program.passes] == ["a", "b", "wide", "line", "logits"]


def test_a_flattened_map_has_no_gaps():
    shape = (3, 4, 5)
    a, b = (layer(name, "input", shape, 6, seed=n) for n, name in enumerate("ab"))
    flat = Flatten(name="flat", input="a")
    logits = layer("logits", "flat", (1, 1, 72), 5)
    network = network_of(shape, a, b, flat, logits, Concat(name="wide", inputs=("a", "b")))
    program = check(network, TINY, images_for(network, 2))
    assert program.maps["flat"].layout.chunks == 24
    assert [step.node for step in program.passes] == ["a", "b", "logits", "wide"]


# --- Pooling ---------------------------------------------------------------------------------


def pooled(node, shape=(9, 9, 6), **options):
    return network_of(shape, layer("l", "input", shape, 6, **options), node)


def test_a_pooling_alone_reads_memory():
    node = MaxPool(name="p", input="l", kernel=(2, 2), stride=(2, 2))
    network = pooled(node)
    images = images_for(network, 2)
    fused = check(network, TINY, images)
    apart = check(network, TINY, images, Choices(fuse=False))
    assert [step.nodes for step in fused.passes] == [("l", "p")]
    assert [step.nodes for step in apart.passes] == [("l",), ("p",)]
    assert "l" in apart.maps
    assert "l" not in fused.maps
    with pytest.raises(CspError, match="network net: l is never in memory"):
        fused.value("l", fused.memory(images))


def test_a_map_that_others_read_is_written():
    node = MaxPool(name="p", input="l", kernel=(2, 2), stride=(2, 2))
    shape = (9, 9, 6)
    network = network_of(shape, layer("l", "input", shape, 6), node, layer("m", "l", shape, 6))
    program = check(network, TINY, images_for(network, 2))
    assert [step.nodes for step in program.passes] == [("l",), ("p",), ("m",)]


@pytest.mark.parametrize("fuse", [True, False])
@pytest.mark.parametrize("kind", ["max", "avg"])
@pytest.mark.parametrize(
    ("size", "kernel", "stride", "padding", "ceil"),
    [
        ((9, 9), (3, 3), (2, 2), (1, 1, 1, 1), False),
        ((8, 9), (3, 2), (2, 2), (1, 0, 0, 1), True),
        ((9, 9), (9, 9), (1, 1), (0, 0, 0, 0), False),
        ((7, 9), (12, 11), (1, 1), (5, 2, 0, 0), True),
        ((9, 9), (4, 4), (4, 4), (0, 0, 0, 0), False),
        ((10, 11), (5, 5), (5, 6), (0, 0, 0, 0), False),
        ((4, 70), (1, 2), (1, 1), (0, 0, 0, 0), False),
        ((9, 9), (3, 4), (2, 4), (1, 0, 1, 0), True),
    ],
)
def test_poolings(fuse, kind, size, kernel, stride, padding, ceil):
    options = {
        "name": "p",
        "input": "l",
        "kernel": kernel,
        "stride": stride,
        "padding": padding,
        "ceil_mode": ceil,
    }
    if kind == "max":
        node = MaxPool(**options)
    else:
        node = AvgPool(**options, count_include_pad=False, shift=15)
    network = pooled(node, (*size, 6), dtype=INT8)
    program = check(network, TINY, images_for(network, 2), Choices(fuse=fuse))
    assert len(program.maps) == (2 if fuse else 3)


def test_channels_are_divided_before_columns():
    node = MaxPool(name="p", input="input", kernel=(2, 2), stride=(1, 1))
    network = network_of((4, 33, 22), node)
    program = check(network, TINY, images_for(network, 2))
    # 32 windows of six words, 64 words: two at a time.
    assert [step.chunks for step in program.passes] == [range(2), range(2, 4), range(4, 6)]
    program = check(network, dataclasses.replace(TINY, pool_words=16), images_for(network, 2))
    assert {len(step.columns) for step in program.passes} == {16}
    assert len(program.passes) == 12
    assert sum(step.again for step in program.passes) == 2 * 4 * 6


def test_means_in_strips_have_their_own_divisors():
    options = {"kernel": (3, 3), "stride": (1, 1), "padding": (1, 1, 1, 1), "shift": 15}
    node = AvgPool(name="p", input="input", **options, count_include_pad=False)
    network = network_of((5, 40, 6), node)
    config = dataclasses.replace(TINY, pool_words=16)
    program = check(network, config, images_for(network, 2))
    inner = [step for step in program.passes if step.columns.start > 0 and step.columns.stop < 40]
    assert inner
    # Only at an edge has a window one or two columns.
    assert all("pool_mult_7" not in step.fields for step in inner)


def test_a_pooling_behind_strips():
    # 32 windows of two words: four strips of 16 words, of which overlapping windows share columns.
    node = MaxPool(name="p", input="l", kernel=(3, 3), stride=(2, 2), padding=(1, 1, 1, 1))
    shape = (6, 64, 6)
    network = network_of(shape, layer("l", "input", shape, 6, **SAME), node)
    config = dataclasses.replace(TINY, pool_words=16)
    program = check(network, config, images_for(network, 2))
    assert [step.columns for step in program.passes] == [
        range(8),
        range(8, 16),
        range(16, 24),
        range(24, 32),
    ]
    assert [step.schedule.grid.width for step in program.passes] == [16, 17, 17, 17]
    assert {step.nodes for step in program.passes} == {("l", "p")}
    # Strips for the line buffer serve the pooler, too.
    narrow = dataclasses.replace(config, line_bytes=256, pool_words=64)
    program = check(network, narrow, images_for(network, 2))
    assert len(program.passes) > 4
    assert {step.nodes for step in program.passes} == {("l", "p")}
    # A pixel of more words than the pooler's line.
    wide = network_of(shape, layer("l", "input", shape, 20, **SAME), node)
    program = check(wide, dataclasses.replace(config, pool_words=4), images_for(wide, 1))
    assert {step.nodes for step in program.passes} == {("l",), ("p",)}
    # Where too much would be computed twice, the map goes through memory.
    program = check(network, dataclasses.replace(TINY, pool_words=4), images_for(network, 1))
    assert {step.nodes for step in program.passes} == {("l",), ("p",)}


# --- Refusals --------------------------------------------------------------------------------


def refused(network, message, config=TINY, images=1):
    with pytest.raises(CspError, match=message):
        compile_network(network, config, images)


def test_an_engine_is_no_core():
    network = network_of((2, 2, 2), layer("l", "input", (2, 2, 2), 4))
    with pytest.raises(ConfigError, match="rows of a core must be a power of two, not 3"):
        compile_network(network, dataclasses.replace(TINY, rows=3), 1)


def test_other_columns_are_refused():
    network = network_of((2, 2, 2), layer("l", "input", (2, 2, 2), 4))
    config = dataclasses.replace(TINY, cols=8)
    refused(network, "network net: stored for 4 columns, the array has 8: repack", config)


def test_a_long_period_is_refused():
    network = network_of((2, 2, 9), layer("l", "input", (2, 2, 9), 4, period=9), period=9)
    refused(network, "layer l: period 9 exceeds max_period 8")


@pytest.mark.parametrize("images", [0, 65_536])
def test_too_many_images_are_refused(images):
    network = network_of((2, 2, 2), layer("l", "input", (2, 2, 2), 4))
    refused(network, f"network net: images must be 1 … 65535, not {images}", images=images)


def test_too_much_memory_is_refused():
    shape = (64, 64, 16)
    network = network_of(shape, layer("l", "input", shape, 4))
    refused(network, r"map l: \d+ bytes of memory, an offset reaches 4294967296", images=65_535)


@pytest.mark.parametrize(
    ("shape", "options", "message"),
    [
        ((9, 9, 2), {"kernel": (3, 3), "stride": (3, 1)}, r"layer l: stride \(3, 1\) must be"),
        ((30, 2, 2), {"kernel": (3, 1), "dilation": (8, 1)}, "layer l: dilation_y must be 0 … 7"),
        ((2, 2, 2), {"padding": (32, 0, 0, 0)}, "layer l: pad_top must be 0 … 31, not 32"),
        ((1, 4096, 2), {}, "layer l: width must be 0 … 4095, not 4096"),
        ((1, 1, 8000), {}, "layer l: a pixel takes 2000 words of each bank .* which has 256"),
        (
            (9, 9, 400),
            {"kernel": (3, 3)},
            "layer l: one column of outputs needs 12 positions of 100 words, .* has 8",
        ),
        (
            (9, 9, 400),
            {"kernel": (11, 9), "padding": (2, 0, 2, 0), "case": "gaps"},
            "layer l: one column of outputs needs 99 positions",
        ),
    ],
)
def test_layers_that_do_not_fit_are_refused(shape, options, message):
    network = network_of(shape, layer("l", "input", shape, 4, **options))
    refused(network, message)


def test_strips_of_padding_are_refused():
    shape = (9, 40, 8)
    one = layer("l", "input", shape, 4, kernel=(3, 3), padding=(1, 1, 1, 31))
    network = network_of(shape, one)
    refused(network, r"layer l: outputs \d+ … \d+ of a line see nothing but padding", small(256))


@pytest.mark.parametrize(
    ("shape", "options", "message"),
    [
        (
            (9, 9, 2),
            {"kernel": (4, 3), "stride": (2, 3)},
            r"pool p: windows of \(4, 3\) that overlap exceed 3 along an axis",
        ),
        (
            (9, 9, 2),
            {"kernel": (3, 5), "stride": (2, 5)},
            r"pool p: means of \(3, 5\) that overlap downwards exceed 4 columns",
        ),
        (
            (64, 64, 2),
            {"kernel": (64, 64), "stride": (64, 64)},
            "pool p: pool_kernel_h must be 0 … 63, not 64",
        ),
        (
            (10, 10, 2),
            {"kernel": (5, 5), "stride": (5, 5), "padding": (1, 1, 0, 0), "ceil_mode": True},
            "pool p: windows with 4 × 5 elements inside need the multipliers 2048 and 1638",
        ),
    ],
)
def test_poolings_that_do_not_fit_are_refused(shape, options, message):
    node = AvgPool(name="p", input="input", **options, count_include_pad=False, shift=15)
    refused(network_of(shape, node), message)


def test_too_many_groups_of_rows_are_refused():
    # 2^24 groups of four positions.
    shape = (33, 33, 1)
    network = network_of(shape, layer("l", "input", shape, 1))
    refused(network, "layer l: 17841903 groups of 4 positions, at most 16777215 are", images=65_535)


def test_a_network_without_work_has_no_passes():
    network = network_of((2, 2, 3), Flatten(name="f", input="input"))
    program = check(network, TINY, images_for(network, 2))
    assert program.passes == ()
    assert program.summary() == ()


def test_wrong_images_are_refused():
    network = network_of((2, 2, 3), Flatten(name="f", input="input"))
    program = compile_network(network, TINY, 2)
    with pytest.raises(CspError, match=r"input must be uint8 \[2, 2, 2, 3\], not int8 \[1, 2, 2"):
        program.memory(np.zeros((1, 2, 2, 3), dtype=np.int8))
