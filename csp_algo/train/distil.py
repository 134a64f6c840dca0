# SPDX-License-Identifier: Apache-2.0
"""Distillation of a pruned BERT encoder: it learns what the encoder before pruning computes.

No labels are needed, only text. The loss is the squared error of the states behind each block,
relative to the mean square of the teacher's states, plus 1 − cosine of the sentence embeddings.
Masks are those of :mod:`csp_algo.train.pruner`; embedding tables stay as they are.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional

from csp_algo.errors import CspError
from csp_algo.train import pruner

#: What layer norm adds to the variance, in BERT.
EPSILON = 1e-12
#: Share of the steps over which the rate rises.
RISE = 0.1

Tensors = Mapping[str, npt.NDArray[np.floating]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a student learns.

    Attributes
    ----------
    rate : float
        Learning rate of AdamW, times the less of two lines: from 0 to 1 over a tenth of the steps,
        and from 1 to 0 over all of them. So about nine tenths of it is the peak.
    tokens : int
        Of a batch, about.
    seed : int
        Of the order of the batches.
    """

    rate: float = 5e-4
    tokens: int = 1024
    seed: int = 1


class Encoder(nn.Module):
    """BERT's encoder; its parameters have the names of Hugging Face's BertModel.

    Parameters
    ----------
    tensors : mapping of name to float array
        Of a file of BertModel; what is not used (a pooler) is left out.
    heads : int

    Raises
    ------
    CspError
        A tensor is missing or has another shape.
    """

    def __init__(self, tensors: Tensors, heads: int) -> None:
        super().__init__()
        self.heads = heads

        def length(name: str) -> int:
            if name not in tensors:
                raise CspError(f"encoder: there is no tensor {name}")
            return len(tensors[name])

        width = length("embeddings.LayerNorm.bias")
        self.embeddings = nn.ModuleDict(
            {
                f"{kind}_embeddings": nn.Embedding(
                    length(f"embeddings.{kind}_embeddings.weight"), width
                )
                for kind in ("word", "position", "token_type")
            }
        )
        self.embeddings["LayerNorm"] = nn.LayerNorm(width, eps=EPSILON)
        count = sum(name.endswith(".intermediate.dense.bias") for name in tensors)
        inner = length("encoder.layer.0.intermediate.dense.bias")
        blocks = nn.ModuleList(_Block(width, inner, heads) for _ in range(count))
        self.encoder = nn.ModuleDict({"layer": blocks})
        given = {
            name: torch.tensor(np.asarray(tensors[name], dtype=np.float32))
            for name in self.state_dict()
            if name in tensors
        }
        try:
            self.load_state_dict(given)
        except RuntimeError as error:
            raise CspError(f"encoder: {' '.join(str(error).split())}") from error
        for name in ("word_embeddings", "position_embeddings", "token_type_embeddings"):
            self.embeddings[name].weight.requires_grad_(False)

    def forward(self, ids: torch.Tensor) -> list[torch.Tensor]:
        """Give the states behind each block, of [N, tokens, width], for int64[N, tokens]."""
        parts = self.embeddings
        x = parts["word_embeddings"](ids)
        x = x + parts["position_embeddings"].weight[: ids.shape[1]]
        x = parts["LayerNorm"](x + parts["token_type_embeddings"].weight[0])
        states = []
        for block in self.encoder["layer"]:
            x = block(x)
            states.append(x)
        return states


class _Block(nn.Module):
    def __init__(self, width: int, inner: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.attention = nn.ModuleDict(
            {
                "self": nn.ModuleDict(
                    {part: nn.Linear(width, width) for part in ("query", "key", "value")}
                ),
                "output": _added(width, width),
            }
        )
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(width, inner)})
        self.output = _added(inner, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shape = x.shape
        q, k, v = (
            layer(x).view(*shape[:2], self.heads, -1).transpose(1, 2)
            for layer in self.attention["self"].values()
        )
        context = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(shape)
        out = self.attention["output"]
        x = out["LayerNorm"](out["dense"](context) + x)
        inner = functional.gelu(self.intermediate["dense"](x))
        return self.output["LayerNorm"](self.output["dense"](inner) + x)


def _added(inputs: int, width: int) -> nn.ModuleDict:
    return nn.ModuleDict(
        {"dense": nn.Linear(inputs, width), "LayerNorm": nn.LayerNorm(width, eps=EPSILON)}
    )


def embedding(states: torch.Tensor) -> torch.Tensor:
    """Give the sentence embeddings [N, width], of length 1, of the last states."""
    return functional.normalize(states.float().mean(1), dim=1)


def loss_of(found: Sequence[torch.Tensor], wanted: Sequence[torch.Tensor]) -> torch.Tensor:
    """Give the loss of a student's states, beside the teacher's; 0 if they are equal."""
    apart = [
        (one.float() - other.float()).square().mean() / other.float().square().mean()
        for one, other in zip(found, wanted, strict=True)
    ]
    cosine = (embedding(found[-1]) * embedding(wanted[-1])).sum(1).mean()
    return torch.stack(apart).mean() + 1 - cosine


def distil(
    teacher: Tensors,
    student: Tensors,
    batches: Sequence[npt.NDArray[np.int64]],
    *,
    heads: int,
    cols: int,
    recipe: Recipe | None = None,
    report: Callable[[int, float], None] | None = None,
) -> dict[str, npt.NDArray[np.float32]]:
    """Train a pruned encoder, each batch once; give its tensors.

    Weights of linear layers that are zero from some chunk of a tap on stay zero.

    Parameters
    ----------
    teacher, student : mapping of name to array
        Encoders of one shape; the student's weights are cascades.
    batches : of int64 [N, tokens]
    heads : int
    cols : int
        Filters of a chunk.
    report : function, optional
        Called after each step with its number and loss.

    Raises
    ------
    CspError
        A tensor is missing, or there is nothing to learn from.
    FloatingPointError
        The loss is not finite.
    """
    recipe = recipe or Recipe()
    if not batches:
        raise CspError("there are no batches to distil with")
    known = Encoder(teacher, heads).eval().requires_grad_(requires_grad=False)
    model = Encoder(student, heads)
    # At strength 0 a chunk goes if it and all behind it are zeros.
    pruner.prune_at(model, {"*": 0.0}, cols, kinds=(nn.Linear,))
    trained = [each for each in model.parameters() if each.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=recipe.rate, weight_decay=0.0)
    rise = max(1, round(RISE * len(batches)))
    scheduler = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: min((step + 1) / rise, (len(batches) - step) / len(batches))
    )
    order = torch.randperm(len(batches), generator=torch.Generator().manual_seed(recipe.seed))
    for step, number in enumerate(order.tolist()):
        ids = torch.from_numpy(batches[number])
        with torch.autocast("cpu", dtype=torch.bfloat16):
            with torch.no_grad():
                wanted = known(ids)
            loss = loss_of(model(ids), wanted)
        if not torch.isfinite(loss):
            raise FloatingPointError(f"distillation: the loss of step {step} is not finite")
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        scheduler.step()
        if report is not None:
            report(step, loss.item())
    pruner.release(model)
    return {name: each.detach().numpy() for name, each in model.state_dict().items()}
