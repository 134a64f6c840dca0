# SPDX-License-Identifier: Apache-2.0
"""The main job, end to end on small things, and all that can be wrong with what it is given."""

import dataclasses
import io

import numpy as np
import pytest
from rich.console import Console

from csp_algo import container
from csp_algo.errors import CspError
from csp_algo.geometry import Geometry
from csp_algo.integers import ActDtype
from csp_algo.network import AvgPool, Input, Layer, MaxPool, Network
from csp_hw.config import preset
from csp_hw.counters import SPENT
from sim import demo
from sim.report import model
from tests import strategies
from tests.command import csp

TINY = preset("tiny_4x4")
SOURCE = Input(name="input", shape=(5, 5, 2), dtype=ActDtype.UINT8, scale=1.0)


@pytest.fixture(scope="module")
def network():
    return strategies.little_network(SOURCE.shape)


@pytest.fixture
def files(tmp_path, network):
    """The network and seven images, as options of the command line."""
    rng = np.random.default_rng(6)
    container.save(network, tmp_path / "little.csp")
    images = strategies.random_activations(rng, (7, 5, 5, 2))
    np.savez(tmp_path / "images.npz", images=images, labels=rng.integers(0, 3, 7))
    return ["--network", tmp_path / "little.csp", "--data", tmp_path / "images.npz"]


@pytest.fixture
def tiny(files):
    return [*files, "--preset", "tiny_4x4", "--images", 7]


def test_demo_runs_compares_and_writes_the_page(tiny, tmp_path, capfd):
    path = tmp_path / "new" / "page.html"
    assert csp("demo", *tiny, "--report", path) == 0
    out, err = capfd.readouterr()
    assert err == ""
    compared = 7 * (5 * 5 * 10 + 3)
    assert f"{compared:,} output integers, all equal to the golden model" in out
    assert "of 7 images right on the RTL" in out
    assert "pool (2×2 max pool)" in out
    text = path.read_text("utf-8")
    assert "Bit for bit." in text
    assert "2 groups" in text
    assert f"--network {tmp_path / 'little.csp'}" in text


def test_demo_stops_at_a_mismatch(tiny, tmp_path, capfd, monkeypatch):
    jobs_of = demo.network_jobs

    def wrong(*arguments, **options):
        jobs, result = jobs_of(*arguments, **options)
        jobs[0].expected[3, 2, 1, 7] ^= 1
        return jobs, result

    monkeypatch.setattr(demo, "network_jobs", wrong)
    path = tmp_path / "page.html"
    assert csp("demo", *tiny, "--report", path) == 1
    out = " ".join(capfd.readouterr().out.replace("│", " ").split())
    assert f"1 of {7 * 5 * 5 * 10:,} output integers differ" in out
    assert "layer conv, image 3, y 2, x 1, filter 7: expected" in out
    assert "csp run-tile --preset tiny_4x4 --images 7 --network" in out
    assert "--layer conv --group 1 --tile" in out
    assert "images right: " in out
    text = path.read_text("utf-8")
    assert "Not equal." in text
    assert "run-tile" in text
    assert "the golden model chose" in " ".join(text.split())


def test_saturations_are_compared_too(tiny, tmp_path, capfd, monkeypatch):
    jobs_of = demo.network_jobs

    def wrong(*arguments, **options):
        jobs, result = jobs_of(*arguments, **options)
        result.saturations["linear"] += 1
        return jobs, result

    monkeypatch.setattr(demo, "network_jobs", wrong)
    assert csp("demo", *tiny, "--report", tmp_path / "page.html") == 1
    assert "layer linear: 0 saturations were counted, not 1" in capfd.readouterr().out


def test_run_tile(tiny, capfd):
    assert csp("run-tile", *tiny, "--layer", "conv", "--group", 1, "--tile", 1) == 0
    lines = capfd.readouterr().out.splitlines()
    assert lines[0].startswith("layer conv, group 1, tile 1: ")
    assert lines[1].endswith(" integers compared, 0 differ")


def test_run_tile_tells_a_mismatch(tiny, capfd, monkeypatch):
    jobs_of = demo.network_jobs

    def wrong(*arguments, **options):
        jobs, result = jobs_of(*arguments, **options)
        jobs[0].expected[0, 0, 0, 0] ^= 1
        return jobs, result

    monkeypatch.setattr(demo, "network_jobs", wrong)
    assert csp("run-tile", *tiny, "--layer", "conv", "--tile", 0) == 1
    out = capfd.readouterr().out
    assert " integers compared, 1 differ\n" in out
    assert "layer conv, image 0, y 0, x 0, filter 0: expected" in out


def test_the_example_on_its_preset(tmp_path, capfd):
    """What a newcomer sees, for two images."""
    path = tmp_path / "page.html"
    assert csp("demo", "--images", 2, "--report", path) == 0
    assert "2 of 2 images right on the RTL, 2 of 2 in the golden model" in capfd.readouterr().out
    assert "Ankle boot" in path.read_text("utf-8")


# --- What can be wrong -----------------------------------------------------------------------


@pytest.fixture
def refused(capfd):
    def run(*arguments):
        assert csp(*arguments) == 2
        err = capfd.readouterr().err
        assert err.startswith("csp: ")
        assert err.count("\n") == 1
        return err

    return run


def test_layer_and_tile_must_exist(refused, tiny):
    message = refused("run-tile", *tiny, "--layer", "conv9")
    assert message == "csp: there is no layer 'conv9'; there are: conv, linear\n"
    assert "tile must be 0 … " in refused("run-tile", *tiny, "--layer", "conv", "--tile", 999)
    assert "group must be 0 … 1, not 2" in refused(
        "run-tile", *tiny, "--layer", "conv", "--group", 2
    )


def test_a_waveform_that_cannot_be_is_refused_before_the_build(refused, tiny, monkeypatch):
    monkeypatch.setattr("sim.tile.build", None)
    message = refused("run-tile", *tiny, "--layer", "conv", "--wave", "tile.fst")
    assert message == "csp: tile.fst: a waveform of verilator ends in .vcd\n"
    message = refused("run-tile", *tiny, "--layer", "conv", "--wave", "no/such/tile.vcd")
    assert message.startswith("csp: no/such/tile.vcd: there is no folder ")


def test_array_that_is_too_shallow(refused):
    message = refused("demo", "--preset", "tiny_4x4", "--images", 1)
    assert message == "csp: layer linear6: 32 chunks exceed the accumulation depth 16\n"


@pytest.mark.parametrize("count", [0, -1, 8])
def test_number_of_images(refused, files, count):
    message = refused("demo", *files, "--preset", "tiny_4x4", "--images", count)
    assert message == f"csp: --images must be 1 … 7, not {count}\n"


def test_network_without_a_layer(refused, tmp_path):
    pool = MaxPool(name="pool", input="input", kernel=(2, 2), stride=(2, 2))
    network = Network(name="pools", input=SOURCE, nodes=(pool,), cols=4, period=4)
    path = tmp_path / "pools.csp"
    container.save(network, path)
    message = f"csp: {path}: network pools has no layer for the engine\n"
    assert refused("demo", "--preset", "tiny_4x4", "--network", path) == message


def test_unknown_preset(refused):
    assert "unknown preset 'big'" in refused("demo", "--preset", "big")


def test_missing_compiler(refused, tiny, monkeypatch):
    monkeypatch.setenv("CXX", "nothing++")
    assert "the C++ compiler CXX=nothing++ is missing" in refused("demo", *tiny)


def test_page_in_the_place_of_a_folder(refused, tiny, tmp_path):
    assert f"{tmp_path}: cannot be written" in refused("demo", *tiny, "--report", tmp_path)


def test_names_beside_a_bar_are_no_markup():
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    with demo.Phases(console) as phases, phases.phase("core") as tell:
        tell("layer [/odd] of [bold]", 0.5)
        phases._bars.refresh()
    assert "core: layer [/odd] of [bold]" in console.file.getvalue()


def saved(path, **arrays):
    np.savez(path, **arrays)
    return path


PIXELS, LABELS = np.zeros((3, 5, 5, 2), np.uint8), np.zeros(3, np.uint8)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"images": PIXELS}, "has no array labels"),
        ({"labels": LABELS}, "has no array images"),
        ({"images": PIXELS.astype(np.int8), "labels": LABELS}, r"images are int8 \[5, 5, 2\]"),
        ({"images": PIXELS[:, :4], "labels": LABELS}, r"input input takes uint8 \[5, 5, 2\]"),
        ({"images": PIXELS[0, 0], "labels": LABELS}, "images are uint8"),
        ({"images": PIXELS, "labels": LABELS[:2]}, r"labels are uint8 \[2\]"),
        ({"images": PIXELS, "labels": LABELS / 2}, "labels are float64"),
        ({"images": PIXELS, "labels": np.array(["a", None, 3], object)}, "not a file of arrays"),
    ],
)
def test_wrong_images(tmp_path, arrays, message):
    path = saved(tmp_path / "images.npz", **arrays)
    with pytest.raises(CspError, match=f"{path}: .*{message}"):
        demo.load_images(path, 1, SOURCE)


@pytest.mark.parametrize(
    "content", [b"", b"PK\3\4 is how a zip file begins", b"\x93NUMPY", b"text"]
)
def test_images_that_are_something_else(tmp_path, content):
    path = tmp_path / "images.npz"
    path.write_bytes(content)
    with pytest.raises(CspError, match=f"{path}: is not a file of arrays"):
        demo.load_images(path, 1, SOURCE)


def test_images_that_are_one_array(tmp_path):
    path = tmp_path / "images.npz"
    with path.open("wb") as file:
        np.save(file, PIXELS)
    with pytest.raises(CspError, match=f"{path}: is not a file of arrays"):
        demo.load_images(path, 1, SOURCE)


def test_missing_images(tmp_path):
    with pytest.raises(CspError, match=r"none\.npz: cannot be read: No such file"):
        demo.load_images(tmp_path / "none.npz", 1, SOURCE)


def test_signed_input(tmp_path):
    path = saved(tmp_path / "images.npz", images=PIXELS, labels=LABELS)
    with pytest.raises(CspError, match="input input is int8, images are uint8"):
        demo.load_images(path, 1, dataclasses.replace(SOURCE, dtype=ActDtype.INT8))


def test_grey_images_need_no_channel(tmp_path):
    path = saved(tmp_path / "images.npz", images=PIXELS[..., 0], labels=LABELS)
    images = demo.load_images(path, 2, dataclasses.replace(SOURCE, shape=(5, 5, 1)))
    assert images.pixels.shape == (2, 5, 5, 1)
    assert images.labels.tolist() == [0, 0]


# --- Small parts -----------------------------------------------------------------------------


def test_network_is_repacked_only_if_it_must_be(network):
    assert demo.fitted(network, TINY) is network
    other = demo.fitted(network, TINY.replace(cols=8))
    assert (other.cols, other.period) == (8, 8)
    assert demo.fitted(network, TINY.replace(max_period=2)).period == 2


def test_where_sums_are_rounded_the_period_stays_if_it_can(network):
    nodes = tuple(
        dataclasses.replace(node, acc_shift=1) if isinstance(node, Layer) else node
        for node in network.nodes
    )
    rounded = dataclasses.replace(network, nodes=nodes, period=4)
    assert demo.fitted(rounded, TINY.replace(cols=8)).period == 4
    assert demo.fitted(rounded, TINY.replace(cols=8, max_period=2)).period == 2


def kind(**geometry):
    rng = np.random.default_rng(0)
    fields = {"in_shape": (4, 4, 2), "filters": 2} | geometry
    return demo.kind_of(strategies.random_layer(rng, cols=4, geometry=Geometry(**fields)))


def test_kinds_in_words():
    assert kind(kernel=(3, 2)) == "3×2 convolution"
    assert kind(kernel=(3, 3), groups=2) == "3×3 depthwise convolution"
    assert kind(kernel=(1, 1)) == "1×1 convolution"
    assert kind(in_shape=(1, 1, 2)) == "linear"
    pool = {"name": "p", "input": "x", "kernel": (2, 3), "stride": (2, 2)}
    assert demo.kind_of(MaxPool(**pool)) == "2×3 max pool"
    assert demo.kind_of(AvgPool(**pool, count_include_pad=True, shift=8)) == "2×3 average pool"


def test_command_names_only_what_differs(tmp_path):
    options = demo.Options(images=3, preset="csp_8x8", simulator="verilator")
    assert demo.command("demo", options) == "csp demo --preset csp_8x8 --images 3"
    options = dataclasses.replace(options, simulator="icarus", data=tmp_path / "my images.npz")
    assert demo.command("run-tile", options, "--tile", "2") == (
        "csp run-tile --preset csp_8x8 --images 3 --simulator icarus "
        f"--data '{tmp_path}/my images.npz' --tile 2"
    )


def test_host_computes_pools(network):
    assert demo.host_records(network) == (
        model.HostRecord(name="pool", kind="2×2 max pool", out_shape=(2, 2, 10)),
    )
    assert all(isinstance(layer, Layer) for layer in network.layers())


def test_stalls_have_a_name_for_every_cause():
    assert set(demo.STALLS) == set(SPENT) - {"issued"}
