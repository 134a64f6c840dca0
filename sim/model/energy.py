# SPDX-License-Identifier: Apache-2.0
"""Energy of the core: its actions, times cited constants, for each component.

Bits of a processing element's registers are those of :mod:`csp_hw.pe.element` and, of what a group
of them shares (``CspConfig.share``), its part of :mod:`csp_hw.pe.group`. A bit that takes a
new value costs :data:`sim.model.constants.REGISTER_BIT`; one that is clocked and keeps its value,
the share :data:`sim.model.constants.IDLE_SHARE` of it, as idle units of other accelerators do.
A multiplier that holds its operands, and one without a product, cost that share, too.

Left out: wires between blocks, the clock tree's trunk, leakage, registers and the AXI managers'
logic. A memory is read when a word of it is asked for.
"""

import dataclasses
import enum
import functools

import numpy as np

from csp_algo.errors import CspError, check_int
from csp_hw.config import (
    ACC_SHIFT_BITS,
    ACTIVATION_BITS,
    COUNT_BITS,
    WEIGHT_BITS,
    BufferStyle,
    CspConfig,
    preset,
)
from csp_hw.drain import queue_depth
from csp_hw.feeder.bank import selections
from csp_hw.feeder.lines import latency as line_latency
from csp_hw.pe.accumulation.regbin import bins
from csp_hw.pe.multiplier import PRODUCT_BITS
from sim.model.actions import Actions
from sim.model.constants import Constants
from sim.model.sram import at_least

#: Flip-flops of a column of the output stage, its word and parameters included.
COLUMN_BITS = 532 + 24 + 54
#: Flags, which are clocked in every cycle. Of a group: six of control, two of sums; of each of its
#: rows: three of control, two of products, two of words. The addend's choice.
GROUP_FLAGS, ROW_FLAGS, ADDEND_BITS = 8, 7, 3
#: Flags of a group that are set once a run; of a row, once for a word of the accumulation buffer.
RUN_FLAGS, WORD_FLAGS = 5, 2
#: Bits that a surviving tap takes on its way through scanner, queue and feeder; and that a step
#: takes in issuer and hazard unit beside two masks of T taps and the control of a PE.
SURVIVOR_BITS, STEP_BITS = 100, 120
#: Beats that the queue of a port holds.
PORT_BEATS = 128


class Component(enum.StrEnum):
    """What energy is spent on, on the chip."""

    MAC = "multipliers"
    #: Activation and weight, on their way and held for the multiplier.
    OPERANDS = "operand registers"
    #: Product and run.
    RUN = "run registers"
    #: A run's way through shifter and adder.
    SUM = "sum registers"
    CONTROL = "control of the PEs"
    #: Registers of PEs that are clocked and keep their value.
    HELD = "registers that keep"
    ACCUMULATOR = "accumulation buffer"
    #: Skew at the array's edges.
    EDGE = "array's edges"
    DRAIN = "drain"
    SKIP = "skipping and issue"
    ROW_BUFFER = "row buffer"
    RUN_BUFFER = "run buffer"
    LINE_BUFFER = "line buffer"
    #: From the line buffer's words to a byte for each row.
    FEEDER = "feeder"
    WEIGHT_BUFFER = "weight and count buffer"
    PORTS = "queues of the ports"
    #: Of maps (``CspConfig.map_bytes``), and of weights, which the hardware does not have.
    MEMORY = "memory instead of DRAM"
    OUTPUT = "output stage"
    #: Multipliers whose operands are held, for an activation that is zero.
    GATED = "gated multipliers"
    #: PEs in cycles without a step.
    IDLE = "idle PEs"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Core:
    """A core as an ASIC, and what could be built otherwise in it.

    Parameters
    ----------
    config : CspConfig
    gating : bool
        Multipliers hold their operands for an activation of zero, as the hardware has it.
    enables : bool, optional
        Registers of a PE that take a new value once a run, or only for an activation that is not
        zero, are clocked only then; else in every cycle, but for operands of the multiplier and
        the run's way to the adder. If not given, as the configuration's style has it.
    one_bank : bool
        Only the bank at work is read, and only for an entry that is not fresh, as the hardware has
        it; else both banks for each run.
    line_hold : bool
        The line buffer is read anew only if its address changes, as the hardware has it.
    bypass : bool
        Weights that are used by a single tile do not go through the weight buffer.
    gated_free : bool
        A multiplier whose operands are held costs nothing, rather than an idle unit's share.
    run_bits : int, optional
        Width of the run's registers, if not exact for the longest run.

    Raises
    ------
    CspError
        A number is out of range.
    """

    config: CspConfig = dataclasses.field(
        default_factory=lambda: preset("csp_h_32x32").replace(style=BufferStyle.REGBIN)
    )
    gating: bool = True
    enables: bool | None = None
    one_bank: bool = True
    line_hold: bool = True
    bypass: bool = False
    gated_free: bool = False
    run_bits: int | None = None

    def __post_init__(self) -> None:
        if self.run_bits is not None:
            check_int("run_bits", self.run_bits, PRODUCT_BITS, self.config.run_bits)

    @property
    def clock_gates(self) -> bool:
        """Whether registers of a PE are clocked only when what they take counts."""
        return self.config.clock_gates if self.enables is None else self.enables

    @property
    def elements(self) -> int:
        """PEs."""
        return self.config.rows * self.config.cols


@dataclasses.dataclass(frozen=True, kw_only=True)
class ElementBits:
    """Flip-flops of a PE, in bits, by what makes them take a new value.

    Of what PEs share, each has its part: of ``share`` PEs, or of a group's.

    Parameters
    ----------
    weight : float
        At each step, on the way down.
    activation : float
        At each product of an activation that is not zero, on the way right.
    operands, product : int
        At each of those products: what is multiplied, and what comes out.
    run : int
        At each of those, and at the end of a run.
    adder : int
        Once a run: the run on its way to the adder, and the addend.
    sums : int
    control : float
        Once a run: sums on their way to the accumulation buffer, and where they belong.
    still : float
        Once a run, but constant during a layer, or counting what is rare.
    words : int
    fetches : float
        With a word read from a bank of the accumulation buffer, for each of the two: the word on
        its way to the adder, and its address.
    drain : float
        With a drained word that passes.
    flags : float
        In every cycle.
    """

    weight: float
    activation: float
    operands: int
    product: int
    run: int
    adder: int
    sums: int
    control: float
    still: float
    words: int
    fetches: float
    drain: float
    flags: float

    @classmethod
    def of(cls, core: Core) -> "ElementBits":
        """Give those of a core's PE, without its accumulation buffer's entries."""
        config = core.config
        run, acc = core.run_bits or config.run_bits, config.acc_bits
        address = (config.half_depth - 1).bit_length()
        share = config.share
        group = share**2
        return cls(
            weight=WEIGHT_BITS / share,
            activation=ACTIVATION_BITS / share,
            operands=ACTIVATION_BITS + WEIGHT_BITS,
            product=PRODUCT_BITS,
            run=run,
            # Run done, shifted run with its carry, addend.
            adder=run + (run + 1) + acc,
            sums=3 * acc,
            control=(address + ADDEND_BITS) / group,
            # t, the wavefront's saturations, the PE's own.
            still=(ACC_SHIFT_BITS + (share * config.cols).bit_length()) / group + 1,
            # As the bank gives it, and once more in a register.
            words=2 * acc,
            fetches=address / group,
            # And which bank it comes from.
            drain=acc / share + 1 / group,
            flags=(GROUP_FLAGS + ROW_FLAGS * share) / group,
        )

    @property
    def all(self) -> float:
        """All flip-flops."""
        once: float = sum(dataclasses.astuple(self))
        return once + self.words + self.fetches

    @property
    def enabled(self) -> float:
        """Those that are not clocked in every cycle."""
        return self.all - self.flags


def energy(
    actions: Actions, cycles: float, core: Core, constants: Constants
) -> dict[Component, float]:
    """Give the energy of each component, pJ.

    Parameters
    ----------
    actions : Actions
    cycles : float
    core : Core
        With the configuration of the passes that were counted.
    constants : Constants

    Raises
    ------
    CspError
        There are fewer cycles than steps, or CACTI's table does not know a memory.
    """
    if cycles < actions.issued:
        raise CspError(f"{actions.issued:g} steps do not fit into {cycles:g} cycles")
    return {
        **_elements(actions, cycles, core, constants),
        Component.ACCUMULATOR: float(sum(accumulation(actions, core, constants))),
        **_around(actions, core, constants),
        **_buffers(actions, core, constants),
        Component.MEMORY: 0.0,
    }


def accumulation(actions: Actions, core: Core, constants: Constants) -> tuple[float, ...]:
    """Give the energy of each bin of the accumulation buffers, pJ; of a memory as a whole, one.

    A register bin clocks all its entries when it takes one, and only the one changes.
    """
    config = core.config
    acc = config.acc_bits
    if config.style is BufferStyle.MEMORY:
        memory = at_least(config.half_depth, acc)
        written = float(sum(actions.written)) * acc / 8
        read = _fetched(actions, core) * acc / 8
        return (memory.write(written, constants) + memory.read(read, constants),)
    sizes = np.array([len(entries) for entries in bins(config.half_depth)])
    bit = constants.register_bit * acc
    reads = (actions.read if core.one_bank else 2 * actions.written) + actions.drained
    writes = actions.written * (1 + constants.idle_share * (sizes - 1))
    return tuple(float(value) for value in bit * (reads + writes))


def _elements(
    actions: Actions, cycles: float, core: Core, constants: Constants
) -> dict[Component, float]:
    """Give the energy of multipliers and registers of the PEs."""
    bits, bit, share = _bits(core), constants.register_bit, constants.idle_share
    slots, runs = actions.slots, actions.runs
    fetched = _fetched(actions, core)
    multiplied, accumulated = actions.multiplied, actions.accumulated
    across = core.config.share
    if not core.gating:
        multiplied = accumulated = slots
    # A flag that is set changes twice; those of a row are shared by the PEs across.
    flips = WORD_FLAGS * fetched + 2 * min(multiplied, slots - multiplied)
    flips = flips / across + RUN_FLAGS * runs / across**2
    flips = min(2 * flips, bits.flags * slots)
    operands = bits.activation * multiplied + bits.weight * slots
    sums = bits.sums * runs + bits.words * fetched
    controls = bits.control * runs + _addresses(bits, actions, core) + flips
    kept = bits.flags * slots - flips + bits.still * runs
    clocked = bits.flags
    if not core.clock_gates:
        always = bits.activation + bits.weight + bits.product + bits.sums + bits.control
        always += bits.still + bits.drain + 2 * (bits.words + bits.fetches)
        new = operands + bits.product * multiplied + sums + controls - flips + bits.still * runs
        clocked += always
        # The run is clocked with each product, and keeps its value if that is zero.
        kept += max(0.0, always * slots - new) + bits.run * (slots - accumulated)
    idle = cycles * core.elements - slots
    return {
        Component.MAC: constants.mac * multiplied,
        Component.OPERANDS: bit * (operands + bits.operands * multiplied),
        Component.RUN: bit * (bits.product * multiplied + bits.run * accumulated),
        Component.SUM: bit * (sums + bits.adder * runs),
        Component.CONTROL: bit * controls,
        Component.HELD: share * bit * kept,
        Component.GATED: 0.0 if core.gated_free else share * constants.mac * (slots - multiplied),
        Component.IDLE: share * (constants.mac + bit * clocked) * idle,
    }


def _fetched(actions: Actions, core: Core) -> float:
    """Give the words that the banks of all PEs give, those for the drain included."""
    for_runs = float(sum(actions.read)) if core.one_bank else 2 * actions.runs
    return for_runs + float(sum(actions.drained))


def _addresses(bits: ElementBits, actions: Actions, core: Core) -> float:
    """Give the bits of addresses that are taken for the words that banks give.

    A group takes an address for all its PEs or, for the drain, for those of a row.
    """
    drained = float(sum(actions.drained))
    return bits.fetches * (_fetched(actions, core) + (core.config.share - 1) * drained)


@functools.cache
def _bits(core: Core) -> ElementBits:
    return ElementBits.of(core)


def _around(actions: Actions, core: Core, constants: Constants) -> dict[Component, float]:
    """Give the energy of what surrounds the PEs and is made of registers."""
    config, bit, bits = core.config, constants.register_bit, _bits(core)
    rows, cols, acc = config.rows, config.cols, config.acc_bits
    # A group's row waits a cycle for each group above, a column for each to its left and one more;
    # control goes down the left edge.
    share, group = config.share, config.share**2
    down, right = np.arange(rows) // share, np.arange(cols) // share + 1
    skew = int(down.sum()) * (ACTIVATION_BITS + 1) + rows * ACTIVATION_BITS
    skew += int(right.sum()) * WEIGHT_BITS
    edge = (skew + config.group_rows * group * bits.flags) * actions.issued
    moved = bits.control * actions.runs + _addresses(bits, actions, core)
    edge += config.group_rows * group * moved / core.elements
    # A sum goes down to the last group, and waits there for the last column's.
    hops = (config.group_rows + 1) / 2 + (config.group_cols - 1) / 2
    queue = at_least(1 << (queue_depth(config) - 1).bit_length(), acc * cols)
    drained = actions.sums * cols * acc / 8
    count_bits = config.lookahead * (COUNT_BITS + 1)
    block_bits = 3 * config.max_period * COUNT_BITS
    control_bits = GROUP_FLAGS + ROW_FLAGS + group * (bits.control + bits.fetches)
    step_bits = 2 * config.max_period + STEP_BITS + control_bits
    skip = count_bits * actions.counts_read + SURVIVOR_BITS * actions.survivors
    skip += block_bits * actions.blocks + step_bits * actions.issued
    results = actions.results * cols
    return {
        Component.EDGE: bit * edge,
        Component.DRAIN: bit * bits.drain * share * cols * hops * actions.sums
        + queue.write(drained, constants)
        + queue.read(drained, constants),
        Component.SKIP: bit * skip,
        Component.OUTPUT: (constants.requantise + bit * COLUMN_BITS) * results,
    }


def _buffers(actions: Actions, core: Core, constants: Constants) -> dict[Component, float]:
    """Give the energy of the memories around the array."""
    config = core.config
    rows, cols = config.rows, config.cols
    row, run = at_least(config.row_words, 8 * rows), at_least(config.run_words, 8 * cols)
    line = at_least(config.line_words, 8 * cols)
    weights = at_least(config.weight_words, 8 * cols)
    counts = at_least(config.count_words, 8 * config.lookahead)
    queue = at_least(PORT_BEATS, 8 * cols)
    passed = actions.weights_once if core.bypass else 0.0
    turned = actions.line_turned if core.line_hold else actions.line_read
    beats = actions.input_beats + actions.residual_beats
    beats += actions.weight_beats + actions.result_beats
    return {
        Component.ROW_BUFFER: row.write(rows * actions.row_written, constants)
        + row.read(rows * actions.row_read, constants),
        Component.RUN_BUFFER: run.write(cols * actions.run_written, constants)
        + run.read(cols * actions.run_read, constants),
        # A beat goes into one bank; a word of activations takes a byte of each bank's word.
        Component.LINE_BUFFER: line.write(cols * actions.line_written, constants)
        + line.read(rows * cols * turned, constants),
        Component.FEEDER: _feeder(actions, core, constants),
        Component.WEIGHT_BUFFER: weights.write(cols * (actions.weights_written - passed), constants)
        + weights.read(cols * (actions.weights_read - passed), constants)
        + counts.write(config.lookahead * actions.counts_written, constants)
        + counts.read(config.lookahead * actions.counts_read, constants),
        Component.PORTS: queue.write(cols * beats, constants) + queue.read(cols * beats, constants),
    }


def _feeder(actions: Actions, core: Core, constants: Constants) -> float:
    """Give the energy of the registers behind the line buffer's banks."""
    config = core.config
    # Twice a word of each bank; then, stage after stage, fewer bytes of it.
    words = 2 * 8 * config.cols
    chosen, left = 0, config.cols
    for low, high in selections(config):
        left >>= high - low
        chosen += 8 * left
    # Rotation, the queue behind it.
    turns = line_latency(config) - 3 - len(selections(config)) + 2
    new = words * actions.line_turned + (chosen + 8 * turns) * actions.line_read
    kept = 0.0 if core.line_hold else words * (actions.line_read - actions.line_turned)
    return constants.register_bit * config.rows * (new + constants.idle_share * kept)
