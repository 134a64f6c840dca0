# SPDX-License-Identifier: Apache-2.0
"""Fashion-MNIST from the IDX files of Debian's package ``dataset-fashion-mnist``."""

import dataclasses
import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from csp_algo.errors import CspError

#: Where the Debian package puts the four files.
FASHION_MNIST_DIRECTORY = Path("/usr/share/datasets/fashion-mnist")
#: An IDX file's third byte for unsigned bytes, the only element type of these data sets.
_IDX_UINT8 = 0x08


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Images:
    """Labelled grey images.

    Attributes
    ----------
    pixels : uint8[N, H, W]
    labels : uint8[N]
    """

    pixels: NDArray[np.uint8]
    labels: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, part: slice) -> "Images":
        return Images(pixels=self.pixels[part], labels=self.labels[part])


def read_idx(path: Path) -> NDArray[np.uint8]:
    """Read a gzipped IDX file of unsigned bytes.

    The format is that of the MNIST page: two zero bytes, the type, the number of dimensions, each
    dimension as a big-endian 32-bit integer, then the elements, last dimension fastest.

    Raises
    ------
    CspError
        The file is missing, not gzip, not IDX of unsigned bytes, or has the wrong length.
    """
    try:
        raw = gzip.decompress(path.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise CspError(f"{path}: cannot be read: {error}") from error
    if len(raw) < 4 or raw[:2] != b"\0\0" or raw[2] != _IDX_UINT8:
        raise CspError(f"{path}: not an IDX file of unsigned bytes")
    dimensions = raw[3]
    start = 4 + 4 * dimensions
    if len(raw) < start:
        raise CspError(f"{path}: the header ends after {len(raw)} bytes")
    shape = struct.unpack(f">{dimensions}I", raw[4:start])
    expected = math.prod(shape)
    if len(raw) - start != expected:
        raise CspError(f"{path}: {len(raw) - start} elements, not {expected} for {shape}")
    return np.frombuffer(raw, np.uint8, offset=start).reshape(shape)


def read_images(directory: Path, part: str) -> Images:
    """Read the ``train`` or the ``t10k`` images and labels of a directory.

    Raises
    ------
    CspError
        A file cannot be read, or the two files do not fit together.
    """
    pixels = read_idx(directory / f"{part}-images-idx3-ubyte.gz")
    labels = read_idx(directory / f"{part}-labels-idx1-ubyte.gz")
    if pixels.ndim != 3 or labels.ndim != 1 or len(pixels) != len(labels):
        raise CspError(
            f"{directory}: {part} images {pixels.shape} and labels {labels.shape} do not match"
        )
    return Images(pixels=pixels, labels=labels)


def to_tensor(images: Images) -> tuple[torch.Tensor, torch.Tensor]:
    """Give pixels as float32[N, 1, H, W] in 0 … 1 and labels as int64[N].

    The scale 1/255 without a mean keeps the zero point of the integer network at 0.
    """
    pixels = torch.from_numpy(images.pixels.astype(np.float32) / 255).unsqueeze(1)
    return pixels, torch.from_numpy(images.labels.astype(np.int64))


def augment(pixels: torch.Tensor, generator: torch.Generator, *, shift: int) -> torch.Tensor:
    """Shift each image by up to ``shift`` pixels, filling with 0, and mirror half of them.

    Parameters
    ----------
    pixels : float[N, C, H, W]
    generator : torch.Generator
        The only source of chance.
    """
    count, channels, height, width = pixels.shape
    padded = torch.nn.functional.pad(pixels, (shift, shift, shift, shift))
    dy = torch.randint(0, 2 * shift + 1, (count, 1), generator=generator)
    dx = torch.randint(0, 2 * shift + 1, (count, 1), generator=generator)
    mirrored = torch.rand((count, 1), generator=generator) < 0.5
    y = torch.arange(height) + dy
    forward = torch.arange(width).expand(count, width)
    x = torch.where(mirrored, width - 1 - forward, forward) + dx
    image, channel = torch.arange(count)[:, None, None, None], torch.arange(channels)[:, None, None]
    return padded[image, channel, y[:, None, :, None], x[:, None, None, :]]
