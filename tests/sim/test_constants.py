# SPDX-License-Identifier: Apache-2.0
"""Energies of single actions."""

import dataclasses
import re

import pytest

from csp_algo.errors import CspError
from sim.model import constants as numbers
from sim.model.constants import SPARTEN_POWER, Constants, Quantity, Setting, exact
from sim.model.sram import Memory, access

MID = Constants()


def test_constants_are_those_of_their_sources():
    # Horowitz: addition and multiplication of bytes; table 4 of SparTen, 32 units; Sparseloop.
    near = pytest.approx
    assert numbers.MAC.values == (near(0.03 + 0.2), near(13.82 / 32 / 0.8, abs=1e-3), 0.561)
    assert numbers.REGISTER_BIT.values == (0.0104, 0.0104, 0.0104)
    # HBM2, LPDDR4, Horowitz.
    assert numbers.DRAM_BIT.values == (4, 8, 20)
    # Horowitz: 3.1 pJ for a multiplication of 32 bits; 10 pJ for 64 bits of 8 KB.
    assert numbers.REQUANTISE.values == (3.1 / 2, 3.1, 3.1 * 2)
    assert numbers.SRAM_FACTOR.values == (1, 1, near(10 / 6.1370, abs=1e-2))
    assert numbers.IDLE_SHARE.values == (0, 0.5, 1)


def test_sparten_adds_up_to_its_table():
    parts = [getattr(SPARTEN_POWER, f.name) for f in dataclasses.fields(SPARTEN_POWER)]
    power = [part for part in parts if part.unit == "mW"]
    assert sum(part.mid for part in power) == pytest.approx(118.30)
    assert SPARTEN_POWER.unit_cycle(SPARTEN_POWER.mac) == pytest.approx(0.54, abs=1e-3)
    # LoAS's source: 3.94 is the ratio of prefix sum and encoder to the multiplier.
    join = SPARTEN_POWER.prefix_sum.mid + SPARTEN_POWER.encoder.mid
    assert join / SPARTEN_POWER.mac.mid == pytest.approx(3.94, abs=5e-3)
    assert 118.30 / SPARTEN_POWER.mac.mid == pytest.approx(8.56, abs=5e-3)


def test_settings_are_in_order():
    low, mid, high = (Constants(setting=setting) for setting in Setting)
    assert (low.dram_byte, mid.dram_byte, high.dram_byte) == (32, 64, 160)
    assert low.mac < mid.mac < high.mac
    assert access(8192, 64, low) == access(8192, 64, mid)
    assert access(8192, 64, high).read == pytest.approx(10, rel=2e-3)  # Horowitz's 8 KB


def test_constants_refuse_disorder_and_no_source():
    with pytest.raises(CspError, match=r"^values must be 0 ≤ low ≤ mid ≤ high, not \(2, 1, 3\)$"):
        Quantity(low=2, mid=1, high=3, unit="pJ", node_nm=45, source="x")
    with pytest.raises(CspError, match=r"^1: a constant needs a unit and a source$"):
        exact(1.0, "pJ", 45, "")


def test_sram_of_the_table():
    assert access(8192, 64, MID).read == pytest.approx(6.1370)
    assert access(8192, 64, MID).write == pytest.approx(7.8781)
    assert access(8192, 64, MID, node_nm=65).read == pytest.approx(11.1253)
    assert access(256, 8, MID).read == pytest.approx(0.6288)
    assert access(1 << 20, 256, MID).read == pytest.approx(251.8630)


def test_sram_between_the_table():
    # Twice halfway in the logarithm: between 8 and 16 KB, and between 32 and 64 bits.
    size = round(8192 * 2**0.5)
    assert access(size, 64, MID).read == pytest.approx((6.1370 * 11.6097) ** 0.5, rel=1e-4)
    narrow, wide = access(8192, 32, MID).read, access(8192, 64, MID).read
    assert narrow < access(8192, 48, MID).read < wide
    sizes = [access(size, 64, MID).read for size in range(1024, 1 << 20, 50_000)]
    assert sizes == sorted(sizes)


def test_wide_words_are_banks():
    assert access(32768, 1024, MID).read == pytest.approx(4 * access(8192, 256, MID).read)


@pytest.mark.parametrize(("size", "width"), [(128, 8), (1 << 22, 64), (1024, 4), (1024, 200)])
def test_sram_outside_the_table_is_refused(size, width):
    message = re.escape(f"no 45 nm memory around {size:g} bytes with words of {width} bits")
    with pytest.raises(CspError, match=message):
        access(size, width, MID)


def test_memory_is_paid_by_the_word():
    memory = Memory(bytes=8192, width_bits=64)
    assert memory.read(80, MID) == pytest.approx(10 * 6.1370)
    assert memory.write(8, MID) == pytest.approx(7.8781)
