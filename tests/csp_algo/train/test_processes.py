# SPDX-License-Identifier: Apache-2.0
"""Training in processes of its own: killed and gone on with, and two of them together."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="training needs the extra 'train': make train-test")

import torch
from torch import nn

from csp_algo import container
from csp_algo.errors import CspError
from csp_algo.train import distributed
from csp_algo.train.distributed import Group
from csp_algo.train.method import Method
from tests.csp_algo.train.small import data_folder

DRIVER = Path(__file__).with_name("driver.py")
ROOT = Path(__file__).parents[3]
#: Images of the training set; 80 of them are held back, so that an epoch has 3 steps.
IMAGES = 280
#: By how much weights may differ between one process and two, of the largest of a tensor.
TOLERANCE = 1e-4


@pytest.fixture
def folder(tmp_path) -> Path:
    return data_folder(tmp_path, IMAGES)


def run(
    folder: Path,
    name: str,
    *options: str,
    kill: int = 0,
    processes: int = 1,
    dropout: float = 0.2,
) -> subprocess.CompletedProcess[str]:
    """Run the driver; what it writes is in NAME.out and NAME.work."""
    command = [sys.executable]
    if processes > 1:
        command += ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    command += [str(DRIVER), str(kill), "--data", str(folder)]
    command += [
        "--out",
        str(folder / f"{name}.out"),
        "--work",
        str(folder / f"{name}.work"),
        *options,
    ]
    settings = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "DROPOUT": str(dropout)}
    environment = {**os.environ, **settings}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def states(folder: Path, name: str) -> dict[str, torch.Tensor]:
    """Every tensor of the models in the states of a run, by stage."""
    found = {}
    for path in sorted((folder / f"{name}.work").glob("*.pt")):
        saved = torch.load(path, weights_only=True)
        stage = path.name.partition("-")[0]
        found.update({f"{stage} {key}": value for key, value in saved["model"].items()})
    return found


def log(folder: Path, name: str) -> list[str]:
    """The accuracy log without the seconds."""
    text = (folder / f"{name}.out" / "training.csv").read_text(encoding="utf-8")
    return [line.rpartition(",")[0] for line in text.splitlines()]


def test_a_killed_run_goes_on_to_the_same_bits(folder):
    whole = run(folder, "whole")
    assert whole.returncode == 0, whole.stderr
    # Within the second step of its third epoch: in the regularised, then in the fine stage.
    for taken, last in (([], "dense"), (["dense"], "fine")):
        ended = run(folder, "killed", kill=8)
        assert ended.returncode == -signal.SIGKILL
        assert re.findall(r"^(\w+): taken", ended.stdout, re.MULTILINE) == taken
        assert not list((folder / "killed.work").glob("*.new"))
        assert not (folder / "killed.out" / "network.csp").exists()
        rows = log(folder, "killed")
        assert rows == log(folder, "whole")[: len(rows)]
        assert rows[-1].startswith(f"{last},")
    resumed = run(folder, "killed")
    assert resumed.returncode == 0, resumed.stderr
    assert "fine: taken up to epoch 1" in resumed.stdout
    want, got = states(folder, "whole"), states(folder, "killed")
    assert want.keys() == got.keys()
    assert {name.partition(" ")[0] for name in want} == {"dense", "regularised", "fine", "aware"}
    for name, tensor in want.items():
        assert torch.equal(tensor, got[name]), name
    paths = (folder / f"{name}.out" / "network.csp" for name in ("whole", "killed"))
    first, second = (path.read_bytes() for path in paths)
    assert first == second
    assert log(folder, "whole") == log(folder, "killed")


@pytest.mark.parametrize("method", [Method.CASCADE, Method.SEQUENTIAL])
def test_two_processes_train_as_one_does(folder, method):
    # Two processes would draw other numbers for dropout than one.
    alone = run(folder, "alone", "--method", method, dropout=0)
    assert alone.returncode == 0, alone.stderr
    two = run(folder, "two", "--method", method, processes=2, dropout=0)
    assert two.returncode == 0, two.stderr
    # Only one of them speaks and writes.
    assert two.stdout.count("stage dense  epoch 1 ") == 1
    assert two.stdout.count("0 threads of gloo are left") == 2
    want, got = states(folder, "alone"), states(folder, "two")
    assert want.keys() == got.keys()
    for name, tensor in want.items():
        if tensor.dtype == torch.bool:
            assert torch.equal(tensor, got[name]), name
            continue
        size = float(tensor.double().abs().max())
        difference = float((tensor.double() - got[name].double()).abs().max())
        assert difference <= TOLERANCE * size, (name, difference / size)
    networks = [container.load(folder / f"{name}.out" / "network.csp") for name in ("alone", "two")]
    for first, second in zip(*(network.layers() for network in networks), strict=True):
        far = abs(first.weights().astype(int) - second.weights())
        assert far.max() <= 1
        assert (far > 0).mean() < 0.01


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("norm", "shape"), [(nn.BatchNorm1d, (8, 4)), (nn.BatchNorm2d, (8, 4, 5, 3))]
)
def test_normalisation_of_whole_batches_is_that_of_pytorch(tmp_path, norm, shape, kind):
    own, other = nn.Sequential(norm(4)), norm(4)
    distributed.synchronise(own, Group(size=2))
    x = torch.rand(shape, generator=torch.Generator().manual_seed(1)).to(kind)
    # All that the other processes have, this one has.
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path}/group", rank=0, world_size=1
    )
    try:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=kind is torch.bfloat16):
            got, want = own(x), other(x)
    finally:
        torch.distributed.destroy_process_group()
    assert got.dtype == want.dtype == kind
    torch.testing.assert_close(got, want)
    torch.testing.assert_close(own[0].running_mean, other.running_mean)
    torch.testing.assert_close(own[0].running_var, other.running_var)


class TestGroup:
    def test_alone(self):
        with distributed.joined() as group:
            assert group == Group()
            assert group.first
            assert group.total(1.5, 2) == [1.5, 2]
            model = nn.Linear(2, 2)
            assert group.wrap(model) is model

    def test_parts_make_the_batch(self):
        batch = torch.arange(12)
        parts = [Group(rank=rank, size=3).part(batch) for rank in range(3)]
        assert [len(part) for part in parts] == [4, 4, 4]
        assert torch.equal(torch.cat(parts).sort().values, batch)

    def test_a_batch_that_cannot_be_shared(self):
        with pytest.raises(
            CspError, match=r"^a batch of 64 images cannot be shared by 3 processes$"
        ):
            Group(size=3).check_batch(64)
