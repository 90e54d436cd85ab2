"""`lth ls`: the runs in a folder, how far each is, and its best ticket."""

import fcntl
import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from report_runs import write_run
from rich.console import Console
from runs import environment

from lth_lightning.report import listing, runs, terminal
from lth_lightning.report.command import main
from lth_lightning.results import Record, Training, run_folder, session
from lth_lightning.results.record import read_table
from lth_lightning.results.run_folder import is_owned, owned


def plan(run: Path, replicates: int, **arms: Sequence[int]) -> None:
    session.write(
        run, [Training(r, arm, 0, level, run) for r in range(replicates) for arm in arms for level in arms[arm]], None
    )


def table(folder: Path, width: int = 200) -> list[list[str]]:
    """The listing's cells below its head, as a terminal shows them; a wrapped path stays in parts."""
    out = StringIO()
    assert listing.show(folder, Console(file=out, width=width, force_terminal=True, color_system=None)) == 0
    rows = out.getvalue().split(listing.LEGEND[:20])[0]
    return [re.split(r" {2,}", line.strip()) for line in rows.splitlines()[1:]]


def plain(folder: Path, capsys: pytest.CaptureFixture[str], code: int = 0) -> list[dict[str, str]]:
    """The listing's rows as a pipe gets them, by the names of the columns."""
    assert main(["ls", str(folder)]) == code
    legend, head, *lines = capsys.readouterr().out.splitlines()
    assert legend == f"# {listing.LEGEND}"
    names = re.split(r" {2,}", head)
    assert names == ["run", "state", "trainings", "replicates", "level", "best ticket", "controls", "last written"]
    return [dict(zip(names, re.split(r" {2,}", line), strict=True)) for line in lines]


def accuracies(by_level: dict[int, tuple[int, float]]) -> Any:
    """Sets each level's early-stop step and test accuracy there, the same in all replicates."""

    def change(record: Record) -> None:
        record.early_stop_step, record.early_stop_test_acc = by_level[record.level]

    return change


def test_a_finished_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "lenet" / "version_0"
    # Level 2 is sooner and better, 3 better but later, 4 sooner but worse.
    told = {0: (1000, 0.97), 1: (900, 0.975), 2: (800, 0.9735), 3: (1100, 0.98), 4: (500, 0.96)}
    write_run(run, levels=range(5), controls={"random_reinit": [1, 3]}, change=accuracies(told))
    plan(run, 3, ticket=range(5), random_reinit=[1, 3])
    os.utime(run / "run.json", (0, time.mktime((2030, 1, 2, 3, 4, 0, 0, 0, -1))))
    (row,) = plain(tmp_path, capsys)
    assert row == {
        "run": "lenet/version_0",
        "state": "finished",
        "trainings": "21/21",
        "replicates": "3/3",
        "level": "4/4",
        "best ticket": "level 2, 64.1%, +0.35 points",
        "controls": "random_reinit",
        "last written": "2030-01-02 03:04",
    }


@pytest.mark.parametrize(("change", "said"), [
    ({0: (1000, 0.97), 1: (900, 0.96), 2: (900, 0.96)}, "none"),
    # The dense network's early stop is its last step: it was trained too briefly to be compared with.
    ({0: (2000, 0.97), 1: (900, 0.98), 2: (900, 0.98)}, "-"),
    ({0: (900, 0.97), 1: (2000, 0.98), 2: (2000, 0.96)}, "-"),
    ({0: (900, 0.97), 1: (2000, 0.98), 2: (1000, 0.96)}, "none"),
])  # fmt: skip
def test_no_ticket_wins_or_none_can_be_judged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: dict[int, tuple[int, float]], said: str
) -> None:
    write_run(tmp_path / "a" / "version_0", levels=range(3), change=accuracies(change))
    assert [row["best ticket"] for row in plain(tmp_path, capsys)] == [said]


@pytest.mark.parametrize("way", ["LearningRateRewind", "FineTune"])
def test_networks_that_train_on_win_no_ticket(tmp_path: Path, capsys: pytest.CaptureFixture[str], way: str) -> None:
    told = {0: (1000, 0.97), 1: (900, 0.98)}
    retrain = {"class_path": f"lth_lightning.callbacks.{way}", "init_args": {}}
    for name, config in (("ticket", {}), ("trains_on", {"pruning.retrain": retrain})):
        write_run(tmp_path / name / "version_0", levels=range(2), change=accuracies(told), config=config)
    best = {row["run"]: row["best ticket"] for row in plain(tmp_path, capsys)}
    assert best == {"ticket/version_0": "level 1, 80.0%, +1.00 points", "trains_on/version_0": "-"}


def test_a_run_from_python_whose_networks_train_on_wins_none_either(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "a" / "version_0"
    write_run(run, levels=range(2), change=accuracies({0: (1000, 0.97), 1: (900, 0.98)}))
    (run / "config.yaml").write_text("# started from Python, so there is no config\n")
    plan = [Training(replicate, "ticket", 0, level, run) for replicate in range(3) for level in range(2)]
    session.write(run, plan, None, trains_on=True)
    assert [row["best ticket"] for row in plain(tmp_path, capsys)] == ["-"]


def test_a_stopped_run_says_how_far_it_came(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "a" / "version_0"
    write_run(run, replicates=2, levels=range(4), missing={(1, "ticket", 0, level) for level in (2, 3)})
    plan(run, 3, ticket=range(6))
    (row,) = plain(tmp_path, capsys)
    assert [row[name] for name in ("state", "trainings", "replicates", "level")] == ["stopped", "6/18", "2/3", "1/5"]


def test_a_run_that_another_process_is_at_work_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a", "b"):
        write_run(tmp_path / name / "version_0", replicates=1, levels=range(2))
        plan(tmp_path / name / "version_0", 1, ticket=range(3))
    with owned(tmp_path / "a" / "version_0"):
        assert {row["run"]: row["state"] for row in plain(tmp_path, capsys)} == {
            "a/version_0": "running",
            "b/version_0": "stopped",
        }
        assert ["a/version_0", "running", "2/3"] in [cells[:3] for cells in table(tmp_path)]


def test_looking_whether_a_run_is_owned_disturbs_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not is_owned(tmp_path)
    with owned(tmp_path):
        assert is_owned(tmp_path)
        assert is_owned(tmp_path), "the first look has not taken it"
    assert not is_owned(tmp_path)
    assert not is_owned(tmp_path / "missing")
    look = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(look, fcntl.LOCK_SH)  # as `is_owned` holds it, for a moment
    assert not is_owned(tmp_path), "two who look at once do not take each other for an owner"
    waits: list[float] = []

    def look_ends(seconds: float) -> None:
        waits.append(seconds)
        os.close(look)

    monkeypatch.setattr(run_folder.time, "sleep", look_ends)
    with owned(tmp_path):
        assert is_owned(tmp_path)
    assert len(waits) == 1, "it waits for one who looks"


def test_a_run_without_results(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "a" / "version_0"
    run.mkdir(parents=True)
    (run / "config.yaml").write_text("seed_everything: 0\n")
    (row,) = plain(tmp_path, capsys)
    assert list(row.values())[1:-1] == ["not begun", "0", "0", "-", "-", "-"]
    plan(run, 2, ticket=range(3))
    (row,) = plain(tmp_path, capsys)
    assert list(row.values())[1:-1] == ["empty", "0/6", "0/2", "-/2", "-", "-"]
    level = run / "replicate_0" / "ticket" / "level_00"
    level.mkdir(parents=True)
    (level / "mask.pt").write_bytes(b"")
    (row,) = plain(tmp_path, capsys)
    assert row["state"] == "empty", "nothing is trained yet"


@pytest.mark.parametrize("name", ["last.ckpt", "metrics.csv"])
def test_a_run_that_was_stopped_in_its_first_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    run = tmp_path / "a" / "version_0"
    level = run / "replicate_1" / "ticket" / "level_00"
    level.mkdir(parents=True)
    plan(run, 2, ticket=range(3))
    (run / "config.yaml").write_text("seed_everything: 0\n")
    (level / name).write_text("step,train_loss,val_loss,val_acc\n")
    (row,) = plain(tmp_path, capsys)
    assert list(row.values())[1:-1] == ["stopped", "0/6", "0/2", "-/2", "-", "-"]
    with owned(run):
        (row,) = plain(tmp_path, capsys)
    assert row["state"] == "running"


def test_trainings_that_a_divergence_has_made_impossible_are_not_waited_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "a" / "version_0"
    # The first replicate's ticket diverges at level 1, the second's control at level 2.
    none = {(0, arm, 0, level) for arm in ("ticket", "noise") for level in (2, 3)} | {(1, "noise", 0, 3)}
    gone = {(0, "ticket", 0, 1), (1, "noise", 0, 2)}
    write_run(run, replicates=2, levels=range(4), controls={"noise": [1, 2, 3]}, missing=none, diverged=gone)
    plan(run, 2, ticket=range(4), noise=[1, 2, 3])
    (row,) = plain(tmp_path, capsys)
    assert (row["state"], row["trainings"], row["level"]) == ("finished", "9/9 (2 diverged)", "1/3")


def test_of_a_run_of_an_older_version_counts_alone_are_known(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("ended", "stopped"):
        write_run(tmp_path / name / "version_0", replicates=2, levels=range(3))
    (tmp_path / "stopped" / "version_0" / "replicate_1" / "ticket" / "level_03").mkdir()
    for row in plain(tmp_path, capsys):
        assert row["run"] == row["state"] + "/version_0"
        assert (row["trainings"], row["replicates"], row["level"]) == ("6", "2", "2")


def test_sweeps_and_versions_are_runs_like_any_other_and_the_latest_is_last(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ["b/version_10", "sweep/lr=0.1,hidden=300-100/version_0", "b/version_9", "a/version_0"]
    for second, name in enumerate(names):
        write_run(tmp_path / name, replicates=1, levels=[0], curves=False)
        for file in (tmp_path / name).iterdir():
            os.utime(file, (1e9 + second, 1e9 + second))
    assert [row["run"] for row in plain(tmp_path, capsys)] == names


def test_a_single_run_and_an_experiment_can_be_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(tmp_path / "lenet" / "version_0", replicates=1, levels=[0])
    assert [row["run"] for row in plain(tmp_path / "lenet", capsys)] == ["version_0"]
    assert [row["run"] for row in plain(tmp_path / "lenet" / "version_0", capsys)] == ["lenet/version_0"]


LONG = "a_sweep_of_many_things/normalization=mean-0.0-std-0.00392156862745098,activation=sigmoid/version_0"


@pytest.mark.parametrize("width", [80, 100, 120, 160, 250])
def test_the_table_fits_into_a_terminal_and_loses_nothing(tmp_path: Path, width: int) -> None:
    write_run(tmp_path / LONG, levels=range(16), controls={"random_reinit": [1], "random_mask": [1], "noise": [1]})
    write_run(tmp_path / "lenet" / "version_0", levels=range(16))
    plan(tmp_path / "lenet" / "version_0", 3, ticket=range(16))
    lines = "\n".join("  ".join(cells) for cells in table(tmp_path, width))
    out = StringIO()
    listing.show(tmp_path, Console(file=out, width=width, force_terminal=True, color_system=None))
    text = out.getvalue()
    assert max(map(len, text.splitlines())) <= width
    assert "\u2026" not in text, "nothing is cut"
    assert "lenet/version_0" in text
    assert "48/48" in lines
    assert "15/15" in lines
    first = [line.split("  ")[0].strip().split(" ended")[0] for line in text.splitlines()[1:] if "level:" not in line]
    assert LONG in "".join(first)
    assert ("controls" in text) == (width > 120)


def test_a_pipe_gets_a_line_a_run_whatever_its_length(tmp_path: Path) -> None:
    for name in (LONG, "lenet/version_0"):
        write_run(tmp_path / "lightning_logs" / name, replicates=1, levels=range(2))
    done = subprocess.run(
        [sys.executable, "-m", "lth_lightning", "ls"],
        capture_output=True, text=True, cwd=tmp_path, env=environment(COLUMNS="40"), check=True,
    )  # fmt: skip
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert len(lines) == 4, "what the columns are, their names, and a line for each run"
    assert [line for line in lines if LONG in line]
    assert not re.search(r"\x1b|[ ]$", done.stdout, re.MULTILINE)


DAMAGES = [
    ("results.csv", lambda text: text[:-20], "is damaged from line"),
    ("results.csv", lambda text: "", "is damaged: its first line"),
    ("results.csv", lambda text: text.replace("0.", "\udcff", 1), "is damaged"),
    ("config.yaml", lambda text: "a: [", "is damaged"),
    ("config.yaml", lambda text: "- 1\n", "is damaged"),
    ("run.json", lambda text: text[:-5], "is damaged"),
]


@pytest.mark.parametrize(("name", "damage", "said"), DAMAGES)
def test_damage_is_told_on_a_line_and_the_others_are_listed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, damage: Any, said: str
) -> None:
    for experiment in ("good", "bad"):
        write_run(tmp_path / experiment / "version_0", levels=range(3))
        plan(tmp_path / experiment / "version_0", 3, ticket=range(3))
    bad = tmp_path / "bad" / "version_0" / name
    bad.write_bytes(damage(bad.read_text()).encode(errors="surrogateescape"))
    assert main(["ls", str(tmp_path)]) == 2
    captured = capsys.readouterr()
    assert re.fullmatch(rf"lth: {re.escape(str(bad))} {said}[^\n]*\n", captured.err)
    rows = {line.split()[0]: line for line in captured.out.splitlines()}
    assert f"damaged: {name}" in rows["bad/version_0"]
    assert "damaged" not in rows["good/version_0"]
    assert "9/9" in rows["good/version_0"]


@pytest.mark.parametrize("make", [False, True], ids=["missing", "without runs"])
def test_a_folder_without_runs_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], make: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    if make:
        (tmp_path / "lightning_logs" / "empty").mkdir(parents=True)
    assert main(["ls"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert captured.err.startswith("lth: ")
    assert "lightning_logs" in captured.err
    assert "lth ls FOLDER" in captured.err


@pytest.mark.parametrize("words", [["--nonsense"], ["a", "b"], ["--help", "--nonsense"][1:]])
def test_a_mistaken_flag_is_one_line(capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    assert main(["ls", *words]) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert captured.err.startswith("lth: ")


def test_ctrl_c_ends_it_quietly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    write_run(tmp_path / "a" / "version_0", replicates=1, levels=[0], curves=False)
    monkeypatch.setattr(listing, "read", interrupted)
    assert main(["ls", str(tmp_path)]) == 130
    assert capsys.readouterr().err == "\nStopped.\n"


def test_a_reader_that_has_seen_enough_is_no_error(tmp_path: Path) -> None:
    for number in range(200):
        folder = tmp_path / "lightning_logs" / "a" / f"version_{number}"
        folder.mkdir(parents=True)
        (folder / "config.yaml").write_text("")
    command = f"{sys.executable} -m lth_lightning ls | head -n 1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, cwd=tmp_path, env=environment())
    assert done.stdout == f"# {listing.LEGEND}\n"
    assert done.stderr == ""


@pytest.mark.parametrize(("seconds", "shown"), [(0.4, False), (1.1, True)])
def test_a_bar_counts_where_it_takes_long(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], seconds: float, shown: bool
) -> None:
    clock = iter([0.0, seconds, seconds, seconds])
    monkeypatch.setattr(terminal.time, "monotonic", lambda: next(clock))
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich: this is a terminal
    assert list(terminal.patiently([1, 2, 3], "runs")) == [1, 2, 3]
    captured = capsys.readouterr()
    assert captured.out == ""
    assert ("runs" in captured.err) == shown


def test_of_hundreds_of_runs_each_table_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(200):
        write_run(tmp_path / f"e{number % 7}" / f"version_{number}", levels=range(3), curves=False)
    tables: list[Path] = []

    def counted(path: Path) -> Any:
        tables.append(path)
        return read_table(path)

    monkeypatch.setattr(runs, "read_table", counted)
    listing.show(tmp_path, Console(file=StringIO(), width=80))
    assert len(tables) == len(set(tables)) == 200
