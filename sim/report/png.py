# SPDX-License-Identifier: Apache-2.0
"""Small pictures inside the page: pixels to a PNG as a ``data:`` URL."""

import base64
import struct
import zlib

import numpy as np
from numpy.typing import NDArray

#: Colour types of the PNG standard (ISO/IEC 15948, 11.2.2), by the number of channels.
COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}


def _piece(kind: bytes, data: bytes) -> bytes:
    checksum = zlib.crc32(kind + data)
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)


def encode(pixels: NDArray[np.uint8]) -> bytes:
    """Encode uint8[H, W] (grey) or uint8[H, W, channels] (grey + alpha, RGB, RGBA) as a PNG.

    Raises
    ------
    ValueError
        The array has another shape or type, or no pixel.
    """
    image = pixels[..., None] if pixels.ndim == 2 else pixels
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] not in COLOUR_TYPES:
        raise ValueError(f"cannot draw {pixels.dtype} of shape {pixels.shape}")
    height, width, channels = image.shape
    if not height or not width:
        raise ValueError(f"a picture needs pixels, shape {pixels.shape} has none")
    header = struct.pack(">IIBBBBB", width, height, 8, COLOUR_TYPES[channels], 0, 0, 0)
    # Each line begins with the number of its filter; 0 is none.
    lines = np.zeros((height, 1 + width * channels), np.uint8)
    lines[:, 1:] = image.reshape(height, -1)
    return (
        b"\x89PNG\r\n\x1a\n"
        + _piece(b"IHDR", header)
        + _piece(b"IDAT", zlib.compress(lines.tobytes(), 9))
        + _piece(b"IEND", b"")
    )


def data_url(pixels: NDArray[np.uint8]) -> str:
    """Give the picture as a URL that contains it."""
    return "data:image/png;base64," + base64.b64encode(encode(pixels)).decode("ascii")
