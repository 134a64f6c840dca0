# SPDX-License-Identifier: Apache-2.0
"""From a schedule to the beats of each stream, bit for bit as the engine's ports take them."""

import dataclasses
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
from amaranth.lib import data

from csp_algo.errors import CspError
from csp_hw import ports
from sim.cosim.jobs import Beats, Job
from sim.cosim.protocol import STREAMS
from sim.schedule import Schedule

Maps = npt.NDArray[np.integer]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stress:
    """How streams are disturbed; nothing of it may change a result.

    Parameters
    ----------
    stalls : mapping of str to float
        Probability that a stream is held back in a cycle: an input offers nothing, ``results``
        is not ready. Those that are not named flow.
    seed : int
    garbage : bool
        Whether dead lanes hold random bytes instead of zeros.
    ahead : bool
        Whether the other streams begin before the layer's command was taken. The engine does not
        count the words that come before it.
    """

    stalls: Mapping[str, float]
    seed: int
    garbage: bool = True
    ahead: bool = False

    @classmethod
    def everywhere(cls, probability: float, seed: int) -> "Stress":
        """Give the same stalls for every stream."""
        return cls(stalls=dict.fromkeys(STREAMS, probability), seed=seed)


def pack(layout: data.StructLayout, columns: Mapping[str, npt.ArrayLike]) -> Beats:
    """Give the beats of a structure.

    Parameters
    ----------
    layout : StructLayout
    columns : mapping of str to integers [n], or to bool [n, width] with the least bit first
        One for each field.

    Returns
    -------
    uint8 [n, ceil(size / 8)]
    """
    arrays = {name: np.asarray(values) for name, values in columns.items()}
    count = len(next(iter(arrays.values())))
    bits = np.zeros((count, bytes_of(layout) * 8), dtype=np.uint8)
    for name, field in layout:
        values = arrays[name]
        if values.ndim == 1:
            values = values.astype(np.int64)[:, None] >> np.arange(field.width) & 1
        bits[:, field.offset : field.offset + values.shape[1]] = values
    return np.packbits(bits, axis=1, bitorder="little")


def bytes_of(layout: data.Layout) -> int:
    """Give the bytes of a beat."""
    return -(-int(layout.size) // 8)


def job_of(
    schedule: Schedule,
    inputs: Maps,
    stress: Stress | None = None,
    *,
    residual: Maps | None = None,
) -> Job:
    """Give the job of a group of a layer.

    Parameters
    ----------
    schedule : Schedule
    inputs : int8 or uint8 [N, H, W, C]
    stress : Stress, optional
    residual : int8 or uint8 [N, Ho, Wo, M], if the layer adds one

    Raises
    ------
    CspError
        The inputs do not fit, or a residual is not given if and only if the layer adds one.
    """
    if (residual is None) != (schedule.layer.residual is None):
        raise CspError("a residual must be given if and only if the layer adds one")
    config = schedule.config
    rng = np.random.default_rng(stress.seed) if stress and stress.garbage else None
    layout = ports.layer_layout(config)
    command = layout.const(
        schedule.command(
            signed=inputs.dtype == np.int8,
            residual_signed=residual is not None and residual.dtype == np.int8,
        )
    )
    command_bytes = command.as_bits().to_bytes(bytes_of(layout), "little")
    added = [] if residual is None else list(schedule.residual(residual))
    params = schedule.params()
    counts, weights = schedule.counts(), schedule.weights()
    tiles = len(schedule.tiles)
    live = np.zeros((tiles, config.max_interleave * config.rows), dtype=bool)
    activations = []
    for number, words in enumerate(schedule.words(inputs)):
        live[number, : words.live.size] = words.live.ravel()
        beats = words.activations
        if rng is not None:
            beats = _with_garbage(rng, beats, words.live, schedule)
        activations.append(beats)
    interleave = [tile.interleave for tile in schedule.tiles]
    return Job(
        beats={
            "layer": np.frombuffer(command_bytes, dtype=np.uint8).reshape(1, -1),
            "params": pack(ports.filter_layout(), params._asdict()),
            "tiles": pack(ports.tile_layout(config), {"interleave": interleave, "live": live}),
            "counts": np.tile(counts, (tiles, 1)),
            "weights": np.tile(weights.view(np.uint8), (tiles, 1)),
            "activations": np.concatenate(activations),
            "residual": np.concatenate([np.empty((0, config.cols), dtype=np.uint8), *added]),
        },
        results=int(schedule.result_words.sum()),
        stalls=stress.stalls if stress else {},
        seed=stress.seed if stress else 0,
        ahead=stress.ahead if stress else False,
    )


def _with_garbage(
    rng: np.random.Generator, beats: Beats, live: npt.NDArray[np.bool_], schedule: Schedule
) -> Beats:
    """Put random bytes into the dead lanes of a tile's activations."""
    survivors, period = len(schedule.survivors), schedule.matrix.period
    # Which pixel i each word belongs to: block by block, i outer, tap inner.
    pixels = [
        np.repeat(np.arange(len(live)), min(period, survivors - first))
        for first in range(0, survivors, period)
    ]
    if not pixels:
        return beats
    noise = rng.integers(0, 256, beats.shape, dtype=np.uint8)
    return np.where(live[np.concatenate(pixels)], beats, noise)
