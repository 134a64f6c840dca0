# SPDX-License-Identifier: Apache-2.0
"""What pruning costs: networks of several seeds beside dense ones of the same budget.

The dense control goes through the same stages, with the same epochs, rates, images and chances, but
without penalty and masks; it is quantised, and fine-tuned in integers, as the pruned network is.
Test images are read after the last epoch of the last seed, once.
"""

import dataclasses
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from csp_algo import container
from csp_algo.errors import CspError
from csp_algo.network import Network
from csp_algo.train import data, flow, schedule, tables
from csp_algo.train.evaluate import integer_accuracy
from csp_algo.train.search import stored

#: Names of the two networks of a seed.
CONTROL, PRUNED = "control", "pruned"
#: What an accuracy is of: floats, their quantised integers, the same after fine-tuning as integers.
FLOAT, INT8, AWARE = "float32", "int8", "aware"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Finding:
    """One network of one seed in one kind of numbers; shares in percent.

    Attributes
    ----------
    seed : int
    network : ``control`` or ``pruned``
    numbers : ``float32``, ``int8`` or ``aware``
    acc_bits : int, optional
        Width of a partial sum; floats have none.
    epochs : int
        Of all training behind it.
    sparsity : float
        Zero weights.
    words : float, optional
        Chunks that are stored, of all there are, in integers.
    validation, test : float
        Accuracies on held images, and on test images once they were looked at.
    """

    seed: int
    network: str
    numbers: str
    acc_bits: int | None = None
    epochs: int
    sparsity: float
    words: float | None = None
    validation: float
    test: float | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Summary:
    """What findings of all seeds have in common; losses are means, in points.

    Attributes
    ----------
    images : ``test``, or ``held`` as long as test images were not looked at
    network, numbers, acc_bits, epochs : of the findings
    seeds : int
        How many.
    sparsity : float
        The least of all seeds.
    mean, low, high : float
        Accuracy.
    deviation : float, optional
        Of a sample, over n − 1; one seed has none.
    loss : float
        To the control of the same seed in the same kind of numbers, its sums of the largest width.
    float_loss : float
        To the control of the same seed in floats.
    """

    images: str
    network: str
    numbers: str
    acc_bits: int | None
    epochs: int
    seeds: int
    sparsity: float
    mean: float
    low: float
    high: float
    deviation: float | None
    loss: float
    float_loss: float


#: Gives the accuracy on images.
Judge = Callable[[data.Images], float]


def compare(
    recipe: flow.Recipe,
    plan: flow.Plan,
    training: data.Images,
    read_test: Callable[[], data.Images] | None,
    *,
    seeds: Sequence[int],
    bits: Sequence[int],
    work: Path,
    out: Path,
) -> list[Finding]:
    """Train each seed's control and pruned networks, then look at the test images once.

    Parameters
    ----------
    plan : Plan
        What all have in common but seed and ``acc_bits``.
    read_test : function, optional
        Called once, when all is trained; without it no test image is looked at.
    seeds, bits : of int
        Seeds, and widths of a partial sum; the control has the largest.
    work : Path
        Directory of states.
    out : Path
        Gets ``comparison.csv``, rewritten after every network, and each seed's pruned networks.

    Raises
    ------
    CspError
        A seed or a width is given twice, a plan is out of range, or there is no fine-tuning.
    """
    for name, values in (("seeds", seeds), ("bits", bits)):
        if not values or len(set(values)) != len(values):
            raise CspError(f"{name} must be different values, not {list(values)}")
    if not plan.epochs[2]:
        raise CspError("epochs of stage fine must be 1 or more: accuracies are those behind it")
    # All of them first: what is out of range should show before hours of training.
    plans = [
        dataclasses.replace(plan, seed=seed, acc_bits=width, control=control)
        for seed in seeds
        for control, width in [(True, max(bits)), *((False, width) for width in bits)]
    ]
    table = out / "comparison.csv"
    found: list[tuple[Finding, Judge]] = []
    for each in plans:
        learnt = flow.learn(recipe, each, training, work=work)
        found += _findings(learnt, floats=each.control or each.acc_bits == bits[0])
        write_table([finding for finding, _ in found], table)
        if not each.control:
            container.save(learnt.network, out / f"seed{each.seed}-{each.acc_bits}bit.csp")
    if read_test is None:
        return [finding for finding, _ in found]
    test = read_test()
    findings = [dataclasses.replace(finding, test=judge(test)) for finding, judge in found]
    write_table(findings, table)
    return findings


def _findings(learnt: flow.Learnt, *, floats: bool) -> list[tuple[Finding, Judge]]:
    """Give what is found of a trained network; of its floats, too, if asked for."""
    plan = learnt.plan
    network = CONTROL if plan.control else PRUNED
    found: list[tuple[Finding, Judge]] = []
    if floats:
        finding = Finding(
            seed=plan.seed,
            network=network,
            numbers=FLOAT,
            epochs=sum(plan.epochs),
            sparsity=schedule.sparsity(learnt.model),
            validation=learnt.validation("fine"),
        )
        found.append((finding, _judge_floats(learnt.model)))
    integers = [row.validation for row in learnt.log if row.stage == "int8"]
    kinds = [(INT8, learnt.quantised, integers[0], 0)]
    if plan.aware:
        kinds.append((AWARE, learnt.network, integers[-1], plan.aware))
    for numbers, integer, validation, more in kinds:
        assert validation is not None
        finding = Finding(
            seed=plan.seed,
            network=network,
            numbers=numbers,
            acc_bits=plan.acc_bits,
            epochs=sum(plan.epochs) + more,
            sparsity=flow.zeros(integer),
            words=stored(integer),
            validation=validation,
        )
        found.append((finding, _judge_integers(integer, plan.acc_bits)))
    return found


def _judge_floats(model: torch.nn.Module) -> Judge:
    return lambda images: schedule.accuracy(model, *data.to_tensor(images))


def _judge_integers(network: Network, acc_bits: int) -> Judge:
    return lambda images: integer_accuracy(
        network, images.pixels[..., None], images.labels, acc_bits=acc_bits
    )


def summarise(findings: Sequence[Finding]) -> list[Summary]:
    """Give one summary for each network, kind of numbers and width, in the order found."""
    looked = any(finding.test is not None for finding in findings)

    def right(finding: Finding) -> float:
        if not looked:
            return finding.validation
        assert finding.test is not None
        return finding.test

    controls = {
        (finding.seed, finding.numbers): right(finding)
        for finding in findings
        if finding.network == CONTROL
    }
    groups: dict[tuple[str, str, int | None], list[Finding]] = {}
    for finding in findings:
        key = (finding.network, finding.numbers, finding.acc_bits)
        groups.setdefault(key, []).append(finding)
    summaries = []
    for (network, numbers, bits), group in groups.items():
        shares = [right(each) for each in group]
        losses = [controls[each.seed, numbers] - right(each) for each in group]
        float_losses = [controls[each.seed, FLOAT] - right(each) for each in group]
        summaries.append(
            Summary(
                images="test" if looked else "held",
                network=network,
                numbers=numbers,
                acc_bits=bits,
                epochs=group[0].epochs,
                seeds=len(group),
                sparsity=min(each.sparsity for each in group),
                mean=statistics.mean(shares),
                low=min(shares),
                high=max(shares),
                deviation=statistics.stdev(shares) if len(shares) > 1 else None,
                loss=statistics.mean(losses),
                float_loss=statistics.mean(float_losses),
            )
        )
    return summaries


def write_table(rows: Sequence[Finding | Summary], path: Path) -> None:
    """Write findings or summaries as CSV with a header line."""
    cells = [
        [f"{each:.2f}" if isinstance(each, float) else each for each in vars(row).values()]
        for row in rows
    ]
    tables.write([field.name for field in dataclasses.fields(rows[0])], cells, path)
