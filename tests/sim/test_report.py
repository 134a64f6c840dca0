# SPDX-License-Identifier: Apache-2.0
import base64
import io
import struct
import zlib

import numpy as np
import pytest
from rich.console import Console

from csp_algo.errors import CspError
from sim.report import page, png, terminal
from sim.report.model import HostRecord, cascade_picture
from tests.sim import pages
from tests.sim import report_examples as examples
from tests.sim.pages import check_self_contained, parse


def plain(report):
    return pages.words(page.render(report))


def test_page_is_self_contained():
    check_self_contained(page.render(examples.report()))


def test_page_tells_the_figures():
    words = plain(examples.report())
    assert "All 11 760 output integers of the simulated Verilog equal the golden model" in words
    assert "8 / 8 images right on the RTL" in words
    assert "30 000 clock cycles (bound: 29 700)" in words
    assert "99.0 %" in words
    assert "pool1 (2×2 max pool, → 7 × 7 × 20)" in words
    assert "make demo" in words
    assert "weights" not in words.split("Where the cycles went")[1].split("The cascade")[0]


def test_page_tells_a_mismatch():
    layers = (examples.layer(mismatches=3), examples.layer("conv2"))
    words = plain(examples.report(layers=layers, mismatch="layer conv1, y 3: expected 1, got 2"))
    assert "Not equal. 3 of 7 840 output integers differ" in words
    assert "First: layer conv1, y 3: expected 1, got 2" in words
    assert "Bit for bit" not in words


def test_page_marks_wrong_classes():
    samples = list(examples.report().samples)
    samples[0] = examples.sample(label=0, golden=1, rtl=2)
    words = plain(examples.report(samples=tuple(samples)))
    assert "Pullover is T-shirt golden: Trouser" in words
    assert "7 / 8 images right on the RTL (golden: 7 / 8)" in words


def test_page_without_images_host_nodes_and_times():
    words = plain(examples.report(samples=(), host=(), seconds={}, commands=(), provenance={}))
    assert "What it saw" not in words
    assert "On the host" not in words
    assert "images right" not in words


def test_page_shows_at_most_some_images():
    samples = examples.report().samples * 5
    text = page.render(examples.report(samples=samples))
    pictures = [a for tag, a in parse(text).found if tag == "img" and "cascade" not in str(a)]
    assert len([a for a in pictures if a["alt"] in examples.CLASSES]) == page.SAMPLES_SHOWN
    assert "The first 32 of 40 test images" in " ".join(text.split())


def test_page_numbers_classes_without_names():
    words = plain(examples.report(classes=()))
    assert "What it saw The test images" in words
    assert "0 1 2 3 4 0 1 2" in words


HOSTILE = "<script>alert('1')</script>&\"'><img src=x>"


@pytest.mark.parametrize(
    "changes",
    [
        {"network": HOSTILE},
        {"description": HOSTILE},
        {"preset": HOSTILE},
        {"hardware": {HOSTILE: HOSTILE}},
        {"simulator": HOSTILE},
        {"layers": (examples.layer(HOSTILE, kind=HOSTILE, stalls={HOSTILE: 7}),)},
        {"host": (HostRecord(name=HOSTILE, kind=HOSTILE, out_shape=(1, 1, 1)),)},
        {"classes": (HOSTILE,) * 5},
        {"seconds": {HOSTILE: 1.0}},
        {"provenance": {HOSTILE: HOSTILE}},
        {"commands": (HOSTILE,)},
        {"mismatch": HOSTILE},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_page_is_escaped(changes):
    text = page.render(examples.report(**changes))
    tags = parse(text)
    assert "<script" not in text
    assert all(attributes.get("src") != "x" for _, attributes in tags.found)
    assert "alert('1')" in "".join(tags.text) + str(tags.found)


def test_write_makes_the_folder_and_replaces_the_page(tmp_path):
    path = tmp_path / "new" / "page.html"
    page.write(examples.report(network="one"), path)
    page.write(examples.report(network="two"), path)
    assert "two" in path.read_text("utf-8")
    assert [file.name for file in path.parent.iterdir()] == ["page.html"]


def test_write_refuses_a_folder(tmp_path):
    with pytest.raises(CspError, match="cannot be written"):
        page.write(examples.report(), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_slices_add_up():
    layer = examples.layer(cycles=1000, stalls={"a": 100, "b": 0, "c": 300})
    parts = page.slices(layer, ("a", "b", "c"))
    assert [(part.cause, part.style, part.start, part.width) for part in parts] == [
        ("busy", 0, 0.0, 60.0),
        ("a", 1, 60.0, 10.0),
        ("c", 3, 70.0, 30.0),
    ]
    assert page.slices(examples.layer(cycles=0, stalls={}), ()) == []


@pytest.mark.parametrize(
    ("share", "text"),
    [(0, "0.0 %"), (0.5, "50.0 %"), (0.99951, "99.9 %"), (0.9999, "99.9 %"), (1, "100.0 %")],
)
def test_percent_never_rounds_up_to_all(share, text):
    assert page.percent(share).replace("\u202f", " ") == text


def test_cascade_picture():
    matrix = np.array([[1, 0, 0, 3], [1, 5, 0, 0], [1, 0, 0, 0]], np.int8)
    picture = cascade_picture(matrix, np.array([2, 1, 0, 2], np.uint8), cols=2)
    assert picture.dtype == np.uint8
    assert picture.tolist() == [[255, 128, 0, 128], [255, 0, 0, 1]]


def test_wide_cascade_is_averaged():
    cascade = np.zeros((2, 5 * page.CASCADE_COLUMNS), np.uint8)
    cascade[0] = 255
    pixels = decode(base64.b64decode(page.cascade_url(cascade).split(",")[1]))
    assert pixels.shape == (2, page.CASCADE_COLUMNS, 4)
    assert (pixels[0, :, 3] == 255).all()
    assert (pixels[1, :, 3] == 0).all()


def decode(data):
    """Undo png.encode for eight-bit pictures without line filters."""
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    pieces, position = {}, 8
    while position < len(data):
        size, kind = struct.unpack_from(">I4s", data, position)
        body = data[position + 8 : position + 8 + size]
        (checksum,) = struct.unpack_from(">I", data, position + 8 + size)
        assert checksum == zlib.crc32(kind + body)
        pieces[kind] = body
        position += 12 + size
    width, height, depth, colour = struct.unpack_from(">IIBB", pieces[b"IHDR"])
    channels = {0: 1, 4: 2, 2: 3, 6: 4}[colour]
    assert depth == 8
    lines = np.frombuffer(zlib.decompress(pieces[b"IDAT"]), np.uint8).reshape(height, -1)
    assert (lines[:, 0] == 0).all()
    return lines[:, 1:].reshape(height, width, channels)


@pytest.mark.parametrize("shape", [(1, 1), (28, 28), (3, 5, 2), (4, 2, 3), (2, 3, 4)])
def test_png_keeps_every_pixel(shape):
    pixels = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    assert (decode(png.encode(pixels)).reshape(shape) == pixels).all()
    assert png.data_url(pixels).startswith("data:image/png;base64,")


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((2, 2)), "cannot draw float64"),
        (np.zeros(4, np.uint8), r"cannot draw uint8 of shape \(4,\)"),
        (np.zeros((2, 2, 5), np.uint8), "cannot draw"),
        (np.zeros((0, 2), np.uint8), "needs pixels"),
    ],
)
def test_png_refuses(array, message):
    with pytest.raises(ValueError, match=message):
        png.encode(array)


def shown(report, width=80):
    stream = io.StringIO()
    terminal.show(Console(file=stream, width=width), report)
    return stream.getvalue().replace("\u202f", " ")


def test_terminal_fits_eighty_columns_and_tells_the_figures():
    text = shown(examples.report())
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    for words in ("3,920", "10,000", "9,900", "99.0 %", "11,760 output integers, all equal"):
        assert words in text
    assert "8 of 8 images right on the RTL, 8 of 8 in the golden model" in text
    assert "pool1 (2×2 max pool)" in text


def test_terminal_fits_a_large_run():
    layer = examples.layer("linear12", cycles=999_999, bound=999_999, compared=999_999)
    text = shown(examples.report(layers=(layer,) * 10))
    assert "9,999,990 9,999,990 100.0 %" in " ".join(text.split())
    assert "…" not in text


def test_terminal_shows_names_and_mismatches_literally():
    layer = examples.layer("[red]x[/red]", mismatches=3)
    text = shown(examples.report(layers=(layer,), samples=(), host=(), mismatch="first [b]"))
    assert "[red]x[/red]" in text
    assert "3 of 3,920 output integers differ" in text
    assert "first [b]" in text


def test_empty_report_is_not_exact():
    empty = examples.report(layers=())
    assert not empty.exact
    assert (empty.sparsity, empty.utilisation, empty.causes) == (0.0, 0.0, ())
    assert examples.report(mismatch="something").exact is False
    assert examples.report(layers=(examples.layer(mismatches=1),)).exact is False


def test_sums_over_layers():
    report = examples.report()
    first = report.layers[0]
    assert report.bits_per_weight == pytest.approx(first.bits_per_weight, rel=0.2)
    assert first.busy == 9_900
    assert report.causes == ("activations", "drain")
    assert report.saturations == 0
    assert examples.layer(cycles=0).utilisation == 0.0
