# SPDX-License-Identifier: Apache-2.0
"""The record of one layer's shape, and the trunk that strings layers together."""

import dataclasses
from collections.abc import Iterable

from csp_algo.errors import check_int
from csp_algo.geometry import Geometry, windows

#: Parameters of a filter besides its weights: a bias; scale and shift of a batch normalisation.
BIAS, NORM = 1, 2

Sides = int | tuple[int, int]


@dataclasses.dataclass(frozen=True, kw_only=True)
class LayerShape:
    """One convolution or linear layer of a network.

    Parameters
    ----------
    name : str
    geometry : Geometry
        In and out shape, kernel, stride, padding, groups.
    per_filter : int
        Parameters of a filter besides its weights.
    repeat : int
        How often the network has it.
    rectified_in, rectified_out : bool
        A ReLU stands before it, behind it: the map has zeros.

    Raises
    ------
    CspError
        A count is out of range.
    """

    name: str
    geometry: Geometry
    per_filter: int = 0
    repeat: int = 1
    rectified_in: bool = True
    rectified_out: bool = True

    def __post_init__(self) -> None:
        check_int(f"{self.name}: per_filter", self.per_filter, 0, BIAS + NORM)
        check_int(f"{self.name}: repeat", self.repeat, 1, 2**31)

    @property
    def linear(self) -> bool:
        """Whether it is a linear layer: one row of tokens, no kernel."""
        return self.geometry.in_shape[0] == 1 and self.geometry.kernel == (1, 1)

    @property
    def pixels(self) -> int:
        """Output positions P of one layer."""
        height, width, _ = self.geometry.out_shape
        return height * width

    @property
    def weights(self) -> int:
        """Weights of one layer, M·J."""
        return self.geometry.filters * self.geometry.taps

    @property
    def parameters(self) -> int:
        """Weights, biases and normalisations, all repeats together."""
        return self.repeat * (self.weights + self.geometry.filters * self.per_filter)

    @property
    def macs(self) -> int:
        """Dense multiply-accumulates, all repeats together."""
        return self.repeat * self.geometry.macs


def folded(layers: Iterable[LayerShape]) -> tuple[LayerShape, ...]:
    """Give each shape once, with the number of layers that have it; the first one's name stays."""
    found: dict[LayerShape, tuple[str, int]] = {}
    for layer in layers:
        key = dataclasses.replace(layer, name="", repeat=1)
        name, repeat = found.get(key, (layer.name, 0))
        found[key] = name, repeat + layer.repeat
    return tuple(
        dataclasses.replace(key, name=name, repeat=repeat) for key, (name, repeat) in found.items()
    )


def _pair(value: Sides) -> tuple[int, int]:
    return value if isinstance(value, tuple) else (value, value)


class Trunk:
    """Strings layers together: each one reads the map that the one before it has left.

    Parameters
    ----------
    shape : (H, W, C)
        The map that the first layer reads.
    per_filter : int
        Of all convolutions.
    rectified : bool
        That map comes from a ReLU.
    """

    def __init__(
        self, shape: tuple[int, int, int], *, per_filter: int, rectified: bool = False
    ) -> None:
        self.shape = shape
        self.rectified = rectified
        self.layers: list[LayerShape] = []
        self._per_filter = per_filter

    def branch(self) -> "Trunk":
        """Give another trunk from the same map into the same list of layers."""
        other = Trunk(self.shape, per_filter=self._per_filter, rectified=self.rectified)
        other.layers = self.layers
        return other

    def conv(
        self,
        name: str,
        filters: int,
        kernel: Sides = 1,
        *,
        stride: int = 1,
        padding: Sides = 0,
        groups: int = 1,
    ) -> "Trunk":
        """Append a convolution, with a ReLU behind it."""
        down, right = _pair(padding)
        geometry = Geometry(
            in_shape=self.shape,
            filters=filters,
            kernel=_pair(kernel),
            stride=(stride, stride),
            padding=(down, right, down, right),
            groups=groups,
        )
        self._append(name, geometry, self._per_filter, rectified=True)
        return self

    def pool(self, kernel: int, stride: int, *, padding: int = 0) -> "Trunk":
        """Pool the map."""
        height, width, channels = self.shape
        self.shape = (
            windows(height, kernel, stride, padding, padding),
            windows(width, kernel, stride, padding, padding),
            channels,
        )
        return self

    def linear(self, name: str, filters: int, *, rectified: bool = True) -> "Trunk":
        """Append a linear layer with bias behind the flattened map."""
        height, width, channels = self.shape
        geometry = Geometry(in_shape=(1, 1, height * width * channels), filters=filters)
        self._append(name, geometry, BIAS, rectified=rectified)
        return self

    def mean(self) -> "Trunk":
        """Average each channel; positive values stay, but no longer zero."""
        self.shape = (1, 1, self.shape[2])
        self.rectified = False
        return self

    def _append(self, name: str, geometry: Geometry, per_filter: int, *, rectified: bool) -> None:
        self.layers.append(
            LayerShape(
                name=name,
                geometry=geometry,
                per_filter=per_filter,
                rectified_in=self.rectified,
                rectified_out=rectified,
            )
        )
        self.shape, self.rectified = geometry.out_shape, rectified
