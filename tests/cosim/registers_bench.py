# SPDX-License-Identifier: Apache-2.0
"""The side of test_registers.py that runs inside the simulator."""

import itertools

import cocotb
import numpy as np
from cocotb.clock import Clock
from cocotb.triggers import RisingEdge
from cocotbext.axi import AxiLiteBus, AxiLiteMaster, AxiResp

from csp_hw.register_map import REGISTERS, Access

PLACES = {register.name: register.offset for register in REGISTERS}


def pauses(seed, share):
    """Give whether a channel stands still, cycle by cycle."""
    rng = np.random.default_rng(seed)
    return (bool(rng.random() < share) for _ in itertools.count())


async def started(dut, share):
    """Give a manager whose five channels pause at random, and nothing else."""
    dut.rst.value = 1
    cocotb.start_soon(Clock(dut.clk, 10, unit="ns").start())
    master = AxiLiteMaster(AxiLiteBus.from_prefix(dut, "s_axil"), dut.clk, dut.rst)
    channels = [
        master.write_if.aw_channel,
        master.write_if.w_channel,
        master.write_if.b_channel,
        master.read_if.ar_channel,
        master.read_if.r_channel,
    ]
    for seed, channel in enumerate(channels):
        if share:
            channel.set_pause_generator(pauses(seed, share))
    for _ in range(3):
        await RisingEdge(dut.clk)
    dut.rst.value = 0
    await RisingEdge(dut.clk)
    return master


async def write(master, address, data):
    answer = await master.write(address, data.to_bytes(4, "little"))
    return answer.resp


async def read(master, address):
    answer = await master.read(address, 4)
    return int.from_bytes(answer.data, "little"), answer.resp


def writable(register):
    """Give the bits that keep what is written."""
    return sum(
        (1 << field.width) - 1 << field.lsb
        for field in register.fields
        if field.access is Access.WRITE
    )


async def every_register(dut, share):
    master = await started(dut, share)
    assert await read(master, PLACES["ID"]) == (0x43535031, AxiResp.OKAY)
    for register in REGISTERS:
        before, answer = await read(master, register.offset)
        assert answer == AxiResp.OKAY
        for field in register.fields:
            if field.reset is not None:
                value = before >> field.lsb & (1 << field.width) - 1
                assert value == field.reset, f"{register.name}.{field.name}"
        for data in (0xFFFFFFFF, 0xA5C35A3C):
            expected = AxiResp.OKAY if register.access == "rw" else AxiResp.SLVERR
            assert await write(master, register.offset, data) == expected
            mask = writable(register)
            after = (before & ~mask | data & mask, AxiResp.OKAY)
            assert await read(master, register.offset) == after, register.name


async def no_register(dut, share):
    master = await started(dut, share)
    for address in (0x14, 0x3C, 0x7FC, 0xFFC):
        assert await write(master, address, 0xFFFFFFFF) == AxiResp.DECERR
        assert await read(master, address) == (0, AxiResp.DECERR)


async def bytes_and_pairs(dut, share):
    """Single bytes, and accesses of several words that the manager splits."""
    master = await started(dut, share)
    await write(master, PLACES["TIMEOUT"], 0x11223344)
    for byte, value in ((1, 0xAA), (3, 0xBB)):
        answer = await master.write(PLACES["TIMEOUT"] + byte, bytes([value]))
        assert answer.resp == AxiResp.OKAY
    assert await read(master, PLACES["TIMEOUT"]) == (0xBB22AA44, AxiResp.OKAY)
    address = bytes.fromhex("00f0cdab78563412")
    await master.write(PLACES["BASE_LOW"], address)
    assert (await master.read(PLACES["BASE_LOW"], 8)).data == address
    assert (await master.read(PLACES["BASE_LOW"] + 2, 3)).data == address[2:5]


async def both_at_once(dut, share):
    """Reads and writes under way together, answered in order of their kind."""
    master = await started(dut, share)
    values = range(1, 41)
    writes = [master.init_write(PLACES["SIZE_LOW"], n.to_bytes(4, "little")) for n in values]
    reads = [master.init_read(PLACES["SIZE_LOW"], 4) for _ in values]
    seen = []
    for event in reads:
        await event.wait()
        seen.append(int.from_bytes(event.data.data, "little"))
    for event in writes:
        await event.wait()
        assert event.data.resp == AxiResp.OKAY
    assert seen == sorted(seen)
    assert await read(master, PLACES["SIZE_LOW"]) == (40, AxiResp.OKAY)


@cocotb.test(timeout_time=1, timeout_unit="ms")
@cocotb.parametrize(
    scenario=[every_register, no_register, bytes_and_pairs, both_at_once], share=[0.0, 0.4]
)
async def scenarios(dut, scenario, share):
    await scenario(dut, share)
