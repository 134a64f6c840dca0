# SPDX-License-Identifier: Apache-2.0
import errno
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st

from csp_algo import container
from csp_algo.errors import CspError
from csp_algo.geometry import Geometry
from tests.csp_algo.examples import equal, network
from tests.strategies import CASES, network_of, random_layer

DATA = container.to_bytes(network())
LENGTH = int.from_bytes(DATA[:8], "little")
HEADER = json.loads(json.loads(DATA[8 : 8 + LENGTH])["__metadata__"]["csp"])


def edited(change, *, seal: bool = True) -> bytes:
    """The example after ``change(header, arrays)``, with a digest that fits if ``seal``."""
    header = json.loads(json.dumps(HEADER))
    arrays = {name: array.copy() for name, array in safetensors.numpy.load(DATA).items()}
    change(header, arrays)
    if seal:
        header["digest"] = container.digest_of(header, arrays)
    return safetensors.numpy.save(arrays, {"csp": json.dumps(header)})


def raw(header: object, body: bytes = b"") -> bytes:
    """A safetensors file with any header at all."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def refused(data: bytes) -> str:
    with pytest.raises(CspError) as caught:
        container.from_bytes(data)
    message = str(caught.value)
    assert len(message) < 300
    assert message.isprintable()
    return message


@pytest.mark.parametrize("case", CASES)
def test_what_is_saved_is_loaded(tmp_path, case):
    example = network(1, case=case)
    container.save(example, tmp_path / "a.csp")
    result = container.load(tmp_path / "a.csp")
    assert equal(result, example)
    assert container.to_bytes(result) == container.to_bytes(example)
    assert container.digest(result) == container.digest(example)
    assert names(tmp_path) == ["a.csp"]


@given(st.integers(0, 2**32 - 1), st.sampled_from(CASES), st.integers(1, 9), st.integers(1, 32))
def test_round_trips_are_exact_to_the_byte(seed, case, cols, period):
    rng = np.random.default_rng(seed)
    example = network_of(random_layer(rng, cols=cols, period=period, case=case))
    data = container.to_bytes(example)
    result = container.from_bytes(data)
    assert equal(result, example)
    assert container.to_bytes(result) == data


def test_bytes_do_not_depend_on_the_process():
    code = (
        "import sys; from csp_algo import container; from tests.csp_algo.examples import network; "
        "sys.stdout.buffer.write(container.to_bytes(network()))"
    )
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        data = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            check=True,
            env=environment,
            cwd=Path(__file__).parents[2],
        )
        assert data.stdout == DATA


def test_the_order_of_metadata_does_not_matter():
    def swap(header, _):
        header["metadata"] = dict(reversed(header["metadata"].items()))

    assert container.to_bytes(container.from_bytes(edited(swap))) == DATA


def test_an_edit_that_means_the_same_is_loaded():
    assert equal(container.from_bytes(edited(lambda *_: None)), network())


def test_larger_counts_are_kept():
    example = network(2)
    kept = container.from_bytes(container.to_bytes(example))
    assert equal(kept, example)
    tight = container.repack(example, 4, 4)
    assert sum(matrix.counts.sum() for matrix in tight.layers()[0].matrices) <= sum(
        matrix.counts.sum() for matrix in kept.layers()[0].matrices
    )


@pytest.mark.parametrize(("cols", "period"), [(1, 1), (8, 2), (32, 32)])
def test_repack_keeps_all_but_the_packing(cols, period):
    example = network(3)
    result = container.repack(example, cols, period)
    assert (result.cols, result.period) == (cols, period)
    for old, new in zip(example.layers(), result.layers(), strict=True):
        np.testing.assert_array_equal(old.weights(), new.weights())
        assert {(m.cols, m.period) for m in new.matrices} == {(cols, period)}
        np.testing.assert_array_equal(old.bias, new.bias)
    tight = container.repack(example, 4, 4)
    assert container.to_bytes(container.repack(result, 4, 4)) == container.to_bytes(tight)


def test_repack_names_the_layer_with_too_many_chunks():
    layer = random_layer(
        np.random.default_rng(0),
        cols=8,
        geometry=Geometry(in_shape=(1, 1, 2), filters=1021),
        name="fc",
    )
    message = r"^network random: layer fc: 1021 filters make 256 chunks of 4, at most 255 "
    with pytest.raises(CspError, match=message):
        container.repack(network_of(layer), 4, 8)
    with pytest.raises(CspError, match=r"^network example: layer conv: period must be 1 … 32"):
        container.repack(network(), 4, 64)


# --- Files that are not what they should be -------------------------------------------------


def setter(*path: object, value: object):
    """An edit of one place in the header."""

    def change(header, _):
        for step in path[:-1]:
            header = header[step]
        header[path[-1]] = value

    return change


def remover(*path: object):
    def change(header, _):
        for step in path[:-1]:
            header = header[step]
        del header[path[-1]]

    return change


def replacer(name: str, make):
    """An edit of one array."""

    def change(_, arrays):
        arrays[name] = np.ascontiguousarray(make(arrays[name]))

    return change


def poke(position: tuple[int, ...], value: int):
    def make(array):
        array[position] = value
        return array

    return make


def duplicate_node(header, _):
    header["nodes"].insert(1, header["nodes"][0])


def too_high_count(_, arrays):
    """A count of K + 1 with words to match, so that only the count itself is wrong."""
    counts, words = arrays["conv.counts"], arrays["conv.words"]
    extra = 4 - int(counts[0, 0])
    counts[0, 0] = 4
    arrays["conv.words"] = np.concatenate([words, np.zeros((extra, 4), np.int8)])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (setter("version", value=2), "the format's version must be 1, not 2"),
        (setter("version", value=True), "the format's version must be 1, not True"),
        (setter("version", value="1"), "the format's version must be 1, not '1'"),
        (remover("version"), "the format's version must be 1, not None"),
        (setter("extra", value=1), "the header has an unknown field 'extra'"),
        (remover("cols"), "the header lacks the field 'cols'"),
        (setter("cols", value="4"), "cols must be of type int, not '4'"),
        (setter("cols", value=0), "cols must be 1 … 256, not 0"),
        (setter("period", value=4.0), "period must be of type int, not 4.0"),
        (setter("period", value=99), "layer 'conv': period must be 1 … 32, not 99"),
        (setter("period", value=10**30), "layer 'conv': period must be 1 … 32, not 1000"),
        (setter("name", value=None), "name must be of type str, not None"),
        (setter("name", value="a\x1b]0;b"), "a name must be 1 … 200 printable characters"),
        (setter("metadata", value=[]), "metadata must be an object, not []"),
        (setter("metadata", value={"a": 1}), "metadata.a must be of type str, not 1"),
        (setter("metadata", value={"a": "\ud800"}), "network example: metadata must be printable"),
        (setter("input", value=3), "input must be an object, not 3"),
        (setter("input", "scale", value=0.0), "input image: scale must be a finite float above 0"),
        (setter("input", "scale", value=1), "input.scale must be of type float, not 1"),
        (setter("input", "shape", value=[9, 9]), "input.shape must be a list of 3, not [9, 9]"),
        (setter("input", "dtype", value="int4"), "input.dtype must be int8 or uint8 or int32"),
        (setter("nodes", value={}), "nodes must be of type list, not {}"),
        (setter("nodes", value=[]), "network example: there are no nodes"),
        (setter("nodes", 0, value="conv"), "node 0 must be an object, not 'conv'"),
        (setter("nodes", 0, "kind", value="lstm"), "node 0 ('conv') must be of kind layer, max_"),
        (setter("nodes", 0, "kind", value=[]), "node 0 ('conv') must be of kind layer, max_"),
        (remover("nodes", 0, "kind"), "node 0 ('conv') must be of kind layer, max_pool, avg_pool"),
        (setter("nodes", 0, "weights", value=1), "node 0 ('conv') has an unknown field 'weights'"),
        (setter("nodes", 0, "bias", value=1), "node 0 ('conv') has an unknown field 'bias'"),
        (remover("nodes", 0, "relu"), "node 0 ('conv') lacks the field 'relu'"),
        (setter("nodes", 0, "name", value="new"), "layer 'new': the array 'new.counts' is missing"),
        (setter("nodes", 0, "name", value="x" * 999), "layer 'xxx"),
        (setter("nodes", 0, "relu", value=0), "node 0 ('conv').relu must be of type bool, not 0"),
        (setter("nodes", 0, "acc_shift", value=16), "layer conv: acc_shift must be 0 … 15, not 16"),
        (setter("nodes", 0, "acc_shift", value=-1), "layer conv: acc_shift must be 0 … 15, not -1"),
        (setter("nodes", 0, "scale", value=-1.0), "layer conv: scale must be a finite float above"),
        (
            setter("nodes", 0, "geometry", "kernel", value=[3, 12]),
            "node 0 ('conv').geometry: kernel must be 1 … 11, not 12",
        ),
        (
            setter("nodes", 0, "geometry", "kernel", value=[3, "3"]),
            "node 0 ('conv').geometry.kernel[1] must be of type int, not '3'",
        ),
        (
            setter("nodes", 0, "geometry", "filters", value=11),
            "layer 'conv': the array 'conv.bias' must be int32 [11], not int32 [10]",
        ),
        (
            setter("nodes", 0, "geometry", "in_shape", value=[9, 9, 7_000]),
            "layer 'conv': the array 'conv.counts' must be uint8 [1, 63000], not uint8 [1, 27]",
        ),
        (
            setter("nodes", 0, "geometry", "in_shape", value=[60_000, 60_000, 3]),
            "node 0 ('conv').geometry: in_shape (60000, 60000, 3) has more than 2147483647 ",
        ),
        (
            setter("nodes", 1, "residual", "input", value="max"),
            "network example: layer grouped: reads max, which no earlier node makes",
        ),
        (
            setter("nodes", 1, "residual", value=7),
            "node 1 ('grouped').residual must be an object, not 7",
        ),
        (
            setter("nodes", 2, "inputs", value=["conv", 3]),
            "node 2 ('both').inputs[1] must be of type str, not 3",
        ),
        (setter("nodes", 2, "inputs", value=[]), "concat both: there are no inputs"),
        (
            setter("nodes", 3, "kernel", value=[2, 2, 2]),
            "node 3 ('max').kernel must be a list of 2, not [2, 2, 2]",
        ),
        (setter("nodes", 4, "shift", value=48), "pool avg: shift must be 0 … 47, not 48"),
        (setter("nodes", 5, "input", value="logits"), "network example: flatten flat: reads log"),
        (duplicate_node, "network example: two values have the name conv"),
        (too_high_count, "layer 'conv': count 4 of tap 0 exceeds the 3 chunks"),
        (
            replacer("conv.counts", poke((0, 0), 255)),
            "layer 'conv': the array 'conv.words' must be int8 [",
        ),
        (
            replacer("conv.words", lambda a: a[:-1]),
            "layer 'conv': the array 'conv.words' must be int8 [",
        ),
        (
            replacer("conv.words", lambda a: a.view(np.uint8)),
            "layer 'conv': the array 'conv.words' must be int8 [",
        ),
        (
            replacer("conv.words", poke((0, 0), -128)),
            "layer 'conv': word [0, 0] is -128, the least weight is -127",
        ),
        (
            replacer("conv.counts", lambda a: a[0]),
            "layer 'conv': the array 'conv.counts' must be uint8 [1, 27], not uint8 [27]",
        ),
        (
            replacer("conv.bias", lambda a: a.astype(np.float32)),
            "array 'conv.bias' has the type F32, which CSP does not use",
        ),
        (
            replacer("conv.mult", poke((2,), 1)),
            "layer conv: mult of filter 2 must be 0 or 32768 … 65535, not 1",
        ),
        (
            replacer("conv.shift", poke((2,), 48)),
            "layer conv: shift of filter 2 must be 0 … 47, not 48",
        ),
        (
            replacer("conv.filter_order", lambda a: a * 0),
            "layer conv: filter_order is not a permutation of 0 … 9",
        ),
        (
            lambda _, arrays: arrays.update(more=np.zeros(1, np.int8)),
            "there is an unknown array 'more'",
        ),
        (
            lambda _, arrays: arrays.pop("grouped.mult"),
            "layer 'grouped': the array 'grouped.mult' is missing",
        ),
    ],
)
def test_edited_files_are_refused_by_name(change, message):
    assert refused(edited(change)).startswith(message)


@pytest.mark.parametrize(
    "change",
    [
        setter("period", value=5),
        setter("digest", value="0" * 64),
        setter("digest", value=None),
        replacer("conv.words", poke((0, 0), 1)),
        replacer("conv.words", lambda a: a.reshape(-1)),
        lambda _, arrays: arrays.pop("conv.bias"),
        lambda _, arrays: arrays.update(more=np.zeros(1, np.int8)),
    ],
)
def test_a_digest_that_does_not_fit_is_refused(change):
    message = refused(edited(change, seal=False))
    assert message.startswith("the digest is not ")
    assert message.endswith(": the file is damaged or was edited")


@pytest.mark.parametrize("name", sorted(safetensors.numpy.load(DATA)))
def test_every_array_is_in_the_digest(name):
    def flip(array):
        array.reshape(-1).view(np.uint8)[-1] ^= 1
        return array

    assert refused(edited(replacer(name, flip), seal=False)).startswith("the digest is not ")


def test_the_digest_is_the_documented_one():
    header = {"b": 1.5, "a": "é", "digest": "not part of it"}
    arrays = {"y": np.array([[1, -1]], np.int8), "x": np.array([258], np.uint16)}
    text = b'{"a":"\\u00e9","b":1.5}\n["x","uint16",[1]]\n\x02\x01\n["y","int8",[1,2]]\n\x01\xff\n'
    assert container.digest_of(header, arrays) == hashlib.sha256(text).hexdigest()


def test_a_missing_digest_is_refused():
    assert refused(edited(remover("digest"), seal=False)) == "the header lacks the field 'digest'"


@pytest.mark.parametrize("value", ["NaN", "Infinity", "1e999"])
def test_numbers_that_are_none_are_refused(value):
    header = json.dumps(HEADER).replace('"scale": 0.5', f'"scale": {value}')
    data = safetensors.numpy.save(safetensors.numpy.load(DATA), {"csp": header})
    assert refused(data).startswith(f"the header holds {'' if value[0] != '1' else 'the number '}")


def test_a_name_twice_in_the_header_is_refused():
    header = json.dumps(HEADER).replace('"cols":', '"cols": 4, "cols":')
    data = safetensors.numpy.save(safetensors.numpy.load(DATA), {"csp": header})
    assert refused(data) == "the header has the name 'cols' twice in one object"


def test_deep_nesting_is_refused():
    for depth in (500, 900, 990, 1000, 100_000):
        header = json.dumps(HEADER).replace('"cols":', f'"z": {"[" * depth}{"]" * depth}, "cols":')
        data = safetensors.numpy.save(safetensors.numpy.load(DATA), {"csp": header})
        assert refused(data).startswith("the header ")


ENTRY = {"dtype": "I8", "shape": [2], "data_offsets": [0, 2]}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is truncated, or no safetensors file"),
        (b"\x00" * 7, "is truncated, or no safetensors file"),
        (b"\x00" * 8, "the header is no JSON"),
        (b"\xff" * 100, "is truncated, or no safetensors file"),
        (b"PK\x03\x04" * 100, "is truncated, or no safetensors file"),
        (raw(b" " * 20_000_000), "is truncated, or no safetensors file"),
        (raw(b"\xff{}"), "the header is no JSON"),
        (raw([]), "is no safetensors file: "),
        (raw({"__metadata__": 3}), "is no safetensors file: "),
        (raw({"__metadata__": {"csp": 3}}), "is no safetensors file: "),
        (raw({}), "has no CSP header"),
        (raw({"__metadata__": {}}), "the metadata lacks the field 'csp'"),
        (raw({"__metadata__": {"csp": "{}", "x": ""}}), "the metadata has an unknown field 'x'"),
        (raw({"__metadata__": {"csp": "[]"}}), "the format's version must be 1, not None"),
        (raw({"__metadata__": {"csp": "{"}}), "the header is no JSON"),
        (raw({"a": ENTRY}, b"xx"), "has no CSP header"),
        (raw({"a": ENTRY}, b"x"), "is no safetensors file: "),
        (raw({"a": {**ENTRY, "shape": [10**15]}}, b"xx"), "is no safetensors file: "),
        (
            raw(
                {"a": {**ENTRY, "dtype": "F4", "shape": [4]}, "__metadata__": {"csp": "{}"}}, b"xx"
            ),
            "array 'a' has the type F4, which CSP does not use",
        ),
        (
            raw(
                {
                    "a": {"dtype": "I8", "shape": [0, 10**15], "data_offsets": [0, 0]},
                    "__metadata__": {"csp": "{}"},
                }
            ),
            "array 'a' has the shape [0, 1000000000000000]",
        ),
        (
            raw(
                b'{"a":{"dtype":"I8","shape":[2],"data_offsets":[0,2]},'
                b'"a":{"dtype":"I8","shape":[2],"data_offsets":[0,2]}}',
                b"xx",
            ),
            "the header has the name 'a' twice in one object",
        ),
    ],
)
def test_files_of_another_kind_are_refused(data, message):
    assert refused(data).startswith(message)


@given(st.integers(0, len(DATA) - 1))
def test_truncated_files_are_refused(length):
    refused(DATA[:length])


@given(st.binary(min_size=1, max_size=16))
def test_files_with_something_behind_are_refused(tail):
    refused(DATA + tail)


@given(
    st.lists(
        st.tuples(st.integers(0, len(DATA) - 1), st.integers(1, 255)), min_size=1, max_size=4
    ).filter(lambda flips: len({place for place, _ in flips}) == len(flips))
)
def test_flipped_bits_are_refused(flips):
    data = bytearray(DATA)
    for place, mask in flips:
        data[place] ^= mask
    refused(bytes(data))


@given(st.integers(0, 2**32 - 1))
def test_sealed_damage_is_refused_or_makes_a_network(seed):
    """Whoever edits a file can make the digest fit: then the checks are all there is."""
    rng = np.random.default_rng(seed)

    def damage(_, arrays):
        name = str(rng.choice(sorted(arrays)))
        flat = arrays[name].reshape(-1).view(np.uint8)
        flat[rng.integers(len(flat))] = rng.integers(256)

    data = edited(damage)
    try:
        result = container.from_bytes(data)
    except CspError:
        return
    assert equal(container.from_bytes(container.to_bytes(result)), result)


JUNK = st.sampled_from([None, True, -1, 0, 2**70, 0.5, -0.0, 1e300, "", "conv", [], {}, [[]], [0]])


@given(st.data())
def test_sealed_junk_in_the_header_is_refused_or_makes_a_network(data):
    def replace(header, _):
        place = header
        while True:
            keys = sorted(place) if isinstance(place, dict) else list(range(len(place)))
            key = data.draw(st.sampled_from(keys))
            if not (isinstance(place[key], dict | list) and place[key]) or data.draw(st.booleans()):
                break
            place = place[key]
        place[key] = data.draw(JUNK)

    try:
        result = container.from_bytes(edited(replace))
    except CspError:
        return
    assert equal(container.from_bytes(container.to_bytes(result)), result)


# --- Files and disks -------------------------------------------------------------------------


def test_load_names_the_file(tmp_path):
    path = tmp_path / "a.csp"
    with pytest.raises(CspError, match=r"a\.csp: cannot be read: No such file or directory$"):
        container.load(path)
    with pytest.raises(CspError, match=rf"^{tmp_path}: is not a file$"):
        container.load(tmp_path)
    path.write_bytes(DATA[:100])
    with pytest.raises(CspError, match=r"a\.csp: is truncated, or no safetensors file$"):
        container.load(str(path))


def test_devices_and_pipes_are_not_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", "/dev/zero"):
        with pytest.raises(CspError, match=r": is not a file$"):
            container.load(path)


def test_huge_files_are_not_read(tmp_path):
    path = tmp_path / "a.csp"
    with path.open("wb") as file:
        file.truncate(2**31 + 1)  # a hole: takes no room
    with pytest.raises(CspError, match=r": has 2147483649 bytes, more than 2147483648$"):
        container.load(path)


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_failed_write_leaves_what_was_there(tmp_path, monkeypatch, step):
    path = tmp_path / "a.csp"
    path.write_bytes(b"before")

    def fail(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(*((os, step) if step == "fsync" else (Path, step)), fail)
    with pytest.raises(CspError, match=r"a\.csp: cannot be written: No space left on device$"):
        container.save(network(), path)
    assert names(tmp_path) == ["a.csp"]
    assert path.read_bytes() == b"before"


def test_a_disk_that_is_really_full(tmp_path):
    """The kernel itself refuses the write after 1 KiB."""
    # The limit ends with the write: coverage, too, writes a file as the process ends.
    code = (
        "import resource, signal, sys; from csp_algo import container; "
        "from csp_algo.errors import CspError; from tests.csp_algo.examples import network; "
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        "soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE); "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1024, hard))\n"
        "try: container.save(network(), sys.argv[1])\n"
        "except CspError as error: print(error)\n"
        "finally: resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "a.csp")],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert result.stdout == f"{tmp_path}/a.csp: cannot be written: File too large\n"
    assert names(tmp_path) == []


def test_an_interrupted_write_leaves_nothing(tmp_path, monkeypatch):
    def interrupt(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        container.save(network(), tmp_path / "a.csp")
    assert names(tmp_path) == []


def test_only_files_are_replaced(tmp_path):
    """A rename would turn even a device into a file."""
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for name in ("folder", "pipe"):
        with pytest.raises(CspError, match=rf"{name}: cannot be written: is not a file$"):
            container.write_atomically(tmp_path / name, b"")
    with pytest.raises(CspError, match=r"cannot be written: No such file or directory$"):
        container.write_atomically(tmp_path / "none" / "a.csp", b"")
    (tmp_path / "file").touch()
    with pytest.raises(CspError, match=r"cannot be written: Not a directory$"):
        container.write_atomically(tmp_path / "file" / "a.csp", b"")
    assert names(tmp_path) == ["file", "folder", "pipe"]


def test_files_have_the_usual_mode(tmp_path):
    (tmp_path / "usual").touch()
    container.write_atomically(tmp_path / "a.csp", b"data")
    assert (tmp_path / "a.csp").stat().st_mode == (tmp_path / "usual").stat().st_mode
    container.write_atomically(tmp_path / "a.csp", b"new")
    assert (tmp_path / "a.csp").read_bytes() == b"new"
