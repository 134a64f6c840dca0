# SPDX-License-Identifier: Apache-2.0
import gzip

import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs the extra 'train': make train-test")

import torch
from torch import nn

from csp_algo.errors import CspError
from csp_algo.train import data
from tests.csp_algo.train.small import write_idx


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
        images = torch.rand(500, 3, 6, 7)
        got = data.augment(images, torch.Generator().manual_seed(1), shift=2)
        seen = set()
        for before, after in zip(images, got, strict=True):
            padded = nn.functional.pad(before, (2, 2, 2, 2))
            shifted = {
                (dy, dx): padded[:, dy : dy + 6, dx : dx + 7] for dy in range(5) for dx in range(5)
            }
            places = {
                (place, mirrored)
                for place, image in shifted.items()
                for mirrored in (False, True)
                if torch.equal(after, image.flip(2) if mirrored else image)
            }
            assert len(places) == 1
            seen |= places
        assert len(seen) == 50
        again = data.augment(images, torch.Generator().manual_seed(1), shift=2)
        assert torch.equal(got, again)
