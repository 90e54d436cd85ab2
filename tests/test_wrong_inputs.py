"""Whatever is given: one line and exit code 2, and nothing written; or a right run."""

import shutil
import time
from pathlib import Path

import pytest
from wrong_inputs import CHOSEN, NO_CONTROLS, QUICK, flags, some_values, words

from lth_lightning.cli import main

PATIENCE = 180.0
"""Seconds; far more than any of it takes."""


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    "options", CHOSEN, ids=lambda options: " ".join(options)[:60].encode("ascii", "replace").decode()
)
def test_a_mistake_is_told_in_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path, options: list[str]) -> None:
    assert main(["fit", *QUICK, *NO_CONTROLS, *options]) == 2
    assert_told(capsys, tmp_path)


def assert_told(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("lth: ")
    assert list(folder.iterdir()) == []


@pytest.mark.thorough
@pytest.mark.parametrize(("number", "flag"), list(enumerate(flags())))
def test_each_flag_with_values_of_all_kinds(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, number: int, flag: str
) -> None:
    for value in some_values(number):
        began = time.monotonic()
        capsys.readouterr()
        code = main([*words(flag, value), "--dry-run"] if _is_long(flag) else words(flag, value))
        assert code in (0, 2), (flag, value)
        assert time.monotonic() - began < PATIENCE, (flag, value)
        assert not Path("called").exists()
        if code == 2:
            assert_told(capsys, tmp_path)
        for path in tmp_path.iterdir():
            shutil.rmtree(path)


def _is_long(flag: str) -> bool:
    """Flags by which the run would be a long one, or one that leaves the folder of this test."""
    return flag.rsplit(".", 1)[-1] in (
        "max_steps",
        "max_epochs",
        "levels",
        "replicates",
        "logs",
        "devices",
        "num_nodes",
    )


def test_there_are_hundreds_of_inputs() -> None:
    assert len(flags()) * len(some_values(0)) + len(CHOSEN) >= 400
