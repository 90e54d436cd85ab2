"""`lth report` from its words to its files: whole runs, odd ones, damaged ones."""

import csv
import re
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
from report_runs import write_run

from lth_lightning.cli import main as fit
from lth_lightning.report import write
from lth_lightning.report.command import main
from lth_lightning.report.figures import NAMES
from lth_lightning.report.runs import Run
from lth_lightning.report.table import summary
from lth_lightning.results.record import Record
from lth_lightning.results.run_folder import CONFIG, METRICS, RESULT, TABLE

CONTROLS = {"random_reinit": [1, 3, 5]}


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def page(folder: Path) -> str:
    return (folder / "report" / "report.html").read_text()


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "logs" / "lenet" / "version_0"
    write_run(folder, levels=range(6), controls=CONTROLS, test_curve=True)
    return folder


def test_a_report_is_written_into_the_runs_folder_and_says_where(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(run)]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    assert re.search(r"report: \S*version_0/report/report\.html", said.out)
    names = {path.name for path in (run / "report").iterdir()}
    assert {"report.html", "summary.csv", "early_stop.png", "early_stop.svg", "accuracy_curves.png"} <= names
    assert {Path(name).stem for name in names if name.endswith(".png")} == {
        Path(name).stem for name in names if name.endswith(".svg")
    }
    assert all(path.stat().st_size for path in (run / "report").iterdir())


def test_the_summarys_numbers_are_those_of_the_table(run: Path) -> None:
    assert main(["report", str(run)]) == 0
    rows = table(run / TABLE)
    summary = table(run / "report" / "summary.csv")
    assert {(row["arm"], row["level"]) for row in summary} == {(row["arm"], row["level"]) for row in rows}
    for row in summary:
        mine = [other for other in rows if (other["arm"], other["level"]) == (row["arm"], row["level"])]
        assert int(row["trials"]) == len(mine) == 3
        assert float(row["density"]) == pytest.approx(float(mine[0]["density"]))
        for name in ("early_stop_step", "early_stop_test_acc", "final_val_loss", "final_train_acc", "seconds"):
            values = [float(other[name]) for other in mine]
            assert float(row[name]) == pytest.approx(fmean(values))
            assert float(row[f"{name}_min"]) == pytest.approx(min(values))
            assert float(row[f"{name}_max"]) == pytest.approx(max(values))


def test_what_an_older_report_has_drawn_goes_where_it_is_drawn_no_more(run: Path) -> None:
    (run / "report").mkdir()
    for name in ("sweep.png", "sweep.svg", "mine.png"):
        (run / "report" / name).write_text("of old")
    assert main(["report", str(run)]) == 0
    names = {path.name for path in (run / "report").iterdir()}
    assert "mine.png" in names
    assert not {"sweep.png", "sweep.svg"} & names
    assert {Path(name).stem for name in names if name.endswith(".svg")} <= set(NAMES)


def test_the_winning_levels_are_marked(run: Path) -> None:
    assert main(["report", str(run)]) == 0
    rows = [row for row in table(run / "report" / "summary.csv") if row["arm"] == "ticket"]
    dense = rows[0]
    assert dense["wins"] == ""
    for row in rows[1:]:
        better = float(row["early_stop_test_acc"]) >= float(dense["early_stop_test_acc"])
        sooner = float(row["early_stop_step"]) <= float(dense["early_stop_step"])
        assert row["wins"] == str(better and sooner)


def test_a_level_that_cannot_be_judged_is_not_said_to_lose(tmp_path: Path) -> None:
    stops = {0: 900, 1: 800, 2: 1000, 3: 2000}

    def change(record: Record) -> None:
        record.early_stop_step, record.early_stop_test_acc = stops[record.level], 0.97

    records = write_run(tmp_path / "a" / "version_0", levels=range(4), curves=False, change=change)
    found = summary([Run(tmp_path, "a", {}, records)])
    assert list(found.wins) == [None, True, False, None]
    assert list(found.chance_excluded) == [None, True, None, None]


def test_several_runs_get_one_report_in_the_folder_that_holds_them(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_run(tmp_path / "logs" / name / "version_0", levels=range(4))
    assert main(["report", str(tmp_path / "logs" / "a" / "version_0"), str(tmp_path / "logs" / "b")]) == 0
    assert {row["run"] for row in table(tmp_path / "logs" / "report" / "summary.csv")} == {"a", "b"}
    assert main(["report", str(tmp_path / "logs")]) == 0, "the report is no run itself"
    assert {row["run"] for row in table(tmp_path / "logs" / "report" / "summary.csv")} == {"a", "b"}


def test_the_reader_may_choose_place_densities_and_steps(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "elsewhere"
    assert main(["report", str(run), "--out", str(out), "--densities", "100,64.1", "--steps", "700,1400"]) == 0
    assert not (run / "report").exists()
    html = (out / "report.html").read_text()
    assert "64.1%" in html
    assert "1,400" in html
    assert "/<wbr>version_0</h1>" in html, "a narrow page breaks the title before the version and not within it"


def test_a_real_run_with_weights_has_all_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    logs = tmp_path / "logs"
    words = ["--trainer.max_steps=40", "--pruning.evaluate_every=10", "--pruning.levels=2", "--replicates=2"]
    assert fit(["fit", "--config", "quickstart", *words, f"--logs={logs}", "--workers=1"]) == 0
    run = logs / "quickstart" / "version_0"
    assert f"lth report {run}" in " ".join(capsys.readouterr().out.split())
    assert main(["report", str(run)]) == 0
    names = {path.stem for path in (run / "report").glob("*.svg")}
    assert {
        "early_stop",
        "final",
        "fixed_steps",
        "initializations",
        "movement",
        "growth",
        "incoming",
        "outgoing",
    } <= names
    html = page(run)
    assert "None of the claims of the paper" in html
    assert "No verdict: the validation loss of a dense network" in html, "what lth fit says at its end, after 40 steps"
    assert "lth_lightning 0." in html
    assert "torch" in html


def test_a_run_that_has_finished_nothing_is_reported_as_such(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run" / "version_0"
    write_run(folder, levels=[])
    (folder / TABLE).unlink()
    assert main(["report", str(folder)]) == 0
    assert "No training is finished yet" in page(folder)
    assert "No training is finished yet" in capsys.readouterr().out


def test_what_is_still_written_is_named_and_drawn_nowhere(run: Path) -> None:
    going = run / "replicate_0" / "ticket" / "level_06"
    going.mkdir()
    (going / METRICS).write_text("step,train_loss,val_loss,val_acc\n100,0.5,0.5,0.9\n200,0.4,0.4,0.91\n300,0.3,0.")
    assert main(["report", str(run)]) == 0
    assert "replicate 0 ticket level 6 (step 200)" in page(run)
    assert not any(row["level"] == "6" for row in table(run / "report" / "summary.csv"))


def test_one_replicate_missing_levels_and_divergence_are_named(tmp_path: Path) -> None:
    folder = tmp_path / "run" / "version_0"
    write_run(
        folder,
        replicates=2,
        levels=range(6),
        controls={"random_reinit": range(1, 6)},
        diverged={(1, "random_reinit", 0, 3)},
        missing={(0, "ticket", 0, 5), (1, "random_reinit", 0, 4), (1, "random_reinit", 0, 5)},
    )
    assert main(["report", str(folder)]) == 0
    html = page(folder)
    assert "Replicate 1, random reinit 0, level 3 diverged" in html
    assert "ticket: level 5 missing in replicate 0" in html
    assert "random reinit 0: levels 4-5 missing in replicate 1" in html
    single = tmp_path / "single" / "version_0"
    write_run(single, replicates=1, levels=range(6))
    assert main(["report", str(single)]) == 0
    assert "One replicate" in page(single)


def test_an_arm_without_any_number_is_no_crash(tmp_path: Path) -> None:
    def blank(record: Record) -> None:
        if record.arm == "random_reinit":
            for name in ("early_stop_step", "early_stop_test_acc", "final_test_acc", "early_stop_train_acc"):
                setattr(record, name, None)

    folder = tmp_path / "run" / "version_0"
    write_run(folder, levels=range(4), controls=CONTROLS | {"random_reinit": [1, 2]}, change=blank)
    assert main(["report", str(folder)]) == 0


def test_all_of_an_arm_may_have_diverged(tmp_path: Path) -> None:
    folder = tmp_path / "run" / "version_0"
    keys = {(replicate, "random_mask", 0, 1) for replicate in range(3)}
    write_run(folder, levels=range(4), controls={"random_mask": [1]}, diverged=keys)
    assert main(["report", str(folder)]) == 0
    assert page(folder).count("random mask 0, level 1 diverged") == 3


@pytest.mark.parametrize(
    "words", [["report", "nowhere"], ["report"], ["report", "x", "--densities", "200"], ["report", "x", "--step", "5"]]
)
def test_a_mistake_is_one_line(words: list[str], tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x").mkdir()
    assert main(words) == 2
    said = capsys.readouterr()
    assert re.fullmatch(r"lth: [^\n]+\n", said.err)
    assert said.out == ""
    assert list(tmp_path.rglob("*")) == [tmp_path / "x"]


DAMAGE = {
    "metrics that are no numbers": (METRICS, lambda text: text.replace("200,", "200,oops,", 1)),
    "metrics cut off": (METRICS, lambda text: text[: len(text) // 2]),
    "metrics of zeros": (METRICS, lambda text: "\0" * 100),
    "a table cut off": (TABLE, lambda text: text[: 2 * len(text) // 3]),
    "a table without a head": (TABLE, lambda text: "x,y\n1,2\n"),
    "a config that is no YAML": (CONFIG, lambda text: "a: [1,\n: }"),
}


@pytest.mark.thorough
@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_one_line_and_the_rest_is_reported(
    damage: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name, change = DAMAGE[damage]
    path = run / "replicate_1" / "ticket" / "level_03" / name if name == METRICS else run / name
    path.write_text(change(path.read_text()))
    assert main(["report", str(run)]) == 2
    said = capsys.readouterr()
    assert re.fullmatch(rf"lth: {re.escape(str(path))} [^\n]+\n", said.err)
    assert path.name in page(run)
    rows = table(run / "report" / "summary.csv")
    assert len(rows) == 6 + 3, "result.json tells what a damaged table does not"


def test_a_damaged_table_without_records_beside_it_gives_its_whole_rows(run: Path) -> None:
    for path in run.rglob(RESULT):
        path.unlink()
    for path in run.rglob(METRICS):
        path.unlink()
    lines = (run / TABLE).read_text().splitlines(keepends=True)
    (run / TABLE).write_text("".join(lines[:10]) + lines[10][:20])
    assert main(["report", str(run)]) == 2
    assert sum(int(row["trials"]) for row in table(run / "report" / "summary.csv")) == 9


def test_a_folder_with_nothing_but_a_table_is_enough(tmp_path: Path) -> None:
    folder = tmp_path / "lenet"
    write_run(folder, levels=range(5), curves=False)
    (folder / CONFIG).unlink()
    assert main(["report", str(folder)]) == 0
    assert (folder / "report" / "early_stop.png").exists()


@pytest.mark.parametrize("was_there", [False, True])
def test_ctrl_c_leaves_no_empty_folder_behind(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], was_there: bool
) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(write, "add_curves", interrupted)
    out = tmp_path / "deep" / "out"
    if was_there:
        out.mkdir(parents=True)
    assert main(["report", str(run), "--out", str(out)]) == 130
    assert capsys.readouterr().err == "\nStopped.\n"
    assert out.exists() == out.parent.exists() == was_there
