# SPDX-License-Identifier: Apache-2.0
"""The command lines: train a network, choose λ and q, compare with dense networks, ablate."""

import argparse
import dataclasses
import io
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from csp_algo import container
from csp_algo.errors import CspError
from csp_algo.quantize import safe_shifts
from csp_algo.train import compare as comparison
from csp_algo.train import data, flow, search
from csp_algo.train.distributed import alone, joined
from csp_algo.train.method import Method


def train(recipe: flow.Recipe, arguments: Sequence[str] | None = None) -> int:
    """Train, prune, quantise and save a network; the result is the exit status."""
    parser = _parser(recipe.command, recipe.plan)
    parser.add_argument("--out", type=Path, required=True, help="network.csp and its companions")
    parser.add_argument("--work", type=Path, help="keeps the state after each epoch, to go on from")
    parser.add_argument(
        "--control", action="store_true", help="the same stages without penalty and masks"
    )
    _one_network(parser, recipe.plan)
    _pruning(parser, recipe.plan)
    chosen = parser.parse_args(arguments)

    def work() -> None:
        plan = _plan(chosen, recipe.plan)
        log = chosen.out / "training.csv"
        test = data.read_images(chosen.data, "t10k")
        training = data.read_images(chosen.data, "train")
        with joined() as group:
            learnt = flow.learn(recipe, plan, training, work=chosen.work, log=log, group=group)
            flow.examine(learnt, test, log=log, group=group)
            if group.first:
                _save(recipe, learnt, test, chosen.out)

    return _status(work)


def choose(recipe: flow.Recipe, arguments: Sequence[str] | None = None) -> int:
    """Choose λ, and q or densities, and save that network; the result is the exit status."""
    parser = _parser(f"python -m {__package__} choose {recipe.name}", recipe.plan)
    parser.add_argument("--out", type=Path, required=True, help="choice.csv, network.csp, …")
    parser.add_argument("--work", type=Path, required=True, help="keeps the states of all trials")
    parser.add_argument(
        "--strength",
        dest="strengths",
        type=float,
        nargs="+",
        required=True,
        metavar="λ",
        help="values of λ",
    )
    _one_network(parser, recipe.plan)
    values = parser.add_mutually_exclusive_group(required=True)
    values.add_argument("--quantile", type=float, nargs="+", help="values of q, one for all layers")
    values.add_argument(
        "--density", type=float, nargs="+", help="values of keep, which scales every target's 1 − s"
    )
    parser.add_argument(
        "--drop", type=float, default=1.0, help="points that may be lost on held images (default 1)"
    )
    chosen = parser.parse_args(arguments)

    def work() -> None:
        alone("choose")
        test = data.read_images(chosen.data, "t10k")
        training = data.read_images(chosen.data, "train")
        table = chosen.out / "choice.csv"
        learnt, trials = search.choose(
            recipe,
            _plan(chosen, recipe.plan),
            training,
            test,
            strengths=chosen.strengths,
            axis="keep" if chosen.quantile is None else "q",
            values=chosen.quantile or chosen.density,
            drop=chosen.drop,
            work=chosen.work,
            table=table,
        )
        (best,) = (trial for trial in trials if trial.test is not None)
        print(f"chosen: {best.pruning}")
        _save(recipe, learnt, test, chosen.out)

    return _status(work)


def ablate(recipe: flow.Recipe, arguments: Sequence[str] | None = None) -> int:
    """Vary a plan, one field at a time, into a CSV; the result is the exit status."""
    parser = _parser(f"python -m {__package__} ablate {recipe.name}", recipe.plan)
    parser.add_argument("--out", type=Path, required=True, help="the CSV")
    parser.add_argument("--work", type=Path, required=True, help="keeps the states of all trials")
    _one_network(parser, recipe.plan)
    _pruning(parser, recipe.plan)
    parser.add_argument(
        "--vary",
        action="append",
        required=True,
        metavar="FIELD=V,V,…",
        help=f"may be given again; fields are {', '.join(search.AXES)}",
    )
    chosen = parser.parse_args(arguments)

    def work() -> None:
        alone("ablate")
        plan = _plan(chosen, recipe.plan)
        axes = _axes(chosen.vary)
        training = data.read_images(chosen.data, "train")
        search.ablate(recipe, plan, training, axes, work=chosen.work, table=chosen.out)

    return _status(work)


def compare(recipe: flow.Recipe, arguments: Sequence[str] | None = None) -> int:
    """Compare pruned networks with dense ones of the same budget; the result is the exit status."""
    parser = _parser(f"python -m {__package__} compare {recipe.name}", recipe.plan)
    parser.add_argument("--out", type=Path, required=True, help="comparison.csv, summary.csv, …")
    parser.add_argument("--work", type=Path, required=True, help="keeps the states of all networks")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3], help="default 1 2 3")
    parser.add_argument(
        "--bits", type=int, nargs="+", default=[24, 16, 8], help="of partial sums; default 24 16 8"
    )
    parser.add_argument(
        "--held", action="store_true", help="do not look at test images, only at held ones"
    )
    _pruning(parser, recipe.plan)
    chosen = parser.parse_args(arguments)

    def work() -> None:
        alone("compare")
        plan = _plan(chosen, recipe.plan)
        training = data.read_images(chosen.data, "train")
        findings = comparison.compare(
            recipe,
            plan,
            training,
            None if chosen.held else lambda: data.read_images(chosen.data, "t10k"),
            seeds=chosen.seeds,
            bits=chosen.bits,
            work=chosen.work,
            out=chosen.out,
        )
        summary = chosen.out / "summary.csv"
        comparison.write_table(comparison.summarise(findings), summary)
        print(summary.read_text(encoding="utf-8"), end="")

    return _status(work)


def _status(work: Callable[[], None]) -> int:
    """Do a command's work; give 0, or 2 after one line of what is wrong."""
    try:
        work()
    except (CspError, FloatingPointError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _parser(command: str, usual: flow.Plan) -> argparse.ArgumentParser:
    """Give a parser of the options that all commands have."""
    # Else --seed would be short for the --seeds of a command that has no --seed.
    parser = argparse.ArgumentParser(prog=command, allow_abbrev=False)
    parser.add_argument(
        "--data", type=Path, default=data.FASHION_MNIST_DIRECTORY, help="folder of the four files"
    )
    parser.add_argument("--cols", type=int, default=usual.cols, help="filters of a chunk")
    parser.add_argument("--period", type=int, default=usual.period, help="T, taps of a block")
    parser.add_argument(
        "--method", type=Method, choices=list(Method), default=usual.method, help="penalty and rule"
    )
    parser.add_argument(
        "--epochs",
        type=int,
        nargs=3,
        default=usual.epochs,
        metavar="N",
        help="of the dense, the regularised and the fine-tuning stage",
    )
    parser.add_argument(
        "--fine-rate", type=float, default=usual.fine_rate, help="peak rate of fine-tuning"
    )
    parser.add_argument(
        "--fine-decay", type=float, default=usual.fine_decay, help="weight decay of fine-tuning"
    )
    parser.add_argument(
        "--shift",
        type=int,
        default=usual.shift,
        help="pixels that training images are shifted by, at most",
    )
    parser.add_argument(
        "--aware", type=int, default=usual.aware, help="epochs of quantisation-aware fine-tuning"
    )
    parser.add_argument(
        "--aware-images",
        type=int,
        default=usual.aware_images,
        help="only the first training images in these epochs",
    )
    parser.add_argument(
        "--validation", type=int, default=usual.validation, help="images that are not trained on"
    )
    parser.add_argument(
        "--images", type=int, default=usual.images, help="use only the first of the training set"
    )
    parser.add_argument(
        "--bfloat16", action="store_true", help="layers of the float stages compute in bfloat16"
    )
    parser.add_argument(
        "--threads", type=int, default=usual.threads, help="the last bits of weights depend on them"
    )
    parser.add_argument(
        "--target",
        action="append",
        metavar="LAYER=SHARE",
        help="share of zeros of a layer; layers without one are exempt (default: the plan's)",
    )
    return parser


def _one_network(parser: argparse.ArgumentParser, usual: flow.Plan) -> None:
    """Add what `compare` has several values of."""
    parser.add_argument("--seed", type=int, default=usual.seed)
    parser.add_argument("--acc-bits", type=int, default=usual.acc_bits, help="of a partial sum")


def _pruning(parser: argparse.ArgumentParser, usual: flow.Plan) -> None:
    """Add what `choose` has several values of."""
    parser.add_argument("--strength", type=float, default=usual.strength, help="λ")
    parser.add_argument("--q", type=float, default=usual.q, help="one strength instead of targets")
    parser.add_argument(
        "--keep", type=float, default=usual.keep, help="times 1 − target is kept of every layer"
    )


def _plan(chosen: argparse.Namespace, usual: flow.Plan) -> flow.Plan:
    """Give the plan of some options; what the command has no option for is as usual."""
    fields = {field.name for field in dataclasses.fields(flow.Plan)}
    given = {name: value for name, value in vars(chosen).items() if name in fields}
    given["epochs"] = tuple(chosen.epochs)
    if chosen.target is not None:
        given["targets"] = _targets(chosen.target)
    return dataclasses.replace(usual, **given)


def _save(recipe: flow.Recipe, learnt: flow.Learnt, test: data.Images, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    container.save(learnt.network, out / "network.csp")
    if recipe.samples:
        save_samples(test[: recipe.samples], out / "images.npz")
    bits = learnt.plan.acc_bits
    print(f"safe run shifts at {bits} bits: {safe_shifts(learnt.network, bits)}")
    print(f"{out}: written")


def _targets(items: list[str]) -> dict[str, float]:
    targets: dict[str, float] = {}
    for item in items:
        name, _, share = item.partition("=")
        # A later pattern overrides, so a name that is given again goes to the end.
        targets.pop(name, None)
        try:
            targets[name] = float(share)
        except ValueError:
            raise CspError(f"--target {item!r} is not LAYER=SHARE") from None
    return targets


def _axes(items: list[str]) -> dict[str, list[float]]:
    axes: dict[str, list[float]] = {}
    for item in items:
        name, _, values = item.partition("=")
        try:
            axes.setdefault(name, []).extend(float(value) for value in values.split(","))
        except ValueError:
            raise CspError(f"--vary {item!r} is not FIELD=V,V,…") from None
    return axes


def save_samples(images: data.Images, path: Path) -> None:
    """Write images uint8[N, 28, 28, 1] and labels uint8[N], compressed."""
    file = io.BytesIO()
    np.savez_compressed(file, images=images.pixels[..., None], labels=images.labels)
    container.write_atomically(path, file.getvalue())
