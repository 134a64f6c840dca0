# SPDX-License-Identifier: Apache-2.0
"""Records that look like those of a real run, for the tests of the report."""

import numpy as np

from sim.report.model import HostRecord, LayerRecord, Report, Sample, cascade_picture

CLASSES = ("T-shirt", "Trouser", "Pullover", "Dress", "Coat")


def layer(name: str = "conv1", **changes: object) -> LayerRecord:
    rng = np.random.default_rng(len(name))
    filters, taps, cols = 20, 60, 8
    counts = np.minimum(rng.geometric(0.5, taps) - 1, 3).astype(np.uint8)
    matrix = rng.integers(-127, 128, (filters, taps)).astype(np.int8)
    matrix[np.arange(filters)[:, None] // cols >= counts] = 0
    fields: dict[str, object] = {
        "name": name,
        "kind": "3×3 convolution",
        "in_shape": (14, 14, 6),
        "out_shape": (14, 14, filters),
        "groups": 1,
        "filters": filters,
        "taps": taps,
        "chunks": 3,
        "period": 16,
        "interleaves": (4, 8),
        "tiles": 25,
        "zero_weights": int((matrix == 0).sum()),
        "bits": 8 * (taps + cols * int(counts.sum())),
        "cascade": cascade_picture(matrix, counts, cols),
        "compared": 3920,
        "mismatches": 0,
        "cycles": 10_000,
        "bound": 9_900,
        "stalls": {"activations": 60, "weights": 0, "drain": 40},
        "slots": 640_000,
        "useful": 512_000,
        "gated": 100_000,
        "saturations": 0,
    }
    return LayerRecord(**(fields | changes))


def sample(*, label: int, golden: int, rtl: int) -> Sample:
    image = np.random.default_rng(label).integers(0, 256, (28, 28)).astype(np.uint8)
    return Sample(image=image, label=label, golden=golden, rtl=rtl)


def report(**changes: object) -> Report:
    samples = tuple(sample(label=n % 5, golden=n % 5, rtl=n % 5) for n in range(8))
    fields: dict[str, object] = {
        "network": "example",
        "description": "A network that was made up for a test",
        "preset": "csp_8x8",
        "hardware": {"rows": "8", "cols": "8", "depth": "128"},
        "simulator": "Verilator 5.048",
        "layers": (layer("conv1"), layer("conv2"), layer("linear", kind="linear")),
        "host": (HostRecord(name="pool1", kind="2×2 max pool", out_shape=(7, 7, 20)),),
        "samples": samples,
        "classes": CLASSES,
        "seconds": {"golden": 0.2, "simulation": 3.5},
        "provenance": {"csp": "0.1.0", "digest": "abc"},
        "commands": ("make demo",),
    }
    return Report(**(fields | changes))
