# SPDX-License-Identifier: Apache-2.0
"""The reference memory: exact to the cycle, stalls at random, errors on demand, rules watched."""

import dataclasses

import numpy as np
import pytest

from csp_algo.errors import CspError
from csp_hw.config import preset
from sim.cosim.build import ICARUS, VERILATOR
from sim.cosim.core import protocol
from sim.cosim.core.build import build_core
from sim.cosim.core.jobs import BASE, CoreJob, Inject, Response, Timing, WriteOrder
from sim.cosim.core.process import run_core_jobs
from tests.cosim import standin
from tests.cosim.standin import COPY, FILL, PORTS, REGISTERS, STAMP, standin_verilog
from tests.cosim.tools import needs_icarus

CONFIG = preset("tiny_4x4")
BEAT = CONFIG.cols
SIZE, HALF = 1 << 15, 1 << 14
IMAGE = np.random.default_rng(0).integers(0, 256, SIZE, dtype=np.uint8)
ALL_STALLS = dict.fromkeys((*protocol.CHANNELS, "registers"), 0.3)


@pytest.fixture(scope="module")
def verilog():
    return standin_verilog(BEAT)


@pytest.fixture(scope="module", params=[VERILATOR, pytest.param(ICARUS, marks=needs_icarus)])
def simulator(request, verilog):
    return build_core(
        CONFIG, verilog=verilog, registers=REGISTERS, simulator=request.param, memory_bytes=SIZE
    )


@pytest.fixture(scope="module")
def verilator(verilog):
    return build_core(CONFIG, verilog=verilog, registers=REGISTERS, memory_bytes=SIZE)


def job(mode=COPY, *, bursts=8, length=8, port=1, source=0, target=HALF, pace=0, mask=0, **options):
    """Give a job of the stand-in; its addresses are bytes of the memory."""
    base = options.get("base", BASE)
    writes = {
        "SOURCE_LOW": base + source & 0xFFFFFFFF,
        "SOURCE_HIGH": base + source >> 32,
        "TARGET_LOW": base + target & 0xFFFFFFFF,
        "TARGET_HIGH": base + target >> 32,
        "BURSTS": bursts,
        "LENGTH": length - 1,
        "PORT": port,
        "PACE": pace,
        "MODE": mode,
        "MASK": mask,
        "CONTROL": 1,
    }
    given = {"image": IMAGE, "timeout": 50_000, "writes": list(writes.items())}
    return CoreJob(**given | options)


def words(outcome, count, target=HALF):
    """Give the first words that were written."""
    return outcome.memory[0].view("<u4")[target // 4 :][:count].astype(np.int64)


def rules(outcome):
    return {(fault.port, rule) for fault in outcome.faults for rule in fault.rules}


class Credit:
    """Bytes that may move: grows every cycle, up to what the second beat waits for."""

    def __init__(self, rate, cycle):
        self.rate, self.cycle, self.bytes = rate, cycle, BEAT + rate - 1

    def spend(self, cycle):
        """Give the first cycle from this one on that has enough, and spend it there."""
        while True:
            while self.cycle < cycle:
                self.cycle += 1
                self.bytes = min(self.bytes + self.rate, BEAT + self.rate - 1)
            if self.bytes >= BEAT:
                self.bytes -= BEAT
                return cycle
            cycle += 1


def read_cycles(first, bursts, length, timing, pace):
    """Give the cycles in which beats are taken, from the formulas in memory.v."""
    credit = Credit(timing.read_rate or BEAT, first)
    taken, asked = [], []
    for burst in range(bursts):
        ask = asked[-1] + 1 if asked else first
        if burst >= timing.outstanding:
            ask = max(ask, taken[(burst - timing.outstanding + 1) * length - 1] + 1)
        asked.append(ask)
        for _ in range(length):
            offer = max(ask + timing.read_latency, taken[-1] + 1 if taken else 0)
            offer = credit.spend(offer)
            while offer & pace:
                offer += 1
            taken.append(offer)
    return taken


TIMINGS = [
    (Timing(read_latency=latency, read_rate=rate, outstanding=outstanding), bursts, length, pace)
    for latency, rate, outstanding, bursts, length, pace in [
        (1, 4, 16, 4, 1, 0),
        (1, 4, 16, 5, 16, 0),
        (1, 1, 16, 4, 16, 0),
        (20, 2, 16, 40, 4, 0),
        (20, 3, 16, 5, 64, 0),
        (33, 4, 1, 4, 16, 0),
        (100, 4, 3, 24, 5, 0),
        (7, 3, 2, 20, 6, 1),
        (40, 4, 16, 40, 1, 4),
        (5, 4, 16, 1, 256, 3),
        (1000, 2, 4, 9, 16, 0),
    ]
]


def test_reads_are_exact_to_the_cycle(simulator):
    jobs = [
        job(STAMP, bursts=bursts, length=length, port=number % 3, pace=pace, timing=timing)
        for number, (timing, bursts, length, pace) in enumerate(TIMINGS)
    ]
    for (timing, bursts, length, pace), outcome in zip(
        TIMINGS, run_core_jobs(simulator, jobs), strict=True
    ):
        expected = read_cycles(outcome.registers["AR_FIRST"], bursts, length, timing, pace)
        assert words(outcome, bursts * length).tolist() == expected, timing


def test_a_stream_flows_at_its_rate(verilator):
    """One closed formula, from the first beat on."""
    rates = (1, 2, 3, 4)
    jobs = [job(STAMP, length=64, timing=Timing(read_rate=rate, read_latency=30)) for rate in rates]
    for rate, outcome in zip(rates, run_core_jobs(verilator, jobs), strict=True):
        first = outcome.registers["AR_FIRST"] + 30
        assert words(outcome, 512).tolist() == [first + n * BEAT // rate for n in range(512)]


def test_writes_are_exact_to_the_cycle(simulator):
    cases = [(4, 1, 5, 8), (4, 20, 3, 1), (2, 7, 6, 16), (3, 50, 4, 32), (1, 9, 2, 256)]
    jobs = [
        job(
            FILL,
            bursts=bursts,
            length=length,
            timing=Timing(write_rate=rate, write_latency=latency),
        )
        for rate, latency, bursts, length in cases
    ]
    for (rate, latency, bursts, length), outcome in zip(
        cases, run_core_jobs(simulator, jobs), strict=True
    ):
        registers = outcome.registers
        count = bursts * length
        taken = [registers["W_FIRST"] + n * BEAT // rate for n in range(count)]
        assert registers["W_LAST"] == taken[-1]
        # A beat is on offer from the cycle after the one before it was taken.
        assert words(outcome, count).tolist()[1:] == [cycle + 1 for cycle in taken[:-1]]
        assert registers["AW_FIRST"] <= registers["W_FIRST"]
        assert registers["B_FIRST"] == taken[length - 1] + latency
        assert registers["B_LAST"] == taken[-1] + latency


def test_data_may_come_before_their_address(verilator):
    """512 beats of them; here the second address waits for the first one's answer."""
    timing = Timing(write_latency=1000, outstanding=1)
    (outcome,) = run_core_jobs(verilator, [job(FILL, bursts=48, length=16, timing=timing)])
    cycles = words(outcome, 48 * 16)
    gaps = np.flatnonzero(np.diff(cycles) > 1)
    assert gaps[0] == 16 + 512
    assert cycles[gaps[0] + 1] - cycles[gaps[0]] > 400


def test_order_of_addresses_and_data(simulator):
    jobs = [
        job(length=4, bursts=20, timing=Timing(order=order), stalls=stalls)
        for order in WriteOrder
        for stalls in ({}, ALL_STALLS)
    ]
    for asked, outcome in zip(jobs, run_core_jobs(simulator, jobs), strict=True):
        check_copied(outcome, 80)
        if not asked.stalls:
            later = outcome.registers["AW_FIRST"] > outcome.registers["W_FIRST"]
            assert later == (asked.timing.order is WriteOrder.DATA_FIRST)


def test_no_address_before_its_data(verilator):
    """Data that wait do not invite the address of the burst after theirs."""
    slow = job(
        STAMP,
        bursts=2,
        pace=63,
        timing=Timing(order=WriteOrder.DATA_FIRST),
        stalls={"w": 0.9},
    )
    (outcome,) = run_core_jobs(verilator, [slow])
    assert outcome.registers["AW_LAST"] > words(outcome, 16)[8]


def test_no_data_before_their_address(verilator):
    """Where the address is slow, the data wait for it."""
    timing = Timing(order=WriteOrder.ADDRESS_FIRST)
    slow = job(FILL, stalls={"aw": 0.95}, timing=timing, bursts=4)
    (outcome,) = run_core_jobs(verilator, [slow])
    assert outcome.registers["W_FIRST"] > outcome.registers["AW_FIRST"]
    (outcome,) = run_core_jobs(verilator, [dataclasses.replace(slow, timing=Timing())])
    assert outcome.registers["W_FIRST"] < outcome.registers["AW_FIRST"]


def check_copied(outcome, count, source=0, target=HALF, image=IMAGE):
    assert not outcome.faults
    expected = image.view("<u4")[source // 4 :][:count] + np.uint32(1)
    np.testing.assert_array_equal(words(outcome, count, target), expected)


def test_traffic_is_counted(simulator):
    jobs = [job(port=port, bursts=5, length=7, count_reads=True) for port in range(3)]
    for port, outcome in enumerate(run_core_jobs(simulator, jobs)):
        check_copied(outcome, 35)
        for number, name in enumerate(PORTS):
            writes = name == "res"
            wanted = (5 * (number == port), 35 * (number == port), 5 * writes, 35 * writes, 0, 0)
            assert outcome.traffic[name] == wanted
        # Only the port of the maps is counted beat by beat.
        assert outcome.reads.size == SIZE // BEAT
        assert outcome.reads.tolist() == [int(port == 1)] * 35 + [0] * (SIZE // BEAT - 35)


def test_bytes_are_written_by_their_strobes(simulator):
    jobs = [
        job(mask=0b0110, strict=True),
        # What is not written may lie outside of what is guarded.
        job(mask=0b0001, guard=(HALF + 1, HALF + 256), bursts=8),
        job(mask=0b1000, guard=(HALF, HALF + 255), bursts=8),
    ]
    for mask, outcome in zip((0b0110, 0b0001, 0b1000), run_core_jobs(simulator, jobs), strict=True):
        kept = np.array([mask >> byte & 1 for byte in range(4)], dtype=bool)
        wanted = (IMAGE[:256].view("<u4") + np.uint32(1)).view(np.uint8).reshape(-1, 4)
        wanted[:, kept] = IMAGE[HALF : HALF + 256].reshape(-1, 4)[:, kept]
        got = outcome.memory[0][HALF : HALF + 256].reshape(-1, 4)
        np.testing.assert_array_equal(got, wanted)


def test_reads_are_counted_up_to_255(verilator):
    first = job(bursts=2, length=2, count_reads=True)
    clear = [("STATUS", 0), *first.writes]
    again = dataclasses.replace(first, image=None, reset=False, writes=clear)
    outcomes = list(run_core_jobs(verilator, [first, *[again] * 299]))
    assert outcomes[2].reads[:5].tolist() == [3, 3, 3, 3, 0]
    assert outcomes[-1].reads[:5].tolist() == [255, 255, 255, 255, 0]
    assert outcomes[-1].traffic["act"].read_beats == 1200


# --- Stalls ---------------------------------------------------------------------------------------


def test_stalls_are_reproducible(simulator):
    stalled = job(bursts=30, stalls=ALL_STALLS, seed=3)
    other = dataclasses.replace(stalled, seed=4)
    plain, first, again, different = run_core_jobs(
        simulator, [job(bursts=30), stalled, stalled, other]
    )
    for outcome in (plain, first, again, different):
        check_copied(outcome, 240)
    assert plain.cycles < first.cycles == again.cycles != different.cycles
    assert first.registers == again.registers
    assert first.cycle == again.cycle


def test_each_channel_stalls_by_itself(verilator):
    """One word a burst, so that each channel moves as often."""
    options = {"bursts": 1000, "length": 1, "timing": Timing(read_latency=1, write_latency=1)}
    jobs = [job(**options, stalls={channel: 0.5}) for channel in protocol.CHANNELS]
    plain, *stalled = run_core_jobs(verilator, [job(**options), *jobs])
    for channel, outcome in zip(protocol.CHANNELS, stalled, strict=True):
        check_copied(outcome, 1000)
        # A transfer takes two cycles instead of one, on average.
        assert 1850 < outcome.cycles - (plain.cycles - 1000) < 2150, channel


def test_stalls_have_their_probability(verilator):
    options = {"bursts": 40, "length": 64, "target": 0}
    plain, few, many = run_core_jobs(
        verilator, [job(**options, stalls={"r": part}) for part in (0.0, 0.1, 0.9)]
    )
    for outcome, odds in ((few, 0.1 / 0.9), (many, 0.9 / 0.1)):
        assert outcome.cycles - plain.cycles == pytest.approx(40 * 64 * odds, rel=0.15)


def test_ports_do_not_stall_together(verilator):
    jobs = [job(bursts=30, port=port, stalls={"r": 0.3}) for port in range(3)]
    assert len({outcome.cycles for outcome in run_core_jobs(verilator, jobs)}) == 3


@needs_icarus
def test_both_simulators_agree(verilator, verilog):
    icarus = build_core(
        CONFIG, verilog=verilog, registers=REGISTERS, simulator=ICARUS, memory_bytes=SIZE
    )
    jobs = [
        job(
            bursts=20,
            length=8,
            port=seed % 3,
            seed=seed,
            stalls=dict.fromkeys(ALL_STALLS, 0.15 * seed),
            timing=Timing(read_latency=1 + 9 * seed, read_rate=1 + seed % 4, write_rate=3),
            count_reads=True,
            strict=False,
            target=(HALF, 32)[seed % 2],
        )
        for seed in range(5)
    ]
    for one, other in zip(run_core_jobs(verilator, jobs), run_core_jobs(icarus, jobs), strict=True):
        for field in dataclasses.fields(one):
            np.testing.assert_equal(getattr(one, field.name), getattr(other, field.name))


# --- Errors on demand -----------------------------------------------------------------------------


def test_reads_that_are_refused(simulator):
    jobs = [
        job(inject=Inject(low=44, high=49, response=response, writes=False), bursts=4)
        for response in (Response.SLVERR, Response.DECERR)
    ]
    expected = IMAGE.view("<u4")[:32] + np.uint32(1)
    # Beats 11 and 12 touch the region.
    expected[11:13] = 0xDBDBDBDC
    for outcome in run_core_jobs(simulator, jobs):
        assert outcome.registers["STATUS"] == 0b110
        np.testing.assert_array_equal(words(outcome, 32), expected)
        assert outcome.traffic["act"][:5] == (4, 32, 0, 0, 2)


def test_writes_that_are_refused(simulator):
    jobs = [
        job(inject=Inject(low=HALF + 44, high=HALF + 45, response=response), bursts=4)
        for response in (Response.SLVERR, Response.DECERR)
    ]
    expected = IMAGE.view("<u4")[:32] + np.uint32(1)
    # Nothing of the burst was written.
    expected[8:16] = IMAGE[HALF:].view("<u4")[8:16]
    for outcome in run_core_jobs(simulator, jobs):
        assert outcome.registers["STATUS"] == 0b110
        np.testing.assert_array_equal(words(outcome, 32), expected)
        assert outcome.traffic["res"][:5] == (0, 0, 4, 32, 1)


def test_refusals_of_the_other_kind_are_not_concerned(verilator):
    jobs = [
        job(inject=Inject(low=0, high=HALF, reads=False)),
        job(inject=Inject(low=HALF, high=SIZE, writes=False)),
    ]
    for outcome in run_core_jobs(verilator, jobs):
        check_copied(outcome, 64)
        assert outcome.registers["STATUS"] == 0b010


@pytest.mark.parametrize("low", [40, HALF + 40])
def test_silence(simulator, low):
    silent = job(inject=Inject(low=low, high=low + 1, response=Response.SILENCE))
    # Reset ends it.
    stuck, fine = run_core_jobs(simulator, [dataclasses.replace(silent, wait=1000), job()])
    assert not stuck.irq
    assert stuck.cycles == 0
    assert stuck.registers["STATUS"] == 0b001
    assert fine.irq
    check_copied(fine, 64)
    with pytest.raises(CspError, match="no interrupt after 700 cycles"):
        list(run_core_jobs(simulator, [dataclasses.replace(silent, timeout=700)]))


def test_outside_of_the_memory(simulator):
    jobs = [
        job(source=source, target=target, bursts=1, strict=False, image=IMAGE[: HALF + 1024])
        for source, target in [
            (HALF + 1024 - 28, HALF),
            (-32, HALF),
            (1 << 40, HALF),
            (0, HALF + 1024),
            (0, SIZE),
        ]
    ]
    for number, outcome in enumerate(run_core_jobs(simulator, jobs)):
        port = "act" if number < 3 else "res"
        assert rules(outcome) == {(port, protocol.OUTSIDE)}
        assert outcome.registers["STATUS"] == 0b110
        # The whole burst is refused.
        traffic = outcome.traffic[port]
        assert traffic.errors == (8 if number < 3 else 1)
        # The answer to the write is the last that moves, the first beat of the read is not.
        assert 0 < traffic.error_cycle <= outcome.finished - outcome.quiet
        assert (traffic.error_cycle == outcome.finished - outcome.quiet) == (number >= 3)
        np.testing.assert_array_equal(outcome.memory[0][:HALF], IMAGE[:HALF])
        if number >= 3:
            np.testing.assert_array_equal(outcome.memory[0], IMAGE[: HALF + 1024])
            assert outcome.faults[0].address == jobs[number].base + (HALF + 1024, SIZE)[number - 3]


def test_what_is_outside_races_with_nothing(verilator):
    """Though the number of its beat would be one of the memory's, were it cut off."""
    far = job(source=(1 << 40) + HALF - 32, timing=Timing(order=WriteOrder.DATA_FIRST))
    (outcome,) = run_core_jobs(verilator, [dataclasses.replace(far, strict=False)])
    assert rules(outcome) == {("act", protocol.OUTSIDE)}


def test_base(simulator):
    bases = (0, 0xFFFF_F000, 0xFFFF_FFFF_FFFF_0000)
    for outcome in run_core_jobs(simulator, [job(base=base) for base in bases]):
        check_copied(outcome, 64)


# --- Rules ----------------------------------------------------------------------------------------


MISBEHAVIOURS = [
    (standin.WITHDRAWS_ADDRESS, "act", protocol.HELD),
    (standin.CHANGES_ADDRESS, "act", protocol.HELD),
    (standin.CHANGES_CACHE, "act", protocol.HELD),
    (standin.WITHDRAWS_DATA, "res", protocol.HELD),
    (standin.CHANGES_DATA, "res", protocol.HELD),
    (standin.FIXED, "act", protocol.BURST),
    (standin.NARROW, "act", protocol.SIZE),
    (standin.CROOKED, "act", protocol.ALIGNED),
    (standin.LAST_TOO_EARLY, "res", protocol.LAST),
]


def test_misbehaviour_is_seen(simulator):
    stalls = {"ar": 0.7, "w": 0.7}
    good = job(stalls=stalls)
    jobs = [
        asked
        for mode, _, _ in MISBEHAVIOURS
        for asked in (good, job(mode, stalls=stalls, strict=False))
    ]
    outcomes = run_core_jobs(simulator, jobs)
    for mode, port, rule in MISBEHAVIOURS:
        assert not next(outcomes).faults  # reset forgets
        found = rules(next(outcomes))
        assert (port, rule) in found, mode
        assert {broken for broken, _ in found} == {port}
    outcomes.close()


def test_misbehaviour_is_an_error(verilator):
    message = rf"^co-simulation: act: a burst is not INCR \(cycle \d+, {BASE:#x}\)$"
    with pytest.raises(CspError, match=message):
        list(run_core_jobs(verilator, [job(standin.FIXED)]))


#: Options, the port that breaks the rule first, the rule, the address that tells of it.
BAD_ADDRESSES = [
    ({"source": 4096 - 32, "length": 9}, "act", protocol.PAGE, 4096 - 32),
    ({"target": HALF + 4096 - 28, "port": 2}, "res", protocol.PAGE, HALF + 4096 - 28),
    ({"target": HALF + 2}, "res", protocol.ALIGNED, HALF + 2),
    ({"guard": (HALF, HALF + 255)}, "res", protocol.GUARD, HALF + 255),
    ({"guard": (HALF + 1, SIZE)}, "res", protocol.GUARD, HALF),
    # Read while the write to the same place is announced, but not answered …
    ({"target": 32}, "act", protocol.RACE, 32),
    # … and written while the read of the same place is asked for, but not answered.
    ({"target": 32, "timing": Timing(order=WriteOrder.DATA_FIRST)}, "res", protocol.RACE, 32),
]


def test_bad_addresses_are_seen(simulator):
    jobs = [job(**options, strict=False) for options, _, _, _ in BAD_ADDRESSES]
    for (options, port, rule, address), outcome in zip(
        BAD_ADDRESSES, run_core_jobs(simulator, jobs), strict=True
    ):
        assert {broken for _, broken in rules(outcome)} == {rule}, options
        fault = min(outcome.faults, key=lambda fault: fault.cycle)
        assert (fault.port, fault.address) == (port, BASE + address)
        assert 0 < fault.cycle < outcome.cycle


def test_what_is_just_allowed(verilator):
    jobs = [
        job(source=4096 - 32, target=SIZE - 32, bursts=1),
        job(guard=(HALF, HALF + 256)),
        # Each burst is read before it is written, and not asked for again.
        job(target=0, bursts=20),
    ]
    for options, outcome in zip(jobs, run_core_jobs(verilator, jobs), strict=True):
        assert not outcome.faults, options


def test_a_manager_that_waits_for_its_address(simulator):
    """It hangs with a memory that waits for data, and with no other."""
    waits = job(standin.WAITS_FOR_ADDRESS, bursts=4, timeout=2000)
    (outcome,) = run_core_jobs(simulator, [waits])
    check_copied(outcome, 32)
    data_first = Timing(order=WriteOrder.DATA_FIRST)
    with pytest.raises(CspError) as caught:
        list(run_core_jobs(simulator, [dataclasses.replace(waits, timing=data_first)]))
    message = str(caught.value)
    assert "no interrupt after 2000 cycles" in message
    assert "waiting: res aw; " in message
    assert "act read 32 beats and wrote 0" in message
