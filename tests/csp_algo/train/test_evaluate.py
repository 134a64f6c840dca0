# SPDX-License-Identifier: Apache-2.0
import dataclasses

import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs the extra 'train': make train-test")


from csp_algo.errors import CspError
from csp_algo.integers import ActDtype, accumulate, requantise
from csp_algo.network import AvgPool, Concat, Layer, MaxPool, Network
from csp_algo.quantize import quantise
from csp_algo.train import evaluate, export, pruner
from tests.csp_algo.train.small import SMALL_INPUT, small_images, small_model, small_residual_model


class TestEvaluate:
    @staticmethod
    def network(acc_bits: int) -> Network:
        model = small_model().eval()
        pruner.prune(model, {"8": 0.6}, 4)
        floats = export.to_float_network(model, SMALL_INPUT, name="small")
        return quantise(floats, small_images(20), cols=4, period=8, acc_bits=acc_bits)

    @staticmethod
    def residual_network(acc_bits: int) -> Network:
        model = small_residual_model().eval()
        pruner.prune(model, {"c.conv2": 0.5, "c.shortcut": 0.3, "d": 0.4}, 4)
        floats = export.to_float_network(model, SMALL_INPUT, name="small")
        return quantise(floats, small_images(20), cols=4, period=8, acc_bits=acc_bits)

    @staticmethod
    def formulas(network: Network, images: np.ndarray, bits: int) -> np.ndarray:
        values = {network.input.name: images.astype(np.int64)}
        for node in network.nodes:
            x = values[node.sources[0]]
            if isinstance(node, Layer):
                groups = []
                for windows, matrix in zip(node.geometry.unfold(x), node.matrices, strict=True):
                    weights, acc = matrix.decompress().T.astype(int), 0
                    for taps in matrix.blocks():
                        run = windows[..., taps] @ weights[taps]
                        acc, _ = accumulate(acc, run, node.acc_shift, bits)
                    groups.append(acc << node.acc_shift)
                v, added = np.concatenate(groups, axis=-1) + node.bias, None
                if node.residual is not None:
                    product = values[node.residual.input] * node.residual.mult
                    added = (product + (1 << node.residual.shift >> 1)) >> node.residual.shift
                y = requantise(v, node.mult, node.shift, node.dtype, relu=node.relu, residual=added)
            elif isinstance(node, MaxPool):
                y = node.unfold(x, fill=-1000).max(axis=(3, 4))
            elif isinstance(node, AvgPool):
                total, area = node.unfold(x, fill=0).sum(axis=(3, 4)), node.divisors(x.shape[1:])
                # Of a mean so exact only halves could be rounded otherwise, and there are none.
                y = np.floor(total / area[..., None] + 0.5 + 1e-9).astype(np.int64)
            else:
                y = x.reshape(len(x), 1, 1, -1)
            values[node.name] = y
        return y

    @pytest.mark.parametrize("bits", [10, 16, 24])
    @pytest.mark.parametrize("build", ["network", "residual_network"])
    def test_equals_the_formulas(self, build, bits):
        network, images = getattr(self, build)(bits), small_images(9)
        assert any(layer.acc_shift for layer in network.layers()) == (bits < 24)
        x = self.formulas(network, images, bits)
        got = evaluate.integer_forward(network, images, acc_bits=bits)
        np.testing.assert_array_equal(got, x)
        answers = x.reshape(9, -1).argmax(axis=1)
        wrong = (answers + (np.arange(9) < 3)) % 5
        accuracy = evaluate.integer_accuracy(network, images, wrong, acc_bits=bits, batch=4)
        assert accuracy == pytest.approx(600 / 9)

    def test_integers_of_blocks_follow_the_floats(self):
        # The scales of both operands of a sum must be right, else a block is far off.
        model, images = small_residual_model().eval(), small_images(20)
        floats = export.to_float_network(model, SMALL_INPUT, name="small")
        network, wanted = quantise(floats, images, cols=4, period=8), floats.forward(images)
        seen = {}
        for end, layer in enumerate(network.nodes, start=1):
            if isinstance(layer, Layer) and layer.residual is not None:
                part = dataclasses.replace(network, nodes=network.nodes[:end])
                got = layer.scale * evaluate.integer_forward(part, images, acc_bits=24)
                want = wanted[layer.name]
                assert np.square(got - want).mean() < 2e-3 * want.var(), layer.name
                seen[layer.name] = network.dtypes()[layer.residual.input]
        int8, uint8 = ActDtype.INT8, ActDtype.UINT8
        assert seen == {"a.conv2": uint8, "b.conv2": int8, "c.conv2": int8, "f.conv2": uint8}

    def test_refuses_other_nodes(self):
        concat = Concat(name="p", inputs=("x", "x"))
        other = dataclasses.replace(self.network(24), nodes=(concat,))
        with pytest.raises(CspError, match="p: a Concat is not expected here"):
            evaluate.integer_forward(other, small_images(1), acc_bits=24)
