"""Reports, lists and comparisons of folders as people have them: named oddly, half written, looked at from inside."""

import errno
import json
import os
import shutil
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from report_runs import write_run

from lth_lightning.report.command import main
from lth_lightning.report.curves import add_curves
from lth_lightning.report.folders import find, names, sweep_of
from lth_lightning.report.runs import read
from lth_lightning.results.record import Record
from lth_lightning.results.run_folder import METRICS, RESULT, SWEEP, TABLE, owned


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "logs" / "lenet" / "version_0"
    write_run(folder, levels=range(4), controls={"random_reinit": [1, 2]})
    return folder


def test_an_experiment_is_listed_and_reported_on_from_inside(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(run.parent)
    assert main(["ls", "."]) == 0
    assert main(["report", "."]) == 0
    assert (run / "report" / "report.html").is_file()


def test_a_cell_of_a_sweep_is_known_from_inside(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (run.parents[1] / SWEEP).write_text(json.dumps({"cells": {"lenet": {"values": {"model.lr": 1}}}}))
    monkeypatch.chdir(run.parent)
    assert sweep_of(Path("version_0")) == {"model.lr": 1}


def test_a_run_that_is_named_twice_is_one(run: Path) -> None:
    link = run.parent / "latest"
    link.symlink_to(run)
    assert find([run, run.parent, link], []) == [run]


def test_versions_of_one_experiment_are_named_alike_and_an_only_one_is_left_out() -> None:
    def called(*paths: str) -> list[str]:
        return names([Path("/logs", path) for path in paths])

    three = called("multi/version_0", "multi/version_1", "one/version_0")
    assert three == ["multi/version_0", "multi/version_1", "one"]
    assert called("multi/version_0", "multi/version_1") == ["multi/version_0", "multi/version_1"]
    assert called("one/version_0", "two/version_0") == ["one", "two"]
    assert called("one/version_0", "one") == ["one/version_0", "one"]


def test_brackets_and_dollars_in_names_are_shown_as_they_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    called = ["[red]a$_b$", "[/b] \\frac$x$"]
    for name in called:
        write_run(tmp_path / name, replicates=1, levels=range(3), controls={"random_reinit": [1]})
    out = tmp_path / "[/] out"
    paths = [str(tmp_path / name) for name in called]
    assert main(["report", *paths, "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert f"{called[0]}: One replicate" in said
    assert str(out / "report.html") in said
    assert main(["diff", *paths]) == 0
    said = capsys.readouterr().out
    assert all(said.count(name) >= 3 for name in called), "as the run, in its path, and above its column"
    assert called[0] in (out / "early_stop.svg").read_text()


def test_names_in_any_script_are_drawn_without_warnings(tmp_path: Path) -> None:
    for name in ("\u5b9e\u9a8c", "_first"):
        write_run(tmp_path / name / "version_0", levels=range(3))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # of matplotlib, about letters that its font lacks
        assert main(["report", str(tmp_path)]) == 0
    drawn = (tmp_path / "report" / "early_stop.svg").read_text()
    assert "\u5b9e\u9a8c: ticket (n=3)" in drawn
    assert "_first: ticket (n=3)" in drawn


@pytest.mark.parametrize("copy", ["ticket/level_03_old", "ticket/level_old"])
def test_a_copy_of_a_training_is_none(run: Path, copy: str) -> None:
    before = read(run, "run")
    add_curves(before)
    shutil.copytree(run / "replicate_0/ticket/level_03", run / "replicate_0" / copy)
    after = read(run, "run")
    add_curves(after)
    assert after.problems == []
    assert len(after.curves) == len(before.curves)


def test_a_training_that_has_only_begun_is_unfinished_and_not_damaged(run: Path) -> None:
    begun = run / "replicate_0/ticket/level_04" / METRICS
    begun.parent.mkdir()
    begun.write_text("step,train_loss,val_loss,val_acc\n")
    found = read(run, "run")
    add_curves(found)
    assert found.problems == []
    assert found.unfinished == {"replicate 0 ticket level 4": 0}


def test_an_infinite_loss_is_a_gap_in_a_curve(run: Path) -> None:
    for path in run.glob(f"replicate_*/*/level_*/{METRICS}"):
        head, *rows = path.read_text().splitlines()
        place = head.split(",").index("val_loss")
        cells = [row.split(",") for row in rows]
        for row in cells[5:]:
            row[place] = "inf"
        path.write_text("\n".join([head, *(",".join(row) for row in cells)]) + "\n")
    assert main(["report", str(run)]) == 0
    assert (run / "report" / "loss_curves.svg").is_file()


@pytest.mark.parametrize("keep", [0, 5])
def test_a_table_that_ends_too_early_is_told_and_made_good(run: Path, keep: int) -> None:
    table = run / TABLE
    rows = table.read_text().splitlines(keepends=True)
    if keep:
        table.write_text("".join(rows[: keep + 1]))
    else:
        table.unlink()
    found = read(run, "run")
    assert len(found.records) == len(rows) - 1
    assert len(found.problems) == 1
    assert found.problems[0].startswith(f"{table} has {keep} of {len(rows) - 1} finished trainings.")


def test_a_table_that_is_behind_while_the_run_goes_on_is_not_damaged(run: Path) -> None:
    shutil.copytree(run / "replicate_0/ticket/level_03", run / "replicate_0/ticket/level_04")
    record = Record.read(run / "replicate_0/ticket/level_03" / RESULT)
    replace(record, level=4).write(run / "replicate_0/ticket/level_04")
    with owned(run):
        assert read(run, "run").problems == []
    assert len(read(run, "run").problems) == 1


@pytest.mark.parametrize("place", ["file", "file/in/it"])
def test_a_place_that_cannot_be_written_is_told_in_a_line(
    run: Path, place: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert main(["report", str(run), "--out", str(tmp_path / place)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "--out" in error


def test_a_file_that_may_not_be_read_is_told_in_a_line(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = next(run.glob(f"replicate_0/ticket/level_03/{METRICS}"))
    read_bytes = Path.read_bytes

    def refuse(self: Path) -> bytes:
        if self == path:
            raise PermissionError(13, "Permission denied", str(path))
        return read_bytes(self)

    monkeypatch.setattr(Path, "read_bytes", refuse)
    assert main(["report", str(run)]) == 2
    assert capsys.readouterr().err == f"lth: {path} cannot be read (Permission denied): the curve is left out.\n"
    assert (run / "report" / "early_stop.svg").is_file()


def test_beside_a_folder_without_a_run_the_others_are_reported_on(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "nothing").mkdir()
    assert main(["report", str(run), str(tmp_path / "nothing")]) == 2
    said = capsys.readouterr()
    assert said.err.startswith(f"lth: {tmp_path / 'nothing'} holds no run")
    assert said.err.count("\n") == 1
    assert "nothing holds no run" in (run / "report" / "report.html").read_text().replace("<wbr>", "")


@pytest.mark.parametrize("words", [["--densities", "many"], ["--densities", "0"], ["--steps", "1e3"], ["--steps", "0"]])
def test_words_that_are_no_numbers_are_told_as_what_they_should_be(
    run: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", str(run), *words]) == 2
    error = capsys.readouterr().err
    assert f"'{words[1]}' are no" in error
    assert "invalid _" not in error


@pytest.mark.parametrize(("words", "said"), [
    (["--densities", "0.2"], "No level has 0.2% of the weights; the nearest has 51.3%. Percent are expected: 20 for 20%."),  # noqa: E501
    (["--densities", "100,30"], "No level has 30% of the weights; the nearest has 51.3%."),
    (["--steps", "9000"], "No training was evaluated near step 9,000; the last evaluation is that of step 2,000."),
])  # fmt: skip
def test_what_is_asked_for_and_not_there_is_told_before_anything_is_written(
    run: Path, tmp_path: Path, words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", str(run), "--out", str(tmp_path / "out"), *words]) == 2
    assert capsys.readouterr().err == f"lth: {said}\n"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "plan",
    [
        {"format": 1, "replicates": 3, "arms": {"ticket": [0, 1, 2, 3]}, "sessions": [{"versions": None}]},
        {"format": 1, "replicates": 3, "arms": {}, "sessions": []},
    ],
)
def test_a_sparse_run_json_is_no_hindrance(run: Path, plan: dict[str, object]) -> None:
    (run / "run.json").write_text(json.dumps(plan))
    assert main(["report", str(run)]) == 0
    assert main(["ls", str(run)]) == 0


def shut(monkeypatch: pytest.MonkeyPatch, *folders: Path, of: str = "scandir") -> None:
    """Folders that may not be listed, or not be searched: a superuser, whom the tests may run as, could do both."""
    if of == "scandir":
        real = os.scandir

        def scandir(path: str | Path = ".") -> Any:
            if Path(path) in folders:
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
            return real(path)

        monkeypatch.setattr(os, "scandir", scandir)
        return
    is_file = Path.is_file

    def looks(path: Path) -> bool:
        if path.parent in folders:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return is_file(path)

    monkeypatch.setattr(Path, "is_file", looks)


@pytest.mark.parametrize("of", ["scandir", "is_file"])
@pytest.mark.parametrize("command", ["ls", "report", "diff"])
def test_a_folder_that_may_not_be_read_is_one_line_and_hides_none_beside_it(
    run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: str,
    of: str,
) -> None:
    logs = run.parents[1]
    for name in ("a", "z"):  # before and behind the run's in the order of names
        (logs / name / "deep").mkdir(parents=True)
    other = shutil.copytree(run, tmp_path / "other/version_0")
    shut(monkeypatch, logs / "a/deep", logs / "z", of=of)
    words = {"ls": [logs], "report": [logs, "--out", tmp_path / "out"], "diff": [logs, other]}[command]
    assert main([command, *map(str, words)]) == 2
    out, error = capsys.readouterr()
    assert error.splitlines() == [
        f"lth: {logs / 'a/deep'} cannot be read (Permission denied). Nor can 1 other folder. Runs in there are left "
        "out: mend the permissions."
    ]
    assert out


@pytest.mark.parametrize("command", ["ls", "report", "diff"])
def test_where_nothing_may_be_read_it_is_not_said_that_there_is_nothing(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    logs = run.parents[1]
    shut(monkeypatch, logs)
    assert main([command, str(logs), *([str(run)] if command == "diff" else [])]) == 2
    error = capsys.readouterr().err
    assert f"{logs} cannot be read (Permission denied)" in error
    assert len(error.splitlines()) == 1
    assert "holds no run" not in error
