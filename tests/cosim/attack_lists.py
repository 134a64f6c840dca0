# SPDX-License-Identifier: Apache-2.0
"""Lists of attacks on a core: descriptors, addresses, streams, the bus, the time."""

import collections
import dataclasses
import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from csp_hw.check import CHECKS
from csp_hw.config import CspConfig
from csp_hw.descriptor import DESCRIPTOR_BYTES, FIELDS, reserved_bits
from csp_hw.register_map import ErrorCode
from sim.cosim.core.jobs import Inject, Response, Timing
from tests.cosim.core_attacks import (
    ADDED,
    LOGITS,
    MAPS,
    PLAIN,
    POOL,
    POOLED,
    TABLES,
    Attack,
    Bed,
)

SHORT, LONG = [ErrorCode.STREAM_SHORT], [ErrorCode.STREAM_LONG]
#: The largest value of each field.
TOP = {name: (1 << width) - 1 for name, (_, width) in FIELDS.items()}
#: Entries of a list of tiles: first group of rows, I.
Tiles = list[tuple[int, int]]


# --- Descriptors ----------------------------------------------------------------------------------


#: Check, pass, and the fields that make it fail.
Wrong = Iterator[tuple[str, int, Mapping[str, int]]]


def _each(check: str, number: int, **values: int | tuple[int, ...]) -> Wrong:
    """Give each of the values by itself."""
    for name, wrong in values.items():
        for value in wrong if isinstance(wrong, tuple) else (wrong,):
            yield check, number, {name: value}


def bad_fields(bed: Bed) -> Wrong:
    """Give for each check what fails it first, at its limits."""
    config, plain = bed.config, bed.fields(PLAIN)
    words = config.count_words * config.lookahead // config.cols
    for number in (PLAIN, POOL):
        yield from _each("kind", number, kind=(2, 3))
    yield from _each("out", PLAIN, out=3)
    yield from _each("out", LOGITS, out=3)
    yield from _each("int32", LOGITS, relu=1, residual=1)
    yield "int32", POOLED, {"out": 2}
    yield from _each("period", PLAIN, period=(0, config.max_period + 1, TOP["period"]))
    yield from _each("chunks", PLAIN, chunks=(0, config.depth + 1, TOP["chunks"]))
    yield from _each("last_filters", PLAIN, last_filters=(0, config.cols + 1, 127))
    yield from _each("acc_shift", PLAIN, acc_shift=(33 - config.acc_bits, TOP["acc_shift"]))
    yield from _each("taps", PLAIN, taps=0, position_words=0)
    yield from _each("tiles", PLAIN, tiles=0)
    yield from _each("kernel", PLAIN, kernel_h=(0, 12, 15), kernel_w=(0, 12, 15))
    yield from _each("stride", PLAIN, stride_y=3, stride_x=3)
    yield from _each("dilation", PLAIN, dilation_y=0, dilation_x=0)
    extents = ("images", "height", "width", "out_height", "out_width")
    yield from _each("extent", PLAIN, **dict.fromkeys(extents, 0))
    yield from _each("weight_buffer", PLAIN, weight_words=(config.weight_words + 1, (1 << 24) - 1))
    yield from _each("count_buffer", PLAIN, count_beats=(0, words + 1, (1 << 24) - 1))
    yield "output_range", PLAIN, {"output_low": plain["output_high"] + 1}
    yield "output_range", ADDED, {"output_high": bed.fields(ADDED)["output_low"] - 1}
    yield from _bad_pools(config)
    yield from _bad_grids(bed)
    for number in range(len(bed.steps)):
        yield from _bad_places(bed, number)


def _bad_pools(config: CspConfig) -> Wrong:
    sizes = ("height", "width", "kernel_h", "kernel_w", "stride_h", "stride_w", "words")
    yield from _each("pool", PLAIN, pool=3)
    yield from _each("pool", POOL, pool=(0, 3), images=0)
    yield from _each("pool", POOL, pool_words=(config.pool_words + 1, TOP["pool_words"]))
    for number in (POOLED, POOL):
        yield from _each("pool", number, **{f"pool_{name}": 0 for name in sizes})
        for axis in "hw":
            yield "pool", number, {f"pool_kernel_{axis}": 4, f"pool_stride_{axis}": 3}
            yield "pool", number, {f"pool_kernel_{axis}": TOP["pool_kernel_h"]}


def _bad_grids(bed: Bed) -> Wrong:
    """Give grids that are smaller than the map, and lines that the line buffer cannot hold."""
    plain, pooled = bed.fields(PLAIN), bed.fields(POOLED)
    yield from _each("grid", PLAIN, lines=(0, plain["lines"] - 1), pitch=(0, plain["pitch"] - 1))
    yield from _each("grid", PLAIN, height=plain["lines"] + 1, width=TOP["width"])
    yield from _each("grid", POOLED, lines=pooled["lines"] - 1, height=2 * pooled["lines"] + 1)
    yield from _each("line_buffer", PLAIN, beats=(0, 1 << 15, TOP["beats"]))
    for number, fields in ((PLAIN, plain), (POOLED, pooled)):
        words = fields["beats"] << fields["stride_y"] + fields["stride_x"]
        wide = (bed.config.line_words // words).bit_length()
        yield from _each("line_buffer", number, ring_bits=(wide, wide + 1, TOP["ring_bits"]))


def _bad_places(bed: Bed, number: int) -> Wrong:
    """Give empty loops, and places and pitches of every area that are not at beats."""
    beat_bits = range((bed.config.cols - 1).bit_length())
    for area in (area for area in MAPS if area in bed.areas(number)):
        loops = ("beats", "count1", "count2")
        yield from _each("loops", number, **{f"{area}_{loop}": 0 for loop in loops})
    names = [f"{name}_offset" for name in (*TABLES, *MAPS)]  # also those that are not used
    names += [f"{name}_pitch{n}" for name in MAPS for n in (1, 2)]
    for name, bit in itertools.product(names, beat_bits):
        yield "alignment", number, {name: 1 << bit}


def descriptors(bed: Bed) -> list[Attack]:
    """Break each check, and set each bit that must be zero."""
    found = [
        bed.attack(
            f"{check} {dict(fields)}",
            number,
            fields,
            codes=[ErrorCode.DESCRIPTOR],
            detail=CHECKS.index(check),
        )
        for check, number, fields in bad_fields(bed)
    ]
    assert {CHECKS[attack.detail] for attack in found} == set(CHECKS) - {"reserved"}
    reserved = reserved_bits()
    for bit in range(8 * DESCRIPTOR_BYTES):
        if reserved >> bit & 1:
            raw = int.from_bytes(bed.raw(PLAIN), "little") | 1 << bit
            found.append(
                bed.attack(
                    f"bit {bit}",
                    PLAIN,
                    raw=raw.to_bytes(DESCRIPTOR_BYTES, "little"),
                    codes=[ErrorCode.DESCRIPTOR],
                    detail=CHECKS.index("reserved"),
                )
            )
    return found


# --- Addresses ------------------------------------------------------------------------------------


def addresses(bed: Bed) -> Iterator[Attack]:
    """Send passes out of the window, and out of their own range."""
    cols, codes = bed.config.cols, [ErrorCode.RANGE]
    last = (1 << 32) - cols
    window = bed.window
    for number in range(len(bed.steps)):
        fields = bed.fields(number)
        # Outputs may go anywhere, so that only the window is left to refuse them.
        free = collections.defaultdict(dict, output={"output_low": 0, "output_high": last})
        given = collections.defaultdict(lambda: {"codes": codes})
        given["output"] = {"codes": codes, "options": {"reset": True}}
        for area in bed.areas(number):
            _, size = bed.area(number, area)
            places = {
                "its last beat outside": window - size + cols,
                "just outside": window,
                "far outside": 1 << 31,
                "over the end of all": last,
            }
            for how, place in places.items():
                changes = free[area] | {f"{area}_offset": place}
                yield bed.attack(f"{area} {how}", number, changes, **given[area])
        for area in (name for name in MAPS if name in bed.areas(number)):
            for n, pitch in itertools.product((1, 2), (window, 1 << 31, last - 4 * window)):
                changes = {f"{area}_count{n}": 2, f"{area}_pitch{n}": pitch}
                name = f"{area} with a pitch of {pitch}"
                yield bed.attack(name, number, free[area] | changes, **given[area])
            for beats in (window // cols + 1, (1 << 24) - 1):
                changes = free[area] | {f"{area}_beats": beats}
                yield bed.attack(f"{area} of {beats} beats", number, changes, **given[area])
        low, high = fields["output_low"], fields["output_high"]
        # The range ends with the bytes in use, a beat may go on behind them.
        for changes in (
            {"output_low": low + cols},
            {"output_low": low + 1},
            {"output_high": high - cols},
            {"output_high": high - 1},
            {"output_high": low},
            {"output_offset": fields["output_offset"] - cols},
            {"output_offset": fields["output_offset"] + cols},
            {"output_offset": 0 if low else window // 2},
            {"output_count2": 2, "output_pitch2": high - low},
            {"output_count2": 2, "output_pitch2": last + cols - low},
        ):
            if changes.get("output_offset", 0) >= 0:
                yield bed.attack(f"range {changes}", number, changes, codes=codes)


# --- Streams --------------------------------------------------------------------------------------


def streams(bed: Bed) -> Iterator[Attack]:
    """Give passes streams that are too short or too long, and counts that cannot be."""
    for number in (PLAIN, ADDED, POOLED, LOGITS):
        yield from _counts(bed, number)
        yield from _weights(bed, number)
    for number in range(len(bed.steps)):
        yield from _maps(bed, number)


def _counts(bed: Bed, number: int) -> Iterator[Attack]:
    """Change the counts of a pass, or its K."""
    chunks = bed.fields(number)["chunks"]

    def changed(name, data, codes, **changes):
        given = {"counts_offset": bed.store(bytes(data)), **changes}
        return bed.attack(name, number, given, codes=codes)

    data = np.array(bed.table(number, "counts"))
    rising, falling = int(np.flatnonzero(data < chunks)[0]), int(np.flatnonzero(data)[-1])

    def counts(place, count):
        other = data.copy()
        other[place] = count
        return other

    yield changed("a count more", counts(rising, data[rising] + 1), SHORT)
    yield changed("a count less", counts(falling, data[falling] - 1), LONG)
    yield changed("no counts", np.zeros_like(data), LONG)
    for count in (chunks + 1, 255):
        wrong = counts(falling, count)
        total = int(wrong.astype(int).sum())
        place = bed.store(bytes(total * bed.config.cols))
        filled = {"weight_words": total, "weights_offset": place}
        for how, changes in (("weights missing", {}), ("with its weights", filled)):
            name = f"a count of {count} with K = {chunks}, {how}"
            yield changed(name, wrong, [ErrorCode.COUNTS], **changes)
    # Parameters follow from K: a chunk less or more is another layer's.
    if chunks > 1 and number != LOGITS:
        codes = [*SHORT, ErrorCode.COUNTS]
        yield bed.attack("a chunk less", number, {"chunks": chunks - 1}, codes=codes)
    yield bed.attack("a chunk more", number, {"chunks": chunks + 1}, codes=[*SHORT, *LONG])


def _weights(bed: Bed, number: int) -> Iterator[Attack]:
    """Let what a pass says of its weights and counts differ from what they are."""
    fields = bed.fields(number)
    taps, words, beats = (fields[name] for name in ("taps", "weight_words", "count_beats"))
    both = [*SHORT, *LONG]
    for resident in (0, 1):
        keep = {"weights_resident": resident, "counts_resident": resident}
        for name, changes, codes in (
            ("a weight less", {"weight_words": words - 1}, SHORT),
            ("no weights", {"weight_words": 0}, SHORT),
            ("a weight more", {"weight_words": words + 1}, LONG),
            ("many weights more", {"weight_words": words + 200}, LONG),
            ("counts missing", {"taps": taps + bed.config.cols}, SHORT),
            ("taps missing", {"taps": taps - bed.config.lookahead}, both),
            ("a beat of counts less", {"count_beats": beats - 1}, SHORT),
            ("a beat of counts more", {"count_beats": beats + 1}, both),
        ):
            if all(changes.get(name) != 0 for name in ("taps", "count_beats")):
                yield bed.attack(f"{name} ({resident})", number, keep | changes, codes=codes)


def _maps(bed: Bed, number: int) -> Iterator[Attack]:
    """Let a pass read or write a run more or less than it computes."""
    fields = bed.fields(number)
    for area in (name for name in MAPS if name in bed.areas(number)):
        loop = "count1" if fields[f"{area}_count1"] > 1 else "beats"
        less, more = (LONG, SHORT) if area == "output" else (SHORT, LONG)
        for change, codes in ((-1, less), (1, more)):
            changes = {f"{area}_{loop}": fields[f"{area}_{loop}"] + change}
            if area == "output":
                changes["output_high"] = fields["output_high"] + 64
            yield bed.attack(f"{area} {change:+}", number, changes, codes=codes)
    for name, change in itertools.product(("images", "out_height", "out_width"), (-1, 1)):
        if fields[name] + change > 0 and number not in (LOGITS, POOLED):
            yield bed.attack(f"{name} {change:+}", number, {name: fields[name] + change})


def tile_lists(bed: Bed) -> Iterator[Attack]:
    """Give passes lists of tiles that cannot be, or that leave pixels out."""
    config = bed.config
    tiles = [ErrorCode.TILES]

    def changed(name, number, entries: Tiles, codes, **changes):
        data = b"".join((base | i << 24).to_bytes(4, "little") for base, i in entries)
        place = bed.store(data + bytes(-len(data) % config.cols))
        given = {"tiles_offset": place, "tiles": len(entries), **changes}
        return bed.attack(f"tiles: {name}", number, given, codes=codes)

    for number in (PLAIN, ADDED, POOLED, LOGITS):
        fields = bed.fields(number)
        words = np.array(bed.table(number, "tiles")).view("<u4").tolist()[: fields["tiles"]]
        entries = [(word & 0xFFFFFF, word >> 24) for word in words]
        last, interleave = entries[-1]
        end = last + interleave
        positions = fields["images"] * fields["lines"] * fields["pitch"]
        groups = -(-positions // config.rows)
        yield changed("I is 0", number, [(0, 0), *entries[1:]], tiles)
        for wrong in (config.max_interleave + 1, 128, 255):
            yield changed(f"I is {wrong}", number, [(0, wrong), *entries[1:]], tiles)
            yield changed(f"I is {wrong} at the end", number, [*entries[:-1], (last, wrong)], tiles)
        yield changed("one behind the map", number, [*entries, (groups, 1)], tiles)
        yield changed("one far behind the map", number, [*entries, (0xFFFFFF, 1)], tiles)
        yield changed("only one, far behind the map", number, [(0xFFFFFF, 1)], tiles)
        yield changed("the first one twice", number, [entries[0], *entries], tiles)
        yield changed("the last one twice", number, [*entries, entries[-1]], tiles)
        if end > 1:
            yield changed("backwards", number, [(end - 1, 1), (0, 1)], tiles)
        crowded = config.depth // fields["chunks"] + 1
        if crowded <= config.max_interleave:
            yield changed("more sums than depth", number, [(0, crowded)], tiles)
        chunks = config.depth // 2 + 1
        two = [(0, 2), *entries[1:]]
        yield changed("K · 2 above depth", number, two, tiles, chunks=chunks)
        if len(entries) > 1:
            yield changed("one is missing", number, entries[:-1], [*SHORT, *LONG])
            yield changed("a gap", number, [entries[0], *entries[2:]], SHORT)
        more = len(entries) + 1
        yield changed("more than the list has", number, [*entries, (0, 0)], tiles, tiles=more)
        for tight in range(fields["ring_bits"]):
            yield bed.attack(f"a ring of {1 << tight}", number, {"ring_bits": tight})


# --- The bus --------------------------------------------------------------------------------------


def bus(bed: Bed) -> Iterator[Attack]:
    """Let the memory answer with an error at the first, a middle and the last beat of each area."""
    cols = bed.config.cols
    for number in range(len(bed.steps)):
        for response in (Response.SLVERR, Response.DECERR):
            for attack, places in _areas(bed, number, codes=[ErrorCode.BUS]):
                for place in places:
                    inject = Inject(low=place, high=place + cols, response=response)
                    yield _with(attack, f"{response.name} at {place}", inject=inject)


def silence(bed: Bed) -> Iterator[Attack]:
    """Let the memory fall silent at the first, a middle and the last beat of each area."""
    cols = bed.config.cols
    for number in range(len(bed.steps)):
        for attack, places in _areas(bed, number, codes=[ErrorCode.TIMEOUT], silent=True):
            for place in places:
                inject = Inject(low=place, high=place + cols, response=Response.SILENCE)
                limit = 1000
                yield _with(attack, f"silence at {place}", inject=inject, limit=limit)


def _areas(bed: Bed, number: int, **options: Any) -> Iterator[tuple[Attack, tuple[int, ...]]]:
    """Give a pass with each of its areas in a place of its own, and three beats of that area."""
    cols = bed.config.cols
    for area in ("descriptor", *bed.areas(number)):
        changes, place, size = {}, 0, DESCRIPTOR_BYTES
        if area != "descriptor":
            changes, place, size = bed.private(number, area)
        attack = bed.attack(area, number, changes, **options)
        if area == "descriptor":
            place = attack.descriptors + attack.layer * DESCRIPTOR_BYTES
        places = range(place, place + size, cols)
        if area in MAPS:
            places = beats_of(bed.fields(number) | changes, area, cols)
        middle, last = places[len(places) // 2], places[-1]
        yield attack, tuple(dict.fromkeys((places[0], middle, last)))


def beats_of(fields: Mapping[str, int], area: str, cols: int) -> list[int]:
    """Give the places of all beats of a map, in order."""
    names = ("offset", "beats", "count1", "count2", "pitch1", "pitch2")
    offset, beats, count1, count2, pitch1, pitch2 = (fields[f"{area}_{name}"] for name in names)
    turns = itertools.product(range(count2), range(count1), range(beats))
    return [offset + j * pitch2 + i * pitch1 + n * cols for j, i, n in turns]


def _with(attack: Attack, how: str, **options: Any) -> Attack:
    return dataclasses.replace(
        attack, name=f"{how}: {attack.name}", options={**attack.options, **options}
    )


def late(bed: Bed) -> Iterator[Attack]:
    """Let a port of the memory answer after the error was told."""
    slow = {"read_latency": 20_000, "write_latency": 20_000}
    for port, layer in (("wgt", 0), ("act", 0), ("res", 0)):
        timing = {name: Timing(**slow if name == port else {}) for name in ("wgt", "act", "res")}
        yield bed.whole(
            f"port {port} answers late",
            layer=layer,
            codes=[ErrorCode.TIMEOUT],
            late=True,
            options={"timing": timing, "limit": 1000, "reset": True, "stalls": {}},
        )


# --- The time -------------------------------------------------------------------------------------


def aborts(bed: Bed, rng: np.random.Generator, each: int) -> Iterator[Attack]:
    """Let software ask for the end at random times: of each pass, and of the program."""
    for number, time in times(bed, rng, each):
        codes = [ErrorCode.ABORTED, None]  # it may be done before
        yield bed.attack(f"abort after {time} cycles", number, abort=time, codes=codes)
    for time in rng.integers(1, 5 * bed.longest, each).tolist():
        yield bed.whole(f"abort after {time} cycles", abort=time)


def resets(bed: Bed, rng: np.random.Generator, each: int) -> Iterator[Attack]:
    """Reset everything but what the memory holds at random times of each pass."""
    for number, time in times(bed, rng, each):
        yield bed.attack(f"reset after {time} cycles", number, cut=time)


def times(bed: Bed, rng: np.random.Generator, each: int) -> Iterator[tuple[int, int]]:
    for number, _ in itertools.product(range(len(bed.steps)), range(each)):
        yield number, int(rng.integers(1, bed.longest))


# --- Anything -------------------------------------------------------------------------------------

#: Fields by which the work of a pass multiplies; a wrong one of them must not take for ever.
WORK = ("tiles", "images", "input_count2", "add_count2", "output_count2")


def anything(bed: Bed, rng: np.random.Generator, count: int) -> Iterator[Attack]:
    """Give passes with some fields, or some bytes of their tables, at random."""
    names = [name for name in TOP if not name.startswith("output_")]
    for n in range(count):
        number = int(rng.integers(len(bed.steps)))
        fields, changes = bed.fields(number), {}
        for name in rng.choice(names, int(rng.integers(1, 4)), replace=False).tolist():
            top, value = TOP[name], fields[name]
            near = value + int(rng.integers(-2, 3))
            flipped = value ^ 1 << int(rng.integers(top.bit_length()))
            changes[name] = int(rng.choice([0, 1, near, flipped, int(rng.integers(top + 1))]))
            changes[name] = min(max(changes[name], 0), 8 if name in WORK else top)
        if fields["kind"] == 0 and rng.random() < 0.4:
            table = str(rng.choice(TABLES))
            data = np.array(bed.table(number, table))
            places = rng.integers(len(data), size=int(rng.integers(1, 4)))
            data[places] = rng.integers(0, 256, len(places))
            changes[f"{table}_offset"] = bed.store(data.tobytes() + bytes(bed.config.cols))
        yield bed.attack(f"{n}: {changes}", number, changes, patience=20_000)
