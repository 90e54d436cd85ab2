"""Figures of results.csv: what is drawn is what the table says, and captions name what is not drawn."""

from pathlib import Path

import pytest
import yaml
from report_drawn import bars, legend, lines_of, overlapping_ticks, reckoned
from report_runs import write_run

from lth_lightning.report.figure import Choice, Picture
from lth_lightning.report.figures import ALL, by_weights, early_stop, final, fixed_steps, one_shot, sweep
from lth_lightning.report.lines import COLOURS
from lth_lightning.results.record import Record, write_table

EARLY = [("early_stop_step", 1), ("early_stop_test_acc", 100), ("early_stop_train_acc", 100)]


def drawn(picture: Picture | None) -> Picture:
    assert picture is not None
    return picture


def some(folder: Path, **options) -> Path:
    write_run(folder, controls={"random_reinit": [1, 3, 7], "random_mask": range(1, 16)}, trials=2, **options)
    return folder


def test_early_stop_shows_means_and_ranges_of_the_table(tmp_path):
    folder = some(tmp_path / "lenet/version_0")
    picture = drawn(early_stop.draw(lines_of(folder), Choice()))
    for axes, (column, scale) in zip(picture.figure.axes, EARLY, strict=True):
        expected = [reckoned(folder, arm, column, scale=scale) for arm in ("ticket", "random_reinit", "random_mask")]
        for line, points in zip(bars(axes), expected, strict=True):
            assert line == [pytest.approx(point) for point in points]


def test_accuracy_at_the_end_shows_means_and_ranges_of_the_table(tmp_path):
    folder = some(tmp_path / "lenet/version_0")
    picture = drawn(final.draw(lines_of(folder), Choice()))
    for axes, column in zip(picture.figure.axes, ("final_test_acc", "final_train_acc"), strict=True):
        for line, arm in zip(bars(axes), ("ticket", "random_reinit", "random_mask"), strict=True):
            assert line == [pytest.approx(point) for point in reckoned(folder, arm, column, scale=100)]


def test_the_axis_of_weights_is_logarithmic_and_descends_through_levels_there_are(tmp_path):
    folder = some(tmp_path / "lenet/version_0")
    axes = drawn(early_stop.draw(lines_of(folder), Choice())).figure.axes[0]
    assert axes.get_xscale() == "log"
    left, right = axes.get_xlim()
    assert left > 100 > 3.6 > right
    labels = [axes.xaxis.get_major_formatter()(tick) for tick in sorted(axes.get_xticks(), reverse=True)]
    assert labels == ["100", "51.3", "26.3", "13.5", "7.0", "3.6"]


def test_the_legend_counts_trials(tmp_path):
    folder = some(tmp_path / "lenet/version_0", missing={(2, "ticket", 0, 15)})
    picture = drawn(early_stop.draw(lines_of(folder), Choice()))
    assert legend(picture.figure) == ["ticket (n=2-3)", "random reinit (n=6)", "random mask (n=6)"]
    assert "Fewer trials than elsewhere on the line: ticket level 15." in picture.caption


def test_a_panel_that_no_run_has_is_left_out(tmp_path):
    write_run(tmp_path / "a/version_0", without=["early_stop_train_acc"])
    picture = drawn(early_stop.draw(lines_of(tmp_path / "a/version_0"), Choice()))
    assert len(picture.figure.axes) == 2


def test_a_quantity_that_one_run_lacks_is_named(tmp_path):
    write_run(tmp_path / "a/version_0", without=["early_stop_train_acc"])
    write_run(tmp_path / "b/version_0")
    picture = drawn(early_stop.draw(lines_of(tmp_path), Choice()))
    assert [len(bars(axes)) for axes in picture.figure.axes] == [2, 2, 1]
    assert "No training accuracy at early stop: a: ticket." in picture.caption


def test_a_diverged_training_is_left_out_of_means_and_named(tmp_path):
    folder = some(tmp_path / "lenet/version_0", diverged={(0, "random_reinit", 1, 7), (1, "ticket", 0, 4)})
    picture = drawn(early_stop.draw(lines_of(folder), Choice()))
    assert "2 diverged trainings are left out: ticket level 4, random reinit level 7." in picture.caption
    assert "Fewer trials" not in picture.caption
    assert legend(picture.figure)[1] == "random reinit (n=5-6)"
    for axes, (column, scale) in zip(picture.figure.axes, EARLY, strict=True):
        for line, arm in zip(bars(axes), ("ticket", "random_reinit", "random_mask"), strict=True):
            assert line == [pytest.approx(point) for point in reckoned(folder, arm, column, scale=scale)]


def test_an_arm_that_diverged_altogether_is_named_and_has_no_line(tmp_path):
    every = {(replicate, "random_reinit", 0, level) for replicate in range(3) for level in (1, 3)}
    write_run(tmp_path / "version_0", controls={"random_reinit": [1, 3]}, diverged=every)
    picture = drawn(early_stop.draw(lines_of(tmp_path / "version_0"), Choice()))
    assert legend(picture.figure) == ["ticket (n=3)"]
    assert "6 diverged trainings are left out: random reinit levels 1, 3." in picture.caption


def test_one_replicate_has_no_bars_and_the_caption_says_so(tmp_path):
    write_run(tmp_path / "version_0", replicates=1)
    picture = drawn(early_stop.draw(lines_of(tmp_path / "version_0"), Choice()))
    assert "one trial, so there is no spread" in picture.caption
    assert legend(picture.figure) == ["ticket (n=1)"]
    for axes in picture.figure.axes:
        assert all(len(segment) == 0 for segment in axes.containers[0][2][0].get_segments())


def test_a_line_with_one_trial_among_others_is_named(tmp_path):
    write_run(tmp_path / "a/version_0", replicates=1)
    write_run(tmp_path / "b/version_0", missing={(1, "ticket", 0, 9), (2, "ticket", 0, 9)})
    caption = drawn(early_stop.draw(lines_of(tmp_path), Choice())).caption
    assert "One trial only, so no spread: a: ticket." in caption
    assert "One trial only: b: ticket level 9." in caption


def test_missing_levels_and_sparse_controls_are_named(tmp_path):
    lost = {(replicate, "ticket", 0, 5) for replicate in range(3)}
    lost |= {(replicate, "random_mask", trial, 9) for replicate in range(3) for trial in range(2)}
    folder = some(tmp_path / "lenet/version_0", missing=lost)
    picture = drawn(early_stop.draw(lines_of(folder), Choice()))
    assert "Not there: ticket level 5, random mask level 9." in picture.caption
    assert "Only at some levels: random reinit at levels 1, 3, 7." in picture.caption
    assert len(bars(picture.figure.axes[0])[0]) == 15


def test_a_run_from_a_ticket_starts_at_its_density(tmp_path):
    write_run(tmp_path / "version_0", levels=range(4), first=7)
    picture = drawn(early_stop.draw(lines_of(tmp_path / "version_0"), Choice()))
    assert bars(picture.figure.axes[0])[0][0][0] == pytest.approx(21.07, abs=0.01)
    assert picture.alt.startswith("Early-stop step: ticket ")
    assert "at 100%" not in picture.alt


def test_what_is_still_trained_is_named(tmp_path):
    write_run(tmp_path / "version_0", levels=range(4), config={"pruning.levels": 15})
    half = tmp_path / "version_0/replicate_0/ticket/level_04/metrics.csv"
    half.parent.mkdir(parents=True)
    half.write_text("step,train_loss,val_loss,val_acc\n100,0.5,0.4,0.9\n")
    caption = drawn(early_stop.draw(lines_of(tmp_path / "version_0"), Choice())).caption
    assert "tickets end at level 3 of 15, 1 of its trainings not finished and left out." in caption


@pytest.mark.parametrize("draw", ALL)
def test_an_empty_run_has_no_figure(tmp_path, draw):
    folder = tmp_path / "lenet/version_0"
    write_run(folder, levels=[])
    assert draw(lines_of(folder), Choice()) is None


@pytest.mark.parametrize("draw", ALL)
def test_a_run_whose_trainings_all_diverged_has_no_figure(tmp_path, draw):
    folder = tmp_path / "lenet/version_0"
    write_run(folder, levels=[0], diverged={(replicate, "ticket", 0, 0) for replicate in range(3)})
    assert draw(lines_of(folder), Choice()) is None


def test_a_folder_with_a_table_alone_has_the_figures_of_the_table(tmp_path):
    folder = tmp_path / "lenet"
    write_run(folder, curves=False)
    (folder / "config.yaml").unlink()
    names = [picture.name for draw in ALL if (picture := draw(lines_of(folder), Choice()))]
    assert names[:2] == ["early_stop", "final"]
    assert not {"fixed_steps", "accuracy_curves", "loss_curves"} & set(names)


def test_one_shot_runs_have_a_linear_axis_of_their_own(tmp_path):
    iterative, one_shot_run = tmp_path / "lenet/version_0", tmp_path / "once/version_0"
    write_run(iterative)
    assert one_shot.draw(lines_of(iterative), Choice()) is None
    write_run(one_shot_run, config={"pruning.one_shot": True}, controls={"random_reinit": range(1, 16)})
    picture = drawn(one_shot.draw(lines_of(iterative, one_shot_run), Choice()))
    axes = picture.figure.axes[0]
    left, right = axes.get_xlim()
    assert axes.get_xscale() == "linear"
    assert left > right
    assert legend(picture.figure) == ["once: ticket (n=3)", "once: random reinit (n=3)"]
    assert bars(axes)[0] == [pytest.approx(point) for point in reckoned(one_shot_run, "ticket", "early_stop_step")]


def test_networks_of_different_sizes_are_drawn_by_their_number_of_weights(tmp_path):
    small, large = tmp_path / "sizes/small/version_0", tmp_path / "sizes/large/version_0"
    write_run(small, weights={"linear": 30_000, "output": 340})
    write_run(large)
    assert by_weights.draw(lines_of(small), Choice()) is None
    picture = drawn(by_weights.draw(lines_of(large, small), Choice()))
    for axes, (column, scale) in zip(
        picture.figure.axes, [("early_stop_step", 1), ("early_stop_val_acc", 100)], strict=True
    ):
        assert axes.get_xscale() == "log"
        assert axes.get_xlim()[0] > axes.get_xlim()[1]
        for line, folder in zip(bars(axes), (large, small), strict=True):
            expected = reckoned(folder, "ticket", column, x="weights_remaining", scale=scale)
            assert line == [pytest.approx(point) for point in expected]
    assert "266,200 weights" in picture.alt


def test_networks_of_one_size_that_prune_other_layers_are_drawn_by_their_number_of_weights(tmp_path):
    size = {"conv": 40_000, "linear": 4_000_000}
    write_run(tmp_path / "both/version_0", weights=size, rates={"conv": 0.1, "linear": 0.2})
    write_run(tmp_path / "conv/version_0", weights=size, rates={"conv": 0.1})
    assert by_weights.draw(lines_of(tmp_path), Choice()) is not None


def test_networks_that_differ_in_rates_alone_are_not_drawn_by_their_number_of_weights(tmp_path):
    size = {"conv": 40_000, "linear": 4_000_000}
    write_run(tmp_path / "slow/version_0", weights=size, rates={"conv": 0.1, "linear": 0.2})
    write_run(tmp_path / "fast/version_0", weights=size, rates={"conv": 0.2, "linear": 0.2})
    assert by_weights.draw(lines_of(tmp_path), Choice()) is None


def write_sweep(folder: Path, number: int) -> None:
    cells = {f"lr={value}": {"run": "version_0", "values": {"model.lr": value}} for value in range(number)}
    for cell in cells:
        write_run(folder / cell / "version_0", replicates=2, levels=range(5), curves=False)
    (folder / "sweep.yaml").write_text(yaml.safe_dump({"experiment": folder.name, "cells": cells}))


@pytest.mark.parametrize(("number", "is_sweep"), [(3, False), (4, True), (12, True), (30, True)])
def test_the_cells_of_a_sweep_are_compared_by_validation_accuracy(tmp_path, number, is_sweep):
    write_sweep(tmp_path / "rates", number)
    lines = lines_of(tmp_path / "rates")
    picture = sweep.draw(lines, Choice())
    assert (early_stop.draw(lines, Choice()) is None) == is_sweep
    assert (picture is not None) == is_sweep
    if picture:
        names = [axes.get_ylabel().replace("\n", " ") for axes in picture.figure.axes]
        assert names[:2] == ["early-stop step", "validation accuracy at early stop (%)"]
        assert len(legend(picture.figure)) == number
        folder = lines[2].run.folder
        expected = reckoned(folder, "ticket", "early_stop_val_acc", scale=100)
        assert bars(picture.figure.axes[1])[2] == [pytest.approx(point) for point in expected]
        assert len(picture.alt) < 3000
        high = picture.figure.axes[0].get_window_extent().height / picture.figure.dpi
        picture.figure.draw_without_rendering()
        assert picture.figure.axes[0].get_window_extent().height > 0.5 * high


def test_the_legend_of_a_sweep_names_once_what_varies(tmp_path):
    write_sweep(tmp_path / "rates", 4)
    picture = drawn(sweep.draw(lines_of(tmp_path / "rates"), Choice()))
    assert picture.figure.legends[0].get_title().get_text() == "lr"
    assert legend(picture.figure) == [f"{value} (n=2)" for value in range(4)]
    assert "lr=3: ticket" in picture.alt


def test_steps_far_apart_have_a_log_axis_and_others_a_linear_one(tmp_path):
    def late(record: Record) -> None:
        if record.arm == "random_mask":
            record.early_stop_step = 40_000 if record.level == 5 else 3000

    write_run(tmp_path / "far/version_0", levels=range(6), controls={"random_mask": range(1, 6)}, change=late)
    picture = drawn(early_stop.draw(lines_of(tmp_path / "far"), Choice()))
    steps, *accuracies = picture.figure.axes
    assert steps.get_yscale() == "log"
    assert {axes.get_yscale() for axes in accuracies} == {"linear"}
    assert "The axis of the early-stop step is logarithmic." in picture.caption
    assert len(steps.get_yticks()) >= 3
    low, high = steps.get_ylim()
    assert all(low < value < high for line in bars(steps) for point in line for value in point[1:])
    write_run(tmp_path / "near/version_0", levels=range(6))
    picture = drawn(early_stop.draw(lines_of(tmp_path / "near"), Choice()))
    assert picture.figure.axes[0].get_yscale() == "linear"
    assert "logarithmic" not in picture.caption


def test_a_log_axis_of_steps_has_room_for_networks_that_are_not_trained(tmp_path):
    def untrained(record: Record) -> None:
        if record.arm == "signed_constant":
            record.steps = record.early_stop_step = 0
        elif record.level == 3:
            record.early_stop_step *= 30

    write_run(tmp_path / "version_0", levels=range(4), controls={"signed_constant": [1, 2]}, change=untrained)
    axes = drawn(early_stop.draw(lines_of(tmp_path / "version_0"), Choice())).figure.axes[0]
    low, high = axes.get_ylim()
    assert axes.get_yscale() == "symlog"
    assert 0 in axes.get_yticks()
    assert all(low < point[1] < high for line in bars(axes) for point in line)


def test_lines_of_a_single_level_are_rows(tmp_path):
    for name, first in (("at_21", 7), ("at_7", 12)):
        write_run(tmp_path / name / "version_0", levels=[0], first=first, controls={"random_mask": [0]})
    picture = drawn(early_stop.draw(lines_of(tmp_path), Choice()))
    for axes in picture.figure.axes:
        names = [text.get_text() for text in axes.texts]
        assert names[0] == "at_21: ticket, 21.1% (n=3)"
        assert names[3] == "at_7: random mask, 7.0% (n=3)"
    expected = reckoned(tmp_path / "at_7/version_0", "random_mask", "early_stop_test_acc", scale=100)[0]
    data, _, spread = picture.figure.axes[1].containers[3]
    assert data.get_xdata()[0] == pytest.approx(expected[1])
    assert spread[0].get_segments()[0][:, 0] == pytest.approx(expected[2:])
    assert "Each row" in picture.caption
    for axes in picture.figure.axes:
        ticks = [label.get_text() for label in axes.get_xticklabels()]
        assert len(set(ticks)) == len(ticks) >= 3, "no two ticks are called alike"
    assert not overlapping_ticks(picture.figure)


def test_accuracies_far_below_all_others_are_cut_off_and_named(tmp_path):
    def ruin(record: Record) -> None:
        if record.arm == "random_mask" and record.level == 15:
            record.early_stop_test_acc = 0.1

    folder = some(tmp_path / "lenet/version_0", change=ruin)
    picture = drawn(early_stop.draw(lines_of(folder), Choice()))
    assert picture.figure.axes[1].get_ylim()[0] > 90
    assert "Reaching below the axis of test accuracy at early stop: random mask level 15." in picture.caption


def test_an_early_stop_at_the_last_step_is_named(tmp_path):
    def never(record: Record) -> None:
        if record.level == 2:
            record.early_stop_step = record.steps

    write_run(tmp_path / "version_0", change=never)
    lines = lines_of(tmp_path / "version_0")
    assert (
        "lowest at the last step, and may fall further: ticket level 2."
        in drawn(early_stop.draw(lines, Choice())).caption
    )
    assert "may fall further" not in drawn(final.draw(lines, Choice())).caption


def test_tickets_that_train_on_and_networks_not_trained_are_called_so(tmp_path):
    def untrained(record: Record) -> None:
        if record.arm == "signed_constant":
            record.steps = record.early_stop_step = 0

    write_run(
        tmp_path / "version_0",
        controls={"signed_constant": range(1, 16)},
        change=untrained,
        config={"pruning.retrain": {"class_path": "lth_lightning.callbacks.LearningRateRewind"}},
    )
    picture = drawn(early_stop.draw(lines_of(tmp_path / "version_0"), Choice()))
    assert "Tickets (LearningRateRewind) train on from trained weights" in picture.caption
    assert "Not trained at all: signed constant." in picture.caption
    assert "winning" not in picture.caption + picture.title + picture.alt


def test_the_alternative_text_has_each_lines_ends_and_its_best(tmp_path):
    steps = {0: 5050, 1: 4000, 2: 2900, 3: 3200}

    def known(record: Record) -> None:
        record.early_stop_step = steps[record.level] + 100 * (record.replicate - 1)
        record.early_stop_test_acc = 0.98 + 0.001 * record.level

    write_run(tmp_path / "version_0", levels=range(4), steps=9000, change=known, without=["early_stop_train_acc"])
    picture = drawn(early_stop.draw(lines_of(tmp_path / "version_0"), Choice()))
    assert picture.alt == (
        "Early-stop step: ticket 5,050 at 100%, lowest 2,900 at 64.1%, 3,200 at 51.3%. "
        "Test accuracy at early stop: ticket 98.00% at 100%, highest 98.30% at 51.3%."
    )


@pytest.mark.thorough
def test_no_text_of_a_figure_is_cut_off(tmp_path):
    folder = some(tmp_path / "a-rather-long-name-of-an-experiment,activation=relu/version_0")
    write_run(tmp_path / "another-long-name-of-an-experiment,activation=sigmoid/version_0", test_curve=True)
    assert folder.exists()
    for draw in ALL:
        if picture := draw(lines_of(tmp_path), Choice()):
            figure = picture.figure
            assert not overlapping_ticks(figure), picture.name
            box = figure.get_tightbbox()
            width, height = figure.get_size_inches()
            assert box.x0 > -0.02, picture.name
            assert box.y0 > -0.02, picture.name
            assert box.x1 < width + 0.02, picture.name
            assert box.y1 < height + 0.02, picture.name


def test_a_table_whose_trials_differ_in_density_is_drawn_at_their_mean(tmp_path):
    folder = tmp_path / "version_0"
    records = write_run(folder, levels=range(3), replicates=2, curves=False)
    for record in records:
        if record.level:
            record.density += 0.01 * record.replicate
    write_table(folder, records)
    picture = drawn(final.draw(lines_of(folder), Choice()))
    assert bars(picture.figure.axes[0])[0] == [
        pytest.approx(point) for point in reckoned(folder, "ticket", "final_test_acc", scale=100)
    ]


def test_fixed_steps_of_a_run_without_curves_are_none(tmp_path):
    write_run(tmp_path / "version_0", curves=False)
    assert fixed_steps.draw(lines_of(tmp_path / "version_0"), Choice()) is None


def test_an_arm_has_one_colour_in_reports_of_one_run_and_of_two(tmp_path):
    controls = {"random_reinit": [1, 3], "random_mask": [1], "another": [1]}
    write_run(tmp_path / "a_iterative/version_0", controls=controls)
    write_run(tmp_path / "b_oneshot/version_0", controls=controls, config={"pruning.one_shot": True})
    both = lines_of(tmp_path)
    alone = lines_of(tmp_path / "a_iterative")
    expected = dict(zip(("ticket", "random_reinit", "random_mask", "another"), COLOURS, strict=False))
    for line in (*both, *alone):
        assert line.colour == expected[line.arm]
    assert len({(line.colour, line.dash) for line in both}) == len(both) == 8
    assert len({(line.marker, line.is_hollow) for line in both}) == 8, "told apart in a print without colours"
    few = lines_of(tmp_path / "b_oneshot")
    write_run(tmp_path / "c/version_0", controls={"random_mask": [1]})
    assert {line.arm: line.colour for line in lines_of(tmp_path / "c")}.items() <= {
        x.arm: x.colour for x in few
    }.items()


def test_two_runs_of_one_arm_and_more_runs_have_a_colour_each(tmp_path):
    for number in (2, 3):
        for name in range(number):
            write_run(tmp_path / f"{number}/{name}/version_0", levels=range(3))
        folders = sorted((tmp_path / str(number)).glob("*/version_0"))
        assert len({line.colour for line in lines_of(*folders)}) == len(folders)


def test_lines_of_one_run_have_marks_of_their_own_where_colours_are_the_runs(tmp_path):
    for name in "abc":
        write_run(tmp_path / name / "version_0", levels=[0, 1], controls={"random_reinit": [1]}, curves=False)
    found = lines_of(tmp_path)
    looks = {(line.run.name, line.arm): (line.colour, line.marker) for line in found}
    assert len(set(looks.values())) == len(looks) == 6


@pytest.mark.parametrize("levels", [range(2), [1]], ids=["curves", "points"])
def test_ticks_of_equal_numbers_are_whole_steps_and_no_accuracy_above_100(tmp_path, levels):
    def equal(record):
        record.early_stop_step, record.early_stop_train_acc = 60, 1.0

    folder = tmp_path / "version_0"
    write_run(folder, levels=levels, curves=False, change=equal)
    picture = drawn(early_stop.draw(lines_of(folder), Choice()))
    picture.figure.canvas.draw()
    steps, _, accuracy = ((a.yaxis if len(levels) > 1 else a.xaxis) for a in picture.figure.axes)
    assert [tick for tick in steps.get_majorticklocs() if tick % 1] == []
    labels = [float(label.get_text()) for label in accuracy.get_majorticklabels()]
    assert labels == sorted(set(labels))
    assert 95 < max(labels) <= 100
