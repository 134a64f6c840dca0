# SPDX-License-Identifier: Apache-2.0
"""Shapes of networks against totals that others publish."""

import pytest

from csp_algo.errors import CspError
from csp_algo.geometry import Geometry
from sim.tables import read_table
from sim.workloads.catalogue import DATA
from sim.workloads.shapes.alexnet import alexnet, alexnet_one_tower
from sim.workloads.shapes.inception_v3 import inception_v3
from sim.workloads.shapes.layer import LayerShape, folded
from sim.workloads.shapes.resnet50 import resnet50
from sim.workloads.shapes.transformer import transformer
from sim.workloads.shapes.vgg16 import vgg16

#: Parameters and 10^9 operations of torchvision's models: num_params and _ops of their `meta`.
TORCHVISION = [
    (alexnet_one_tower(), 61_100_840, 0.714),
    (vgg16(), 138_357_544, 15.47),
    (resnet50(), 25_557_032, 4.089),
]


def total(layers, what):
    return sum(getattr(layer, what) for layer in layers)


def of_convolutions(layers, what):
    return total([layer for layer in layers if not layer.linear], what)


@pytest.mark.parametrize(("layers", "parameters", "giga"), TORCHVISION)
def test_totals_of_torchvision(layers, parameters, giga):
    assert total(layers, "parameters") == parameters
    assert total(layers, "macs") / 1e9 == pytest.approx(giga, abs=5e-4)


def test_inception_has_its_parameters_with_the_auxiliary_classifier_only():
    assert total(inception_v3(auxiliary=True), "parameters") == 27_161_264
    assert total(inception_v3(), "macs") / 1e9 == pytest.approx(5.713, abs=5e-4)


def test_totals_of_the_literature():
    """Sze et al. 2017: AlexNet 666 M and 58.6 M MACs, ResNet-50 (as in the paper) 3.86 G."""
    net = alexnet()
    assert total(net, "parameters") == 60_965_224  # of Caffe's bvlc_alexnet
    assert of_convolutions(net, "macs") / 1e6 == pytest.approx(666, abs=0.5)
    assert (total(net, "macs") - of_convolutions(net, "macs")) / 1e6 == pytest.approx(58.6, abs=0.1)
    paper = resnet50(stride_in_kernel=False)
    assert total(paper, "macs") / 1e9 == pytest.approx(3.86, abs=5e-3)


@pytest.mark.parametrize(
    ("layers", "convolutions", "linear"),
    [
        # Hand-added from the definitions: Σ R·S·C/g·M, and inputs · outputs.
        (alexnet(), 34_848 + 307_200 + 884_736 + 663_552 + 442_368, 58_621_952),
        (vgg16(), 14_710_464, 25_088 * 4096 + 4096 * 4096 + 4096 * 1000),
        (resnet50(), 23_454_912, 2_048_000),
        (inception_v3(), 21_751_136, 2_048_000),
        (transformer(), 0, 44_040_192),
    ],
)
def test_weights_of_convolutions_and_of_linear_layers(layers, convolutions, linear):
    assert of_convolutions(layers, "weights") == convolutions
    assert total(layers, "weights") - of_convolutions(layers, "weights") == linear


def test_transformer_has_the_matrices_of_the_log():
    sizes = {2: 512 * 512, 4: 512 * 2048}
    rows = read_table(DATA / "transformer.csv").rows
    layers = transformer()
    assert [row["layer"] for row in rows] == [layer.name for layer in layers]
    for layer, row in zip(layers, rows, strict=True):
        assert layer.weights in sizes.values()
        assert float(row["weights"]) == int(row["nonzero"]) / layer.weights
    assert sum(int(row["nonzero"]) for row in rows) == 6_883_424 - 2_776_928


def test_known_maps():
    maps = {layer.name: layer.geometry.out_shape for layer in inception_v3()}
    assert maps["4a"] == (71, 71, 192)
    assert maps["5b.1x1"] == (35, 35, 64)
    assert maps["6e.pool"] == (17, 17, 192)
    assert maps["7c.3x3dbl_3b"] == (8, 8, 384)
    assert [layer.geometry.in_shape[2] for layer in inception_v3() if ".1x1" in layer.name] == [
        *(192, 256, 288),
        *(768, 768, 768, 768),
        *(1280, 2048),
    ]
    assert resnet50()[-2].geometry.out_shape == (7, 7, 2048)


def test_layers_know_whether_they_read_a_relu():
    inside = {layer.name: layer.rectified_in for layer in resnet50()}
    assert not inside["conv1"]
    assert not inside["linear"]
    assert inside["conv2_1_shortcut"]
    assert inside["conv5_3_expand"]


def test_folded_layers_keep_all_totals():
    layers = resnet50()
    few = folded(layers)
    assert len(few) < len(layers) / 2
    for what in ("macs", "parameters"):
        assert total(few, what) == total(layers, what)
    assert folded(few) == few


def test_a_layer_refuses_counts_out_of_range():
    geometry = Geometry(in_shape=(1, 1, 4), filters=4)
    with pytest.raises(CspError, match=r"^odd: repeat must be 1 … 2147483648, not 0$"):
        LayerShape(name="odd", geometry=geometry, repeat=0)
    with pytest.raises(CspError, match=r"^odd: per_filter must be 0 … 3, not 4$"):
        LayerShape(name="odd", geometry=geometry, per_filter=4)
