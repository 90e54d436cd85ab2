"""What the command says to those who nearly typed it right."""

import re
from pathlib import Path

import pytest
import yaml

from lth_lightning import arguments
from lth_lightning.callbacks import Display
from lth_lightning.cli import main
from lth_lightning.report.folders import names
from lth_lightning.resume import advice
from lth_lightning.sweep.cells import Cell, begun
from lth_lightning.sweep.cells import new_cells as cells_of

QUICK = ["fit", "--config", "quickstart"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([*QUICK, "--pruning.level", "3"], "did you mean --pruning.levels?"),
        ([*QUICK, "--pruning.level=3"], "did you mean --pruning.levels?"),
        ([*QUICK, "--optimizer", "SGD"], "did you mean --model.optimizer?"),
        ([*QUICK, "--optimizer.lr", "0.1"], "did you mean --model.optimizer.lr?"),
        ([*QUICK, "--lr_scheduler", "StepLR"], "did you mean --model.lr_scheduler?"),
        ([*QUICK, "--max_steps", "3"], "did you mean --trainer.max_steps?"),
        ([*QUICK, "--replicate", "3"], "did you mean --replicates?"),
        ([*QUICK, "--qqq", "3"], "see `lth fit --help`"),
        (["fit", "lenet"], "did you mean --config lenet"),
        (["test"], "Say what to test: --ckpt_path"),
        (["validate"], "Say what to validate: --ckpt_path"),
    ],
)
def test_the_option_that_is_meant(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    err = capsys.readouterr().err
    assert told in err
    assert len(err.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("LTH_FIT__TRAINER__MAX_STEPS", "3", "give --trainer.max_steps"),
        ("PL_FIT__PRUNING__LEVELS", "3", "give --pruning.levels"),
        ("JSONARGPARSE_DEFAULT_ENV", "true", "unset JSONARGPARSE_DEFAULT_ENV"),
    ],
)
def test_options_in_the_environment_are_refused(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, name: str, value: str, told: str
) -> None:
    monkeypatch.setenv(name, value)
    assert main([*QUICK, "--dry-run"]) == 2
    assert told in capsys.readouterr().err


def test_the_first_config_names_the_run(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("trainer: {max_steps: 3}\n")
    words = arguments.prepare(["fit", "--config", "lenet", "--config", str(tmp_path / "mine.yaml")])
    assert arguments.experiment_of(words) == "lenet"
    assert arguments.experiment_of(arguments.prepare(["fit", f"--config={tmp_path / 'mine.yaml'}"])) == "mine"


def test_a_folder_whose_name_begins_with_a_dash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    short = ["--trainer.max_steps", "2", "--replicates", "1", "--pruning.levels", "0", "--pruning.controls", "[]"]
    Path("-logs").mkdir()
    assert main([*QUICK, *short, "--logs", "-logs"]) == 0
    assert main(["fit", "--resume", "-logs/quickstart/version_0"]) == 0
    assert main(["test", "--ckpt_path", "-logs/quickstart/version_0/replicate_0/ticket/level_00"]) == 0


def test_a_sweep_is_extended_by_the_flag_that_is_named(tmp_path: Path) -> None:
    grid = {"model.activation": ["relu", "tanh"], "seed_everything": [0, 1]}
    listed = {}
    for cell in cells_of("x", ["fit"], grid):
        run = tmp_path / cell.name / "version_0"
        run.mkdir(parents=True)
        (run / "config.yaml").write_text("{}\n")
        listed[cell.name] = {"run": "version_0", "values": cell.values}
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump({"experiment": "x", "cells": listed}, sort_keys=False))
    found = begun(tmp_path, ["fit", "--config", "c"], {"model": {"activation": ["sigmoid"]}})
    new: list[Cell] = [cell for cell in found if cell.run is None]
    assert [cell.values for cell in new] == [
        {"model.activation": "sigmoid", "seed_everything": 0},
        {"model.activation": "sigmoid", "seed_everything": 1},
    ]
    assert len(found) == 6


def test_of_several_versions_the_first_has_its_number_too(tmp_path: Path) -> None:
    versions = [tmp_path / "multi" / f"version_{number}" for number in range(2)]
    assert names(versions) == ["multi/version_0", "multi/version_1"]
    assert names([versions[0], tmp_path / "other" / "version_0"]) == ["multi", "other"]
    assert names([*versions, tmp_path / "other" / "version_0"]) == ["multi/version_0", "multi/version_1", "other"]


def test_a_terminal_shows_each_finished_training(capsys: pytest.CaptureFixture[str]) -> None:
    from rich.console import Console

    from lth_lightning.results.record import Record
    from lth_lightning.results.training import Training

    display = Display(Console(force_terminal=True, width=100))
    display.start(1, 0)
    record = Record(
        replicate=0, arm="ticket", trial=0, level=0, status="ok", weights=9, weights_remaining=9, density=1.0, steps=2
    )
    display.end(record, Training(0, "ticket", 0, 0, Path()))
    display.stop()
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", capsys.readouterr().out)
    assert "[1/1] replicate 0 ticket level 0" in shown


def test_a_short_flag_in_a_config_is_told_where_it_belongs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text("replicates: 1\n")
    assert main([*QUICK, "--config", str(mine), "--dry-run"]) == 2
    told = "A config has no 'replicates' by itself: put 'replicates' under 'pruning'."
    assert capsys.readouterr().err == f"lth: {mine}: {told}\n"


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ((), "Nothing is finished yet, and no checkpoint is there; begin again with: "),
        (("level_00/last.ckpt",), "Nothing is finished yet; the training goes on from its last checkpoint with: "),
        (("level_00/result.json",), "What is finished is kept; go on with: "),
        (("level_00/result.json", "level_01/last.ckpt"), "What is finished is kept; go on with: "),
    ],
)
def test_what_is_kept_of_a_run_that_stops(tmp_path: Path, files: tuple[str, ...], told: str) -> None:
    run = tmp_path / "sweep" / "lr=1" / "version_0"
    for name in files:
        (run / "replicate_0" / "ticket" / name).parent.mkdir(parents=True, exist_ok=True)
        (run / "replicate_0" / "ticket" / name).touch()
    # A sweep is gone on with as a whole.
    for folder in (run, tmp_path / "sweep"):
        assert advice(folder) == f"{told}lth fit --resume {folder}"
