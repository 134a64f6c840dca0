# SPDX-License-Identifier: Apache-2.0
"""A core that is given wrong things: a good program in memory, and broken copies of its passes."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from csp_algo.geometry import Geometry
from csp_algo.integers import ActDtype
from csp_algo.network import AvgPool, Concat, Input, MaxPool, Network, Residual
from csp_hw.descriptor import DESCRIPTOR_BYTES, pack, unpack
from csp_hw.register_map import ErrorCode
from sim import execute
from sim.cosim.core.jobs import BASE, CoreJob, CoreOutcome, Inject, Timing
from sim.cosim.core.process import run_core_jobs
from tests.strategies import random_activations, random_layer

INT8, UINT8, INT32 = ActDtype.INT8, ActDtype.UINT8, ActDtype.INT32
CHANNELS = ("ar", "r", "aw", "w", "b", "registers")
ABORT = 0b110
BEATS = ("ACTIVATION_BEATS", "WEIGHT_PORT_BEATS", "RESIDUAL_BEATS", "RESULT_BEATS")
READS = ("STATUS", "ERROR_LAYER", "ERROR_DETAIL", "LAYER_COUNT", *BEATS)
#: Where a pass reads or writes, by the names of a descriptor's fields.
TABLES = ("params", "tiles", "counts", "weights")
MAPS = ("input", "add", "output")


def small_network(config):
    """Give a network with a convolution, a residual, both kinds of pooling and logits."""
    rng = np.random.default_rng(1)

    def layer(name, source, shape, filters, kernel, dtype, *, signed, stride=1):
        geometry = Geometry(
            in_shape=shape,
            filters=filters,
            kernel=(kernel, kernel),
            padding=(kernel // 2,) * 4,
            stride=(stride, stride),
        )
        return random_layer(
            rng,
            cols=config.cols,
            period=4,
            case="mixed",
            geometry=geometry,
            acc_bits=config.acc_bits,
            signed=signed,
            name=name,
            source=source,
            dtype=dtype,
        )

    conv = layer("conv", "input", (5, 6, 6), 9, 3, INT8, signed=False)
    add = layer("add", "conv", (5, 6, 9), 9, 3, INT8, signed=True)
    add = dataclasses.replace(add, residual=Residual(input="conv", mult=40000, shift=16))
    nodes = (
        conv,
        add,
        Concat(name="both", inputs=("conv", "add")),
        layer("down", "both", (5, 6, 18), 6, 3, UINT8, signed=True, stride=2),
        MaxPool(name="max", input="down", kernel=(2, 2), stride=(1, 1)),
        AvgPool(
            name="avg",
            input="add",
            kernel=(3, 3),
            stride=(2, 2),
            padding=(1, 1, 1, 1),
            shift=12,
            count_include_pad=False,
        ),
        layer("logits", "max", (2, 2, 6), 5, 1, INT32, signed=False),
    )
    start = Input(name="input", shape=(5, 6, 6), dtype=UINT8, scale=1.0)
    return Network(name="small", input=start, nodes=nodes, cols=config.cols, period=4)


def small_task(config):
    network = small_network(config)
    images = random_activations(np.random.default_rng(2), (2, *network.input.shape), UINT8)
    return execute.Task.make(network, config, images)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Attack:
    """Something wrong that is asked of the core.

    ``codes`` are the errors that may come of it; None stands for none, an empty set for anything
    but silence. ``layer`` is the pass in which it happens, of ``count`` at ``descriptors``.
    ``low`` … ``high`` - 1 may be written.
    """

    name: str
    descriptors: int
    count: int
    layer: int
    low: int
    high: int
    codes: frozenset = frozenset()
    detail: int | None = None
    writes: tuple = ()
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    wait: int | None = None
    then: tuple = ()


class Bed:
    """A memory that holds a program, and room for what is broken."""

    def __init__(self, task, *, size=1 << 20):
        self.task = task
        self.config = task.program.config
        self.memory = np.zeros(size, dtype=np.uint8)
        memory = task.program.memory(task.inputs)
        self.memory[: len(memory)] = memory
        self.used = len(memory)
        self.steps = task.program.passes

    @property
    def image(self):
        """What was used so far."""
        return self.memory[: -(-self.used // 4096) * 4096]

    def store(self, data, alignment=64):
        """Give data a place."""
        offset = -(-self.used // alignment) * alignment
        self.memory[offset : offset + len(data)] = np.frombuffer(bytes(data), dtype=np.uint8)
        self.used = offset + len(data)
        return offset

    def fields(self, number):
        """Give all fields of a pass."""
        offset = self.task.program.descriptors[number]
        return unpack(self.memory[offset : offset + DESCRIPTOR_BYTES].tobytes())

    def region(self, number, name):
        """Give the bytes from the first to the last that a pass touches of an area."""
        fields = self.fields(number)
        if name in TABLES:
            return fields[f"{name}_offset"], len(self.steps[number].data[name])
        loops = {"input": "input", "add": "residual", "output": "output"}[name]
        loops = getattr(self.steps[number], loops)
        return loops.offset, loops.end - loops.offset

    def private(self, number, *names):
        """Give an area of a pass a place of its own; the fields that say where."""
        changes = {}
        for name in names:
            offset, size = self.region(number, name)
            padded = self.memory[offset : offset + size].tobytes() + bytes(-size % self.config.cols)
            # The compiler puts maps at pages, but nobody asks for that.
            changes[f"{name}_offset"] = place = self.store(padded)
            if name == "output":
                end = self.fields(number)["output_high"] - self.fields(number)["output_low"]
                changes |= {"output_low": place, "output_high": place + end}
        return changes

    def attack(self, name, number, changes=(), *, raw=None, codes=(), **options):
        """Give the program with one pass broken, from its beginning on."""
        fields = self.fields(number) | dict(changes)
        whole = pack(fields) if raw is None else raw
        good = self.task.program.descriptors[0]
        table = self.memory[good : good + len(self.steps) * DESCRIPTOR_BYTES].copy()
        at = number * DESCRIPTOR_BYTES
        table[at : at + DESCRIPTOR_BYTES] = np.frombuffer(whole, dtype=np.uint8)
        fields = unpack(whole)
        return Attack(
            name=f"{name} in pass {number}",
            descriptors=self.store(table, DESCRIPTOR_BYTES),
            count=len(self.steps),
            layer=number,
            low=fields["output_low"],
            high=fields["output_high"],
            codes=frozenset(codes),
            **options,
        )

    # --- Jobs ---------------------------------------------------------------------------------

    def start(self, descriptors, count, **options):
        writes = [
            ("BASE_LOW", BASE & 0xFFFF_FFFF),
            ("BASE_HIGH", BASE >> 32),
            ("SIZE_LOW", len(self.image)),
            ("TIMEOUT", options.pop("limit", 0x10000)),
            ("COUNT", count),
            ("DESCRIPTORS", descriptors),
            ("STATUS", execute.CLEAR),
            *options.pop("writes", ()),
            ("CONTROL", execute.START),
        ]
        given = {"writes": writes, "reads": READS, "reset": False, "strict": False}
        return CoreJob(**given | {"timeout": 300_000} | options)

    def good(self, **options):
        """Give the job that runs the program itself."""
        return self.start(self.task.program.descriptors[0], len(self.steps), **options)


def random_stress(rng):
    """Give stalls and timing of a memory."""
    most = float(rng.choice([0, 0, 0.3, 0.7]))
    stalls = {channel: float(rng.choice([0, most])) for channel in CHANNELS}
    timing = Timing(
        read_latency=int(rng.choice([1, 5, 40])),
        write_latency=int(rng.choice([1, 20])),
        read_rate=int(rng.choice([1, 4, 4, 4])),
        write_rate=int(rng.choice([1, 4, 4, 4])),
        outstanding=int(rng.choice([1, 16, 16])),
    )
    return {"stalls": stalls, "timing": timing, "seed": int(rng.integers(1 << 30))}
