# SPDX-License-Identifier: Apache-2.0
"""Energy of one action, with unit, node, source and a low, a middle and a high value.

All energies of this project's models come from here and from :mod:`sim.model.sram`.
"""

import dataclasses
import enum

from csp_algo.errors import CspError


class Setting(enum.StrEnum):
    """Which value of each constant is taken."""

    LOW = "low"
    MID = "mid"
    HIGH = "high"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Quantity:
    """A number from elsewhere.

    Parameters
    ----------
    low, mid, high : float
        In this order.
    unit : str
    node_nm : int, optional
        Technology; none if the number has none.
    source : str
        Where it is from; says so if it is from memory or assumed.

    Raises
    ------
    CspError
        The values are not in order, or there is no source.
    """

    low: float
    mid: float
    high: float
    unit: str
    node_nm: int | None
    source: str

    def __post_init__(self) -> None:
        if not 0 <= self.low <= self.mid <= self.high:
            raise CspError(f"values must be 0 ≤ low ≤ mid ≤ high, not {self.values}")
        if not self.source or not self.unit:
            raise CspError(f"{self.mid:g}: a constant needs a unit and a source")

    @property
    def values(self) -> tuple[float, float, float]:
        """Low, mid, high."""
        return self.low, self.mid, self.high

    def at(self, setting: Setting) -> float:
        """Give the value of a setting."""
        return float(getattr(self, setting.value))


def exact(value: float, unit: str, node_nm: int | None, source: str) -> Quantity:
    """Give a number that is the same in all settings."""
    return Quantity(low=value, mid=value, high=value, unit=unit, node_nm=node_nm, source=source)


#: Technology of every energy.
NODE_NM = 45

HOROWITZ = "Horowitz, ISSCC 2014 (doi 10.1109/ISSCC.2014.6757323)"
SPARTEN = "SparTen, MICRO 2019 (doi 10.1145/3352460.3358291), table 4"
SPARSELOOP = "Sparseloop artifact (arXiv:2205.05826)"

#: 8-bit multiply-accumulate.
MAC = Quantity(
    low=0.23,
    mid=0.54,
    high=0.561,
    unit="pJ",
    node_nm=NODE_NM,
    source=f"low: {HOROWITZ}, 8-bit multiply and add; mid: derived from {SPARTEN}; "
    f"high: {SPARSELOOP}",
)
#: One bit of a register, written or read.
REGISTER_BIT = exact(
    0.0104, "pJ/bit", NODE_NM, "Aladdin 40 nm, scaled to 45 nm by hwcomponents-library"
)
#: Requantisation of one result besides its registers: products of 24 and 32 bits with 16, adders.
REQUANTISE = Quantity(
    low=1.55,
    mid=3.1,
    high=6.2,
    unit="pJ",
    node_nm=NODE_NM,
    source=f"assumed from 3.1 pJ of a 32-bit multiplication, {HOROWITZ}, from memory: "
    "half of one, one, two",
)
#: One bit to or from DRAM.
DRAM_BIT = Quantity(
    low=4.0,
    mid=8.0,
    high=20.0,
    unit="pJ/bit",
    node_nm=None,
    source=f"low: HBM2, {SPARSELOOP}; mid: LPDDR4, hwcomponents-cacti; high: {HOROWITZ}",
)
#: By how much SRAM differs from CACTI's figures.
SRAM_FACTOR = Quantity(
    low=1.0,
    mid=1.0,
    high=1.63,
    unit="1",
    node_nm=NODE_NM,
    source=f"low, mid: CACTI 7; high: 8 KB of {HOROWITZ} over CACTI's, 10 / 6.137 pJ "
    "(32 KB: 1.17, 1 MB: 1.07)",
)
#: Share of its power that a unit takes while it has nothing to multiply.
IDLE_SHARE = Quantity(
    low=0.0,
    mid=0.5,
    high=1.0,
    unit="1",
    node_nm=None,
    source="assumed: perfect clock gating, half, none",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SparTenPower:
    """Power of one SparTen cluster by component, mW at :attr:`clock` MHz."""

    buffers: Quantity
    prefix_sum: Quantity
    encoder: Quantity
    mac: Quantity
    permute: Quantity
    other: Quantity
    clock: Quantity
    units: Quantity

    def unit_cycle(self, component: Quantity) -> float:
        """Give the energy of one component of one unit in one cycle, pJ."""
        return component.mid / self.units.mid / self.clock.mid * 1e3


def _sparten(value: float) -> Quantity:
    return exact(value, "mW", NODE_NM, SPARTEN)


SPARTEN_POWER = SparTenPower(
    buffers=_sparten(19.20),
    prefix_sum=_sparten(48.00),
    encoder=_sparten(6.40),
    mac=_sparten(13.82),
    permute=_sparten(10.60),
    other=_sparten(20.28),
    clock=exact(800.0, "MHz", NODE_NM, SPARTEN),
    units=exact(32.0, "1", None, SPARTEN),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Constants:
    """The constants of one setting."""

    setting: Setting = Setting.MID

    @property
    def mac(self) -> float:
        """8-bit multiply-accumulate, pJ."""
        return MAC.at(self.setting)

    @property
    def register_bit(self) -> float:
        """One bit of a register, pJ."""
        return REGISTER_BIT.at(self.setting)

    @property
    def requantise(self) -> float:
        """Requantisation of one result, pJ."""
        return REQUANTISE.at(self.setting)

    @property
    def dram_byte(self) -> float:
        """One byte to or from DRAM, pJ."""
        return 8 * DRAM_BIT.at(self.setting)

    @property
    def sram_factor(self) -> float:
        """What CACTI's figures are multiplied with."""
        return SRAM_FACTOR.at(self.setting)

    @property
    def idle_share(self) -> float:
        """Share of its power that an idle unit takes."""
        return IDLE_SHARE.at(self.setting)
