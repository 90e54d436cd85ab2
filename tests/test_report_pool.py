"""Runs of one study, each with other replicates, are reported, listed and compared as one."""

from io import StringIO
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from report_runs import write_run
from rich.console import Console

from lth_lightning.errors import UserError
from lth_lightning.report import difference, listing
from lth_lightning.report.command import main
from lth_lightning.report.curves import add_curves
from lth_lightning.report.pool import pool
from lth_lightning.report.runs import Run, read
from lth_lightning.results import Training, session

OPTIONS: dict[str, Any] = {"levels": range(3), "controls": {"random_reinit": [1, 2]}}


def write(folder: Path, first: int, replicates: int, **options: Any) -> Run:
    write_run(folder, replicates=replicates, first_replicate=first, **{**OPTIONS, **options})
    numbers = range(first, first + replicates)
    plan = [Training(r, "ticket", 0, level, folder) for r in numbers for level in range(3)]
    plan += [Training(r, "random_reinit", 0, level, folder) for r in numbers for level in (1, 2)]
    session.write(folder, plan, {"started": f"2026-11-2{first}", "versions": {}})
    return read(folder, "/".join(folder.parts[-2:]))


@pytest.fixture
def study(tmp_path: Path) -> list[Run]:
    """Replicates 3, 0 to 2, and 4 to 5, in three runs."""
    return [write(tmp_path / "study" / f"version_{n}", *part) for n, part in enumerate([(3, 1), (0, 3), (4, 2)])]


@pytest.fixture
def whole(tmp_path: Path) -> Run:
    """The same, made at once."""
    return write(tmp_path / "whole" / "version_0", 0, 6)


def test_the_parts_make_the_run_that_was_made_at_once(study: list[Run], whole: Run) -> None:
    for run in (*study, whole):
        add_curves(run)
    (pooled,) = pool(study)
    assert pooled.name == "study/version_1 + version_0 + version_2"
    assert pooled.records == whole.records
    assert pooled.replicates == whole.replicates == [0, 1, 2, 3, 4, 5]
    assert pooled.planned == whole.planned == 30
    order = ["replicate", "arm", "trial", "level", "step"]
    curves = [run.curves.astype({"arm": str}).sort_values(order, ignore_index=True) for run in (pooled, whole)]
    pd.testing.assert_frame_equal(*curves)
    for replicate in range(6):
        assert (pooled.folder_of(replicate) / "ticket" / "level_01" / "result.json").exists()
    assert [s["started"] for s in pooled.plan["sessions"]] == ["2026-11-20", "2026-11-23", "2026-11-24"]


def test_a_report_of_the_parts_is_that_of_the_whole(study: list[Run], whole: Run, tmp_path: Path) -> None:
    assert main(["report", *(str(run.folder) for run in study), "--out", str(tmp_path / "a")]) == 0
    assert main(["report", str(whole.folder), "--out", str(tmp_path / "b")]) == 0
    parts, made_at_once = (pd.read_csv(tmp_path / name / "summary.csv") for name in "ab")
    pd.testing.assert_frame_equal(parts.drop(columns="run"), made_at_once.drop(columns="run"))
    page = (tmp_path / "a" / "report.html").read_text()
    assert "finished: 30 trainings" in page
    assert "6 (0-5)" in page
    assert "missing in replicate" not in page


def test_a_part_alone_lacks_nothing(tmp_path: Path, study: list[Run]) -> None:
    assert main(["report", str(study[2].folder), "--out", str(tmp_path / "out")]) == 0
    page = (tmp_path / "out" / "report.html").read_text()
    assert "finished: 10 trainings" in page
    assert "missing in replicate" not in page


def test_a_replicate_that_two_parts_have_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parts = [write(tmp_path / "study" / f"version_{n}", *part) for n, part in enumerate([(0, 3), (2, 2)])]
    with pytest.raises(UserError, match=r"Replicate 2 is in both .*version_0 and .*version_1"):
        pool(parts)
    assert main(["report", str(tmp_path / "study")]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert [run.name for run in pool(parts, is_strict=False)] == ["study/version_0", "study/version_1"]


@pytest.mark.parametrize(
    "other",
    [{"seed_everything": 1}, {"trainer.max_steps": 9}, {"pruning.rates": {"linear": 0.3, "output": 0.1}}, {"data": {}}],
    ids=str,
)
def test_runs_that_differ_otherwise_stay_apart(tmp_path: Path, other: dict[str, Any]) -> None:
    first = write(tmp_path / "study" / "version_0", 0, 2)
    second = write(tmp_path / "study" / "version_1", 2, 2, config=other)
    assert pool([first, second]) == [first, second]


def test_repetitions_of_the_same_replicates_stay_apart(tmp_path: Path) -> None:
    runs = [write(tmp_path / "study" / f"version_{n}", 0, 2) for n in (0, 1)]
    assert pool(runs) == runs


def test_where_a_run_lies_and_how_it_uses_the_machine_makes_no_other_study(tmp_path: Path) -> None:
    first = write(tmp_path / "one" / "version_0", 0, 2, config={"threads": 1, "data.init_args.root": "a"})
    second = write(tmp_path / "two" / "version_0", 2, 2, config={"threads": 2, "data.init_args.root": "b"})
    assert [run.name for run in pool([first, second])] == ["one/version_0 + two/version_0"]


def test_a_table_without_a_config_is_no_part(tmp_path: Path, study: list[Run]) -> None:
    (study[0].folder / "config.yaml").unlink()
    (study[0].folder / "run.json").unlink()
    alone = read(study[0].folder, "alone")
    assert [run.name for run in pool([alone, *study[1:]])] == ["alone", "study/version_1 + version_2"]


def test_they_are_one_line_of_the_list(tmp_path: Path, study: list[Run]) -> None:
    out = StringIO()
    assert listing.show(tmp_path, Console(file=out, width=200)) == 0
    lines = out.getvalue().splitlines()[2:]
    assert len(lines) == 1
    assert lines[0].split("  ")[0] == "study/version_1 + version_0 + version_2"
    assert "finished" in lines[0]
    assert "30/30" in lines[0]
    assert "6/6" in lines[0]


def test_they_are_compared_as_one(tmp_path: Path, study: list[Run], whole: Run) -> None:
    out = StringIO()
    assert difference.show(study[0].folder.parent, whole.folder, Console(file=out, width=100)) == 0
    assert "all 30 shared trainings are equal bit for bit" in out.getvalue()
