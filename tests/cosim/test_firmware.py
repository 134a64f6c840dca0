# SPDX-License-Identifier: Apache-2.0
"""Firmware in C on the simulated core, held against the golden model."""

import subprocess
from pathlib import Path

import numpy as np
import pytest

from csp_algo import container
from csp_algo.errors import CspError
from csp_hw.check import CHECKS
from csp_hw.config import preset
from csp_hw.descriptor import DESCRIPTOR_BYTES, FIELDS
from sim import demo, firmware, golden
from sim.cosim.firmware import build_firmware
from sim.program import files
from sim.program.compiler import compile_network
from tests import strategies
from tests.command import csp

TINY = preset("tiny_4x4")
COUNT = 3
SHAPE = (6, 5, 2)


@pytest.fixture(scope="module")
def network():
    return strategies.little_network(SHAPE)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(2).integers(0, 256, (COUNT, *SHAPE), dtype=np.uint8)


@pytest.fixture(scope="module")
def expected(network, images):
    return golden.run(network, images, acc_bits=TINY.acc_bits)


@pytest.fixture(scope="module")
def made(network, images, tmp_path_factory):
    """Program, images, firmware, and their folder."""
    folder = tmp_path_factory.mktemp("firmware")
    program, _ = firmware.compile_files(network, TINY, COUNT, folder)
    firmware.write_images(folder, images)
    return program, folder, build_firmware(TINY, folder)


def end_of(executable, *arguments):
    """Run firmware that fails; give its exit code and what it says."""
    command = [str(argument) for argument in (executable, *arguments)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.stderr.endswith("\n")
    assert result.stderr.count("\n") == 1
    return result.returncode, result.stderr.strip()


def test_logits_are_those_of_the_golden_model(made, expected):
    program, folder, executable = made
    quick = firmware.read_output(firmware.execute(folder, executable, latency=0))
    slow = firmware.read_output(firmware.execute(folder, executable, latency=200))
    for outcome in (quick, slow):
        assert outcome.differences(expected) == 0
        assert outcome.descriptors == len(program.passes)
        np.testing.assert_array_equal(outcome.logits, expected.logits.reshape(COUNT, 3))
    assert slow.cycles > quick.cycles + 200 * len(program.passes)


def test_abort_and_timeout_and_then_all_of_it(made, expected, tmp_path):
    """The core gets over what was given up: it computes the same as ever, in the same time."""
    program, folder, executable = made
    for name in (files.CONSTANTS, files.HEADER, firmware.IMAGES):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    other = build_firmware(TINY, tmp_path, main=Path(__file__).with_name("firmware_abort.c"))
    printed = firmware.execute(tmp_path, other)
    assert printed.splitlines()[:2] == [
        "descriptor 0: ABORTED, software gave it up",
        "descriptor 0: TIMEOUT, it made no progress",
    ]
    outcome = firmware.read_output(printed)
    assert outcome.differences(expected) == 0
    assert outcome.cycles == firmware.read_output(firmware.execute(folder, executable)).cycles
    assert outcome.descriptors == len(program.passes)


# --- What goes wrong ------------------------------------------------------------------------------


def spoil(program, folder, number, field, value):
    """Give constants with another value in a field of a descriptor."""
    data = bytearray((folder / files.CONSTANTS).read_bytes())
    first = program.descriptors[number] - program.start
    bit, width = FIELDS[field]
    mask = (1 << width) - 1 << bit
    whole = int.from_bytes(data[first : first + DESCRIPTOR_BYTES], "little") & ~mask | value << bit
    data[first : first + DESCRIPTOR_BYTES] = whole.to_bytes(DESCRIPTOR_BYTES, "little")
    return bytes(data)


@pytest.mark.parametrize(
    ("number", "field", "value", "words"),
    [
        (0, "kind", 3, f"it cannot be computed: check {CHECKS.index('kind')}, kind"),
        (1, "period", 0, f"it cannot be computed: check {CHECKS.index('period')}, period"),
        (1, "input_offset", 1 << 30, "an address is outside of the window or the output"),
    ],
)
def test_spoiled_descriptor(made, tmp_path, number, field, value, words):
    program, folder, executable = made
    (tmp_path / "spoiled.bin").write_bytes(spoil(program, folder, number, field, value))
    code, message = end_of(executable, tmp_path / "spoiled.bin", folder / firmware.IMAGES)
    kind = "RANGE" if "address" in words else "DESCRIPTOR"
    assert code == 1
    assert message == (f"firmware: the core reports an error: descriptor {number}: {kind}, {words}")


def test_files_that_are_missing_or_too_short(made, tmp_path):
    _, folder, executable = made
    good, images, short = folder / files.CONSTANTS, folder / firmware.IMAGES, tmp_path / "short"
    short.write_bytes(images.read_bytes()[:-1])
    none = tmp_path / "none"
    assert end_of(executable, none, images) == (2, f"firmware: {none}: cannot be read")
    assert end_of(executable, good, none) == (2, f"firmware: {none}: cannot be read")
    assert end_of(executable, short, images) == (2, f"firmware: {short}: is too short")
    assert end_of(executable, good, short) == (2, f"firmware: {short}: is too short")
    assert end_of(executable) == (2, "firmware: usage: firmware PROGRAM.BIN IMAGES.BIN")


def test_program_for_another_core(network, images, tmp_path):
    config = TINY.replace(acc_bits=20)
    firmware.compile_files(network, config, COUNT, tmp_path)
    firmware.write_images(tmp_path, images)
    executable = build_firmware(TINY, tmp_path)
    code, message = end_of(executable, tmp_path / files.CONSTANTS, tmp_path / firmware.IMAGES)
    assert code == 3
    assert message == "firmware: the program is for a core of another value: acc_bits"
    with pytest.raises(CspError, match="of another value: acc_bits"):
        firmware.execute(tmp_path, executable)


def test_main_program_that_does_not_compile(made, tmp_path):
    _, folder, _ = made
    (tmp_path / "main.c").write_text("int main(void) { return nothing; }\n")
    with pytest.raises(CspError, match=r"^the C compiler fails: .*nothing"):
        build_firmware(TINY, folder, main=tmp_path / "main.c")


@pytest.mark.parametrize(
    "text",
    ["", "image 0: class 1, logits 4 5\n", "image 1: class 1, logits 4\n5 cycles, 1 descriptors"],
)
def test_output_that_is_not_one(text):
    with pytest.raises(CspError, match="does not print what it should"):
        firmware.read_output(text)


def test_differences_are_counted(expected):
    logits = expected.logits.reshape(COUNT, -1).astype(np.int64)
    outcome = firmware.Outcome(
        classes=expected.argmax.copy(), logits=logits.copy(), cycles=1, descriptors=1
    )
    assert outcome.differences(expected) == 0
    outcome.logits[0, 0] += 1
    outcome.classes[1] += 1
    assert outcome.differences(expected) == 2
    none = firmware.Outcome(classes=outcome.classes, logits=logits[:1], cycles=1, descriptors=1)
    assert none.differences(expected) == logits.size + COUNT


# --- The command line -----------------------------------------------------------------------------


@pytest.fixture
def given(network, images, tmp_path):
    """Options of the command line."""
    container.save(network, tmp_path / "little.csp")
    np.savez(tmp_path / "data.npz", images=images, labels=np.zeros(COUNT, dtype=np.int64))
    options = ["--preset", "tiny_4x4", "--images", COUNT, "--network", tmp_path / "little.csp"]
    return [*options, "--data", tmp_path / "data.npz", "-o", tmp_path / "out"]


def test_command_compiles(network, tmp_path, capfd):
    container.save(network, tmp_path / "little.csp")
    folder = tmp_path / "a" / "b"
    options = ["--preset", "tiny_4x4", "--images", 2, "-o", folder]
    assert csp("compile", tmp_path / "little.csp", *options) == 0
    *wrote, last = capfd.readouterr().out.splitlines()
    assert wrote == [f"wrote {folder / name}" for name in (files.CONSTANTS, files.HEADER)]
    program = compile_network(network, TINY, 2)
    assert last == (
        f"{len(program.passes)} descriptors, a window of {program.size:,} bytes, "
        f"{len(program.constants):,} of them constant"
    )
    assert {path.name for path in folder.iterdir()} == {files.CONSTANTS, files.HEADER}


def test_command_refuses(network, tmp_path, capfd):
    container.save(network, tmp_path / "little.csp")
    options = ["--preset", "tiny_4x4", "--images", 1 << 20, "-o", tmp_path / "out"]
    assert csp("compile", tmp_path / "little.csp", *options) == 2
    assert capfd.readouterr().err.startswith("csp: network little: images must be 1 … ")
    assert not (tmp_path / "out").exists()


def test_command_runs_the_firmware(given, expected, capfd):
    assert csp("firmware", *given, "--latency", 7) == 0
    out = capfd.readouterr().out
    assert firmware.read_output(out).differences(expected) == 0
    assert out.endswith("\n9 logits and 3 classes, all equal to the golden model\n")


def test_command_tells_a_difference(given, monkeypatch, capfd):
    outcome = firmware.read_output

    def wrong(text):
        found = outcome(text)
        found.logits[1, 1] ^= 1
        return found

    monkeypatch.setattr(firmware, "read_output", wrong)
    assert csp("firmware", *given) == 1
    assert "9 logits and 3 classes, 1 of them differ from the golden model" in (
        capfd.readouterr().out
    )


@pytest.mark.soak
def test_the_example(tmp_path, capfd):
    """What ``make firmware`` does."""
    assert csp("firmware", "-o", tmp_path) == 0
    images = demo.load_images(demo.IMAGES, 16, container.load(demo.NETWORK).input)
    outcome = firmware.read_output(capfd.readouterr().out)
    assert outcome.classes.tolist() == images.labels.tolist()
    assert outcome.descriptors == 7
