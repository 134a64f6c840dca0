# SPDX-License-Identifier: Apache-2.0
"""A photograph, as networks of the ImageNet family want it."""

import numpy as np
import numpy.typing as npt

from csp_algo.integers import ActDtype
from csp_algo.network import Input
from sim.workloads.packages import package_file

#: A temple (CC BY 2.0, danielbuechele), 640 × 427.
PHOTO = ("scikit-learn", "sklearn", "datasets/images/china.jpg")
#: A flower (CC BY 2.0, vultilion), 640 × 427.
FLOWER = ("scikit-learn", "sklearn", "datasets/images/flower.jpg")
#: Mean of the training images of Caffe's models: blue, green, red.
MEAN = (104.0, 117.0, 123.0)
#: One unit of the int8 input; 127 units are what a white pixel has above the mean.
SCALE = 19 / 16


def network_input(side: int) -> Input:
    """Give the input of a network of square photographs."""
    return Input(name="image", shape=(side, side, 3), dtype=ActDtype.INT8, scale=SCALE)


def photograph(side: int, photo: tuple[str, str, str] = PHOTO) -> npt.NDArray[np.int8]:
    """Give the middle of a photograph, int8 [1, side, side, 3] in units of :data:`SCALE`.

    Channels are blue, green, red, less their mean.

    Raises
    ------
    CspError
        The package is not installed.
    """
    file_name = package_file(*photo)
    from PIL import Image

    with Image.open(file_name) as file:
        width, height = file.size
        least = min(width, height)
        left, top = (width - least) // 2, (height - least) // 2
        square = file.convert("RGB").crop((left, top, left + least, top + least))
        pixels = np.asarray(square.resize((side, side), Image.Resampling.BILINEAR))
    units = np.rint((pixels[None, ..., ::-1] - np.array(MEAN)) / SCALE)
    clipped: npt.NDArray[np.float64] = np.clip(units, -128, 127)
    return clipped.astype(np.int8)
