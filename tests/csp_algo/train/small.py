# SPDX-License-Identifier: Apache-2.0
"""Small models and images that are easy to learn."""

import gzip
import struct
from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch
from torch import nn

from csp_algo.integers import ActDtype
from csp_algo.network import Input
from csp_algo.train import data
from csp_algo.train.residual import BasicBlock


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


def data_folder(folder: Path, count: int) -> Path:
    """Write the files of Fashion-MNIST into a folder: so many images to train with, 60 to test."""
    for part, images in (("train", striped(count)), ("t10k", striped(60, seed=1))):
        write_idx(folder / f"{part}-images-idx3-ubyte.gz", images.pixels)
        write_idx(folder / f"{part}-labels-idx1-ubyte.gz", images.labels)
    return folder
