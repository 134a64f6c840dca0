# SPDX-License-Identifier: Apache-2.0
import csv
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs the extra 'train': make train-test")

from torch import nn

from csp_algo import container
from csp_algo.compress import counts_of
from csp_algo.train import commands, fashion_mnist, fashion_mnist_resnet8
from tests.csp_algo.train.small import striped, write_idx


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
        status = commands.train(script.recipe(), [*options, "--epochs", "2", "1", "2", *more])
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
            (["--validation", "719"], "error: 719 of 720 images leave only one to train on"),
            (["--data", "/nowhere"], "error: /nowhere/t10k-images-idx3-ubyte.gz: cannot be read"),
        ],
    )
    def test_refusals(self, script, directory, capsys, arguments, message):
        options = ["--data", str(directory), "--out", str(directory / "out")]
        assert commands.train(script.recipe(), [*options, *arguments]) == 2
        assert message in capsys.readouterr().err
