# SPDX-License-Identifier: Apache-2.0
"""One pass: its descriptor, and the beats that it moves."""

import dataclasses

import numpy as np

from csp_algo.errors import CspError
from csp_algo.integers import ActDtype
from csp_hw.config import CspConfig
from csp_hw.descriptor import DESCRIPTOR_BYTES, Kind
from csp_hw.ports import GROUP_BITS, IMAGE_BITS, OutputType
from sim.grid import Grid
from sim.program.loops import LoopError, Loops
from sim.program.maps import FeatureMap
from sim.program.places import Copy
from sim.program.plan import Step
from sim.program.pooling import PoolWindow
from sim.program.windows import Window, furthest
from sim.schedule import Schedule
from sim.tiling import Arrival


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Pass:
    """What one descriptor asks for.

    Parameters
    ----------
    node : str
        Whose map is written.
    sources : tuple of str
        Names of the maps that are read: the input and, if there is one, the residual.
    nodes : tuple of str
        All that is computed: a layer, a pooling, or a layer and the pooling behind it.
    kind : Kind
    config : CspConfig
    fields : dict of str to int
        Of the descriptor.
    images : range
    columns : range
        Columns of the output map.
    chunks : range
        Chunks of a pixel that are written.
    groups : range, optional
        Groups of the layer.
    schedule : Schedule, optional
        Tiles and streams, of the pass as a layer without groups over all elements of its beats.
    input, output : Loops
    residual : Loops, optional
    data : dict of str to bytes
        What the pass reads through the port of the weights besides its descriptor: ``params``,
        ``tiles``, ``counts`` and ``weights``.
    again : int
        Beats of the input that an earlier pass of the node has read, too.
    """

    node: str
    sources: tuple[str, ...]
    nodes: tuple[str, ...]
    kind: Kind
    config: CspConfig
    fields: dict[str, int]
    images: range
    columns: range
    chunks: range
    groups: range | None = None
    schedule: Schedule | None = None
    input: Loops
    output: Loops
    residual: Loops | None = None
    data: dict[str, bytes] = dataclasses.field(default_factory=dict, repr=False)
    again: int = 0

    @property
    def is_copy(self) -> bool:
        """Whether it only copies a map from the chip to memory, for those who compare it."""
        return self.node in self.sources

    @property
    def title(self) -> str:
        """What messages call it."""
        if self.is_copy:
            return f"copy of {self.node}"
        return f"{'layer' if self.kind is Kind.CONVOLVE else 'pool'} {self.nodes[0]}"

    @property
    def moved(self) -> tuple[Loops, ...]:
        """What is read and written of maps, on the chip or not."""
        residual = () if self.residual is None else (self.residual,)
        return self.input, self.output, *residual

    @property
    def input_beats(self) -> int:
        """Beats that the port of the maps reads."""
        return self.input.outside

    @property
    def residual_beats(self) -> int:
        """Beats of the residual that the port of the results reads."""
        return 0 if self.residual is None else self.residual.outside

    @property
    def result_beats(self) -> int:
        """Beats that the port of the results writes."""
        return self.output.outside

    @property
    def kept_beats(self) -> int:
        """Beats that are read from the map memory or written to it, and so are on no port."""
        return sum(loops.total for loops in self.moved if loops.on_chip)

    @property
    def weight_beats(self) -> int:
        """Beats that the port of the weights reads, all of them."""
        return sum(self.weight_parts.values())

    @property
    def weight_parts(self) -> dict[str, int]:
        """Beats that the port of the weights reads, by what they are.

        Counts and weights are read again for each tile unless they stay in their buffers.
        """
        cols, tiles = self.config.cols, self.fields["tiles"]
        beats = {name: -(-len(data) // cols) for name, data in self.data.items()}
        for name, resident in (("counts", "counts_resident"), ("weights", "weights_resident")):
            if self.data and not self.fields[resident]:
                beats[name] *= tiles
        return {"descriptor": DESCRIPTOR_BYTES // cols, **beats}


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Target:
    """The maps that a pass of a layer works on."""

    source: FeatureMap
    output: FeatureMap
    residual: FeatureMap | None


def convolution(step: Step, number: int, target: Target, config: CspConfig, images: range) -> Pass:
    """Give the pass of some filters over one window of some images.

    Parameters
    ----------
    step : Step
    number : int
        Of the window.
    target : Target
    config : CspConfig
    images : range

    Raises
    ------
    CspError
        The pass does not fit the configuration, or there are too many images (LoopError).
    """
    part, window = step.part, step.windows[number]
    pool = step.pools[number] if step.pools else None
    folded = len(images)
    if window.fold > 1:
        folded *= len(window.lines) * len(window.columns)
        if folded >= 1 << IMAGE_BITS:
            raise LoopError(
                f"{folded} long vectors in one pass, at most {(1 << IMAGE_BITS) - 1} are possible"
            )
    view = part.view(window.geometry)
    grid = Grid.of(window.geometry, folded, config.rows)
    groups = grid.positions // config.rows
    if groups >= 1 << GROUP_BITS:
        raise CspError(
            f"layer {view.name}: {groups} groups of {config.rows} positions, at most "
            f"{(1 << GROUP_BITS) - 1} are possible"
        )
    beats = range(part.beats.start, part.beats.start + window.beats)
    source = target.source.loops(images, window.lines, window.columns, beats)
    arrival = None
    if int(view.matrices[0].counts.sum(dtype=np.int64)) <= config.weight_words:
        # Else each tile reads all weights again, and the fewer tiles the better.
        arrival = Arrival(source.total, grid.positions, furthest(window.geometry, grid))
    schedule = Schedule.make(view, 0, config, folded, interleave=window.interleave, arrival=arrival)
    each = schedule.words_per_chunk
    words = range(part.chunks.start * each, part.chunks.stop * each)
    columns = window.outputs if pool is None else pool.outputs
    output = target.output.loops(images, range(target.output.shape[0]), columns, words)
    residual = None
    if target.residual is not None:
        lines = range(target.residual.shape[0])
        residual = target.residual.loops(images, lines, window.outputs, words)
    fields = {
        **_layer_fields(schedule, target.source.dtype, config),
        **_map_fields(window, schedule.grid),
        **source.fields("input"),
        **_output_fields(output, part.columns),
    }
    if pool is not None:
        fields |= {**pool.fields, "pool_signed": int(view.dtype is ActDtype.INT8)}
    if target.residual is not None and residual is not None and view.residual is not None:
        fields |= {
            "residual": 1,
            "residual_signed": int(target.residual.dtype is ActDtype.INT8),
            "residual_mult": view.residual.mult,
            "residual_shift": view.residual.shift,
            **residual.fields("add"),
        }
    names = dict.fromkeys((view.name, target.output.name))
    return Pass(
        node=target.output.name,
        sources=tuple(read.name for read in (target.source, target.residual) if read is not None),
        nodes=tuple(names),
        kind=Kind.CONVOLVE,
        config=config,
        fields=fields,
        images=images,
        columns=columns,
        chunks=part.chunks,
        groups=part.groups,
        schedule=schedule,
        input=source,
        output=output,
        residual=residual,
        data=_data(schedule),
    )


def pooling(node: str, window: PoolWindow, maps: Copy, config: CspConfig, images: range) -> Pass:
    """Give the pass that pools a part of a map into another one.

    Raises
    ------
    LoopError
        A map is not reached by two loops.
    """
    source, output = maps
    read = source.loops(images, range(source.shape[0]), window.columns, window.beats)
    lines = range(output.shape[0])
    write = output.loops(images, lines, window.outputs, window.beats)
    signed = int(source.dtype is ActDtype.INT8)
    fields = {
        "kind": int(Kind.POOL),
        "signed": signed,
        "out": int(OutputType[source.dtype.name]),
        "beats": len(window.beats),
        "images": len(images),
        "height": source.shape[0],
        "width": len(window.columns),
        "out_height": len(lines),
        "out_width": len(window.outputs),
        "tiles": 0,
        **read.fields("input"),
        **_output_fields(write, (1 << config.cols) - 1),
        **window.fields,
        "pool_signed": signed,
    }
    return Pass(
        node=node,
        sources=(source.name,),
        nodes=(node,),
        kind=Kind.POOL,
        config=config,
        fields=fields,
        images=images,
        columns=window.outputs,
        chunks=window.beats,
        input=read,
        output=write,
    )


def _layer_fields(schedule: Schedule, dtype: ActDtype, config: CspConfig) -> dict[str, int]:
    layer, matrix = schedule.layer, schedule.matrix
    area = layer.geometry.kernel[0] * layer.geometry.kernel[1]
    words = matrix.taps // config.lookahead
    return {
        "kind": int(Kind.CONVOLVE),
        "signed": int(dtype is ActDtype.INT8),
        "relu": int(layer.relu),
        "out": int(OutputType[layer.dtype.name]),
        "weights_resident": int(schedule.steps <= config.weight_words),
        "counts_resident": int(words <= config.count_words),
        "acc_shift": layer.acc_shift,
        "period": matrix.period,
        "chunks": matrix.chunks,
        "taps": matrix.taps,
        "position_words": words // area,
        "tiles": len(schedule.tiles),
        "last_filters": matrix.filters - (matrix.chunks - 1) * config.cols,
        "weight_words": schedule.steps,
        "count_beats": matrix.taps // config.cols,
    }


def _map_fields(window: Window, grid: Grid) -> dict[str, int]:
    geometry = window.geometry
    return {
        "ring_bits": window.ring_bits,
        "kernel_h": geometry.kernel[0],
        "kernel_w": geometry.kernel[1],
        "beats": window.beats // window.fold,
        "images": grid.images,
        "height": geometry.in_shape[0],
        "width": geometry.in_shape[1],
        "stride_y": geometry.stride[0].bit_length() - 1,
        "stride_x": geometry.stride[1].bit_length() - 1,
        "out_height": grid.height,
        "out_width": grid.width,
        "dilation_y": geometry.dilation[0],
        "dilation_x": geometry.dilation[1],
        "lines": grid.lines,
        "pitch": grid.pitch,
        "pad_top": geometry.padding[0],
        "pad_left": geometry.padding[1],
    }


def _output_fields(output: Loops, columns: int) -> dict[str, int]:
    return {
        **output.fields("output"),
        "output_low": output.offset,
        "output_high": output.end,
        "strobe_low": columns & 0xFFFF_FFFF,
        "strobe_high": columns >> 32,
    }


def _data(schedule: Schedule) -> dict[str, bytes]:
    """Give what a pass reads through the port of the weights besides its descriptor."""
    params = schedule.params()
    records = np.zeros(
        len(params.bias), dtype=[("bias", "<i4"), ("mult", "<u2"), ("shift", "u1"), ("zero", "u1")]
    )
    for name, values in params._asdict().items():
        records[name] = values
    rows = schedule.config.rows
    entries = [tile.base // rows | tile.interleave << GROUP_BITS for tile in schedule.tiles]
    return {
        "params": records.tobytes(),
        "tiles": np.array(entries, dtype="<u4").tobytes(),
        "counts": schedule.matrix.counts.tobytes(),
        "weights": np.ascontiguousarray(schedule.weights()).tobytes(),
    }
