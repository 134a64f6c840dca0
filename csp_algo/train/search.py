# SPDX-License-Identifier: Apache-2.0
"""Trials of plans on held images: the choice of λ and q, and ablations.

Nothing here looks at a test image but the end of :func:`choose`, once, for the plan that was
chosen. Trials share one directory of states, so what two plans have in common is trained once.
"""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from csp_algo.errors import CspError
from csp_algo.network import Network
from csp_algo.train import data, flow, tables
from csp_algo.train.pruner import ErasedError

#: Fields of a plan that an ablation may vary, and how a value is read.
AXES: Mapping[str, type[int] | type[float]] = {
    "cols": int,
    "q": float,
    "keep": float,
    "strength": float,
    "period": int,
    "acc_bits": int,
}
#: How a row of a table writes shares.
_DECIMALS = 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trial:
    """What one plan gives; accuracies are over held images, all shares in percent.

    Attributes
    ----------
    method, strength, q, keep, cols, period, acc_bits : of the plan
    dense, fine, int8 : float, optional
        Accuracies after the dense stage, after fine-tuning, and of the quantised network; empty
        if pruning erased a layer.
    aware : float, optional
        Accuracy of the integers after quantisation-aware fine-tuning, if there was some.
    sparsity : float, optional
        Zero weights of the integer network.
    words : float, optional
        Chunks that are stored, of all there are: what the accelerator moves and multiplies.
    note : str
        Why there are no figures.
    test : float, optional
        Accuracy of the integers on test images, of the chosen plan only.
    """

    method: str
    strength: float
    q: float | None
    keep: float
    cols: int
    period: int
    acc_bits: int
    dense: float | None = None
    fine: float | None = None
    int8: float | None = None
    aware: float | None = None
    sparsity: float | None = None
    words: float | None = None
    note: str = ""
    test: float | None = None

    @property
    def pruning(self) -> str:
        """λ, and q or what is kept."""
        rule = f"keep {self.keep:g}" if self.q is None else f"q {self.q:g}"
        return f"λ {self.strength:g}, {rule}"

    @property
    def reached(self) -> float | None:
        """The accuracy of the integers in the end."""
        return self.int8 if self.aware is None else self.aware


def stored(network: Network) -> float:
    """Give the chunks that are stored, of all there are, in percent."""
    matrices = [matrix for layer in network.layers() for matrix in layer.matrices]
    words = sum(int(matrix.counts.sum(dtype=int)) for matrix in matrices)
    return 100 * words / sum(matrix.chunks * matrix.taps for matrix in matrices)


def attempt(
    recipe: flow.Recipe,
    plan: flow.Plan,
    training: data.Images,
    *,
    work: Path,
) -> Trial:
    """Train by a plan and give what held images say of it.

    Raises
    ------
    CspError
        The plan has no dense epochs, or one of those of :func:`csp_algo.train.flow.learn`.
    """
    if not plan.epochs[0]:
        raise CspError("epochs of stage dense must be 1 or more: trials are compared with it")
    blank = Trial(
        method=str(plan.method),
        strength=plan.strength,
        q=plan.q,
        keep=plan.keep,
        cols=plan.cols,
        period=plan.period,
        acc_bits=plan.acc_bits,
    )
    try:
        learnt = flow.learn(recipe, plan, training, work=work)
    except ErasedError as error:
        return dataclasses.replace(blank, note=str(error))
    integers = [row.validation for row in learnt.log if row.stage == "int8"]
    last = "fine" if plan.epochs[2] else "pruned"
    return dataclasses.replace(
        blank,
        dense=learnt.validation("dense"),
        fine=learnt.validation(last),
        int8=integers[0],
        aware=integers[-1] if plan.aware else None,
        sparsity=flow.zeros(learnt.network),
        words=stored(learnt.network),
    )


def best(trials: Iterable[Trial], drop: float) -> Trial:
    """Give the trial with the fewest words that loses at most ``drop`` points to dense training.

    Of equals the more accurate one, then the first.

    Raises
    ------
    CspError
        None loses so little; the message says which comes closest.
    """
    known = [
        (trial, trial.reached - trial.dense, trial.words)
        for trial in trials
        if trial.reached is not None and trial.dense is not None and trial.words is not None
    ]
    if not known:
        raise CspError("every trial erased a layer: choose smaller q")
    good = [each for each in known if each[1] >= -drop]
    if not good:
        trial, change, _ = max(known, key=lambda each: each[1])
        raise CspError(
            f"no trial loses at most {drop:g} points; {trial.pruning} loses {-change:.2f}"
        )
    return min(good, key=lambda each: (each[2], -each[1]))[0]


def choose(
    recipe: flow.Recipe,
    plan: flow.Plan,
    training: data.Images,
    test: data.Images,
    *,
    strengths: Sequence[float],
    axis: str,
    values: Sequence[float],
    drop: float,
    work: Path,
    table: Path,
) -> tuple[flow.Learnt, list[Trial]]:
    """Choose λ, and q or what is kept, by held images, then look at the test images once.

    Parameters
    ----------
    plan : Plan
        What all trials have in common.
    strengths : of float
        Values of λ.
    axis, values : str, of float
        ``q`` or ``keep``, and its values; all pairs are tried.
    drop : float
        Points of accuracy that the integers may lose to the dense network, on held images.
    work : Path
        Directory of states.
    table : Path
        CSV with a line for each pair, written anew after every trial; the chosen one gets the
        accuracy on test images.

    Raises
    ------
    CspError
        No pair loses so little, a plan is out of range, or ``drop`` is NaN.
    """
    if math.isnan(drop):
        raise CspError("drop must be a number of points, not nan")
    # All of them first: what is out of range should show before hours of training.
    plans = [_varied(plan, axis, value, strength=each) for each in strengths for value in values]
    trials: list[Trial] = []
    for varied in plans:
        trials.append(attempt(recipe, varied, training, work=work))
        write_table(trials, table)
    chosen = best(trials, drop)
    place = trials.index(chosen)
    learnt = flow.learn(recipe, plans[place], training, work=work)
    rows = flow.examine(learnt, test)
    trials[place] = dataclasses.replace(chosen, test=rows[-1].test)
    write_table(trials, table)
    return learnt, trials


def ablate(
    recipe: flow.Recipe,
    plan: flow.Plan,
    training: data.Images,
    axes: Mapping[str, Sequence[float]],
    *,
    work: Path,
    table: Path,
) -> list[Trial]:
    """Vary one field of a plan at a time and write a table; no test image is looked at.

    Parameters
    ----------
    axes : mapping of a field of ``AXES`` to its values
    work : Path
        Directory of states.
    table : Path
        CSV, written anew after every trial: the field, its value, and the trial.

    Raises
    ------
    CspError
        A field is none that can be varied, or a value is out of range.
    """
    for axis in axes:
        if axis not in AXES:
            raise CspError(f"{axis} cannot be varied; there are: {', '.join(AXES)}")
    plans = [(axis, _varied(plan, axis, value)) for axis in axes for value in axes[axis]]
    trials: list[Trial] = []
    names: list[str] = []
    for axis, varied in plans:
        trials.append(attempt(recipe, varied, training, work=work))
        names.append(axis)
        write_table(trials, table, axes=names)
    return trials


def _varied(plan: flow.Plan, axis: str, value: float, **others: Any) -> flow.Plan:
    """Give a plan with another value of one field, and of others."""
    if AXES[axis] is int and not float(value).is_integer():
        raise CspError(f"{axis} must be an integer, not {value:g}")
    return dataclasses.replace(plan, **{**others, axis: AXES[axis](value)})


def write_table(trials: Sequence[Trial], path: Path, *, axes: Sequence[str] | None = None) -> None:
    """Write trials as CSV with a header line; with ``axes``, what was varied comes first."""
    names = [field.name for field in dataclasses.fields(Trial)]
    rows = [[_cell(name, getattr(trial, name)) for name in names] for trial in trials]
    if axes:
        rows = [[axis, row[names.index(axis)], *row] for axis, row in zip(axes, rows, strict=True)]
        names = ["axis", "value", *names]
    tables.write(names, rows, path)


def _cell(name: str, value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float) and name not in AXES:
        return f"{value:.{_DECIMALS}f}"
    return f"{value:g}" if isinstance(value, float) else str(value)
