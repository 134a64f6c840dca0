# SPDX-License-Identifier: Apache-2.0
import dataclasses
from typing import BinaryIO

import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs the extra 'train': make train-test")

import torch
from torch import nn

from csp_algo import cascade
from csp_algo.errors import CspError
from csp_algo.train import pruner, schedule
from csp_algo.train.checkpoint import Checkpoint
from csp_algo.train.distributed import Group
from csp_algo.train.layers import prunable
from tests.csp_algo.train.small import small_model


class TestTraining:
    STAGE = schedule.Stage(name="some", epochs=2, rate=0.02, batch=32, seed=1)

    @staticmethod
    def train(
        stage: schedule.Stage, *, masks=None, **options
    ) -> tuple[nn.Sequential, list[schedule.Row]]:
        model = small_model()
        rng = np.random.default_rng(2)
        pixels = torch.from_numpy(rng.random((200, 1, 10, 10), dtype=np.float32))
        model[0] = nn.Conv2d(1, 12, 3, stride=2, padding=1, bias=False)
        labels = torch.from_numpy(rng.integers(0, 5, size=200))
        if masks:
            pruner.prune(model, masks, 4)
        return model, schedule.train(model, stage, pixels, labels, **options)

    def test_masked_weights_stay_zero(self):
        model, rows = self.train(self.STAGE, masks={"8": 0.4})
        mask = pruner.mask_of(prunable(model)["8"])
        pruner.release(model)
        weight = model[8].weight
        assert 0.3 < float((~mask).double().mean()) < 0.5
        assert not weight[~mask].any()
        assert weight[mask].all()
        assert [row.epoch for row in rows] == [1, 2]

    def test_strength_lowers_the_regulariser_but_not_of_exempt_layers(self):
        def penalty(model: nn.Sequential, name: str) -> float:
            return cascade.regulariser(pruner.to_arrays(prunable(model)[name]), 4)

        strong = dataclasses.replace(self.STAGE, strength=0.1)
        free, _ = self.train(self.STAGE)
        bound, rows = self.train(strong, pull=schedule.Pull(cols=4))
        partly, _ = self.train(strong, pull=schedule.Pull(cols=4, exempt=frozenset({"8"})))
        assert penalty(bound, "8") < 0.9 * penalty(free, "8")
        assert penalty(partly, "8") > 0.95 * penalty(free, "8")
        assert penalty(partly, "3") < 0.95 * penalty(free, "3")
        assert rows[-1].regulariser < rows[0].regulariser

    def test_deterministic(self):
        first, second = (self.train(self.STAGE)[0].state_dict() for _ in range(2))
        other = self.train(dataclasses.replace(self.STAGE, seed=2))[0].state_dict()
        assert all(torch.equal(first[name], second[name]) for name in first)
        assert not torch.equal(first["8.weight"], other["8.weight"])

    def test_bfloat16_is_for_the_layers_only(self):
        kinds = set()

        def note(module: nn.Module, _: object, output: torch.Tensor) -> None:
            if module.training and isinstance(module, nn.Conv2d | nn.Linear):
                kinds.add(output.dtype)

        handle = nn.modules.module.register_module_forward_hook(note)
        try:
            plain, rows = self.train(self.STAGE)
            assert kinds == {torch.float32}
            kinds.clear()
            model, others = self.train(dataclasses.replace(self.STAGE, bfloat16=True))
            assert kinds == {torch.bfloat16}
        finally:
            handle.remove()
        state = model.state_dict()
        assert {tensor.dtype for tensor in state.values() if tensor.is_floating_point()} == {
            torch.float32
        }
        assert not torch.equal(state["8.weight"], plain.state_dict()["8.weight"])
        for row, other in zip(rows, others, strict=True):
            assert row.loss == pytest.approx(other.loss, rel=0.02)

    def test_goes_on_where_it_was_ended(self, tmp_path, capsys):
        stage = dataclasses.replace(self.STAGE, epochs=4)

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

    def test_a_strength_needs_a_penalty(self):
        with pytest.raises(CspError, match=r"^some: λ is 0.1, but there is no penalty$"):
            self.train(dataclasses.replace(self.STAGE, strength=0.1))

    def test_a_last_small_batch_must_be_shared_evenly(self):
        # There are 200 images, so that is the batch.
        stage = dataclasses.replace(self.STAGE, batch=240)
        message = r"^a batch of 200 images cannot be shared by 3 processes$"
        with pytest.raises(CspError, match=message):
            self.train(stage, group=Group(size=3))

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

        def half(_: object, file: BinaryIO) -> None:
            file.write(b"half")
            raise OSError("no space")

        monkeypatch.setattr(torch, "save", half)
        with pytest.raises(OSError, match="no space"):
            checkpoint.save({"rows": [1, 2]})
        assert checkpoint.load() == {"rows": [1], "settings": "{}"}

    @pytest.mark.parametrize("cut", [0, 10, 200])
    def test_half_a_file_is_no_checkpoint(self, tmp_path, cut):
        checkpoint = Checkpoint(path=tmp_path / "some.pt", settings={})
        checkpoint.save({"rows": [1]})
        checkpoint.path.write_bytes(checkpoint.path.read_bytes()[:cut])
        with pytest.raises(CspError, match=r"some.pt: is no checkpoint: "):
            checkpoint.load()

    def test_each_setting_has_its_file(self, tmp_path):
        one, same, other = (
            Checkpoint.of(tmp_path, "some", settings)
            for settings in ({"a": 1, "b": 2}, {"b": 2, "a": 1}, {"a": 1, "b": 3})
        )
        assert one.path == same.path != other.path
