# SPDX-License-Identifier: Apache-2.0
"""The simulator's process: engines that hang or break the rules, simulators that die."""

import dataclasses
import subprocess

import numpy as np
import pytest

from csp_algo.errors import CspError
from csp_algo.geometry import Geometry
from csp_algo.integers import ActDtype
from csp_algo.network import Residual
from csp_hw.generate import signals
from sim import golden
from sim.cosim import process as module
from sim.cosim.build import EXECUTABLE, ICARUS, VERILATOR, Build, build
from sim.cosim.process import default_patience, run_jobs
from sim.cosim.protocol import STREAMS
from sim.cosim.streams import Stress, job_of
from sim.schedule import Schedule
from tests.cosim.tools import TINY, needs_icarus
from tests.strategies import random_activations, random_layer

#: Behaviours of the engine below; the layer command's field ``taps`` chooses one.
WITHDRAWS, CHANGES, FINISHES, FLOODS, SLEEPS, KNOWS_NOT = range(1, 7)

FAKE = """
  reg [15:0] mode = 0;
  reg [31:0] count = 0;
  always @(posedge clk) begin
    count <= count + 1;
    if (rst) mode <= 0;
    else if (layer__valid) mode <= layer__payload[15:0];
    if (mode == FINISHES) begin
      $display("Error: enough");
      $finish;
    end
  end
  assign layer__ready = 1;
  assign params__ready = 1;
  assign tiles__ready = 1;
  assign counts__ready = 1;
  assign weights__ready = 1;
  assign activations__ready = 1;
  assign residual__ready = 1;
  assign results__valid = mode == WITHDRAWS ? count[0]
      : mode == CHANGES || mode == FLOODS || mode == KNOWS_NOT;
  assign results__payload = mode == CHANGES ? count : mode == KNOWS_NOT ? 32'hx : 0;
  assign idle = mode != SLEEPS;
  assign counters = 0;
endmodule
"""


def fake_engine():
    """Give an engine that misbehaves on demand."""
    ports = signals(TINY)["tops"]["csp_engine"]["ports"]
    text = f"module csp_engine({', '.join(ports)});\n"
    for name, port in ports.items():
        text += f"  {port['direction']} [{port['width'] - 1}:0] {name};\n"
    names = ("WITHDRAWS", "CHANGES", "FINISHES", "FLOODS", "SLEEPS", "KNOWS_NOT")
    for name in names:
        text += f"  localparam {name} = {globals()[name]};\n"
    return text + FAKE


@pytest.fixture(scope="module")
def fake():
    return build(TINY, verilog=fake_engine())


@pytest.fixture(scope="module")
def real():
    return build(TINY)


def layer_job(seed=0, *, adds=False, **options):
    """Give a job, its schedule, and the result words that are right; it may add a residual."""
    rng = np.random.default_rng(seed)
    layer = random_layer(rng, cols=TINY.cols, period=2, groups=1, dtype=ActDtype.INT8, **options)
    inputs = random_activations(rng, (2, *layer.geometry.in_shape))
    added = None
    if adds:
        layer = dataclasses.replace(layer, residual=Residual(input="r", mult=2**15, shift=16))
        added = random_activations(rng, (2, *layer.geometry.out_shape), ActDtype.INT8)
    schedule = Schedule.make(layer, 0, TINY, 2)
    expected, _ = golden.layer_forward(layer, inputs, residual=added)
    job = job_of(schedule, inputs, residual=added)
    return job, schedule, np.concatenate(list(schedule.results(expected)))


def fake_job(mode, results=10, stall=0.0):
    job, _, _ = layer_job()
    command = job.beats["layer"].copy()
    command[0, :2] = mode, 0
    beats = {**job.beats, "layer": command}
    return dataclasses.replace(
        job, beats=beats, results=results, stalls={"results": stall} if stall else {}
    )


def error_of(simulator, job, **options):
    with pytest.raises(CspError) as caught:
        list(run_jobs(simulator, [job], **options))
    message = str(caught.value)
    assert message.startswith("co-simulation: ")
    assert "\n" not in message
    return message.removeprefix("co-simulation: ")


def test_outcomes_come_in_order_and_lazily(real):
    jobs = [layer_job(seed) for seed in range(12)]
    asked = []

    def orders():
        for number, (job, _, _) in enumerate(jobs):
            asked.append(number)
            yield job

    for number, outcome in enumerate(run_jobs(real, orders())):
        np.testing.assert_array_equal(outcome.words, jobs[number][2])
        assert len(asked) <= number + 1 + module.AHEAD
        # The counter runs until the engine is idle, the wrapper until the last result has left.
        assert 0 < outcome.cycles <= outcome.counters["cycles"] <= outcome.cycles + 16
    assert asked == list(range(12))


def test_closing_ends_the_process(real, monkeypatch):
    started = []
    popen = subprocess.Popen

    def record(*arguments, **options):
        started.append(popen(*arguments, **options))
        return started[-1]

    monkeypatch.setattr(module.subprocess, "Popen", record)
    outcomes = run_jobs(real, (layer_job()[0] for _ in range(50)))
    next(outcomes)
    outcomes.close()
    assert started[0].returncode is not None


def test_no_jobs(real):
    assert list(run_jobs(real, [])) == []


def test_progress(real):
    job, _, _ = layer_job(max_side=12, max_taps=200, case="dense")
    seen = []
    stalled = dataclasses.replace(job, stalls=dict.fromkeys(STREAMS, 0.97))
    list(run_jobs(real, [job, stalled], progress=seen.append))
    assert seen
    assert {progress.job for progress in seen} <= {0, 1}
    assert all(0 <= progress.share <= 1 for progress in seen)
    cycles = [progress.cycle for progress in seen]
    assert cycles == sorted(cycles)


def test_streams_run_ahead_of_their_layer(real):
    """All other streams wait at the engine while the layer's command is late."""
    jobs = [layer_job(seed, case="dense") for seed in range(4)]
    late = (
        dataclasses.replace(job, stalls={"layer": 0.99}, seed=1, ahead=True) for job, _, _ in jobs
    )
    plain = run_jobs(real, (job for job, _, _ in jobs))
    for outcome, other, (_, _, words) in zip(run_jobs(real, late), plain, jobs, strict=True):
        np.testing.assert_array_equal(outcome.words, words)
        assert outcome.counters["issued"] == other.counters["issued"]
        # What came before the command is not counted.
        assert outcome.counters["weights_words"] < other.counters["weights_words"]


@pytest.mark.parametrize("stream", [name for name in STREAMS if name not in ("layer", "params")])
def test_stalls_of_one_stream_cost_cycles_only(real, stream):
    # A layer with more results than the queues in front of the output stage hold.
    adds = stream == "residual"
    job, _, words = layer_job(5 if adds else 3, adds=adds, max_taps=60, case="dense")
    stalled = dataclasses.replace(job, stalls={stream: 0.8}, seed=5)
    plain, slow, again = run_jobs(real, [job, stalled, stalled])
    for outcome in (plain, slow, again):
        np.testing.assert_array_equal(outcome.words, words)
    assert slow.counters["cycles"] > plain.counters["cycles"]
    # The same seed, though the window begins elsewhere: the same stalls in the same cycles.
    assert slow.counters == again.counters


def test_garbage_in_dead_lanes_is_harmless(real):
    rng = np.random.default_rng(0)
    geometry = Geometry(in_shape=(1, 5, 9), filters=7)  # five pixels on rows of two
    layer = random_layer(rng, cols=TINY.cols, period=2, geometry=geometry, case="dense")
    inputs = random_activations(rng, (1, *geometry.in_shape))
    schedule = Schedule.make(layer, 0, TINY, 1)
    clean = job_of(schedule, inputs)
    dirty = job_of(schedule, inputs, Stress(stalls={}, seed=1))
    assert (clean.beats["activations"] != dirty.beats["activations"]).any()
    one, other = run_jobs(real, [clean, dirty])
    np.testing.assert_array_equal(one.words, other.words)
    assert one.counters == other.counters


def test_hang_tells_the_state_of_all_streams(real):
    job, _, words = layer_job(max_taps=60, case="dense")
    beats = {**job.beats, "weights": job.beats["weights"][:-3]}
    message = error_of(real, dataclasses.replace(job, beats=beats), patience=400)
    assert message.startswith("the engine hangs, no stream moved for 4")
    for name in STREAMS:
        assert f"{name} " in message
    assert "weights not valid, ready, 0 left" in message
    assert "results not valid, ready, " in message
    assert 0 < int(message.rsplit(",", 1)[1].split()[0]) <= len(words)


def test_beats_too_many_are_a_hang(real):
    job, _, _ = layer_job()
    beats = {**job.beats, "activations": np.tile(job.beats["activations"], (300, 1))}
    message = error_of(real, dataclasses.replace(job, beats=beats), patience=400)
    assert "activations valid, not ready, " in message
    assert "results not valid, ready, 0 due" in message


def test_default_patience_outlasts_the_longest_block():
    assert default_patience(TINY) > TINY.max_period * TINY.depth * TINY.row_blocks


def test_beats_of_a_wrong_width(real):
    job, _, _ = layer_job()
    beats = {**job.beats, "weights": job.beats["weights"][:, :3]}
    message = error_of(real, dataclasses.replace(job, beats=beats))
    assert message == "weights: beats must be uint8 [n, 4]"


def test_results_too_many(fake):
    message = error_of(fake, fake_job(FLOODS))
    assert message == "results: more than the 10 words that are due"


@pytest.mark.parametrize("mode", [WITHDRAWS, CHANGES])
def test_results_that_do_not_wait(fake, mode):
    message = error_of(fake, fake_job(mode, results=1000, stall=0.5))
    assert message == "results: a word changed or was withdrawn before it was taken"


def test_engine_that_never_rests(fake):
    message = error_of(fake, fake_job(SLEEPS, results=0), patience=200)
    assert message.startswith("the engine hangs")


def test_simulation_that_ends_by_itself(fake):
    message = error_of(fake, fake_job(FINISHES))
    assert message == "the simulator ended with exit code 0: Error: enough"


@needs_icarus
def test_unknown_results():
    simulator = build(TINY, verilog=fake_engine(), simulator=ICARUS)
    assert (
        error_of(simulator, fake_job(KNOWS_NOT, results=1000)) == "unknown bits (x or z) in results"
    )


@needs_icarus
def test_both_simulators_agree(real):
    jobs = [layer_job(seed, case="gaps", max_side=3)[0] for seed in range(2)]
    jobs += [dataclasses.replace(job, stalls=dict.fromkeys(STREAMS, 0.3)) for job in jobs]
    icarus = build(TINY, simulator=ICARUS)
    for one, other in zip(run_jobs(real, jobs), run_jobs(icarus, jobs), strict=True):
        np.testing.assert_array_equal(one.words, other.words)
        assert one.counters == other.counters
        assert one.cycles == other.cycles


@needs_icarus
@pytest.mark.parametrize(("name", "start"), [("w.vcd", b"$date"), ("w.fst", b"\x00")])
def test_waveform_of_icarus(tmp_path, name, start):
    simulator = build(TINY, simulator=ICARUS)
    job, _, words = layer_job()
    (outcome,) = run_jobs(simulator, [job], wave=tmp_path / name)
    np.testing.assert_array_equal(outcome.words, words)
    data = (tmp_path / name).read_bytes()
    assert data.startswith(start)
    assert len(data) > 10_000


@pytest.mark.soak
def test_waveform_of_verilator(tmp_path, monkeypatch):
    simulator = build(TINY, trace=True)
    job, _, words = layer_job()
    monkeypatch.chdir(tmp_path)
    (outcome,) = run_jobs(simulator, [job], wave=module.Path("tile.vcd"))
    np.testing.assert_array_equal(outcome.words, words)
    text = (tmp_path / "tile.vcd").read_text()
    assert "$scope module engine $end" in text
    assert text.count("\n#") > 2 * outcome.cycles


@pytest.mark.parametrize(
    ("name", "simulator", "trace", "message"),
    [
        ("w.fst", VERILATOR, True, "a waveform of verilator ends in .vcd"),
        ("w.txt", ICARUS, False, "a waveform of icarus ends in .vcd or .fst"),
        ("w.vcd", VERILATOR, False, "this simulator was built without waveforms"),
        ("no/such/w.vcd", VERILATOR, True, "there is no folder"),
    ],
)
def test_waveform_that_cannot_be(tmp_path, name, simulator, trace, message):
    built = Build(config=TINY, simulator=simulator, folder=tmp_path, trace=trace)
    with pytest.raises(CspError, match=message) as caught:
        next(run_jobs(built, [], wave=tmp_path / name))
    assert str(caught.value).startswith(str(tmp_path / name))


def script(folder, text):
    """Give a build whose simulator is a shell script."""
    path = folder / EXECUTABLE
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return Build(config=TINY, simulator=VERILATOR, folder=folder, trace=False)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("kill -SEGV $$", "the simulator ended with SIGSEGV: it said nothing"),
        ("echo one; echo two; exit 3", "the simulator ended with exit code 3: two"),
        ("echo Fatal Error: no libpython; echo more; exit 1", "Error: no libpython"),
    ],
)
def test_simulator_that_dies(tmp_path, text, message):
    assert message in error_of(script(tmp_path, text), layer_job()[0])


def test_simulator_that_says_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "SILENCE", 0.2)
    assert error_of(script(tmp_path, "exec sleep 60"), layer_job()[0]) == (
        "the simulator is silent for 0 s"
    )


def test_simulator_that_cannot_start(tmp_path):
    built = Build(config=TINY, simulator=VERILATOR, folder=tmp_path, trace=False)
    assert error_of(built, layer_job()[0]).startswith("cannot start the simulator: ")


def test_no_shared_library_of_python(tmp_path, monkeypatch):
    monkeypatch.setattr(module.find_libpython, "find_libpython", lambda: None)
    with pytest.raises(CspError, match="the shared library of this Python is missing"):
        list(run_jobs(script(tmp_path, "true"), []))
