# SPDX-License-Identifier: Apache-2.0
"""Random networks with every kind of node, and random cores."""

import dataclasses

from csp_algo.errors import CspError
from csp_algo.geometry import Geometry
from csp_algo.integers import ActDtype
from csp_algo.network import AvgPool, Concat, Flatten, Input, MaxPool, Network, Residual
from csp_hw.config import CspConfig
from tests.strategies import CASES, random_geometry, random_layer

INT8, UINT8, INT32 = ActDtype.INT8, ActDtype.UINT8, ActDtype.INT32


def random_config(rng):
    """Give a small core; its buffers are often too small for a layer as it is."""
    cols = int(rng.choice([4, 8]))
    depth = int(rng.choice([4, 8, 16, 64]))
    rows = int(rng.choice([2, 4, 8]))
    share = rng.spawn(1)[0].choice([1, 1, 2, 4])
    return CspConfig(
        rows=rows,
        cols=cols,
        depth=depth,
        max_period=8,
        max_interleave=int(rng.choice([1, 2, 4, 8])),
        acc_bits=int(rng.choice([14, 24])),
        lookahead=int(rng.choice([1, 2, 4])),
        line_bytes=int(rng.choice([256, 512, 1024, 4096])),
        weight_bytes=int(rng.choice([256, 1024, 8192])),
        count_bytes=int(rng.choice([128, 512])),
        pool_words=int(rng.choice([4, 8, 64])),
        share=min(int(share), rows, cols),
    )


class Builder:
    """Grows a network node by node; everything in it may be read again."""

    def __init__(self, rng, config, *, acc_shift=None):
        self.rng, self.config, self.acc_shift = rng, config, acc_shift
        self.period = int(rng.choice([1, 2, 4, 8]))
        shape = (*(int(side) for side in rng.integers(1, 12, 2)), int(rng.integers(1, 14)))
        dtype = (INT8, UINT8)[rng.integers(2)]
        self.input = Input(name="input", shape=shape, dtype=dtype, scale=1.0)
        self.values = {"input": (shape, dtype)}
        self.nodes = []

    def network(self):
        return Network(
            name="random",
            input=self.input,
            nodes=tuple(self.nodes),
            cols=self.config.cols,
            period=self.period,
        )

    def add(self, node):
        """Take a node in, if it fits what it reads."""
        self.nodes.append(node)
        try:
            value = self.network().values[node.name]
        except CspError:
            self.nodes.pop()
            return
        if value.dtype is not INT32:
            self.values[node.name] = (value.shape, value.dtype)

    def grow(self, kinds=("conv", "conv", "residual", "max", "avg", "concat", "flatten")):
        name = f"n{len(self.nodes)}"
        # The newest value is read most often, so that networks become deep.
        names = list(self.values)
        source = names[-1] if self.rng.random() < 0.6 else str(self.rng.choice(names))
        getattr(self, str(self.rng.choice(kinds)))(name, source)

    def layer(self, name, source, geometry, **options):
        _, dtype = self.values[source]
        options = {"dtype": (INT8, UINT8)[self.rng.integers(2)], **options}
        return random_layer(
            self.rng,
            cols=self.config.cols,
            period=self.period,
            case=str(self.rng.choice([*CASES[:3], *CASES[6:]])),
            geometry=geometry,
            acc_bits=self.config.acc_bits,
            acc_shift=self.acc_shift,
            signed=dtype is INT8,
            name=name,
            source=source,
            **options,
        )

    def conv(self, name, source, **options):
        shape, _ = self.values[source]
        sizes = [count for count in range(1, shape[2] + 1) if shape[2] % count == 0]
        groups = int(self.rng.choice([1, 1, shape[2], *sizes]))
        try:
            geometry = random_geometry(
                self.rng,
                channels=shape[2] // groups,
                groups=groups,
                filters=max(1, int(self.rng.integers(1, 24)) // groups),
                kernel=(1, 1) if shape[:2] == (1, 1) else None,
                size=shape[:2],
            )
            stride = tuple(int(step) for step in self.rng.choice([1, 1, 2, 4], 2))
            geometry = dataclasses.replace(geometry, stride=stride)
        except (CspError, ValueError):
            return
        self.add(self.layer(name, source, geometry, **options))

    def residual(self, name, source):
        """Add a layer that keeps height and width, and another map of its shape."""
        shape, _ = self.values[source]
        others = [key for key, (other, _) in self.values.items() if other[:2] == shape[:2]]
        other = str(self.rng.choice(others))
        filters = self.values[other][0][2]
        sizes = [n for n in range(1, filters + 1) if shape[2] % n == 0 and filters % n == 0]
        side = int(self.rng.choice([1, 3]))
        geometry = Geometry(
            in_shape=shape,
            filters=filters,
            kernel=(side, side),
            padding=(side // 2,) * 4,
            groups=int(self.rng.choice(sizes)),
        )
        layer = self.layer(name, source, geometry)
        mult, shift = int(self.rng.integers(2**15, 2**16)), int(self.rng.integers(14, 18))
        added = Residual(input=other, mult=mult, shift=shift)
        self.add(dataclasses.replace(layer, residual=added))

    def pool(self, kind, name, source, **options):
        kernel = tuple(int(side) for side in self.rng.integers(1, 4, 2))
        stride = tuple(int(step) for step in self.rng.integers(1, 4, 2))
        if self.rng.random() < 0.3:
            kernel = stride = tuple(int(side) for side in self.rng.integers(2, 7, 2))
        padding = tuple(int(self.rng.integers(0, min(kernel[axis % 2], 3))) for axis in range(4))
        self.add(
            kind(
                name=name,
                input=source,
                kernel=kernel,
                stride=stride,
                padding=padding,
                ceil_mode=bool(self.rng.integers(2)),
                **options,
            )
        )

    def max(self, name, source):
        self.pool(MaxPool, name, source)

    def avg(self, name, source):
        shift = int(self.rng.integers(8, 16))
        self.pool(AvgPool, name, source, count_include_pad=self.rng.random() < 0.3, shift=shift)

    def concat(self, name, source):
        shape, dtype = self.values[source]
        fit = [source] + [
            key
            for key, (other, kind) in self.values.items()
            if other[:2] == shape[:2] and kind is dtype and other[2] < 100
        ]
        count = int(self.rng.integers(1, 4))
        self.add(Concat(name=name, inputs=tuple(str(self.rng.choice(fit)) for _ in range(count))))

    def flatten(self, name, source):
        self.add(Flatten(name=name, input=source))

    def logits(self):
        """Add an int32 layer that reads the newest value as one pixel."""
        source = list(self.values)[-1]
        self.flatten("flat", source)
        inputs = self.values["flat"][0][2]
        geometry = Geometry(in_shape=(1, 1, inputs), filters=int(self.rng.integers(1, 20)))
        self.add(self.layer("logits", "flat", geometry, dtype=INT32))


def random_network(rng, config, *, size=5, acc_shift=None):
    """Give a network of about ``size`` nodes; the last one may be int32."""
    builder = Builder(rng, config, acc_shift=acc_shift)
    while len(builder.nodes) < size:
        builder.grow()
    if rng.random() < 0.4:
        builder.logits()
    return builder.network()
