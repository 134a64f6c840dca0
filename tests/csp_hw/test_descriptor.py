# SPDX-License-Identifier: Apache-2.0
"""The descriptor's table, and the checks that refuse one."""

import itertools
from pathlib import Path

import pytest

from csp_hw.check import CHECKS, DescriptorCheck
from csp_hw.config import PRESETS
from csp_hw.descriptor import (
    DESCRIPTOR_BYTES,
    FIELDS,
    WORD_BITS,
    WORDS,
    descriptor_layout,
    pack,
    reserved_bits,
    unpack,
)
from csp_hw.descriptor_buffer import DescriptorBuffer
from tests.csp_hw.bench import play, rng_of

CONFIG = PRESETS["csp_8x8"]
#: A 3×3 convolution of a 14×14 map with 16 channels: 2 beats.
LEGAL = {
    "out": 1,
    "period": 16,
    "chunks": 4,
    "taps": 144,
    "position_words": 2,
    "tiles": 4,
    "last_filters": 8,
    "weight_words": 300,
    "weights_resident": 1,
    "counts_resident": 1,
    "ring_bits": 7,
    "count_beats": 18,
    "kernel_h": 3,
    "kernel_w": 3,
    "beats": 2,
    "images": 1,
    "height": 14,
    "width": 14,
    "out_height": 14,
    "out_width": 14,
    "dilation_y": 1,
    "dilation_x": 1,
    "lines": 14,
    "pitch": 14,
    "pad_top": 1,
    "pad_left": 1,
    "input_beats": 392,
    "input_count1": 1,
    "input_count2": 1,
    "output_beats": 784,
    "output_count1": 1,
    "output_count2": 1,
    "output_high": 6272,
}
POOLED = {
    "pool": 1,
    "pool_height": 14,
    "pool_width": 14,
    "pool_kernel_h": 2,
    "pool_kernel_w": 2,
    "pool_stride_h": 2,
    "pool_stride_w": 2,
    "pool_words": 28,
}
ADDED = {"residual": 1, "add_beats": 784, "add_count1": 1, "add_count2": 1}


def check(*descriptors):
    """Give, for each descriptor, the name of the check that refuses it, or None."""
    steps = [
        {"descriptor": int.from_bytes(pack(fields), "little")}
        for fields in descriptors
        for _ in range(4)
    ]
    for step in steps:
        step["descriptor"] = descriptor_layout().from_bits(step["descriptor"])
    seen = play(DescriptorCheck(CONFIG), steps, ["wrong", "number"])[3::4]
    return [CHECKS[at["number"]] if at["wrong"] else None for at in seen]


def test_legal_ones_pass():
    pooling = POOLED | {"kind": 1, "images": 3}
    pooling |= {name: LEGAL[name] for name in LEGAL if name.startswith(("input", "output"))}
    cases = [LEGAL, LEGAL | POOLED, LEGAL | ADDED, LEGAL | {"out": 2}, pooling]
    assert check(*cases) == [None] * len(cases)


REFUSED = [
    ("kind", {"kind": 2}),
    ("out", {"out": 3}),
    ("pool", {"pool": 3}),
    ("pool", {"kind": 1}),
    *[("pool", POOLED | {name: 0}) for name in POOLED if name != "pool"],
    ("pool", POOLED | {"pool_words": CONFIG.pool_words + 1}),
    ("pool", POOLED | {"pool_kernel_h": 4}),
    ("pool", POOLED | {"pool_kernel_w": 4, "pool_stride_w": 3}),
    ("int32", {"out": 2, "relu": 1}),
    ("int32", ADDED | {"out": 2}),
    ("int32", POOLED | {"out": 2}),
    ("period", {"period": 0}),
    ("period", {"period": 17}),
    ("chunks", {"chunks": 0}),
    ("chunks", {"chunks": CONFIG.depth + 1}),
    ("last_filters", {"last_filters": 0}),
    ("last_filters", {"last_filters": 9}),
    ("acc_shift", {"acc_shift": 9}),
    ("taps", {"taps": 0}),
    ("taps", {"position_words": 0}),
    ("tiles", {"tiles": 0}),
    ("kernel", {"kernel_h": 0}),
    ("kernel", {"kernel_w": 12}),
    ("stride", {"stride_y": 3}),
    ("stride", {"stride_x": 3}),
    ("dilation", {"dilation_y": 0}),
    ("dilation", {"dilation_x": 0}),
    *[("extent", {name: 0}) for name in ("images", "height", "width", "out_height", "out_width")],
    ("grid", {"lines": 13}),
    ("grid", {"pitch": 13}),
    ("grid", {"height": 15}),
    ("grid", {"width": 15}),
    ("line_buffer", {"beats": 0}),
    ("line_buffer", {"beats": 5}),
    ("line_buffer", {"ring_bits": 9}),
    ("line_buffer", {"ring_bits": 31, "beats": 1}),
    ("line_buffer", {"stride_y": 2, "stride_x": 1}),
    ("weight_buffer", {"weight_words": CONFIG.weight_words + 1}),
    ("count_buffer", {"count_beats": 0}),
    ("count_buffer", {"count_beats": CONFIG.count_words + 1}),
    *[("loops", {f"{name}_{part}": 0}) for name, part in itertools.product(
        ("input", "output"), ("beats", "count1", "count2")
    )],
    *[("loops", ADDED | {name: 0}) for name in ADDED if name != "residual"],
    *[("alignment", {f"{name}_offset": 4}) for name in ("params", "tiles", "counts", "weights")],
    *[("alignment", {f"{name}_{part}": 1}) for name, part in itertools.product(
        ("input", "add", "output"), ("offset", "pitch1", "pitch2")
    )],
    ("output_range", {"output_low": 6280}),
]  # fmt: skip


def test_what_is_refused():
    found = check(*[LEGAL | change for _, change in REFUSED])
    for (name, change), seen in zip(REFUSED, found, strict=True):
        assert seen == name, change
    assert {name for name, _ in REFUSED} == set(CHECKS) - {"reserved"}


def fill(whole, *, before=()):
    """Give the steps that put a descriptor into its buffer, after beats of one that broke off."""
    width = 8 * CONFIG.cols
    beats = [whole >> bit & ((1 << width) - 1) for bit in range(0, 8 * DESCRIPTOR_BYTES, width)]
    steps = [{"clear": 1, "write": 0}]
    steps += [{"clear": 0, "write": 1, "beat": beat} for beat in before]
    steps += [{"clear": 1, "write": 0}, {"clear": 0, "write": 0}]
    for beat in beats:
        steps += [{"write": 1, "beat": beat}, {"write": 0, "beat": (1 << width) - 1}]
    return steps + [{"write": 0}] * 3


def filled(whole, **broken):
    steps = fill(whole, **broken)
    return play(DescriptorBuffer(CONFIG), steps, ["last", "descriptor", "reserved"])


def test_buffer_keeps_each_field():
    rng = rng_of(len(FIELDS))
    ones = (1 << 8 * DESCRIPTOR_BYTES) - 1
    for whole in (ones, int.from_bytes(rng.bytes(DESCRIPTOR_BYTES), "little")):
        whole &= ~reserved_bits()
        seen = filled(whole, before=[3, 5])
        assert seen[-1]["descriptor"] == unpack(whole.to_bytes(DESCRIPTOR_BYTES, "little"))
        assert seen[-1]["reserved"] == 0
        assert [at["last"] for at in seen[-7:]] == [0, 1, 1, 0, 0, 0, 0]


def test_reserved_bits_are_zero():
    mask = reserved_bits()
    legal = int.from_bytes(pack(LEGAL), "little")
    bits = [bit for bit in range(8 * DESCRIPTOR_BYTES) if mask >> bit & 1]
    for bit in (bits[0], bits[len(bits) // 2], bits[-1]):
        seen = filled(legal | 1 << bit)
        assert seen[-1]["reserved"] == 1
        assert seen[-1]["descriptor"] == unpack(pack(LEGAL))
    # What an earlier one had does not count.
    assert filled(legal, before=[(1 << 8 * CONFIG.cols) - 1] * 32)[-1]["reserved"] == 0


def test_a_reserved_bit_is_refused():
    steps = [{"descriptor": descriptor_layout().from_bits(0), "reserved": 1}] * 4
    at = play(DescriptorCheck(CONFIG), steps, ["wrong", "number"])[-1]
    assert (at["wrong"], CHECKS[at["number"]]) == (1, "reserved")


def test_limits_of_what_stays_in_a_buffer():
    outside = {"weight_words": CONFIG.weight_words + 1, "weights_resident": 0}
    counts = {"count_beats": CONFIG.count_words + 1, "counts_resident": 0}
    edge = {"weight_words": CONFIG.weight_words, "count_beats": CONFIG.count_words}
    assert check(LEGAL | outside, LEGAL | counts, LEGAL | edge) == [None] * 3


def test_fields_lie_apart_and_within_words():
    used = 0
    for bit, width in FIELDS.values():
        mask = ((1 << width) - 1) << bit
        assert not used & mask
        assert bit // WORD_BITS == (bit + width - 1) // WORD_BITS
        used |= mask
    assert len(FIELDS) == sum(map(len, WORDS))
    assert used ^ reserved_bits() == (1 << 8 * DESCRIPTOR_BYTES) - 1


def test_pack_and_unpack():
    fields = {
        name: (n * 7919 + 1) % (1 << width) for n, (name, (_, width)) in enumerate(FIELDS.items())
    }
    assert unpack(pack(fields)) == fields
    assert len(pack({})) == DESCRIPTOR_BYTES
    assert pack({"kind": 1})[0] == 1
    assert pack({"strobe_high": 1 << 31})[128:132] == b"\0\0\0\x80"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"nothing": 1}, "a descriptor has no field nothing"),
        ({"kind": 4}, "kind must be 0 … 3, not 4"),
        ({"taps": -1}, "taps must be 0 … 65535, not -1"),
    ],
)
def test_pack_refuses(fields, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        pack(fields)


def test_every_field_is_explained():
    text = (Path(__file__).parents[2] / "docs" / "core.md").read_text(encoding="utf-8")
    families = ("add_", "output_", "pool_mult_")
    for name in FIELDS:
        assert f"`{name}`" in text or name.startswith(families), name
    assert all(f"`{family}" in text for family in families)
