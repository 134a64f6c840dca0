# SPDX-License-Identifier: Apache-2.0
"""The way from an untrained network to integers, which all networks share.

Dense training, training with λ·R, pruning, fine-tuning under masks, quantisation, and, if the plan
asks for it, fine-tuning of the integers with truncated sums. A network's own script gives a
:class:`Recipe`; :mod:`csp_algo.train.commands` is the command line.
"""

import copy
import dataclasses
import functools
import json
import math
import zlib
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from csp_algo.errors import CspError, check_int
from csp_algo.geometry import COLS_LIMIT, PERIOD_LIMIT
from csp_algo.integers import ActDtype
from csp_algo.network import Input, Network
from csp_algo.quantize import ACC_BITS, FloatNetwork, quantise
from csp_algo.train import data, pruner, schedule
from csp_algo.train.aware import AwareNetwork
from csp_algo.train.checkpoint import Checkpoint
from csp_algo.train.distributed import Group
from csp_algo.train.evaluate import integer_accuracy
from csp_algo.train.export import to_float_network
from csp_algo.train.layers import prunable, resolve
from csp_algo.train.method import Method

#: Images at the end of the training set that are held back: λ and the targets are judged by them.
VALIDATION = 5000
#: Most images of a set.
IMAGE_LIMIT = 2**31 - 1
#: Most epochs of a stage.
EPOCH_LIMIT = 10_000
#: Largest seed; stages add to it, and PyTorch takes 64 bits.
SEED_LIMIT = 2**32 - 1
#: Most pixels that an image is shifted by: something of its 28 is left.
SHIFT_LIMIT = 27
#: Most threads.
THREAD_LIMIT = 1024
#: Names of the stages, in order.
STAGES = ("dense", "regularised", "fine", "aware")
#: Fields of a plan that every file has; the first files knew no others.
FIRST = frozenset(
    {"targets", "seed", "cols", "period", "strength", "epochs", "validation", "threads"}
)
#: Training images, the first ones, from which activation scales are taken, and tap weights.
CALIBRATION = 256


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """Everything that decides the result, on one machine.

    Attributes
    ----------
    targets : share of zeros for each pruned layer, or pattern of names; all others are exempt
    seed : int
    cols, period : int
        Filters of a chunk and T.
    strength : float
        λ of the regularised stage.
    epochs : of the dense, the regularised and the fine-tuning stage
    fine_rate, fine_decay : float
        Peak learning rate and weight decay of the fine-tuning stage.
    shift : int
        Training images are shifted by up to so many pixels each way; half of them are mirrored.
    validation : int
        Images at the end of the training set that are not trained on.
    threads : int
        The order of sums, and so the last bits of the weights, depend on it.
    method : Method
        Penalty and rule.
    q : float, optional
        One pruning strength for all layers with a target, instead of their targets.
    keep : float
        What is kept of every layer, 1 − target, times this: 0.5 keeps half as much. Only 1 goes
        with a q.
    acc_bits : int
        Width B of a partial sum.
    aware : int
        Epochs of quantisation-aware fine-tuning.
    images : int, optional
        Only the first images of the training set are used, held ones included; all if not given.
    aware_images : int, optional
        Quantisation-aware fine-tuning sees only the first of the training images.
    bfloat16 : bool
        Layers compute in bfloat16 in the stages of floats, which some CPUs do faster.
    control : bool
        The dense network to compare with: the same stages without penalty and masks.

    Raises
    ------
    CspError
        A value is out of range; the message names it.
    """

    targets: dict[str, float]
    seed: int = 1
    cols: int = 8
    period: int = 16
    strength: float = 5e-4
    epochs: tuple[int, int, int] = (10, 5, 5)
    validation: int = VALIDATION
    threads: int = 1
    method: Method = Method.CASCADE
    q: float | None = None
    keep: float = 1.0
    acc_bits: int = 24
    aware: int = 0
    images: int | None = None
    aware_images: int | None = None
    bfloat16: bool = False
    control: bool = False
    fine_rate: float = 0.02
    fine_decay: float = schedule.Stage.decay
    shift: int = schedule.Stage.shift

    def __post_init__(self) -> None:
        check_int("seed", self.seed, 0, SEED_LIMIT)
        check_int("cols", self.cols, 1, COLS_LIMIT)
        check_int("period", self.period, 1, PERIOD_LIMIT)
        check_int("acc_bits", self.acc_bits, *ACC_BITS)
        for name, epochs in zip(STAGES, (*self.epochs, self.aware), strict=True):
            check_int(f"epochs of stage {name}", epochs, 0, EPOCH_LIMIT)
        check_int("validation", self.validation, 1, IMAGE_LIMIT)
        for name, count in (("images", self.images), ("aware_images", self.aware_images)):
            if count is not None:
                check_int(name, count, 1, IMAGE_LIMIT)
        check_int("threads", self.threads, 1, THREAD_LIMIT)
        check_int("shift", self.shift, 0, SHIFT_LIMIT)
        for name in ("strength", "q", "fine_decay"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value >= 0):
                raise CspError(f"{name} must be finite and not negative, not {value}")
        for name in ("keep", "fine_rate"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise CspError(f"{name} must be finite and above 0, not {value}")
        if self.q is not None and self.keep != 1:
            raise CspError(
                f"keep {self.keep:g} scales targets, and q {self.q:g} stands in their place"
            )
        for name, share in self.shares().items():
            if not 0 <= share < 1:
                raise CspError(f"the target of {name} must be 0 or more and below 1, not {share:g}")

    def shares(self) -> dict[str, float]:
        """Give the targets under ``keep``."""
        if self.keep == 1:
            return dict(self.targets)
        return {name: 1 - self.keep * (1 - share) for name, share in self.targets.items()}

    def stages(self) -> tuple[schedule.Stage, ...]:
        """Give the four stages; each has its own seed."""
        dense, regularised, fine = self.epochs
        free = self.control or self.method.penalty is None
        strength = 0.0 if free else self.strength
        stage = functools.partial(schedule.Stage, shift=self.shift)
        floats = functools.partial(stage, bfloat16=self.bfloat16)
        return (
            floats(name="dense", epochs=dense, rate=0.05, seed=self.seed),
            floats(
                name="regularised",
                epochs=regularised,
                rate=0.02,
                strength=strength,
                seed=self.seed + 1000,
            ),
            floats(
                name="fine",
                epochs=fine,
                rate=self.fine_rate,
                decay=self.fine_decay,
                seed=self.seed + 2000,
            ),
            # Small steps: normalisation is folded, nothing scales the activations any more.
            stage(name="aware", epochs=self.aware, rate=0.002, decay=0.0, seed=self.seed + 3000),
        )

    def record(self) -> dict[str, object]:
        """Give the plan as a network's metadata has it.

        Fields younger than the first files are left out at their defaults, so that these files
        still come out the same to the byte.
        """
        fields = dataclasses.asdict(self)
        for field in dataclasses.fields(self):
            if field.name not in FIRST and fields[field.name] == field.default:
                del fields[field.name]
        return fields


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Recipe:
    """What a network's own script says of it.

    Attributes
    ----------
    name : str
        Of the network, and of its script in ``csp_algo.train``.
    build : function
        Gives the untrained model: input float[N, 1, 28, 28] in 0 … 1, output float[N, 10].
    plan : Plan
        What the command line starts from.
    samples : int
        How many test images, the first ones, are kept beside the network; 0 for no such file.
    """

    name: str
    build: Callable[[], nn.Sequential]
    plan: Plan
    samples: int = 0

    @property
    def command(self) -> str:
        """The command line without its options."""
        return f"python -m {__package__}.{self.name}"


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Learnt:
    """What training gives; no test image was looked at.

    Attributes
    ----------
    plan : Plan
    dense : nn.Module
        After the dense stage.
    model : nn.Module
        Pruned and fine-tuned, in floats; masks are taken off.
    quantised : Network
        In integers, as quantisation made them.
    network : Network
        The same after quantisation-aware fine-tuning, if the plan asks for it.
    log : list of Row
    """

    plan: Plan
    dense: nn.Module
    model: nn.Sequential
    quantised: Network
    network: Network
    log: list[schedule.Row]

    def validation(self, stage: str) -> float:
        """Give the accuracy on held images after the last epoch of a stage, in percent."""
        found = [row.validation for row in self.log if row.stage == stage]
        if not found or found[-1] is None:
            raise CspError(f"stage {stage} has no accuracy on held images")
        return found[-1]


def show(row: schedule.Row) -> None:
    """Print a row of the log as one line of progress."""
    filled = {name: value for name, value in dataclasses.asdict(row).items() if value is not None}
    words = (
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in filled.items()
    )
    print("  ".join(words), flush=True)


def learn(
    recipe: Recipe,
    plan: Plan,
    training: data.Images,
    *,
    work: Path | None = None,
    log: Path | None = None,
    group: Group | None = None,
) -> Learnt:
    """Do the whole flow but for the test.

    Parameters
    ----------
    recipe : Recipe
        Its plan does not matter here.
    plan : Plan
    training : Images of 28×28 pixels
    work : Path, optional
        Directory for the state after each epoch; a later run takes from it what depends on the
        same settings.
    log : Path, optional
        The accuracy log as CSV, written anew after every epoch.
    group : Group, optional
        Processes that train together.

    Raises
    ------
    CspError
        There are too few images, or a target is of no layer or out of reach.
    ErasedError
        q leaves a layer without any weight.
    FloatingPointError
        A loss is not finite.
    """
    return _Run(recipe, plan, training, work, log, group or Group()).learn()


def examine(
    learnt: Learnt, test: data.Images, *, log: Path | None = None, group: Group | None = None
) -> list[schedule.Row]:
    """Give the accuracies on test images, which nothing is chosen by; they go into the log, too."""
    group = group or Group()
    unseen = data.to_tensor(test)
    rows = []
    for name, tested in (("dense", learnt.dense), ("fine", learnt.model)):
        right = schedule.accuracy(tested, *unseen, group=group)
        rows.append(
            schedule.Row(stage=name, epoch=0, test=right, sparsity=schedule.sparsity(tested))
        )
    if group.first:
        right = integer_accuracy(
            learnt.network, test.pixels[..., None], test.labels, acc_bits=learnt.plan.acc_bits
        )
        rows.append(schedule.Row(stage="int8", epoch=0, test=right, sparsity=zeros(learnt.network)))
        for row in rows:
            show(row)
        learnt.log.extend(rows)
        if log is not None:
            schedule.write_log(learnt.log, log)
    return rows


class _Run:
    """One run of the flow, a method a stage."""

    def __init__(
        self,
        recipe: Recipe,
        plan: Plan,
        training: data.Images,
        work: Path | None,
        log: Path | None,
        group: Group,
    ) -> None:
        torch.set_num_threads(plan.threads)
        torch.use_deterministic_algorithms(True)
        # Filling what is uninitialised finds errors, and takes a seventh of the time.
        torch.utils.deterministic.fill_uninitialized_memory = False
        torch.manual_seed(plan.seed)
        self.recipe, self.plan, self.group = recipe, plan, group
        self.work, self.path = work, log
        self.model = recipe.build()
        self.stages = {stage.name: stage for stage in plan.stages()}
        if plan.images is not None:
            if plan.images > len(training):
                raise CspError(f"images is {plan.images}, there are {len(training)} to train on")
            training = training[: plan.images]
        split = len(training) - plan.validation
        # Batch normalisation needs two.
        if split < 2:
            left = "only one" if split == 1 else "none"
            raise CspError(f"{plan.validation} of {len(training)} images leave {left} to train on")
        if plan.aware and plan.aware_images is not None and plan.aware_images > split:
            raise CspError(f"aware_images is {plan.aware_images}, there are {split} to train on")
        self.training, self.held = training[:split], training[split:]
        self.learnt = data.to_tensor(self.training)
        self.validation = data.to_tensor(self.held)
        layers = prunable(self.model)
        self.targets = resolve(layers, plan.shares())
        self.exempt = frozenset(layers) - frozenset(self.targets)
        self.log: list[schedule.Row] = []
        # What a stage's saved state depends on grows from stage to stage.
        self.settings: dict[str, object] = {
            # The text of a module has shapes and strides.
            "network": [recipe.name, zlib.crc32(repr(self.model).encode())],
            "seed": plan.seed,
            # The order of sums.
            "threads": plan.threads,
            "processes": self.group.size,
            # A state holds the accuracies on held images, too.
            "images": [_marks(self.training), _marks(self.held)],
            "stages": [],
        }

    def learn(self) -> Learnt:
        """Do all stages."""
        self._train(self.model, "dense")
        dense = copy.deepcopy(self.model)
        pull = self._pull()
        if pull is not None:
            penalty = pull.penalty.__name__
            self._depends(cols=pull.cols, penalty=penalty, exempt=sorted(pull.exempt))
        self._train(self.model, "regularised", pull=pull)
        if self.plan.control:
            self._depends(control=True)
        else:
            self._depends(
                cols=self.plan.cols, method=self.plan.method, targets=self.targets, q=self.plan.q
            )
            self._prune()
        self._train(self.model, "fine")
        pruner.release(self.model)
        floats = float_network(self.recipe, self.model)
        first = network = quantised(self.recipe, self.plan, floats, self.training[:CALIBRATION])
        self._int8(network)
        if self.plan.aware:
            self._depends(period=self.plan.period, acc_bits=self.plan.acc_bits)
            if self.plan.aware_images is not None:
                self._depends(aware_images=self.plan.aware_images)
                self.learnt = data.to_tensor(self.training[: self.plan.aware_images])
            aware = AwareNetwork(floats, network, acc_bits=self.plan.acc_bits)
            self._train(aware, "aware", measure=AwareNetwork.zeros)
            network = aware.export()
            self._int8(network)
        return Learnt(
            plan=self.plan,
            dense=dense,
            model=self.model,
            quantised=first,
            network=network,
            log=self.log,
        )

    def _pull(self) -> schedule.Pull | None:
        penalty = self.plan.method.penalty
        if penalty is None or not self.stages["regularised"].strength:
            return None
        return schedule.Pull(penalty=penalty, cols=self.plan.cols, exempt=self.exempt)

    def _depends(self, **settings: object) -> None:
        self.settings = {**self.settings, **settings}

    def _note(self, row: schedule.Row) -> None:
        if self.group.first:
            show(row)
        self._extend([row])

    def _extend(self, rows: list[schedule.Row]) -> None:
        self.log.extend(rows)
        if self.path is not None and self.group.first:
            schedule.write_log(self.log, self.path)

    def _train(
        self,
        model: nn.Module,
        name: str,
        *,
        pull: schedule.Pull | None = None,
        measure: Callable[[nn.Module], float] = schedule.sparsity,
    ) -> None:
        stage = self.stages[name]
        done = self.settings["stages"]
        assert isinstance(done, list)
        self._depends(stages=[*done, dataclasses.asdict(stage)])
        checkpoint = None
        if self.work is not None:
            checkpoint = Checkpoint.of(self.work, name, self.settings)
        before = list(self.log)

        def report(row: schedule.Row) -> None:
            show(row)
            self._extend([row])

        rows = schedule.train(
            model,
            stage,
            *self.learnt,
            pull=pull,
            measure=measure,
            validation=self.validation,
            report=report,
            checkpoint=checkpoint,
            group=self.group,
        )
        # Those of a saved state were not reported.
        self.log = before
        self._extend(rows)

    def _prune(self) -> None:
        plan, samples = self.plan, self.learnt[0][:CALIBRATION]
        if plan.q is None:
            pruned = pruner.prune(
                self.model, self.targets, plan.cols, method=plan.method, samples=samples
            )
        else:
            strengths = dict.fromkeys(self.targets, plan.q)
            pruned = pruner.prune_at(
                self.model, strengths, plan.cols, method=plan.method, samples=samples
            )
        if self.group.first:
            for name, layer in pruned.items():
                share = 100 * layer.sparsity
                print(f"{name}: q {layer.q:.4g}  sparsity {share:.2f}", flush=True)
        right = schedule.accuracy(self.model, *self.validation, group=self.group)
        self._note(
            schedule.Row(
                stage="pruned",
                epoch=0,
                validation=right,
                sparsity=schedule.sparsity(self.model),
            )
        )

    def _int8(self, network: Network) -> None:
        """Note the accuracy of the integers on held images, in the first process."""
        if not self.group.first:
            return
        right = integer_accuracy(
            network, self.held.pixels[..., None], self.held.labels, acc_bits=self.plan.acc_bits
        )
        self._note(schedule.Row(stage="int8", epoch=0, validation=right, sparsity=zeros(network)))


def _marks(images: data.Images) -> list[int]:
    """Give what tells images from others: their number, and checksums of pixels and labels."""
    return [len(images), *(zlib.crc32(part.tobytes()) for part in (images.pixels, images.labels))]


def zeros(network: Network) -> float:
    """Give the share of zeros in the weights of an integer network, in percent."""
    weights = [layer.weights() for layer in network.layers()]
    zero = sum(int((matrices == 0).sum()) for matrices in weights)
    return 100 * zero / sum(matrices.size for matrices in weights)


def float_network(recipe: Recipe, model: nn.Sequential) -> FloatNetwork:
    """Give the trained model as a float network of uint8 pixels with scale 1/255."""
    source = Input(name="image", shape=(28, 28, 1), dtype=ActDtype.UINT8, scale=1 / 255)
    return to_float_network(model, source, name=recipe.name)


def quantised(
    recipe: Recipe, plan: Plan, floats: FloatNetwork, calibration: data.Images
) -> Network:
    """Give the integer network, in chunks and blocks of the plan."""
    return quantise(
        floats,
        calibration.pixels[..., None],
        cols=plan.cols,
        period=plan.period,
        acc_bits=plan.acc_bits,
        metadata={
            "dataset": "Fashion-MNIST, (c) 2017 Zalando SE, Expat licence",
            "trained_by": recipe.command,
            "plan": json.dumps(plan.record(), sort_keys=True),
        },
    )
