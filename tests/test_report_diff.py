"""`lth diff`: what sets two runs apart."""

import re
from collections.abc import Sequence
from io import StringIO
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
import yaml
from report_runs import write_run
from rich.console import Console
from runs import Starter

from lth_lightning.report import difference
from lth_lightning.report.command import main
from lth_lightning.results import Record, Training, session

MADE = {
    "started": "2026-11-20T13:10:02+00:00",
    "versions": {"lth_lightning": "0.1.0", "torch": "2.6.0", "python": "3.11.9"},
    "device": "cpu",
    "threads": 1,
    "workers": 2,
}


def plan(run: Path, made: Sequence[dict[str, Any]] = (MADE,)) -> None:
    for part in made:
        session.write(run, [Training(r, "ticket", 0, level, run) for r in range(3) for level in range(3)], part)


def told(first: Path, second: Path, width: int = 100) -> str:
    out = StringIO()
    assert difference.show(first, second, Console(file=out, width=width)) == 0
    assert max(map(len, out.getvalue().splitlines()[2:])) <= width  # the folders' names above may be longer
    return out.getvalue()


def block(text: str, title: str) -> list[list[str]]:
    """The rows of the table with this title in its first line, parted into cells."""
    (found,) = (part for part in text.split("\n\n") if part.lstrip().startswith(title))
    return [re.split(r" {2,}", line.strip()) for line in found.splitlines()[1:]]


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """Two equal runs."""
    runs = tmp_path / "one" / "version_0", tmp_path / "two" / "version_0"
    for run in runs:
        write_run(run, levels=range(3), controls={"noise": [1, 2]})
        plan(run, [{**MADE, "experiment": run.parent.name}])
    return runs


def test_of_two_equal_runs_it_says_that_nothing_differs(pair: tuple[Path, Path]) -> None:
    assert told(*pair).split("\n\n")[1:] == [
        "No difference: settings; place and upkeep; made with; trainings.",
        "Results: all 15 shared trainings are equal bit for bit.\n",
    ]


def test_seconds_are_no_result(pair: tuple[Path, Path]) -> None:
    def slower(record: Record) -> None:
        record.seconds = 99.0

    write_run(pair[1], levels=range(3), controls={"noise": [1, 2]}, change=slower)
    assert "all 15 shared trainings are equal bit for bit" in told(*pair)


def test_settings_that_differ_have_both_values_and_those_of_place_stand_apart(tmp_path: Path) -> None:
    control = {"class_path": "lth_lightning.callbacks.RandomReinit", "init_args": {"levels": [1, 2], "trials": 1}}
    more = {**control, "init_args": {"levels": "all", "trials": 1, "name": None}}
    mask = {"class_path": "lth_lightning.callbacks.RandomMask", "init_args": {"trials": 3, "keep_signs": False}}
    own = {"class_path": "mine.Own", "init_args": {"width": 7}}
    write_run(tmp_path / "one", levels=[0], config={
        "pruning.controls": [control], "pruning.grid": None, "threads": 1, "data.init_args.root": "here", "only": True,
    })  # fmt: skip
    write_run(tmp_path / "two", levels=[0], config={
        "pruning.controls": [more, mask], "pruning.grid": [0.5, 0.25], "threads": 2, "data.init_args.root": "there",
        "trainer.max_steps": 4000, "model": own,
    })  # fmt: skip
    text = told(tmp_path / "one", tmp_path / "two")
    settings = block(text, "Settings")
    assert ["pruning.controls.RandomReinit.", "[1, 2]", "all"] in settings
    assert settings[settings.index(["pruning.controls.RandomReinit.", "[1, 2]", "all"]) + 1] == ["levels"], "wrapped"
    assert sorted(row for row in settings if "RandomReinit" not in row[0] and row != ["levels"]) == [
        ["model", "LeNet300", "Own"],
        ["model.activation", "relu", "-"],
        ["model.width", "-", "7"],
        ["only", "true", "-"],
        ["pruning.controls.RandomMask", "-", "trials: 3"],
        ["pruning.grid", "null", "[0.5, 0.25]"],
        ["trainer.max_steps", "2000", "4000"],
    ]
    assert sorted(block(text, "Place and upkeep")) == [["data.root", "here", "there"], ["threads", "1", "2"]]


def test_two_controls_of_one_class_are_told_apart(tmp_path: Path) -> None:
    def controls(*names: str | None) -> dict[str, Any]:
        return {"pruning.controls": [{"class_path": "Noise", "init_args": {"name": name}} for name in names]}

    write_run(tmp_path / "one", levels=[0], config=controls("weak", "strong"))
    write_run(tmp_path / "two", levels=[0], config=controls("strong", "huge"))
    assert block(told(tmp_path / "one", tmp_path / "two"), "Settings") == [
        ["pruning.controls.weak", "name: weak", "-"],
        ["pruning.controls.huge", "-", "name: huge"],
    ]


def test_versions_and_machines_of_all_sessions(pair: tuple[Path, Path]) -> None:
    newer = {**MADE, "versions": {**MADE["versions"], "torch": "2.15.0"}, "device": "NVIDIA H200"}  # type: ignore[dict-item]
    plan(pair[1], [newer, newer])
    assert sorted(block(told(*pair), "Made with")) == [
        ["device", "cpu", "cpu, NVIDIA H200"],
        ["torch", "2.6.0", "2.6.0, 2.15.0"],
    ]
    (pair[0] / "run.json").unlink()
    assert "Versions and machine are not known of one: there is no whole run.json." in told(*pair)


def test_what_was_trained(tmp_path: Path) -> None:
    write_run(tmp_path / "one", levels=range(4), replicates=2, controls={"noise": [1, 3]}, trials=2)
    write_run(tmp_path / "two", levels=range(3), diverged={(2, "ticket", 0, 2)}, controls={"own": [2]})
    assert block(told(tmp_path / "one", tmp_path / "two"), "Trainings") == [
        ["finished", "16", "12"],
        ["replicates", "2", "3"],
        ["levels of ticket", "0-3", "0-2"],
        ["levels of noise_0", "1, 3", "-"],
        ["levels of noise_1", "1, 3", "-"],
        ["levels of own_0", "-", "2"],
        ["diverged", "-", "1"],
    ]


def accuracy(by_level: dict[int, list[float]], steps: dict[int, list[int]] | None = None) -> Any:
    def change(record: Record) -> None:
        record.early_stop_test_acc = by_level[record.level][record.replicate]
        record.early_stop_step = (steps or {}).get(record.level, [500, 500, 500])[record.replicate]
        record.final_test_acc = 0.98

    return change


def test_results_are_means_ranges_and_differences_and_ranges_apart_are_marked(tmp_path: Path) -> None:
    ours = {0: [0.97, 0.971, 0.972], 1: [0.96, 0.97, 0.975], 2: [0.9, 0.91, 0.92]}
    theirs = {0: [0.97, 0.971, 0.972], 1: [0.97, 0.98, 0.99], 2: [0.9201, 0.93, 0.935]}
    write_run(tmp_path / "one", levels=range(3), change=accuracy(ours, {2: [400, 600, 800]}))
    write_run(tmp_path / "two", levels=range(3), change=accuracy(theirs, {2: [100, 200, 399]}))
    text = told(tmp_path / "one", tmp_path / "two")

    def cell(values: Sequence[float]) -> str:
        return f"{100 * fmean(values):.2f} ({100 * min(values):.2f}-{100 * max(values):.2f})"

    accuracies = block(text, "Test accuracy at early stop, %, ticket; ranges apart at level 2")
    assert accuracies == [
        ["level", "weights", "trials", "one", "two", "difference"],
        ["1", "80.0%", "3", cell(ours[1]), cell(theirs[1]), f"{100 * (fmean(theirs[1]) - fmean(ours[1])):+.2f}"],
        ["2", "64.1%", "3", cell(ours[2]), cell(theirs[2]), f"{100 * (fmean(theirs[2]) - fmean(ours[2])):+.2f} *"],
        ["Equal at level 0."],
    ]
    assert block(text, "Early-stop step, ticket; ranges apart at level 2") == [
        ["level", "weights", "trials", "one", "two", "difference"],
        ["2", "64.1%", "3", "600 (400-800)", "233 (100-399)", "-367 *"],
        ["Equal at level 0-1."],
    ]
    assert "Test accuracy at the end" not in text, "it is equal everywhere"
    assert "One trial has no range" not in text


def test_of_one_trial_no_range_is_called_apart(tmp_path: Path) -> None:
    write_run(tmp_path / "one", levels=[0], replicates=1, change=accuracy({0: [0.9]}))
    write_run(tmp_path / "two", levels=[0], change=accuracy({0: [0.97, 0.98, 0.99]}))
    text = told(tmp_path / "one", tmp_path / "two")
    assert block(text, "Test accuracy at early stop, %, ticket")[1] == [
        "0", "100.0%", "1, 3", "90.00", "98.00 (97.00-99.00)", "+8.00",
    ]  # fmt: skip
    assert "apart" not in text
    assert "One trial has no range." in " ".join(text.split())


def test_a_quantity_that_one_lacks_is_no_difference_in_numbers(tmp_path: Path) -> None:
    write_run(tmp_path / "one", levels=[0])
    write_run(tmp_path / "two", levels=[0], without=["early_stop_test_acc", "early_stop_step"])
    assert block(told(tmp_path / "one", tmp_path / "two"), "Test accuracy at early stop")[1][-2:] == ["-", "-"]


def test_levels_are_paired_by_their_weights(tmp_path: Path) -> None:
    # 80%, 64%, 51% against 64%, 41%: at rates of 0.36 a level is worth two.
    write_run(tmp_path / "one", levels=range(4), rates={"linear": 0.2, "output": 0.2})
    write_run(tmp_path / "two", levels=range(3), rates={"linear": 0.36, "output": 0.36})
    text = told(tmp_path / "one", tmp_path / "two")
    assert [row[:2] for row in block(text, "Test accuracy at early stop")[1:]] == [
        ["2, 1", "64.0%"],
        ["Equal at level 0."],
    ]
    assert "Only in one, counting levels by their weights (to 4%): ticket at level 1, 3." in text
    assert "Only in two, counting levels by their weights (to 4%): ticket at level 2." in text


def test_of_some_equal_trainings_the_number_is_told(pair: tuple[Path, Path]) -> None:
    def worse(record: Record) -> None:
        if record.level == 2:
            record.final_val_loss = 1.0

    write_run(pair[1], levels=range(3), controls={"noise": [1, 2]}, change=worse)
    assert "Results: 9 of 15 shared trainings are equal bit for bit." in told(*pair)


def test_runs_that_share_nothing_and_runs_without_results(tmp_path: Path) -> None:
    write_run(tmp_path / "one", levels=[0], replicates=1)
    write_run(tmp_path / "two", levels=[5])
    write_run(tmp_path / "none", levels=[], replicates=1)
    write_run(tmp_path / "nothing", levels=[], replicates=1)
    assert "Results: there is no training that both have." in told(tmp_path / "one", tmp_path / "two")
    assert "Results: none has none yet." in told(tmp_path / "one", tmp_path / "none")
    assert "Results: nothing and none have none yet." in told(tmp_path / "nothing", tmp_path / "none")


@pytest.mark.parametrize("names", [("lenet", "lenet_oneshot"), ("a_very_long_name_of_a_run", "another_very_long_name")])
def test_eighty_columns_are_enough(tmp_path: Path, names: tuple[str, str]) -> None:
    more = {"pruning.controls": [{"class_path": "RandomReinit", "init_args": {"levels": list(range(20)), "trials": 1}}]}
    less = {"pruning.controls": [{"class_path": "RandomReinit", "init_args": {"levels": "all", "trials": 3}}]}
    runs = [tmp_path / name / "version_0" for name in names]
    write_run(runs[0], controls={"random_reinit": range(1, 16)}, config=more)
    write_run(runs[1], controls={"random_reinit": range(1, 16)}, config=less, steps=4000)
    text = told(*runs, width=80)
    assert "\u2026" not in text, "nothing is cut"
    assert text.splitlines()[0].split() == [names[0] if len(names[1]) < 20 else "A", str(runs[0])]
    assert len(block(text, "Early-stop step, ticket")) >= 17


def test_an_experiment_of_one_run_is_that_run_and_of_several_one_is_asked_for(
    pair: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["diff", str(pair[0].parent), str(pair[1])]) == 0
    assert "equal bit for bit" in capsys.readouterr().out
    write_run(pair[0].with_name("version_1"), levels=[0])
    assert main(["diff", str(pair[0].parent), str(pair[1])]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == (
        f"lth: {pair[0].parent} holds 2 runs: name one of them, such as {pair[0].with_name('version_1')}.\n"
    )


def test_what_is_no_run_and_a_run_beside_itself_are_one_line(
    pair: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    for words, said in (
        ([str(pair[0]), str(pair[0].parent / "missing")], "There is no"),
        ([str(pair[0]), str(pair[0].parent)], "are one run: name two."),
        ([str(pair[0])], "required"),
        ([str(pair[0]), "--nonsense", str(pair[1])], "--nonsense"),
    ):
        assert main(["diff", *words]) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert re.fullmatch(rf"lth: [^\n]*{said}[^\n]*\n", captured.err)


def test_damage_is_told_and_the_good_part_compared(pair: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    table = pair[1] / "results.csv"
    table.write_text("".join(table.read_text().splitlines(keepends=True)[:7]) + "2,ticket,")
    (pair[0] / "run.json").write_text("{")
    assert main(["diff", *map(str, pair)]) == 2
    captured = capsys.readouterr()
    assert "Results: all 15 shared trainings are equal bit for bit." in captured.out
    lines = captured.err.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith(f"lth: {pair[0] / 'run.json'} is damaged")
    assert lines[1].startswith(f"lth: {table} is damaged from line 8")


@pytest.mark.thorough
def test_two_real_runs(tmp_path: Path) -> None:
    starter = Starter(tmp_path)
    content = {
        "model": {"class_path": "LeNet300", "init_args": {"hidden": [10]}},
        "data": "Digits",
        "trainer": {"max_steps": 20, "accelerator": "cpu"},
        "pruning": {"levels": 1, "replicates": 2, "evaluate_every": 10},
    }
    config = starter.config("small", content)
    starter.finish("fit", "--config", str(config), "--workers", "1")
    starter.finish("fit", "--config", str(config), "--workers", "1", "--data.batch_size", "30")
    starter.finish("fit", "--config", str(config), "--workers", "2", "--experiment", "again")
    first, other, again = starter.run("small"), starter.run("small", 1), starter.run("again")
    assert block(told(first, other), "Settings") == [["data.batch_size", "60", "30"]]
    assert "Results: 0 of 4 shared trainings are equal bit for bit." in told(first, other)
    text = told(first, again)
    assert block(text, "Place and upkeep") == [["experiment", "small", "again"]]
    assert block(text, "Made with") == [["workers", "1", "2"]]
    assert "Results: all 4 shared trainings are equal bit for bit." in text
    assert yaml.safe_load((first / "config.yaml").read_text())["threads"] == 1
