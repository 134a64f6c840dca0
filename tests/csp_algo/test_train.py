# SPDX-License-Identifier: Apache-2.0
import copy
import csv
import dataclasses
import gzip
import struct
from collections import OrderedDict
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs the extra 'train'")

import torch
from torch import nn

from csp_algo import cascade, container
from csp_algo.compress import counts_of
from csp_algo.errors import CspError
from csp_algo.geometry import Geometry
from csp_algo.integers import ActDtype, accumulate, requantise
from csp_algo.network import AvgPool, Concat, Input, Layer, MaxPool, Network
from csp_algo.quantize import FloatLayer, quantise
from csp_algo.train import (
    data,
    evaluate,
    export,
    fashion_mnist,
    fashion_mnist_resnet8,
    pruner,
    schedule,
)
from csp_algo.train.checkpoint import Checkpoint
from csp_algo.train.regulariser import cascade_regulariser, model_regulariser
from csp_algo.train.residual import BasicBlock


@pytest.fixture(autouse=True)
def one_thread():
    # Threads wait for each other actively: on a busy machine more of them are far slower.
    torch.set_num_threads(1)


def small_model() -> nn.Sequential:
    """Groups, stride, both batch normalisations, a partial pooling window, flatten, no bias."""
    torch.manual_seed(3)
    model = nn.Sequential(
        nn.Conv2d(2, 12, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(12),
        nn.ReLU(),
        nn.Conv2d(12, 18, (3, 1), padding=(1, 0), groups=2),
        nn.ReLU(),
        nn.MaxPool2d(2, ceil_mode=True),
        nn.Flatten(),
        nn.Dropout(0.5),
        nn.Linear(9 * 18, 20, bias=False),
        nn.BatchNorm1d(20),
        nn.ReLU(),
        nn.Linear(20, 5),
    )
    return with_statistics(model)


def small_residual_model() -> nn.Sequential:
    """Blocks with each kind of shortcut, one after the other, before and after a layer."""
    torch.manual_seed(4)
    model = nn.Sequential(
        OrderedDict(
            a=BasicBlock(2, 2),
            b=BasicBlock(2, 12),
            c=BasicBlock(12, 12, stride=2),
            d=nn.Conv2d(12, 12, 3, padding=1),
            e=nn.ReLU(),
            f=BasicBlock(12, 12),
            g=nn.AvgPool2d(2, ceil_mode=True),
            h=nn.Flatten(),
            i=nn.Linear(9 * 12, 5),
        )
    )
    return with_statistics(model)


def with_statistics(model: nn.Sequential) -> nn.Sequential:
    """Give all batch normalisations of a model some statistics, γ and β."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            for tensor in (module.weight, module.running_var):
                nn.init.uniform_(tensor, 0.5, 2)
            for tensor in (module.bias, module.running_mean):
                nn.init.normal_(tensor)
    return model


SMALL_INPUT = Input(name="x", shape=(10, 10, 2), dtype=ActDtype.UINT8, scale=1 / 255)


def small_images(count: int) -> np.ndarray:
    rng = np.random.default_rng(5)
    return rng.integers(0, 256, size=(count, 10, 10, 2)).astype(np.uint8)


def torch_images(images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(images.transpose(0, 3, 1, 2).astype(np.float32) / 255)


def write_idx(path: Path, array: np.ndarray) -> None:
    header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    path.write_bytes(gzip.compress(header + array.tobytes()))


def striped(count: int, seed: int = 0) -> data.Images:
    """Two classes that are easy to learn: a bright bar lies or stands."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, size=count).astype(np.uint8)
    pixels = rng.integers(0, 64, size=(count, 28, 28)).astype(np.uint8)
    for image, label, place in zip(pixels, labels, rng.integers(4, 20, size=count), strict=True):
        (image.T if label else image)[place : place + 3] += 190
    return data.Images(pixels=pixels, labels=labels)


class TestData:
    def test_idx(self, tmp_path):
        array = np.random.default_rng(1).integers(0, 256, size=(3, 4, 5)).astype(np.uint8)
        write_idx(tmp_path / "a.gz", array)
        assert (data.read_idx(tmp_path / "a.gz") == array).all()

    @pytest.mark.parametrize(
        ("raw", "message"),
        [
            (None, "a.gz: cannot be read"),
            (b"plain", "a.gz: cannot be read"),
            (gzip.compress(bytes(40))[:-9], "a.gz: cannot be read"),
            (gzip.compress(b"\0\0"), "not an IDX file of unsigned bytes"),
            (gzip.compress(b"\0\0\x0d\1\0\0\0\1abcd"), "not an IDX file of unsigned bytes"),
            (gzip.compress(b"\0\0\x08\2\0\0\0\1"), "the header ends after 8 bytes"),
            (gzip.compress(b"\0\0\x08\1\0\0\0\3ab"), r"2 elements, not 3 for \(3,\)"),
        ],
    )
    def test_refusals(self, tmp_path, raw, message):
        path = tmp_path / "a.gz"
        if raw is not None:
            path.write_bytes(raw)
        with pytest.raises(CspError, match=message):
            data.read_idx(path)

    def test_images_and_labels_must_match(self, tmp_path):
        write_idx(tmp_path / "t-images-idx3-ubyte.gz", np.zeros((3, 2, 2), np.uint8))
        write_idx(tmp_path / "t-labels-idx1-ubyte.gz", np.zeros(2, np.uint8))
        with pytest.raises(CspError, match=r"images \(3, 2, 2\) and labels \(2,\) do not match"):
            data.read_images(tmp_path, "t")

    def test_augmented_images_are_shifted_and_mirrored(self):
        images = torch.rand(500, 1, 6, 7)
        got = data.augment(images, torch.Generator().manual_seed(1), reach=2)
        seen = set()
        for before, after in zip(images[:, 0], got[:, 0], strict=True):
            padded = nn.functional.pad(before, (2, 2, 2, 2))
            shifted = {
                (dy, dx): padded[dy : dy + 6, dx : dx + 7] for dy in range(5) for dx in range(5)
            }
            places = {
                (place, mirrored)
                for place, image in shifted.items()
                for mirrored in (False, True)
                if torch.equal(after, image.flip(1) if mirrored else image)
            }
            assert len(places) == 1
            seen |= places
        assert len(seen) == 50
        again = data.augment(images, torch.Generator().manual_seed(1), reach=2)
        assert torch.equal(got, again)


class TestRegulariser:
    @pytest.mark.parametrize("filters", [1, 8, 10, 32])
    @pytest.mark.parametrize("cols", [4, 8])
    def test_agrees_with_numpy(self, filters, cols):
        matrix = np.random.default_rng(filters).normal(size=(filters, 13))
        matrix[:, 3] = 0
        matrix[cols:, 4] = 0
        got = float(cascade_regulariser(torch.from_numpy(matrix), cols))
        assert got == pytest.approx(cascade.regulariser(matrix, cols), rel=1e-12)

    def test_layout_of_grouped_convolutions(self):
        layer = nn.Conv2d(6, 20, (3, 2), groups=2)
        geometry = Geometry(in_shape=(8, 8, 6), filters=20, kernel=(3, 2), groups=2)
        matrices = geometry.weights_to_matrices(layer.weight.detach().numpy())
        got = float(model_regulariser([layer.weight.detach()], 4, groups=[2]))
        assert got == pytest.approx(cascade.regulariser(matrices, 4), rel=1e-5)
        np.testing.assert_array_equal(pruner.to_matrices(layer), matrices)

    def test_gradient(self):
        torch.manual_seed(0)
        matrix = torch.randn(10, 4, dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(lambda w: cascade_regulariser(w, 4), matrix)

    def test_gradient_at_zero_is_zero(self):
        matrix = torch.randn(12, 3)
        matrix[4:, 1] = 0
        matrix[:, 2] = 0
        matrix.requires_grad_()
        cascade_regulariser(matrix, 4).backward()
        assert torch.isfinite(matrix.grad).all()
        assert not matrix.grad[4:, 1].any()
        assert not matrix.grad[:, 2].any()
        assert matrix.grad[:4, 1].all()

    def test_later_tails_are_pulled_harder(self):
        matrix = torch.ones(16, 5, requires_grad=True)
        cascade_regulariser(matrix, 4).backward()
        pull = matrix.grad[::4, 0]
        assert (pull[1:] > pull[:-1]).all()


class TestPruner:
    @pytest.fixture
    def model(self):
        return small_model()

    def test_masks_are_those_of_numpy(self, model):
        before = copy.deepcopy(model)
        targets = {"0": 0.3, "3": 0.5, "8": 0.7}
        pruned = pruner.prune(model, targets, 4)
        geometries = {
            "0": Geometry(in_shape=(10, 10, 2), filters=12, kernel=(3, 3)),
            "3": Geometry(in_shape=(5, 5, 12), filters=18, kernel=(3, 1), groups=2),
            "8": Geometry(in_shape=(1, 1, 162), filters=20),
        }
        for name, geometry in geometries.items():
            old = before.get_submodule(name).weight.detach()
            new = model.get_submodule(name).weight.detach()
            matrices = geometry.weights_to_matrices(old.numpy())
            counts = cascade.counts_at(matrices, 4, pruned[name].q)
            kept = cascade.mask_of(counts, matrices.shape[1], 4)
            want = geometry.matrices_to_weights(kept)
            mask = pruned[name].mask.numpy()
            np.testing.assert_array_equal(mask, want.reshape(mask.shape))
            assert torch.equal(new, old * pruned[name].mask)
            assert abs(pruned[name].sparsity - targets[name]) < 0.03
            assert pruned[name].sparsity == pytest.approx(float((new == 0).double().mean()))
        assert torch.equal(model.get_submodule("11").weight, before.get_submodule("11").weight)

    def test_masks_obey_the_cascade(self, model):
        pruner.prune(model, {"8": 0.6}, 4)
        matrix = pruner.to_matrices(model.get_submodule("8"))[0]
        alive = matrix.reshape(5, 4, -1).any(axis=1)
        assert (alive[1:] <= alive[:-1]).all()
        assert 0 < alive.mean() < 1

    def test_unknown_layer(self, model):
        with pytest.raises(CspError, match="there is no layer 9 to prune; there are: 0, 3, 8, 11"):
            pruner.prune(model, {"9": 0.5}, 4)


class TestTraining:
    STAGE = schedule.Stage(name="some", epochs=2, rate=0.02, batch=32, seed=1)

    @staticmethod
    def train(stage: schedule.Stage, **options) -> tuple[nn.Sequential, list[schedule.Row]]:
        model = small_model()
        rng = np.random.default_rng(2)
        pixels = torch.from_numpy(rng.random((200, 1, 10, 10), dtype=np.float32))
        model[0] = nn.Conv2d(1, 12, 3, stride=2, padding=1, bias=False)
        labels = torch.from_numpy(rng.integers(0, 5, size=200))
        return model, schedule.train(model, stage, pixels, labels, cols=4, **options)

    def test_masked_weights_stay_zero(self):
        mask = torch.rand(20, 162, generator=torch.Generator().manual_seed(0)) < 0.4
        model, rows = self.train(self.STAGE, masks={"8": mask})
        weight = model[8].weight
        assert not weight[~mask].any()
        assert weight[mask].all()
        assert [row.epoch for row in rows] == [1, 2]

    def test_strength_lowers_the_regulariser_but_not_of_exempt_layers(self):
        def penalty(model: nn.Sequential, name: str) -> float:
            return cascade.regulariser(pruner.to_matrices(model.get_submodule(name)), 4)

        strong = dataclasses.replace(self.STAGE, strength=0.1)
        free, _ = self.train(self.STAGE)
        bound, rows = self.train(strong)
        partly, _ = self.train(strong, exempt=frozenset({"8"}))
        assert penalty(bound, "8") < 0.9 * penalty(free, "8")
        assert penalty(partly, "8") > 0.95 * penalty(free, "8")
        assert penalty(partly, "3") < 0.95 * penalty(free, "3")
        assert rows[-1].regulariser < rows[0].regulariser

    def test_deterministic(self):
        first, second = (self.train(self.STAGE)[0].state_dict() for _ in range(2))
        other = self.train(dataclasses.replace(self.STAGE, seed=2))[0].state_dict()
        assert all(torch.equal(first[name], second[name]) for name in first)
        assert not torch.equal(first["8.weight"], other["8.weight"])

    def test_goes_on_where_it_was_ended(self, tmp_path, capsys):
        stage = dataclasses.replace(self.STAGE, epochs=4, strength=0.01)

        def end(row: schedule.Row) -> None:
            if row.epoch == 3:
                raise KeyboardInterrupt

        def checkpoint(name: str) -> Checkpoint:
            return Checkpoint(path=tmp_path / "state" / f"{name}.pt", settings={"stage": "some"})

        whole, rows = self.train(stage)
        ended = checkpoint("ended")
        with pytest.raises(KeyboardInterrupt):
            self.train(stage, checkpoint=ended, report=end)
        assert not capsys.readouterr().out
        told: list[schedule.Row] = []
        resumed, again = self.train(stage, checkpoint=ended, report=told.append)
        assert capsys.readouterr().out == "some: taken up to epoch 2\n"
        assert [row.epoch for row in told] == [3, 4]
        # The whole run was not ended, the third is only read.
        third, once_more = self.train(stage, checkpoint=ended, report=end)
        assert capsys.readouterr().out == "some: taken as it is\n"
        for model in (resumed, third):
            for name, tensor in whole.state_dict().items():
                assert torch.equal(model.state_dict()[name], tensor), name
        timeless = [dataclasses.replace(row, seconds=None) for row in rows]
        for others in (again, once_more):
            assert [dataclasses.replace(row, seconds=None) for row in others] == timeless

    def test_divergence_is_an_error(self):
        with pytest.raises(FloatingPointError, match="some: the loss of epoch 1 is not finite"):
            self.train(dataclasses.replace(self.STAGE, rate=1e30))


class TestCheckpoint:
    def test_other_settings_are_not_taken(self, tmp_path):
        checkpoint = Checkpoint(path=tmp_path / "some.pt", settings={"seed": 1, "cols": 8})
        assert checkpoint.load() is None
        checkpoint.save({"rows": [1]})
        assert checkpoint.load() == {"rows": [1], "settings": checkpoint.key}
        same = dataclasses.replace(checkpoint, settings={"cols": 8, "seed": 1})
        assert same.load() == checkpoint.load()
        assert dataclasses.replace(checkpoint, settings={"seed": 2, "cols": 8}).load() is None

    def test_a_write_that_fails_leaves_the_old_state(self, tmp_path, monkeypatch):
        checkpoint = Checkpoint(path=tmp_path / "some.pt", settings={})
        checkpoint.save({"rows": [1]})

        def half(_: object, path: Path) -> None:
            path.write_bytes(b"half")
            raise OSError("no space")

        monkeypatch.setattr(torch, "save", half)
        with pytest.raises(OSError, match="no space"):
            checkpoint.save({"rows": [1, 2]})
        assert checkpoint.load() == {"rows": [1], "settings": "{}"}


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
        weights = schedule.weighted(model)
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


class TestFlow:
    @pytest.fixture(params=[fashion_mnist, fashion_mnist_resnet8])
    def script(self, request) -> ModuleType:
        return request.param

    @pytest.fixture
    def directory(self, tmp_path) -> Path:
        for part, images in (("train", striped(720)), ("t10k", striped(260, seed=1))):
            write_idx(tmp_path / f"{part}-images-idx3-ubyte.gz", images.pixels)
            write_idx(tmp_path / f"{part}-labels-idx1-ubyte.gz", images.labels)
        return tmp_path

    @pytest.fixture(autouse=True)
    def quick_statistics(self, script, monkeypatch):
        # A few steps must do: let the running statistics of the normalisations follow at once.
        build = script.build_model

        def quick() -> nn.Sequential:
            model = build()
            for module in model.modules():
                if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                    module.momentum = 0.6
            return model

        monkeypatch.setattr(script, "build_model", quick)

    @staticmethod
    def run(script: ModuleType, directory: Path, out: str, *more: str) -> Path:
        target = directory / out
        options = ["--data", str(directory), "--out", str(target), "--validation", "80"]
        status = script.main([*options, "--epochs", "2", "1", "2", *more])
        assert status == 0
        return target

    def test_whole_flow(self, script, directory, capsys):
        work = ["--work", str(directory / "work")]
        out = self.run(script, directory, "first", *work)
        network = container.load(out / "network.csp")
        layers = {layer.name: layer for layer in network.layers()}
        for name, target in script.TARGETS.items():
            zeros = float((layers[name].weights() == 0).mean())
            assert zeros >= target - 0.011, name
        for layer in layers.values():
            weights = layer.weights()[0]
            np.testing.assert_array_equal(counts_of(weights, 8), layer.matrices[0].counts)
        for name in layers.keys() - script.TARGETS.keys():
            assert float((layers[name].weights() == 0).mean()) < 0.2, name
        assert network.metadata["trained_by"] == f"python -m {script.__name__}"
        with (out / "training.csv").open() as file:
            rows = list(csv.DictReader(file))
        stages = [row["stage"] for row in rows]
        trained = ["dense", "dense", "regularised", "pruned", "fine", "fine", "int8"]
        assert stages == [*trained, "dense", "fine", "int8"]
        # The task is easy: whoever loses the weights or their order on the way shows here.
        assert float(rows[-1]["test"]) > 90
        assert abs(float(rows[-1]["test"]) - float(rows[-2]["test"])) < 3

        # From the saved stages, and all the way again, the same bytes come out.
        capsys.readouterr()
        second = self.run(script, directory, "second", *work)
        assert capsys.readouterr().out.count("taken as it is") == 3
        third = self.run(script, directory, "third")
        names = {path.name for path in out.iterdir()} - {"training.csv"}
        assert names == {"network.csp"} | ({"images.npz"} if script is fashion_mnist else set())
        for name in names:
            assert (second / name).read_bytes() == (out / name).read_bytes()
            assert (third / name).read_bytes() == (out / name).read_bytes()
        if script is fashion_mnist:
            samples, test = np.load(out / "images.npz"), striped(260, seed=1)
            np.testing.assert_array_equal(samples["images"][..., 0], test.pixels[:256])
            np.testing.assert_array_equal(samples["labels"], test.labels[:256])

    @pytest.mark.parametrize("script", [fashion_mnist])
    def test_another_plan_does_not_take_old_stages(self, script, directory, capsys):
        work = ["--work", str(directory / "work")]
        self.run(script, directory, "first", *work, "--target", "linear6=0.5")
        capsys.readouterr()
        self.run(script, directory, "second", *work, "--target", "linear6=0.6")
        assert capsys.readouterr().out.count("taken as it is") == 2
        self.run(script, directory, "third", *work, "--target", "linear6=0.6", "--seed", "2")
        assert "taken as it is" not in capsys.readouterr().out

    @pytest.mark.parametrize("script", [fashion_mnist])
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--target", "conv2"], "error: --target 'conv2' is not LAYER=SHARE"),
            (["--validation", "720"], "error: 720 of 720 images leave none to train on"),
            (["--data", "/nowhere"], "error: /nowhere/t10k-images-idx3-ubyte.gz: cannot be read"),
        ],
    )
    def test_refusals(self, script, directory, capsys, arguments, message):
        options = ["--data", str(directory), "--out", str(directory / "out")]
        assert script.main([*options, *arguments]) == 2
        assert message in capsys.readouterr().err
