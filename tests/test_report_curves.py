"""Figures of metrics.csv: curves at a few densities, and accuracies at fixed steps."""

import csv
from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from report_drawn import bars, curve, legend, lines_of
from report_runs import write_run

from lth_lightning.report.figure import Choice, Picture
from lth_lightning.report.figures import chosen, fixed_steps
from lth_lightning.report.figures.curves import draw_accuracy, draw_loss
from lth_lightning.report.lines import COLOURS, DENSE

ALL_TRIALS = [(replicate, trial) for replicate in range(3) for trial in range(2)]
TICKETS = [(replicate, 0) for replicate in range(3)]


def drawn(picture: Picture | None) -> Picture:
    assert picture is not None
    return picture


def some(folder: Path, **options) -> Path:
    write_run(folder, controls={"random_reinit": [1, 3, 7]}, trials=2, **options)
    return folder


def labels(axes: Axes) -> list[str]:
    return [text.get_text() for text in axes.get_legend().get_texts()]


def check(axes: Axes, number: int, expected: dict[int, tuple[float, float, float]], scale: float = 100) -> None:
    """A line and its band are `expected`, at the steps that they are drawn at, which end with the last in sight."""
    line = axes.get_lines()[number]
    steps = [int(step) for step in line.get_xdata()]
    assert steps[-1] == max(step for step in expected if step <= axes.get_xlim()[1])
    assert len(steps) > 5
    assert list(line.get_ydata()) == pytest.approx([scale * expected[step][0] for step in steps])
    outline = axes.collections[number].get_paths()[0].vertices
    for step in steps:
        here = outline[outline[:, 0] == step][:, 1]
        assert here.min() == pytest.approx(scale * expected[step][1])
        assert here.max() == pytest.approx(scale * expected[step][2])


def test_curves_are_means_and_ranges_of_the_trials_in_the_papers_panels(tmp_path):
    folder = some(tmp_path / "lenet/version_0", test_curve=True)
    picture = drawn(draw_accuracy(lines_of(folder), Choice()))
    first, second, reinit = picture.figure.axes
    assert labels(first) == ["100% (n=3)", "51.3% (n=3)", "21.1% (n=3)"]
    assert labels(second) == ["100% (n=3)", "7.0% (n=3)", "3.6% (n=3)"]
    assert labels(reinit) == ["100% (n=3)", "51.3% (n=3)", "21.1% (n=3)", "51.3% (n=6)", "21.1% (n=6)"]
    assert first.get_ylabel() == "test accuracy (%)"
    for axes, levels in ((first, (0, 3, 7)), (second, (0, 12, 15)), (reinit, (0, 3, 7))):
        for number, level in enumerate(levels):
            check(axes, number, curve(folder, "ticket", level, "test_acc", TICKETS))
    for number, level in ((3, 3), (4, 7)):
        check(reinit, number, curve(folder, "random_reinit", level, "test_acc", ALL_TRIALS))


def test_loss_curves_are_means_and_ranges_of_the_trials(tmp_path):
    folder = some(tmp_path / "lenet/version_0")
    picture = drawn(draw_loss(lines_of(folder), Choice()))
    check(picture.figure.axes[0], 0, curve(folder, "ticket", 0, "val_loss", TICKETS), scale=1)
    check(picture.figure.axes[2], 4, curve(folder, "random_reinit", 7, "val_loss", ALL_TRIALS), scale=1)


def test_validation_accuracy_stands_in_where_a_run_has_no_test_curve(tmp_path):
    write_run(tmp_path / "a/version_0", test_curve=True)
    folder = some(tmp_path / "b/version_0")
    for draw in (draw_accuracy, fixed_steps.draw):
        picture = drawn(draw(lines_of(tmp_path), Choice()))
        assert "validation accuracy" in picture.figure.axes[0].get_ylabel()
        assert picture.title.startswith("Validation accuracy")
    picture = drawn(draw_accuracy(lines_of(folder), Choice()))
    check(picture.figure.axes[0], 0, curve(folder, "ticket", 0, "val_acc", TICKETS))


def test_a_long_curve_is_thinned_out_and_says_so(tmp_path):
    folder = tmp_path / "lenet/version_0"
    write_run(folder, levels=[0, 1], steps=50_000)
    picture = drawn(draw_accuracy(lines_of(folder), Choice()))
    check(picture.figure.axes[0], 0, curve(folder, "ticket", 0, "val_acc", TICKETS))
    assert len(picture.figure.axes[0].get_lines()[0].get_xdata()) <= 125
    assert "evaluations is drawn." in picture.caption


def test_curves_end_at_twice_the_latest_early_stop_and_say_so(tmp_path):
    def soon(record) -> None:
        record.early_stop_step, record.early_stop_val_loss = 400, None  # not the curve's

    folder = tmp_path / "lenet/version_0"
    write_run(folder, levels=[0, 1], change=soon)
    picture = drawn(draw_loss(lines_of(folder), Choice()))
    assert picture.figure.axes[0].get_xlim() == (0, 800)
    assert "Drawn to twice the latest early stop, step 800 of 2,000." in picture.caption
    check(picture.figure.axes[0], 0, curve(folder, "ticket", 0, "val_loss", TICKETS), scale=1)


def test_steep_first_steps_do_not_flatten_the_rest(tmp_path):
    folder = tmp_path / "lenet/version_0"
    write_run(folder, steps=10_000)
    for path in folder.glob("replicate_*/ticket/*/metrics.csv"):
        header, first, *rest = path.read_text().splitlines()
        step = first.split(",")[0]
        path.write_text("\n".join([header, f"{step},2.3,2.3,0.1", *rest]) + "\n")
    low, high = drawn(draw_accuracy(lines_of(folder), Choice())).figure.axes[0].get_ylim()
    assert low > 80
    assert 98 < high < 100
    low, high = drawn(draw_loss(lines_of(folder), Choice())).figure.axes[0].get_ylim()
    assert 0.05 < low < 0.1
    assert high < 0.3


def test_densities_can_be_chosen_and_nearest_levels_are_drawn(tmp_path):
    folder = some(tmp_path / "lenet/version_0")
    picture = drawn(draw_accuracy(lines_of(folder), Choice(densities=(0.2, 0.9, 0.21, 0.04))))
    assert labels(picture.figure.axes[0]) == ["100% (n=3)", "21.1% (n=3)", "3.6% (n=3)"]
    assert labels(picture.figure.axes[1]) == ["100% (n=3)", "21.1% (n=3)", "21.1% (n=6)"]


def test_the_dense_network_is_grey_in_every_panel_and_no_arms_colour_is_a_densitys(tmp_path):
    folder = some(tmp_path / "lenet/version_0")
    picture = drawn(draw_accuracy(lines_of(folder), Choice()))
    for axes in picture.figure.axes:
        first, *others = (line.get_color() for line in axes.get_lines())
        assert first == DENSE
        assert not {DENSE, *COLOURS} & set(others)
    assert "The dense network (100%) is grey" in picture.caption
    picture = drawn(draw_accuracy(lines_of(folder), Choice(densities=(0.21, 0.04))))
    assert labels(picture.figure.axes[0]) == ["21.1% (n=3)", "3.6% (n=3)"]
    assert "dense network" not in picture.caption


def test_levels_are_the_papers_where_there_are_some_and_evenly_apart_where_not():
    lenet = {level: 0.8**level for level in range(25)}
    assert chosen.levels(lenet) == [0, 3, 7, 12, 15, 18]
    assert chosen.levels({0: 1.0, 1: 0.8, 2: 0.64, 3: 0.512}) == [0, 1, 2, 3]
    assert chosen.levels({level: 0.95**level for level in range(11)}) == [0, 2, 4, 6, 8, 10]
    assert chosen.levels({0: 0.21}) == [0]
    assert chosen.levels({}) == []
    assert chosen.levels(lenet, (0.5, 0.51, 1.0)) == [0, 3]


def test_a_control_that_has_none_of_the_levels_is_named(tmp_path):
    folder = tmp_path / "lenet/version_0"
    write_run(folder, controls={"random_mask": [2, 5]})
    picture = drawn(draw_accuracy(lines_of(folder), Choice()))
    assert len(picture.figure.axes) == 2
    assert "Not trained at any of these densities, or without a curve: random mask." in picture.caption


def test_of_more_than_four_runs_four_are_drawn_and_the_caption_says_so(tmp_path):
    for number in range(6):
        write_run(tmp_path / f"run_{number}/version_0", replicates=1, levels=range(4))
    picture = drawn(draw_accuracy(lines_of(tmp_path), Choice()))
    titles = [part.get_suptitle() for part in picture.figure.subfigs if part.axes]
    assert titles == ["run_0", "run_1", "run_2", "run_3"]
    assert "Of 6 runs the first 4 are drawn" in picture.caption
    assert "Where n=1 there is one trial, and no band." in picture.caption
    assert not picture.figure.axes[0].collections


def test_diverged_trainings_are_in_no_curve_and_named(tmp_path):
    folder = some(tmp_path / "lenet/version_0", diverged={(0, "ticket", 0, 3), (1, "random_reinit", 1, 7)})
    picture = drawn(draw_accuracy(lines_of(folder), Choice()))
    check(picture.figure.axes[0], 1, curve(folder, "ticket", 3, "val_acc", [(1, 0), (2, 0)]))
    others = [key for key in ALL_TRIALS if key != (1, 1)]
    check(picture.figure.axes[2], 4, curve(folder, "random_reinit", 7, "val_acc", others))
    assert labels(picture.figure.axes[0])[1] == "51.3% (n=2)"
    assert "2 diverged trainings are left out: ticket level 3, random reinit level 7." in picture.caption


def test_a_damaged_curve_is_left_out_and_named(tmp_path):
    folder = some(tmp_path / "lenet/version_0")
    (folder / "replicate_1/ticket/level_03/metrics.csv").write_text("step,train_loss\n100,what\n")
    for draw in (draw_accuracy, fixed_steps.draw):
        picture = drawn(draw(lines_of(folder), Choice()))
        assert "Some trials have no curve, or a damaged one: ticket level 3." in picture.caption
    picture = drawn(draw_accuracy(lines_of(folder), Choice()))
    check(picture.figure.axes[0], 1, curve(folder, "ticket", 3, "val_acc", [(0, 0), (2, 0)]))


def test_steps_that_not_all_trials_have_are_in_no_curve(tmp_path):
    folder = tmp_path / "lenet/version_0"
    write_run(folder, levels=[0], change=lambda record: setattr(record, "early_stop_val_loss", None))
    path = folder / "replicate_0/ticket/level_00/metrics.csv"
    rows = path.read_text().splitlines()
    path.write_text("\n".join([rows[0], *rows[2::2]]) + "\n")
    steps = drawn(draw_loss(lines_of(folder), Choice())).figure.axes[0].get_lines()[0].get_xdata()
    assert 400 in steps
    assert 500 not in steps
    assert 600 in steps


def test_networks_that_are_not_trained_have_no_curve(tmp_path):
    def untrained(record) -> None:
        if record.arm == "signed_constant":
            record.steps = record.early_stop_step = 0

    folder = tmp_path / "lenet/version_0"
    write_run(folder, controls={"signed_constant": [3, 7]}, change=untrained)
    for path in folder.glob("replicate_*/signed_constant_0/*/metrics.csv"):
        path.write_text("step,train_loss,val_loss,val_acc\n0,,2.3,0.1\n")
    picture = drawn(draw_accuracy(lines_of(folder), Choice()))
    assert len(picture.figure.axes) == 2
    assert "Not trained at all: signed constant." in picture.caption
    picture = drawn(fixed_steps.draw(lines_of(folder), Choice()))
    assert legend(picture.figure) == ["ticket (n=3)"]


def test_the_alternative_text_of_curves_has_their_best_and_their_end(tmp_path):
    folder = tmp_path / "lenet/version_0"
    write_run(folder, levels=[0])
    expected = curve(folder, "ticket", 0, "val_loss", TICKETS)
    best = min(expected, key=lambda step: expected[step][0])
    assert drawn(draw_loss(lines_of(folder), Choice())).alt == (
        f"Validation loss against the optimizer's step. ticket at 100%: lowest {expected[best][0]:.4f} at step "
        f"{best:,}, {expected[2000][0]:.4f} at the end."
    )


def at(folder: Path, arm: str, column: str, step: int, trials: list[tuple[int, int]]) -> list[tuple[float, ...]]:
    with (folder / "results.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["arm"] == arm]
    sizes = {int(row["level"]): float(row["density"]) for row in rows}
    points = []
    for level, density in sorted(sizes.items()):
        mean, low, high = curve(folder, arm, level, column, trials)[step]
        points.append((100 * density, 100 * mean, 100 * low, 100 * high))
    return points


def test_accuracies_at_fixed_steps_are_those_of_the_nearest_evaluations(tmp_path):
    folder = some(tmp_path / "lenet/version_0", test_curve=True)
    picture = drawn(fixed_steps.draw(lines_of(folder), Choice()))
    assert [axes.get_title(loc="left") for axes in picture.figure.axes] == [
        "after 700 steps",
        "after 1,300 steps",
        "after 2,000 steps",
    ]
    for axes, step in zip(picture.figure.axes, (700, 1300, 2000), strict=True):
        ticket, reinit = bars(axes)
        assert ticket == [pytest.approx(point) for point in at(folder, "ticket", "test_acc", step, TICKETS)]
        assert reinit == [pytest.approx(point) for point in at(folder, "random_reinit", "test_acc", step, ALL_TRIALS)]
    assert legend(picture.figure) == ["ticket (n=3)", "random reinit (n=6)"]


def test_steps_can_be_chosen_and_those_that_no_run_has_are_named(tmp_path):
    folder = some(tmp_path / "lenet/version_0")
    picture = drawn(fixed_steps.draw(lines_of(folder), Choice(steps=(500, 990, 9000))))
    assert [axes.get_title(loc="left") for axes in picture.figure.axes] == ["after 500 steps", "after 1,000 steps"]
    assert "No curve has an evaluation near step 9,000." in picture.caption
    assert fixed_steps.draw(lines_of(folder), Choice(steps=(9000,))) is None


def test_runs_of_different_lengths_are_compared_within_the_shortest(tmp_path):
    write_run(tmp_path / "conv2/version_0", steps=2000)
    write_run(tmp_path / "conv4/version_0", steps=2500)
    picture = drawn(fixed_steps.draw(lines_of(tmp_path), Choice()))
    assert picture.figure.axes[-1].get_title(loc="left") == "after 2,000 steps"
    picture = drawn(fixed_steps.draw(lines_of(tmp_path), Choice(steps=(1000, 2500))))
    assert [len(bars(axes)) for axes in picture.figure.axes] == [2, 1]
    assert "No evaluation near some of these steps: conv2: ticket." in picture.caption


def test_a_run_without_curves_beside_one_with_them_is_named(tmp_path):
    write_run(tmp_path / "a/version_0", curves=False)
    write_run(tmp_path / "b/version_0")
    picture = drawn(draw_accuracy(lines_of(tmp_path), Choice()))
    assert "No such curves: a." in picture.caption
    picture = drawn(fixed_steps.draw(lines_of(tmp_path), Choice()))
    assert "Some trials have no curve, or a damaged one: a: ticket levels 0-15." in picture.caption
    assert legend(picture.figure) == ["b: ticket (n=3)"]


def test_all_runs_curves_are_reckoned_in_numbers_that_numpy_gives_too(tmp_path):
    folder = tmp_path / "version_0"
    write_run(folder, replicates=4, levels=[0, 1])
    line = lines_of(folder)[0]
    found = line.curves(1, "val_acc")
    expected = curve(folder, "ticket", 1, "val_acc", [(replicate, 0) for replicate in range(4)])
    assert list(found.index) == list(expected)
    assert np.allclose(found[["mean", "low", "high"]], list(expected.values()))
    assert (found.trials == 4).all()
    assert line.curves(9, "val_acc").empty
    assert line.curves(1, "test_acc").empty
