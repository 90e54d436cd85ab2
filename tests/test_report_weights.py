"""What reports say of weights, against plain Python on run folders made by hand."""

from dataclasses import replace
from itertools import pairwise, product
from math import isnan, nan, prod, sqrt
from pathlib import Path
from statistics import fmean, pstdev

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from report_drawn import overlapping_ticks

from lth_lightning.report import layers_left, runs, weights
from lth_lightning.report.figure import Choice, Picture
from lth_lightning.report.figures.connectivity import incoming, outgoing
from lth_lightning.report.figures.distributions import Histogram, growth, initializations, movement
from lth_lightning.report.lines import COLOURS, DENSE, lines
from lth_lightning.report.runs import Run
from lth_lightning.results.record import Record, write_table

SHAPES = {"net.conv.weight": (4, 3, 3, 3), "net.fc.weight": (20, 16), "net.output.weight": (5, 20)}
DENSITIES = {0: 1.0, 1: 0.5, 2: 0.2}
FIGURES = (initializations, movement, growth, incoming, outgoing)


def write_run(folder: Path, shapes=SHAPES, densities=DENSITIES, replicates=2, step=0) -> None:
    """A finished run of random masks, each within the one before, and weights that a training might leave."""
    records = []
    for replicate in range(replicates):
        generator = torch.Generator().manual_seed(replicate)

        def draw(shape, generator=generator):
            return torch.randn(shape, generator=generator)

        start = {name: 0.1 * draw(shape) for name, shape in shapes.items()}
        order = {name: draw(shape).flatten().argsort().view(shape) for name, shape in shapes.items()}
        base = folder / f"replicate_{replicate}"
        for level, density in densities.items():
            own = base / "ticket" / f"level_{level:02d}"
            own.mkdir(parents=True)
            mask = {name: order[name] < round(density * order[name].numel()) for name in shapes}
            ends = {name: start[name] + 0.05 * draw(shape) for name, shape in shapes.items()}
            identity = {"level": level, "density": density, "replicate": replicate, "arm": "ticket", "trial": 0}
            torch.save({"format": 1, "mask": mask, **identity}, own / "mask.pt")
            torch.save({"format": 1, "weights": ends | {"net.fc.bias": torch.ones(20)}}, own / "trained.pt")
            remaining = sum(int(part.sum()) for part in mask.values())
            records.append(
                Record(
                    replicate,
                    "ticket",
                    0,
                    level,
                    "ok",
                    sum(prod(shape) for shape in shapes.values()),
                    remaining,
                    density,
                    100,
                )
            )
        torch.save(
            {"format": 1, "weights": start | {"net.fc.bias": torch.ones(20)}, "step": step, "seed": 0},
            base / "rewind.pt",
        )
    write_table(folder, records)
    (folder / "config.yaml").write_text(f"pruning:\n  rewind_step: {step}\n")


def open_run(folder: Path, name: str = "made/version_0") -> Run:
    return runs.read(folder, name)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_run(tmp_path / "version_0")
    return tmp_path / "version_0"


def tensors(folder: Path, replicate: int, level: int) -> tuple[dict, dict, dict]:
    """Mask, initial weights, and those at the end of level 0."""
    base = folder / f"replicate_{replicate}"
    mask = torch.load(base / "ticket" / f"level_{level:02d}" / "mask.pt")["mask"]
    end = torch.load(base / "ticket" / "level_00" / "trained.pt")["weights"]
    return mask, torch.load(base / "rewind.pt")["weights"], end


def triples(folder: Path, replicate: int, level: int, name: str | None = None) -> list[tuple[bool, float, float]]:
    """Survives, initial value and end-of-training value of every weight, one after another."""
    mask, start, end = tensors(folder, replicate, level)
    return [
        each
        for layer in ([name] if name else SHAPES)
        for each in zip(
            *(part[layer].flatten().tolist() for part in (mask, start, end)),
            strict=True,
        )
    ]


def only(table, replicate: int, level: int):
    return table[(table.replicate == replicate) & (table.level == level)].iloc[0]


# What is left of each layer.


def test_what_is_left_of_each_layer_is_counted_and_layers_nearly_gone_are_named(tmp_path):
    densities = {0: 1.0, 1: 0.5, 2: 0.045, 3: 0.004}
    write_run(tmp_path, densities=densities)
    run = open_run(tmp_path)
    table, warnings = layers_left.of_run(run)
    assert table.levels == [(0, "100%"), (1, "50.0%"), (2, "4.5%"), (3, "0.4%")]
    assert [(name, size) for name, size, _ in table.rows] == [("conv", "108"), ("fc", "320"), ("output", "100")]
    for (_, _, cells), (name, shape) in zip(table.rows, SHAPES.items(), strict=True):
        for level, cell in enumerate(cells):
            counts = [int(tensors(tmp_path, replicate, level)[0][name].sum()) for replicate in (0, 1)]
            assert cell.weights == f"{fmean(counts):.0f}"
            assert float(cell.share.removesuffix("%")) == pytest.approx(100 * fmean(counts) / np.prod(shape), abs=0.06)
            assert cell.is_thin == any(count < shape[0] for count in counts)
    start, where = "Nearly or wholly pruned layers: ", "left, in a replicate or more, in "
    assert warnings == [
        f"{start}no weight at all {where}conv (level 3), output (level 3).",
        f"{start}fewer weights than units {where}fc (levels 2-3), output (level 2).",
    ]
    assert run.problems == []


def test_layers_that_a_single_replicate_has_lost_are_named(folder):
    path = folder / "replicate_1" / "ticket" / "level_02" / "mask.pt"
    content = torch.load(path)
    content["mask"]["net.fc.weight"].zero_()
    torch.save(content, path)
    table, warnings = layers_left.of_run(open_run(folder))
    assert "no weight at all left, in a replicate or more, in fc (level 2)." in warnings[0]
    assert [cells[2].is_thin for _, _, cells in table.rows] == [False, True, False]


def test_masks_that_are_not_kept_leave_a_gap_and_damaged_ones_are_named(folder):
    for replicate in (0, 1):
        (folder / f"replicate_{replicate}" / "ticket" / "level_01" / "mask.pt").unlink()
    damaged = folder / "replicate_0" / "ticket" / "level_02" / "mask.pt"
    damaged.write_bytes(damaged.read_bytes()[:100])
    run = open_run(folder)
    table, _ = layers_left.of_run(run)
    assert table.levels == [(0, "100%"), (2, "20.0%")]
    assert len(run.problems) == 1
    assert str(damaged) in run.problems[0]


def test_a_run_without_masks_has_no_table_of_layers(folder):
    for path in folder.rglob("mask.pt"):
        path.unlink()
    assert layers_left.of_run(open_run(folder)) == (None, [])


# How layers are called.


def test_panels_of_a_deep_network_say_which_layer_and_what_kind_and_their_ticks_have_room(tmp_path):
    shapes = {"4.conv.weight": (4, 3, 3, 3), "4.downsample.0.weight": (8, 4, 1, 1), "fc.weight": (5, 8)}
    shapes |= {f"5.{number}.weight": (4, 8) for number in range(6)}
    write_run(tmp_path, shapes)
    for path in tmp_path.rglob("*.pt"):  # values of a hundred-thousandth have the longest labels
        content = torch.load(path)
        for name, tensor in content.get("weights", {}).items():
            content["weights"][name] = tensor * 1e-4 if "fc" in name else tensor / 7
        torch.save(content, path)
    for draw in FIGURES:
        picture = draw(lines([open_run(tmp_path)]), Choice())
        assert not overlapping_ticks(picture.figure), picture.name
        titles = [axes.get_title(loc="left").replace("\n", " ") for axes in drawn(picture)]
        assert [title[-len(end) :] for title, end in zip(titles, ENDS, strict=True)] == list(ENDS)


ENDS = ("layer 1 of 9, 3x3 conv: 4.conv", "layer 5 of 9, linear: 5.1", "layer 9 of 9, linear: 5.5")


# Numbers for claims.


@pytest.mark.parametrize(("replicate", "level"), list(product((0, 1), (1, 2))))
def test_movement_and_growth_compare_the_ticket_with_the_others_in_level_0s_training(folder, replicate, level):
    row = only(weights.quantities(open_run(folder)), replicate, level)
    every = triples(folder, replicate, level)

    def moved(survives: bool) -> float:
        return fmean(abs(w - v) for s, v, w in every if s == survives)

    def grown(survives: bool) -> float:
        return fmean(abs(w) > abs(v) for s, v, w in every if s == survives)

    assert row.moved_ratio == pytest.approx(moved(True) / moved(False), rel=1e-5)
    assert row.grown == pytest.approx(grown(True))
    assert row.grown_others == pytest.approx(grown(False))


def test_a_dense_network_has_no_others_to_be_compared_with(folder):
    row = only(weights.quantities(open_run(folder)), 0, 0)
    assert isnan(row.moved_ratio)
    assert isnan(row.grown_others)
    assert row.grown == pytest.approx(fmean(abs(w) > abs(v) for _, v, w in triples(folder, 0, 0)))


@pytest.mark.parametrize(("axis", "name"), [(0, "in"), (1, "out")])
def test_unevenness_is_the_mean_over_layers_of_the_units_coefficient_of_variation(folder, axis, name):
    mask, _, _ = tensors(folder, 1, 2)
    found, chance = [], []
    for layer, shape in SHAPES.items():
        part = mask[layer].reshape(shape[0], shape[1], -1).tolist()
        kernel = len(part[0][0])
        fractions = []
        for unit in range(shape[axis]):
            mine = [
                part[o][i][k]
                for o, i, k in product(range(shape[0]), range(shape[1]), range(kernel))
                if (o, i)[axis] == unit
            ]
            fractions.append(sum(mine) / len(mine))
        found.append(pstdev(fractions) / fmean(fractions))
        total, size, density = shape[0] * shape[1] * kernel, len(mine), fmean(fractions)
        chance.append(sqrt((1 - density) / (density * size) * (total - size) / (total - 1)))
    row = only(weights.quantities(open_run(folder)), 1, 2)
    assert row[f"{name}_unevenness"] == pytest.approx(fmean(found))
    assert row[f"{name}_excess"] == pytest.approx(fmean(found) / fmean(chance))


def test_masks_at_random_are_as_uneven_as_chance_says(tmp_path):
    write_run(tmp_path, {"fc.weight": (50, 60)}, {0: 1.0, 1: 0.2}, replicates=40)
    table = weights.quantities(open_run(tmp_path), levels=[1])
    for way in ("in", "out"):
        assert sqrt((table[f"{way}_excess"] ** 2).mean()) == pytest.approx(1, rel=0.05)


def test_a_layer_with_one_unit_says_nothing_of_evenness(tmp_path):
    write_run(tmp_path / "two", {"conv.weight": (8, 1, 3, 3), "fc.weight": (20, 16)})
    write_run(tmp_path / "one", {"conv.weight": (8, 1, 3, 3)})
    two, one = (only(weights.quantities(open_run(tmp_path / name)), 0, 2) for name in ("two", "one"))
    part = torch.load(tmp_path / "two" / "replicate_0" / "ticket" / "level_02" / "mask.pt")["mask"]["fc.weight"]
    fractions = [float(unit.float().mean()) for unit in part.T]
    assert two.out_unevenness == pytest.approx(pstdev(fractions) / fmean(fractions))
    assert isnan(one.out_unevenness)


def one_layer(tmp_path: Path, start: torch.Tensor, survivors: torch.Tensor) -> Run:
    write_run(tmp_path, {"fc.weight": tuple(start.shape)}, {0: 1.0, 1: 0.5}, replicates=1)
    base = tmp_path / "replicate_0"
    torch.save({"format": 1, "weights": {"fc.weight": start}, "step": 0, "seed": 0}, base / "rewind.pt")
    torch.save({"format": 1, "mask": {"fc.weight": survivors}}, base / "ticket" / "level_01" / "mask.pt")
    return open_run(tmp_path)


GAUSSIAN = torch.randn(100, 100, generator=torch.Generator().manual_seed(0))
EVEN = torch.arange(10_000).view(100, 100) % 2 == 0


@pytest.mark.parametrize(
    ("start", "survivors", "low", "high"),
    [
        (GAUSSIAN, EVEN, 0, 0.08),
        (GAUSSIAN, GAUSSIAN.abs() > 0.7, 1, 1),
        # Half of what lies around zero is gone.
        (GAUSSIAN, (GAUSSIAN.abs() > 0.5) | EVEN, 0.35, 0.55),
        # Two peaks, one three times as high as the other.
        (GAUSSIAN, (GAUSSIAN > 0.7) | ((GAUSSIAN < -0.7) & EVEN), 1, 1),
        (GAUSSIAN, GAUSSIAN.abs() < 0.7, 0, 0.08),
        (2 * torch.rand(100, 100, generator=torch.Generator().manual_seed(0)) - 1, EVEN, 0, 0.15),
    ],
)
def test_the_gap_tells_one_peak_at_zero_from_two_beside_it(tmp_path, start, survivors, low, high):
    gap = only(weights.quantities(one_layer(tmp_path, start, survivors)), 0, 1).gap_1
    assert low <= gap <= high


def test_the_gap_counts_survivors_in_quarters_of_the_layers_deviation(folder):
    row = only(weights.quantities(open_run(folder)), 0, 2)
    for number, name in enumerate(SHAPES, start=1):
        every = triples(folder, 0, 2, name)
        quarter = pstdev(v for _, v, _ in every) / 4
        counts = [sum(s and i * quarter <= abs(v) < (i + 1) * quarter for s, v, _ in every) for i in range(40)]
        assert row[f"gap_{number}"] == pytest.approx(1 - counts[0] / max(counts))


def test_a_layer_of_equal_values_or_without_survivors_has_no_gap(tmp_path):
    run = one_layer(tmp_path / "equal", torch.full((4, 5), 0.25), torch.rand(4, 5) > 0.5)
    assert isnan(only(weights.quantities(run), 0, 1).gap_1)
    run = one_layer(tmp_path / "none", torch.randn(4, 5), torch.zeros(4, 5, dtype=torch.bool))
    row = only(weights.quantities(run), 0, 1)
    assert isnan(row.gap_1)
    assert isnan(row.in_unevenness)
    assert isnan(row.moved_ratio)


def test_only_the_levels_asked_for_are_looked_at(folder):
    ticks = []
    table = weights.quantities(open_run(folder), levels=[2], tick=lambda: ticks.append(1))
    assert list(zip(table.replicate, table.level, table.density, strict=True)) == [(0, 2, 0.2), (1, 2, 0.2)]
    assert len(ticks) == 2
    full = weights.quantities(open_run(folder))
    assert table.equals(full[full.level == 2].reset_index(drop=True))


def test_the_first_the_middle_and_the_last_of_many_layers_stand_for_all():
    names = [f"net.layers.{index}.weight" for index in range(16)]
    assert weights.shown(names) == [names[0], names[8], names[15]]
    assert weights.shown(names[:2]) == names[:2]
    assert list(weights.layer_names([*names[:1], "net.output.weight"]).values()) == ["layers.0", "output"]


def test_what_survives_of_a_unit_by_hand():
    part = np.array([[1, 0, 1], [0, 0, 0]], dtype=bool)
    assert weights.surviving(part, 0).tolist() == [2 / 3, 0]
    assert weights.surviving(part, 1).tolist() == [0.5, 0, 0.5]
    kernel = np.zeros((2, 3, 2, 2), dtype=bool)
    kernel[0, 1] = True
    kernel[1, 2, 0, 0] = True
    assert weights.surviving(kernel, 0).tolist() == [4 / 12, 1 / 12]
    assert weights.surviving(kernel, 1).tolist() == [0, 4 / 8, 1 / 8]


# Files that are missing or damaged.


def test_a_folder_with_nothing_but_its_table_has_no_weights_and_no_problem(folder, tmp_path):
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "results.csv").write_text((folder / "results.csv").read_text())
    run = open_run(tmp_path / "bare")
    assert weights.quantities(run).empty
    assert all(draw(lines([run]), Choice()) is None for draw in FIGURES)
    assert run.problems == []


@pytest.mark.parametrize("damage", ["cut", "gone", "other"])
@pytest.mark.parametrize("file", ["rewind.pt", "ticket/level_01/mask.pt", "ticket/level_00/trained.pt"])
def test_a_file_that_cannot_be_used_is_one_line_and_the_rest_is_reported(folder, file, damage):
    path = folder / "replicate_0" / file
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-200])
    elif damage == "gone":
        path.unlink()
    else:
        torch.save({"format": 1, "weights": {}, "mask": {}}, path)
    run = open_run(folder)
    table = weights.quantities(run)
    pictures = [draw(lines([run]), Choice()) for draw in FIGURES]
    assert all(pictures)
    assert len(run.problems) == 1
    assert run.problems[0].startswith(f"{path} is {'missing' if damage == 'gone' else 'damaged'}")
    assert not table[table.replicate == 1].empty
    whole = weights.quantities(open_run(folder), levels=[2])
    assert not isnan(only(whole, 1, 2).moved_ratio)
    assert not isnan(only(whole, 0, 2).in_unevenness)
    assert isnan(only(whole, 0, 2).moved_ratio) == ("mask" not in file)


def test_weights_of_another_network_or_with_nan_are_one_line(folder):
    path = folder / "replicate_0" / "rewind.pt"
    content = torch.load(path)
    content["weights"]["net.fc.weight"] = torch.zeros(3, 3)
    torch.save(content, path)
    path = folder / "replicate_1" / "ticket" / "level_00" / "trained.pt"
    content = torch.load(path)
    content["weights"]["net.fc.weight"][0, 0] = nan
    torch.save(content, path)
    run = open_run(folder)
    weights.quantities(run)
    assert movement(lines([run]), Choice()) is None
    assert initializations(lines([run]), Choice()) is not None
    assert ["other shapes" in line or "NaN" in line for line in run.problems] == [True, True]


def test_a_control_without_trained_weights_and_a_level_that_still_trains_are_no_problem(folder):
    control = folder / "replicate_0" / "random_reinit_0" / "level_01"
    control.mkdir(parents=True)
    (folder / "replicate_1" / "ticket" / "level_02" / "trained.pt").unlink()
    run = open_run(folder)
    run.records = [record for record in run.records if record.order != (1, "ticket", 0, 2)]
    run.records.append(replace(run.records[1], arm="random_reinit"))
    assert len(weights.quantities(run)) == 5
    picture = initializations(lines([run]), Choice(densities=(0.2,)))
    assert "1 replicate" in picture.caption
    picture = initializations(lines([run]), Choice(densities=(0.5, 0.2)))
    assert "2 replicates (1 at 20.0%)" in picture.caption
    assert run.problems == []


def test_half_precision_weights_are_read(folder):
    for path in folder.glob("replicate_*/rewind.pt"):
        content = torch.load(path)
        content["weights"] = {name: value.bfloat16() for name, value in content["weights"].items()}
        torch.save(content, path)
    run = open_run(folder)
    assert initializations(lines([run]), Choice()) is not None
    assert run.problems == []


# What is drawn.


def stairs(axes: Axes) -> list[tuple[np.ndarray, np.ndarray]]:
    """Values and edges of each line, in the order of drawing."""
    data = [patch.get_data() for patch in axes.patches]
    return [(np.asarray(each.values), np.asarray(each.edges)) for each in data]


def drawn(picture: Picture | None) -> list[Axes]:
    assert picture is not None
    return [axes for axes in picture.figure.axes if axes.get_visible()]


def test_lines_are_the_densities_of_the_survivors_initial_values(folder):
    panels = drawn(initializations(lines([open_run(folder)]), Choice()))
    assert [axes.get_title(loc="left") for axes in panels] == ["conv", "fc", "output"]
    for axes, name in zip(panels, SHAPES, strict=True):
        for (values, edges), level in zip(stairs(axes), DENSITIES, strict=True):
            both = [v for replicate in (0, 1) for s, v, _ in triples(folder, replicate, level, name) if s]
            assert (0 in edges) or min(abs(edges)) < 1e-12
            for density, (low, high) in zip(values, pairwise(edges), strict=True):
                inside = sum(low <= v < high for v in both)
                assert density == pytest.approx(inside / len(both) / (high - low), abs=2 / len(both) / (high - low))
            assert (values * np.diff(edges)).sum() == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize(
    ("draw", "measure"), [(movement, lambda v, w: abs(w - v)), (growth, lambda v, w: abs(w) - abs(v))]
)
def test_lines_are_the_densities_of_what_training_does_in_the_ticket_and_elsewhere(folder, draw, measure):
    picture = draw(lines([open_run(folder)]), Choice(densities=(1.0, 0.45, 0.2)))
    assert "50.0% of them" in picture.caption
    for axes, name in zip(drawn(picture), SHAPES, strict=True):
        (ticket, edges), (others, same) = stairs(axes)
        assert np.array_equal(edges, same)
        colours = [patch.get_edgecolor() for patch in axes.patches]
        assert to_hex(colours[0]) == COLOURS[0], "as tickets in all figures"
        assert to_hex(colours[1]) == DENSE
        for values, survives in ((ticket, True), (others, False)):
            moves = [measure(v, w) for r in (0, 1) for s, v, w in triples(folder, r, 1, name) if s == survives]
            counts = [sum(low <= m < high for m in moves) for low, high in pairwise(edges)]
            expected = np.array(counts) / len(moves) / np.diff(edges)
            assert values == pytest.approx(expected, abs=2 / len(moves) / (edges[1] - edges[0]))
            assert sum(counts) >= 0.97 * len(moves)


def test_weights_that_never_move_are_neither_growing_nor_shrinking(folder):
    for path in folder.glob("replicate_*/ticket/level_00/trained.pt"):
        content = torch.load(path)
        start = torch.load(path.parents[2] / "rewind.pt")["weights"]
        content["weights"]["net.fc.weight"] = start["net.fc.weight"].clone()
        torch.save(content, path)
    run = open_run(folder)
    assert "In fc weights in the ticket grow in magnitude in 0% of cases" in growth(lines([run]), Choice()).alt
    assert movement(lines([run]), Choice()) is not None


@pytest.mark.parametrize(("draw", "axis"), [(incoming, 0), (outgoing, 1)])
def test_lines_are_units_sorted_by_what_survives_of_their_weights(folder, draw, axis):
    panels = drawn(draw(lines([open_run(folder)]), Choice()))
    for axes, (name, shape) in zip(panels, SHAPES.items(), strict=True):
        lines_and_more = stairs(axes)
        assert len(lines_and_more) == 6  # for two densities: mean, range, chance
        for (values, edges), level in zip(lines_and_more[::3], (1, 2), strict=True):
            by_replicate = []
            for replicate in (0, 1):
                mask = tensors(folder, replicate, level)[0][name].transpose(0, axis)
                by_replicate.append(sorted((float(unit.float().mean()) for unit in mask), reverse=True))
            assert values == pytest.approx([100 * fmean(pair) for pair in zip(*by_replicate, strict=True)])
            assert edges == pytest.approx([100 * unit / shape[axis] for unit in range(shape[axis] + 1)])
        for (chance, _), level in zip(lines_and_more[2::3], (1, 2), strict=True):
            assert chance.mean() == pytest.approx(100 * DENSITIES[level], abs=2.5)


def test_the_same_run_gives_the_same_picture(folder):
    first, second = (drawn(incoming(lines([open_run(folder)]), Choice())) for _ in range(2))
    for axes, other in zip(first, second, strict=True):
        assert all(np.array_equal(a[0], b[0]) for a, b in zip(stairs(axes), stairs(other), strict=True))


def test_the_nearest_levels_to_the_papers_densities_are_chosen(folder):
    run = open_run(folder)
    assert weights.choose_levels(run, weights.DENSITIES) == {0: 1.0, 1: 0.5, 2: 0.2}
    assert weights.choose_levels(run, (0.06,)) == {2: 0.2}


def test_up_to_three_runs_are_drawn_and_the_others_named(tmp_path):
    made = []
    for number in range(5):
        write_run(tmp_path / str(number), {"fc.weight": (20, 16)} if number == 1 else SHAPES)
        made.append(open_run(tmp_path / str(number), f"run {number}"))
    picture = incoming(lines(made), Choice())
    assert "run 0, 2 replicates; run 1, 2 replicates; run 2, 2 replicates" in picture.caption
    assert "run 3, run 4" in picture.caption
    titles = [axes.get_title(loc="left") for axes in drawn(picture)]
    assert titles[3] == "run 1\ninto the units of fc"
    assert titles[4:] == ["run 2\ninto the units of conv", "into the units of fc", "into the units of output"]
    assert "run 1: Into the units of fc, at 20.0% of the weights" in picture.alt


def test_the_caption_names_the_rewind_step_and_layers_left_out(tmp_path):
    write_run(tmp_path, {f"net.{name}.weight": (6, 6) for name in "abcde"}, step=500)
    picture = initializations(lines([open_run(tmp_path)]), Choice())
    assert [axes.get_title(loc="left") for axes in drawn(picture)] == [
        f"layer {number} of 5, linear: {name}" for number, name in ((1, "a"), (3, "c"), (5, "e"))
    ]
    assert "Of 5 prunable layers the first, the middle and the last are drawn." in picture.caption
    assert "step 500" in picture.caption
    assert drawn(picture)[0].get_xlabel() == "value at the rewind point"


def test_a_run_that_starts_from_a_ticket_is_drawn_without_a_dense_network(tmp_path):
    write_run(tmp_path, densities={0: 0.3})
    run = open_run(tmp_path)
    picture = initializations(lines([run]), Choice())
    assert len(stairs(drawn(picture)[0])) == 1
    assert "no dense network" in picture.caption
    assert movement(lines([run]), Choice()) is None
    assert isnan(only(weights.quantities(run), 0, 0).moved_ratio)


def test_a_run_that_has_pruned_nothing_is_not_drawn(tmp_path):
    write_run(tmp_path, densities={0: 1.0})
    run = open_run(tmp_path)
    assert all(draw(lines([run]), Choice()) is None for draw in FIGURES)
    assert len(weights.quantities(run)) == 2


def test_a_histogram_counts_values_beyond_its_edges_in_its_area():
    histogram = Histogram(np.array([-1.0, 0.0, 1.0]))
    histogram.add(np.array([-0.5, 0.5, 0.7]))
    histogram.add(np.array([5.0]))
    assert histogram.density.tolist() == [0.25, 0.5]
    assert histogram.mean == pytest.approx(1.425)
    assert (histogram.peak, histogram.at_zero) == (0.5, 0.75)
