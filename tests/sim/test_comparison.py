# SPDX-License-Identifier: Apache-2.0
"""The comparison with other accelerators, on a network of three small layers."""

import csv
import dataclasses
import io
import json
import math

import pytest
from rich.console import Console

from csp_algo.errors import CspError
from csp_algo.geometry import Geometry
from sim.model.constants import Constants
from sim.peers import csp_h
from sim.peers.base import Cost, Part, Traffic
from sim.peers.csp_h import CspH
from sim.peers.sparten import Balance, simulate
from sim.report.comparison import chain, files, levers, page, run, sensitivity, svg
from sim.report.comparison.accelerators import (
    OURS,
    RIVAL,
    RIVAL_CASCADE,
    accelerators,
    sparten_key,
)
from sim.report.comparison.levers import Kind
from sim.report.comparison.record import Comparison, compare
from sim.workloads import catalogue
from sim.workloads.catalogue import Work, Workload
from sim.workloads.operands import Pruning, operands
from sim.workloads.shapes.layer import LayerShape
from tests.command import csp
from tests.sim.pages import check_self_contained, parse, words

SHAPES = (
    LayerShape(
        name="conv<1>",
        geometry=Geometry(in_shape=(12, 12, 32), filters=64, kernel=(3, 3), padding=(1, 1, 1, 1)),
    ),
    LayerShape(name="expand", geometry=Geometry(in_shape=(12, 12, 64), filters=160), repeat=2),
    LayerShape(name="fc", geometry=Geometry(in_shape=(1, 1, 160), filters=40)),
)
WORKS = tuple(
    Work(shape=shape, weights=weights, inputs=inputs, outputs=0.5)
    for shape, weights, inputs in zip(SHAPES, (0.5, 0.25, 0.3), (1.0, 0.5, 0.4), strict=True)
)
NETWORK = Workload(
    name="small & <b>bold</b>", works=WORKS, weight_source="made up", activation_source="made up"
)


@pytest.fixture(scope="module")
def told():
    return []


@pytest.fixture(scope="module")
def network(told):
    return compare(NETWORK, lambda what, share: told.append((what, share)))


@pytest.fixture(scope="module")
def record(network):
    return Comparison(
        networks=(network,),
        accelerators=accelerators(),
        config=CspH(),
        constants=Constants(),
        provenance={"command": "csp report <x>"},
    )


def test_costs_are_those_of_the_models(record, network):
    for layer, work in zip(network.layers, WORKS, strict=True):
        ours = csp_h.cost(work)
        assert layer.costs[OURS].cycles == ours.cycles
        assert layer.costs[OURS].core == ours.core
        for key, pruning in ((RIVAL, Pruning.UNSTRUCTURED), (RIVAL_CASCADE, Pruning.CASCADE)):
            found = simulate(work, operands(work, pruning))
            assert layer.costs[key] == found[layer.costs[key].balance]
    for one in record.shown(network):
        layers = [layer.costs[one.key] for layer in network.layers]
        assert network.totals[one.key].cycles == sum(cost.cycles for cost in layers)
        assert network.totals[one.key].units == 1024
    assert network.ours.actions.useful == sum(
        one.costs[OURS].actions.useful for one in network.layers
    )
    assert sum(network.ours.components.values()) == pytest.approx(sum(network.ours.core.values()))


def test_progress_is_told_in_order(network, told):
    assert network.layers
    shares = [share for _, share in told]
    assert shares == sorted(shares)
    assert 0 == shares[0] < shares[-1] < 1
    names = [what for what, _ in told]
    assert names[:3] == [shape.name for shape in SHAPES]
    assert names[3:] == [*(parameter.name for parameter in sensitivity.PARAMETERS), "levers"]


def test_no_layer_is_above_its_roofs(network):
    config = CspH().core
    for layer in network.layers:
        roof = layer.roof
        assert roof.limit in page.LIMITS
        assert roof.rate <= config.elements
        assert roof.rate <= config.config.cols * roof.per_byte
        assert roof.rate <= config.config.cols * roof.per_sum
        # The bound of each path holds for all repeats.
        assert max(roof.paths.values()) <= roof.cycles
    # 64 taps at a quarter of the weights, for 32 rows: fewer products than places in the drain.
    assert network.layers[1].roof.limit == "drain"
    assert sum(share for _, _, share in page.binding(network)) == pytest.approx(1)


def test_chains_go_all_the_way(network):
    rival, ours = network.totals[RIVAL], network.totals[OURS]
    for steps, first, last in (
        (network.energy_chain, rival.total(refetch=True), ours.total()),
        (network.cycle_chain, rival.cycles, ours.cycles),
    ):
        assert steps[0].value == first
        assert steps[0].factor is None
        assert steps[-1].value == pytest.approx(last)
        assert math.prod(step.factor for step in steps[1:]) == pytest.approx(first / last)


def cost_of(core, *, refetched=0.0, cycles=100.0, weights=0.0):
    traffic = Traffic(weights=weights, inputs=0, outputs=0, refetched=refetched)
    return Cost(
        name="x",
        cycles=cycles,
        units=4,
        useful=100,
        core=core,
        traffic=traffic,
        constants=Constants(),
    )


def test_energy_chain_by_hand():
    rival = cost_of({Part.MAC: 10, Part.IDLE: 50, Part.JOIN: 40}, refetched=1)
    cascade = cost_of({Part.MAC: 10, Part.IDLE: 20, Part.JOIN: 40})
    ours = cost_of({Part.MAC: 12, Part.IDLE: 5, Part.REGISTER: 30, Part.BUFFER: 3}, weights=1)
    values = [step.value for step in chain.energy(rival, cascade, ours)]
    # A byte of DRAM takes 64 pJ.
    assert values == [164, 100, 70, 55, 15, 18, 48, 50, 114]


def test_sensitivity(network):
    sweeps = {sweep.name: sweep for sweep in network.sweeps}
    whole = network.totals[OURS]
    for sweep in sweeps.values():
        assert sweep.base.cycles == pytest.approx(whole.cycles)
        assert sweep.base.energy == pytest.approx(whole.total(refetch=True))
    period = sweeps["truncation period T"]
    assert period.points[0].value == 1
    assert period.points[0].energy > 1.1 * period.base.energy
    batch = sweeps["batch"]
    assert batch.points[-1].energy < batch.base.energy
    bits = sweeps["width of a partial sum"]
    assert [point.value for point in bits.points] == [16, 20, 24, 28, 32]
    assert bits.points[0].energy < bits.base.energy < bits.points[-1].energy


def test_levers(network):
    usual = network.totals[OURS].total(refetch=True)
    pulled = {lever.name: lever for lever in network.levers}
    assert len(pulled) == len(levers.LEVERS)
    factors = [lever.factor for lever in network.levers]
    assert factors == sorted(factors, reverse=True)
    for lever in network.levers:
        assert lever.factor == pytest.approx(usual / lever.energy)
        if lever.kind is Kind.BUILT:
            assert lever.factor < 1
    # Where nothing is counted once for several levers.
    for lever in levers.LEVERS:
        costs = csp_h.network_costs(NETWORK, config=lever.pull(CspH()))
        whole = sum(cost.total(refetch=True) for cost in costs)
        assert pulled[lever.name].energy == pytest.approx(whole), lever.name


def test_what_cannot_be_built_is_told_with_its_reason():
    parameter = next(
        p for p in sensitivity.PARAMETERS if p.name == "rows of the array, as many elements"
    )
    odd = dataclasses.replace(parameter, values=(32, 128))
    sweep = sensitivity.sweep(NETWORK, odd, CspH(), Constants())
    assert sweep.points[1].cycles is None
    assert sweep.points[1].reason == "rows must be 1 … 64, not 128"
    assert sweep.base == sweep.points[0]


def test_dram(network):
    totals = network.totals
    found = sensitivity.dram(totals, bits=(0.0, 8.0))
    for key, (without, usual) in found.items():
        assert without == pytest.approx(sum(totals[key].core.values()))
        assert usual == pytest.approx(totals[key].total(refetch=True))


@pytest.fixture(scope="module")
def text(record):
    return page.render(record)


def test_page_is_self_contained(text):
    check_self_contained(text)


def test_page_tells_the_figures(text, record, network):
    found = words(text)
    ours, rival = network.totals[OURS], network.totals[RIVAL]
    assert f"{svg.number(rival.cycles / ours.cycles)} ×" in found
    assert "small & <b>bold</b>" in found  # as text, not as a tag
    assert "conv<1>" in found
    assert "csp report <x>" in found
    for one in record.all_shown:
        assert one.title in found
        assert one.source in found
    for name in ("Horowitz, ISSCC 2014", "CACTI 7", "made up", "pJ/bit", " 13.82 ", " 35 300 "):
        assert name in found
    assert "drawn with seed 0" in found
    assert "but for trained networks, which have their own" in found
    for name in (*(lever.name for lever in network.levers), *Kind):
        assert name in found
    assert "nan" not in found.lower().split()
    assert "inf" not in found.lower().split()
    titles = {tag for tag, _ in parse(text).found}
    assert {"svg", "rect", "circle", "polyline", "table", "details"} <= titles


def test_page_has_everyone_in_every_layer(text, record, network):
    found = words(text)
    for name, figure, divisor in (
        ("Everyone’s cycles, thousands", page.cycles, 1e3),
        ("Everyone’s energy, µJ, with inputs fetched again", page.energy, 1e6),
    ):
        table = found[found.index(name) :]
        for layer in network.layers:
            costs = [layer.costs[one.key] for one in record.shown(network)]
            row = " ".join(svg.number(figure(cost) / divisor) for cost in costs)
            assert f"{layer.name} {row.replace(chr(0x202F), ' ')}" in table


def test_published_weights_are_compared_where_there_are_some():
    published = tuple(dataclasses.replace(work, published=0.2) for work in WORKS[2:])
    other = Workload(
        name="other",
        works=published,
        weight_source="made up",
        activation_source="made up",
        published_source="a paper",
    )
    here, there = (
        compare(workload, lambda *_: None)
        for workload in (other, dataclasses.replace(NETWORK, works=WORKS[2:]))
    )
    record = Comparison(
        networks=(here, there),
        accelerators=accelerators(),
        config=CspH(),
        constants=Constants(),
    )
    key = sparten_key(Balance.GB_H, Pruning.PUBLISHED)
    found = simulate(published[0], operands(published[0], Pruning.PUBLISHED))
    assert here.totals[key].cycles == found[Balance.GB_H].cycles
    assert key not in there.totals
    assert len(record.shown(here)) == len(record.shown(there)) + len(Balance)
    assert record.all_shown == record.shown(here)
    found = words(page.render(record))
    assert "Published densities of unstructured weights: a paper." in found
    assert "SparTen GB-H, published" in found
    rows = list(csv.DictReader(io.StringIO(files.as_csv(record))))
    assert {row["network"] for row in rows if row["accelerator"] == key} == {"other"}


def test_shares_add_up(record, network):
    found = page.unit_cycles(record, network)
    assert len(found) == 6
    for _, shares in found:
        assert sum(shares) == pytest.approx(1)
        assert min(shares) >= 0
    energies = [value for _, value in page.components(network)]
    assert energies == sorted(energies, reverse=True)
    assert sum(energies) == pytest.approx(page.chip(network))


def test_bars_are_as_long_as_the_energy(record, network):
    drawn = parse(page.energy_bars(record, network)).found
    widths = [float(a["width"]) for tag, a in drawn if tag == "rect"]
    # The first bar is ours: what is not drawn is too small to be seen.
    energy = network.totals[OURS].energy()
    shown = [part for part in page.PARTS if energy.get(part, 0) > 0.01 * max(energy.values())]
    assert widths[0] / widths[1] == pytest.approx(energy[shown[0]] / energy[shown[1]], rel=0.01)


def test_page_without_sparten(network):
    layers = tuple(
        dataclasses.replace(
            layer, costs={one.key: layer.costs[one.key] for one in accelerators(sparten=False)}
        )
        for layer in network.layers
    )
    network = dataclasses.replace(network, layers=layers)
    assert not network.compared
    assert network.energy_chain == network.cycle_chain == ()
    record = Comparison(
        networks=(network,),
        accelerators=accelerators(sparten=False),
        config=CspH(),
        constants=Constants(),
    )
    found = words(page.render(record))
    assert "At equal area" not in found
    assert "CSP-H" in found


def test_rows_add_up(record):
    found = list(csv.DictReader(io.StringIO(files.as_csv(record))))
    (network,) = record.networks
    assert len(found) == (len(WORKS) + 1) * len(record.shown(network))
    for one in record.shown(network):
        mine = [row for row in found if row["accelerator"] == one.key]
        *layers, whole = mine
        assert whole["layer"] == ""
        assert sum(float(row["cycles"]) for row in layers) == pytest.approx(float(whole["cycles"]))
        for row in mine:
            parts = sum(float(row[f"{part}_pJ"]) for part in Part)
            assert parts + float(row["refetched_dram_pJ"]) == pytest.approx(float(row["total_pJ"]))


def test_json_has_everything(record, network):
    document = json.loads(files.as_json(record))
    (found,) = document["networks"]
    assert found["totals"][RIVAL]["cycles"] == network.totals[RIVAL].cycles
    assert found["totals"][RIVAL]["barrier_unit_cycles"] > 0
    assert [layer["name"] for layer in found["layers"]] == [shape.name for shape in SHAPES]
    assert sum(found["components_pJ"].values()) == pytest.approx(sum(network.ours.core.values()))
    assert document["constants"]["dram bit"]["source"]
    assert document["hardware"]["rows"] == 32
    assert document["equal_area"][0]["elements"] < 1024


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setitem(catalogue.SHAPES, "small", lambda: SHAPES[-1:])


@pytest.mark.usefixtures("small")
def test_command_line(tmp_path, capfd):
    folder = tmp_path / "made" / "here"
    assert csp("report", "small", "-o", folder, "--setting", "low", "--no-sparten") == 0
    out = capfd.readouterr().out
    assert "small: 1 layers, " in out
    assert "  activations: drawn per layer from beta(mean 0.45, ν 20), assumed" in out
    assert {path.name for path in folder.iterdir()} == {files.PAGE, files.JSON, files.CSV}
    document = json.loads((folder / files.JSON).read_text("utf-8"))
    assert document["setting"] == "low"
    command = document["provenance"]["command"]
    assert command == "csp report small --setting low --seed 0 --no-sparten"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["lenet"], "csp: no network 'lenet'; there are alexnet, vgg16, resnet50, "),
        (["alexnet", "--seed", "-1"], "csp: --seed must not be negative, not -1"),
        (["alexnet", "-o", "{file}"], "csp: {file}: cannot be made: File exists"),
        (["alexnet", "-o", "{folder}"], "csp: {folder}/comparison.csv: cannot be written"),
        (["alexnet", "-o", "/proc/nothing"], "csp: /proc/nothing: cannot be made: "),
    ],
)
def test_errors_come_before_the_work(arguments, message, tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(run, "compare", None)  # would fail
    file, folder = tmp_path / "file", tmp_path / "folder"
    file.touch()
    (folder / files.CSV).mkdir(parents=True)
    names = {"file": file, "folder": folder}
    arguments = [argument.format(**names) for argument in arguments]
    assert csp("report", *arguments) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert err.startswith(message.format(**names))
    assert err.count("\n") == 1


@pytest.mark.usefixtures("small")
def test_a_missing_package_is_told_before_the_work(tmp_path, capfd, monkeypatch):
    def missing(name):
        raise CspError(f"the package of {name} is not installed")

    monkeypatch.setattr(run, "real_workload", missing)
    monkeypatch.setattr(run, "compare", None)  # would fail
    assert csp("report", "small", "vgg16_hed", "-o", tmp_path) == 2
    out, err = capfd.readouterr()
    assert (out, err) == ("", "csp: the package of vgg16_hed is not installed\n")
    assert not list(tmp_path.iterdir())


def test_names_are_taken_once_and_all_are_the_default():
    assert run.named(["vgg16", "alexnet", "vgg16"]) == ("vgg16", "alexnet")
    assert run.named([]) == tuple(catalogue.SHAPES)


def test_table_tells_both(record, network):
    console = Console(width=120, file=io.StringIO(), force_terminal=False)
    console.print(run.table(record))
    text = console.file.getvalue()
    rival, ours = network.totals[RIVAL], network.totals[OURS]
    assert svg.number(rival.cycles / ours.cycles) in text


def test_a_folder_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    def refuse(path, _):
        raise CspError(f"{path}: cannot be written: Permission denied")

    monkeypatch.setattr(files, "write_atomically", refuse)
    with pytest.raises(CspError, match=r"cannot be written: Permission denied$"):
        files.prepare(tmp_path)
