# SPDX-License-Identifier: Apache-2.0
import dataclasses

import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs the extra 'train': make train-test")

import torch
from torch import nn

from csp_algo.errors import CspError
from csp_algo.network import Network
from csp_algo.quantize import FloatLayer
from csp_algo.train import evaluate, export, fashion_mnist_resnet8
from csp_algo.train.layers import prunable
from tests.csp_algo.train.small import (
    SMALL_INPUT,
    small_images,
    small_model,
    small_residual_model,
    torch_images,
)


class TestExport:
    @pytest.mark.parametrize("build", [small_model, small_residual_model])
    def test_float_network_equals_torch(self, build):
        model, images = build().eval(), small_images(6)
        network = export.to_float_network(model, SMALL_INPUT, name="small")
        with torch.inference_mode():
            want = model.double()(torch_images(images).double()).numpy()
        got = network.forward(images)[network.nodes[-1].name]
        # Pixels of the torch model went through float32.
        np.testing.assert_allclose(got.reshape(6, 5), want, rtol=1e-5, atol=1e-6)

    def test_graph_of_blocks(self):
        network = export.to_float_network(small_residual_model(), SMALL_INPUT, name="small")
        layers = [node for node in network.nodes if isinstance(node, FloatLayer)]
        assert [(layer.name, *layer.sources) for layer in layers] == [
            ("a.conv1", "x"),
            ("a.conv2", "a.conv1", "x"),
            ("b.conv1", "a.conv2"),
            ("b.shortcut", "a.conv2"),
            ("b.conv2", "b.conv1", "b.shortcut"),
            ("c.conv1", "b.conv2"),
            ("c.shortcut", "b.conv2"),
            ("c.conv2", "c.conv1", "c.shortcut"),
            ("d", "c.conv2"),
            ("f.conv1", "d"),
            ("f.conv2", "f.conv1", "d"),
            ("i", "h"),
        ]
        assert {layer.name for layer in layers if not layer.relu} == {
            "b.shortcut",
            "c.shortcut",
            "i",
        }

    def test_weights_have_the_names_that_pruning_knows(self):
        model = fashion_mnist_resnet8.build_model()
        network = export.to_float_network(
            model, dataclasses.replace(SMALL_INPUT, shape=(28, 28, 1)), name="some"
        )
        layers = [node for node in network.nodes if isinstance(node, FloatLayer)]
        weights = prunable(model)
        assert {layer.name for layer in layers} == set(weights)
        assert sum(layer.weight.numel() for layer in weights.values()) == 77_072
        macs = 0
        for layer in layers:
            height, width, _ = layer.geometry.out_shape
            macs += height * width * layer.weights.size
        assert round(macs / 1e6, 1) == 9.3

    @pytest.mark.parametrize("include", [True, False])
    @pytest.mark.parametrize(
        ("kernel", "stride", "padding", "ceil", "divisors"),
        [
            (10, 1, 0, False, (100, 100)),
            (3, 2, 1, False, (4, 9)),
            ((3, 2), 3, 0, True, (1, 6)),
            (2, 3, 1, True, (1, 4)),
            (1, 1, 0, False, (1, 1)),
        ],
    )
    def test_average_pools(self, kernel, stride, padding, ceil, divisors, include):
        module = nn.AvgPool2d(
            kernel, stride, padding, ceil_mode=ceil, count_include_pad=include
        ).eval()
        images = small_images(3)
        network = export.to_float_network(nn.Sequential(module), SMALL_INPUT, name="small")
        want = module(torch_images(images)).numpy().transpose(0, 2, 3, 1)
        np.testing.assert_allclose(network.forward(images)["0"], want, rtol=1e-5, atol=1e-6)
        (pool,) = network.nodes
        shape = SMALL_INPUT.shape
        found = pool.divisors(shape)
        if not include:
            assert (found.min(), found.max()) == divisors
        assert 2**15 <= pool.multipliers(shape).max() < 2**16
        # To half a unit, as integers: the mean of the pixels as they are.
        integers = Network(name="n", input=SMALL_INPUT, nodes=(pool,), cols=4, period=8)
        got = evaluate.integer_forward(integers, images, acc_bits=24)
        assert np.abs(got - 255 * want).max() < 0.51

    @pytest.mark.parametrize(
        ("modules", "message"),
        [
            ([nn.Tanh()], "0: a Tanh cannot stand here"),
            ([nn.ReLU()], "0: a ReLU cannot stand here"),
            ([nn.Conv2d(2, 4, 3, padding="same")], "0: padding 'same'"),
            ([nn.Conv2d(2, 4, 3, padding=1, padding_mode="reflect")], "0: padding .*reflect"),
            ([nn.MaxPool2d(2, dilation=2)], "0: a max pool with dilation 2"),
            ([nn.AvgPool2d(2, divisor_override=3)], "0: an average pool with divisor 3"),
            ([nn.Flatten(2)], "0: only a Flatten of all dimensions but the first"),
            (
                [nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4, track_running_stats=False)],
                "0: batch normalisation needs running statistics",
            ),
        ],
    )
    def test_refusals(self, modules, message):
        with pytest.raises(CspError, match=message):
            export.to_float_network(nn.Sequential(*modules), SMALL_INPUT, name="bad")
