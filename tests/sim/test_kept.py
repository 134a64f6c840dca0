# SPDX-License-Identifier: Apache-2.0
"""Which maps stay on the chip, and where."""

import dataclasses

import numpy as np
import pytest

from csp_algo.errors import CspError
from csp_algo.network import Concat, Flatten, Residual
from csp_hw.axi.ports import LOCAL_OFFSET
from csp_hw.config import PRESETS
from sim.peers.base import map_sizes
from sim.program.compiler import compile_network
from sim.program.kept import Use, keep
from sim.program.plan import Choices
from sim.workloads.catalogue import workload
from tests.sim.test_program import INT32, check, images_for, layer, network_of

KIB = 1024
TINY = PRESETS["tiny_4x4"].replace(map_bytes=8 * KIB)
BANK = 2 * KIB


def kept(uses, sizes, outside=()):
    return keep([Use(*use) for use in uses], sizes, outside, TINY)


def test_maps_follow_each_other():
    chain = [((), "a"), ("a", "b"), ("b", "c"), ("c", "d")]
    sizes = dict.fromkeys("abcd", 3000)
    # A place is free for the pass behind the last one that reads.
    assert kept(chain, sizes) == {"a": 0, "b": 2 * BANK, "c": 0, "d": 2 * BANK}
    assert kept(chain, sizes, outside="ad") == {"b": 0, "c": 2 * BANK}


def test_the_largest_maps_come_first():
    chain = [((), "a"), ("a", "b"), ("b", "c")]
    assert kept(chain, {"a": 64, "b": 4040, "c": 4100}) == {"c": 0, "a": 0}
    assert kept(chain, {"a": 100, "b": 4000, "c": 4000}) == {"b": 0, "c": 2 * BANK, "a": 2 * BANK}
    # Behind another one if no bank begins where it is free; sizes are whole 64 bytes.
    whole = [((), "a"), ((), "b"), ((), "c"), ((), "d"), ("abcd", "e")]
    found = {"a": 0, "b": BANK, "c": 2 * BANK, "d": 3 * BANK}
    assert kept(whole, dict.fromkeys("abcd", 1900) | {"e": 100}) == found | {"e": 1920}
    assert kept(whole, dict.fromkeys("abcd", 2000) | {"e": 100}) == found


def test_what_finds_no_place_stays_outside():
    chain = [((), "a"), ("a", "b"), ("b", "c")]
    assert kept(chain, {"a": 6000, "b": 3000, "c": 6000}) == {"a": 0, "c": 0}
    assert kept(chain, {"a": 8192, "b": 8193, "c": 1}) == {"a": 0, "c": 0}
    # Maps without a size cannot stay.
    assert kept(chain, {"b": 1}) == {"b": 0}


def test_a_map_stays_until_it_was_read():
    uses = [((), "a"), ("a", "b"), ("b", "c"), ("a", "d"), ("d", "e")]
    sizes = dict.fromkeys("abcde", 2000)
    assert kept(uses, sizes) == {"a": 0, "b": BANK, "c": 2 * BANK, "d": BANK, "e": 0}


def test_input_and_residual_in_different_banks():
    uses = [((), "a"), ("a", "b"), ("b", "c", "a")]
    assert kept(uses, dict.fromkeys("abc", 100)) == {"a": 0, "b": BANK, "c": 2 * BANK}
    # There would be room in the second bank, and in the last one; what is written may be anywhere.
    assert kept(uses, {"a": BANK + 64, "b": 3 * BANK, "c": 1}) == {"b": 0, "c": 3 * BANK}
    assert kept(uses, {"a": 3 * BANK, "b": 2 * BANK - 64, "c": 1}) == {"a": 0, "c": 3 * BANK}
    # The same map as both.
    uses = [((), "a"), ("a", "b", "a"), ("b", "c")]
    assert kept(uses, dict.fromkeys("abc", 64)) == {"b": 0, "c": BANK}


def test_resnet50_on_two_mebibytes():
    """All of its maps for one image, the first one pooled as it is written."""
    works = {work.shape.name: work for work in workload("resnet50").works}
    blocks = [name.removesuffix("_reduce") for name in works if name.endswith("_reduce")]
    sizes = {name: map_sizes(work)[1] for name, work in works.items()}
    sizes["conv1"] //= 4
    uses, before = [Use(("image",), ("conv1",))], "conv1"
    for block in blocks:
        reduce, conv, shortcut, expand = (
            f"{block}_{part}" for part in ("reduce", "conv", "shortcut", "expand")
        )
        uses += [Use((before,), (reduce,)), Use((reduce,), (conv,))]
        if shortcut in works:
            uses.append(Use((before,), (shortcut,)))
            before = shortcut
        uses.append(Use((conv,), (expand,), before))
        before = expand
    uses.append(Use((before,), ("linear",)))
    assert len(blocks) == 16
    found = {}
    for size in (512, 1024, 2048):
        config = PRESETS["csp_h_32x32"].replace(map_bytes=size * KIB)
        places = keep(uses, sizes, ("image", "linear"), config)
        moved = [name for use in uses for name in (*use.reads, *use.writes, use.residual)]
        moved = [name for name in moved if name in sizes and name != "linear"]
        bytes_of = {name: sizes[name] for name in moved}
        inside = sum(bytes_of[name] for name in moved if name in places)
        found[size] = round(inside / sum(bytes_of[name] for name in moved), 2)
    assert found == {512: 0.52, 1024: 0.79, 2048: 1.0}


def block(side, *, images=1):
    """Give a residual block behind a layer, and its images."""
    shape = (side, side, 4)
    first, second, third, last = (
        layer(name, source, shape, 4, seed=n, kernel=(3, 3), padding=(1, 1, 1, 1))
        for n, (name, source) in enumerate(zip("abcd", ("input", "a", "b", "c"), strict=True))
    )
    third = dataclasses.replace(third, residual=Residual(input="a", mult=2**15, shift=15))
    network = network_of(shape, first, second, third, last)
    return network, images_for(network, images)


def test_a_residual_block():
    network, images = block(12, images=2)
    program = check(network, TINY, images)
    places = {name: place.offset - LOCAL_OFFSET for name, place in program.maps.items()}
    assert [name for name, place in program.maps.items() if place.on_chip] == ["a", "b", "c"]
    assert (places["a"], places["b"], places["c"]) == (0, BANK, 2 * BANK)
    # Only the input comes in, only the output leaves.
    beats = 2 * 12 * 12
    assert [step.input_beats for step in program.passes] == [beats, 0, 0, 0]
    assert [step.residual_beats for step in program.passes] == [0, 0, 0, 0]
    assert [step.result_beats for step in program.passes] == [0, 0, 0, beats]
    assert [step.kept_beats for step in program.passes] == [beats, 2 * beats, 3 * beats, beats]
    assert [record.kept_beats for record in program.summary()] == [288, 576, 864, 288]


def test_a_long_vector_is_read_to_the_end_of_the_memory():
    # Two maps fill it, but of 688 beats in three equal parts the last two come from behind.
    shape = (1, 680, 4)
    network = network_of(
        shape,
        layer("large", "input", shape, 8),
        layer("small", "input", shape, 4, padding=(0, 0, 0, 8)),
        Flatten(name="flat", input="small"),
        layer("long", "flat", (1, 1, 4 * 688), 4),
        layer("last", "large", (1, 680, 8), 4),
    )
    config = dataclasses.replace(TINY, map_bytes=1 << 13)
    program = check(network, config, images_for(network, 1))
    assert [name for name, place in program.maps.items() if place.on_chip] == ["large", "long"]


def test_maps_that_are_exposed():
    network, images = block(12)
    program = check(network, TINY, images, Choices(expose=True))
    assert [step.node for step in program.passes] == ["a", "a", "b", "b", "c", "c", "d"]
    assert [step.is_copy for step in program.passes] == [0, 1, 0, 1, 0, 1, 0]
    assert set(program.shown) == set(program.maps)
    assert not any(place.on_chip for place in program.shown.values())
    # Maps lie where they lie without copies.
    plain = compile_network(network, TINY, 1)
    assert [place.offset for place in program.maps.values() if place.on_chip] == [
        place.offset for place in plain.maps.values() if place.on_chip
    ]
    memory = plain.memory(images)
    with pytest.raises(CspError, match=r"^network net: b is on the chip only$"):
        plain.value("b", memory)
    assert set(plain.mismatches(memory, dict.fromkeys("abc", images))) == set()


def test_the_same_program_if_all_maps_are_outside():
    network, images = block(48)
    program = compile_network(network, TINY, len(images))
    before = compile_network(network, TINY.replace(map_bytes=0), len(images))
    assert not any(place.on_chip for place in program.maps.values())
    assert np.array_equal(program.constants, before.constants)
    for name in ("size", "start", "regions", "descriptors"):
        assert getattr(program, name) == getattr(before, name)
    assert [step.fields for step in program.passes] == [step.fields for step in before.passes]


def test_concatenations_and_their_copies():
    shape = (6, 6, 4)
    a, b = (layer(name, "input", shape, 4, seed=n) for n, name in enumerate("ab"))
    one = Concat(name="one", inputs=("a", "b"))
    two = Concat(name="two", inputs=("b", "one"))
    reader = layer("r", "two", (6, 6, 12), 4)
    logits = layer("logits", "r", shape, 3, dtype=INT32)
    network = network_of(shape, a, b, one, two, reader, logits)
    for choices in (Choices(), Choices(expose=True)):
        program = check(network, TINY, images_for(network, 2), choices)
        inside = [name for name, place in program.maps.items() if place.on_chip]
        assert inside == ["a", "b", "one", "two", "r"]


def test_the_map_of_places():
    network, images = block(12)
    program = compile_network(network, TINY, len(images))
    found = [(each.name, each.on_chip, each.bytes, each.passes) for each in program.places()]
    assert found == [
        ("input", False, 576, (0, 0)),
        ("a", True, 576, (0, 2)),
        ("b", True, 576, (1, 2)),
        ("c", True, 576, (2, 3)),
        ("d", False, 576, (3, 3)),
    ]
