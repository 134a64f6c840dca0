# SPDX-License-Identifier: Apache-2.0
"""Small networks."""

import dataclasses

import numpy as np

from csp_algo.geometry import Geometry
from csp_algo.integers import ActDtype
from csp_algo.network import (
    AvgPool,
    Concat,
    Flatten,
    Input,
    Layer,
    MaxPool,
    Network,
    Node,
    Residual,
)
from csp_algo.quantize import FloatLayer, FloatNetwork
from tests.strategies import random_layer

U8, I32 = ActDtype.UINT8, ActDtype.INT32


def network(
    seed: int = 0, *, cols: int = 4, period: int = 4, case: str = "mixed", name: str = "example"
) -> Network:
    """Give conv → grouped conv with a residual → concat → pools → flatten → logits."""
    rng = np.random.default_rng(seed)

    def layer(name: str, source: str, shape: Geometry, dtype: ActDtype = U8) -> Layer:
        return random_layer(
            rng,
            cols=cols,
            period=period,
            case=case,
            geometry=shape,
            dtype=dtype,
            name=name,
            source=source,
        )

    same = {"kernel": (3, 3), "padding": (1, 1, 1, 1), "filters": 10}
    conv = layer("conv", "image", Geometry(in_shape=(9, 9, 3), **same))
    conv = dataclasses.replace(conv, filter_order=rng.permutation(10).astype(np.int32))
    grouped = layer("grouped", "conv", Geometry(in_shape=(9, 9, 10), groups=2, **same))
    residual = Residual(input="conv", mult=40_000, shift=16)
    nodes: tuple[Node, ...] = (
        conv,
        dataclasses.replace(grouped, residual=residual),
        Concat(name="both", inputs=("conv", "grouped")),
        MaxPool(name="max", input="both", kernel=(2, 2), stride=(2, 2), ceil_mode=True),
        AvgPool(
            name="avg",
            input="max",
            kernel=(3, 3),
            stride=(2, 2),
            padding=(1, 1, 1, 1),
            count_include_pad=False,
            shift=17,
        ),
        Flatten(name="flat", input="avg"),
        layer("logits", "flat", Geometry(in_shape=(1, 1, 180), filters=7), I32),
    )
    image = Input(name="image", shape=(9, 9, 3), dtype=U8, scale=0.5)
    return Network(
        name=name,
        input=image,
        nodes=nodes,
        cols=cols,
        period=period,
        metadata={"source": "a test", "accuracy": "none"},
    )


def residual_network(rng: np.random.Generator) -> FloatNetwork:
    """Give floats: two branches that are added, a layer behind the sum and a pool."""
    source = Input(name="image", shape=(6, 6, 4), dtype=ActDtype.INT8, scale=0.1)

    def layer(
        name: str,
        read: str,
        channels: int,
        filters: int,
        *,
        residual: str | None = None,
        relu: bool = True,
    ) -> FloatLayer:
        geometry = Geometry(
            in_shape=(6, 6, channels), filters=filters, kernel=(3, 3), padding=(1, 1, 1, 1)
        )
        return FloatLayer(
            name=name,
            input=read,
            geometry=geometry,
            weights=rng.standard_normal((filters, channels, 3, 3)),
            bias=rng.standard_normal(filters),
            relu=relu,
            residual=residual,
        )

    nodes = (
        layer("stem", "image", 4, 16),
        layer("inner", "stem", 16, 24),
        layer("side", "stem", 16, 16, relu=False),
        layer("outer", "inner", 24, 16, residual="side"),
        layer("last", "outer", 16, 8, relu=False),
        AvgPool(
            name="mean",
            input="last",
            kernel=(6, 6),
            stride=(6, 6),
            count_include_pad=False,
            shift=16,
        ),
    )
    return FloatNetwork(name="net", input=source, nodes=nodes)


def equal(one: object, other: object) -> bool:
    """Compare records field by field, arrays included."""
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
        return one.dtype == other.dtype and np.array_equal(one, other)
    if isinstance(one, tuple) and isinstance(other, tuple) and len(one) == len(other):
        return all(equal(*pair) for pair in zip(one, other, strict=True))
    if dataclasses.is_dataclass(one) and type(one) is type(other):
        names = [field.name for field in dataclasses.fields(one)]
        return all(equal(getattr(one, name), getattr(other, name)) for name in names)
    return type(one) is type(other) and one == other
