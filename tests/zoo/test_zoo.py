"""Every kind of the zoo: fitted with a control and a rewind step, interrupted and resumed; numbers computed anew."""

import contextlib
import io
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import data_kinds
import epoch_kinds
import generator_kinds
import gradient_kinds
import hooks_kinds
import metrics_kinds
import network_kinds
import optimizer_kinds
import pytest
import pytorch_lightning as pl
import schedule_kinds
import state_kinds
import torch
import weights_kinds
from loop_helpers import StopAt, StoppedError, assert_same, equal, load, make_trainer, pruned_by_magnitude, rows
from pytorch_lightning.loggers import TensorBoardLogger
from rich.console import Console
from zoo_base import EVERY, REWIND_STEP, STEPS, Kind

from lth_lightning.callbacks import Control, Display, PruningLoop, RandomReinit, Rewind, Start
from lth_lightning.errors import UserError
from lth_lightning.report import command
from lth_lightning.results.training import Training
from lth_lightning.seeding import derive_seed

FILES = (
    data_kinds,
    epoch_kinds,
    generator_kinds,
    gradient_kinds,
    hooks_kinds,
    metrics_kinds,
    network_kinds,
    optimizer_kinds,
    schedule_kinds,
    state_kinds,
    weights_kinds,
)
KINDS = [kind for file in FILES for kind in file.KINDS]


def chosen(kinds: list[Kind], is_refused: bool) -> list[Any]:
    return [
        pytest.param(kind, marks=[pytest.mark.thorough] if kind.thorough else [])
        for kind in kinds
        if bool(kind.refusal) == is_refused
    ]


SERVED, REFUSED = (chosen(KINDS, is_refused) for is_refused in (False, True))


def go(kind: Kind, logs: Path, folder: Path | None = None, stop_at: tuple[int, int] | None = None) -> str:
    """A run of the kind in `logs/run/version_0`; what it said. `stop_at` is a level and a step of its ticket."""
    options: dict[str, Any] = {
        "levels": 2,
        "rates": {"linear": 0.3, "conv": 0.3, "output": 0.2},
        "rewind_step": REWIND_STEP,
        "controls": [RandomReinit(levels=[2])],
        "evaluate_every": EVERY,
        "checkpoint_every": EVERY,
        "train_accuracy": True,
        "save_early_stop": True,
        "save_controls": True,
        **kind.loop,
    }
    said = io.StringIO()

    def trainer(training: Any) -> pl.Trainer:
        callbacks = kind.callbacks()
        if stop_at and training.is_ticket and training.level == stop_at[0]:
            callbacks.append(StopAt(stop_at[1]))
        return make_trainer(STEPS, callbacks, **kind.flags)

    PruningLoop(**options).run(
        trainer, kind.model, kind.data(), logs=logs, folder=folder, display=Display(Console(file=said))
    )
    return said.getvalue()


@pytest.fixture(scope="module", params=SERVED, ids=str)
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Kind, Path, str]:
    """A kind, its finished run, and what that said."""
    logs = tmp_path_factory.mktemp("zoo")
    said = go(request.param, logs)
    return request.param, logs / "run" / "version_0", said


def trainings(run: Path) -> list[Path]:
    return sorted(path.parent for path in run.glob("replicate_*/*/*/result.json"))


def test_counts_and_zeros_are_those_of_the_schedule(served: tuple[Kind, Path, str]) -> None:
    kind, run, _ = served
    first = load(run / "replicate_0/ticket/level_00/mask.pt")["mask"]
    assert list(first) == list(kind.prunable)
    *hidden, output = kind.prunable
    rates = {**dict.fromkeys(hidden, 0.3), output: 0.2}
    masks = [first]
    for number in (1, 2):
        trained = load(run / f"replicate_0/ticket/level_{number - 1:02d}/trained.pt")["weights"]
        masks.append(pruned_by_magnitude(masks[-1], trained, rates))
    table = {(row["arm"], int(row["level"])): row for row in rows(run / "results.csv")}
    assert sorted(table) == [("random_reinit", 2), ("ticket", 0), ("ticket", 1), ("ticket", 2)]
    for folder in trainings(run):
        number = int(folder.name[-2:])
        mask = load(folder / "mask.pt")["mask"]
        row = table[folder.parent.name.removesuffix("_0"), number]
        assert all((mask[name] == masks[number][name]).all() for name in mask)
        assert int(row["weights_remaining"]) == sum(int(part.sum()) for part in masks[number].values())
        assert int(row["weights"]) == sum(part.numel() for part in first.values())
        content = load(folder / "trained.pt")
        for weights in (content["weights"], content.get("early_stop_weights", content["weights"])):
            for name, part in mask.items():
                assert not weights[name][~part].any(), (folder, name)
                assert weights[name][part].all(), (folder, name)


def test_every_number_of_the_table_is_of_the_weights_that_are_kept(
    served: tuple[Kind, Path, str], tmp_path: Path
) -> None:
    kind, run, _ = served
    if kind.draws_data:
        return  # its own check holds the data to one split
    for folder in trainings(run):
        row = next(
            row
            for row in rows(run / "results.csv")
            if row["arm"] == folder.parent.name.removesuffix("_0") and int(row["level"]) == int(folder.name[-2:])
        )
        content = load(folder / "trained.pt")
        points = {"final": content["weights"]}
        if "early_stop_weights" in content:
            points["early_stop"] = content["early_stop_weights"]
        for point, weights in points.items():
            found = plainly_evaluated(kind, weights, tmp_path)
            for column in ("val_loss", "val_acc", "test_loss", "test_acc"):
                written = row[f"{point}_{column}"]
                if column in kind.empty:
                    assert written == "", column
                else:
                    assert float(written) == pytest.approx(found[column], abs=1e-5), (folder, point, column)


def plainly_evaluated(kind: Kind, weights: Any, folder: Path) -> dict[str, float]:
    """What Lightning alone says of `weights`, by the columns' names."""

    class Loaded(pl.Callback):
        def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            pl_module.load_state_dict(weights)

        on_test_start = on_validation_start

    found: dict[str, float] = {}
    for stage in ("validate", "test"):
        trainer = pl.Trainer(
            accelerator="cpu",
            logger=TensorBoardLogger(folder),
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[Loaded()],
            precision=kind.flags.get("precision"),
        )
        getattr(trainer, stage)(kind.model(), datamodule=kind.data(), verbose=False)
        found |= {name.replace("/", "_"): float(value) for name, value in trainer.callback_metrics.items()}
    return found


def test_rewound_weights_are_those_of_the_rewind_step(served: tuple[Kind, Path, str]) -> None:
    kind, run, _ = served
    point = load(run / "replicate_0/rewind.pt")
    assert point["step"] == kind.loop.get("rewind_step", REWIND_STEP)
    last = load(run / "replicate_0/ticket/level_00/trained.pt")["weights"]
    assert list(point["weights"]) == list(last)
    assert (point["weights"][kind.prunable[-1]] != last[kind.prunable[-1]]).any()


def test_what_a_user_must_know_is_said(served: tuple[Kind, Path, str]) -> None:
    kind, _, said = served
    assert re.search(kind.told, said.replace("\n", " ")), said


def test_a_kinds_own_checks(served: tuple[Kind, Path, str]) -> None:
    kind, run, _ = served
    kind.check(run)


def test_an_interrupted_run_goes_on_to_the_same_files(served: tuple[Kind, Path, str], tmp_path: Path) -> None:
    kind, run, _ = served
    resumed = tmp_path / "run" / "version_0"
    folder: Path | None = None
    # The checkpoints are of the first epoch and of the second.
    for stop_at in ((0, EVERY + 3), (1, 2 * EVERY + 3)):
        with pytest.raises(StoppedError):
            go(kind, tmp_path, folder, stop_at)
        folder = resumed
    go(kind, tmp_path, resumed)
    assert_same(run, resumed)


class Rest(Control):
    """Goes on from the rewind step, with nothing pruned."""

    def start(self, ticket: Start, fresh: Any, generator: torch.Generator) -> Start:
        return replace(ticket, mask={name: torch.ones_like(part) for name, part in ticket.mask.items()})


@pytest.mark.parametrize("kind", chosen(state_kinds.KINDS, False), ids=str)
def test_what_starts_at_the_rewind_step_with_nothing_pruned_is_the_rest_of_level_0(
    kind: Kind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Arm and level, too, would decide what is drawn.
    monkeypatch.setattr(Training, "seed", lambda self, root, *what: derive_seed(root, self.replicate, *what))
    options = {"levels": 1, "controls": [Rest()], "retrain": Rewind(optimizer_state=True), **kind.loop}
    go(replace(kind, loop=options), tmp_path)
    replicate = tmp_path / "run/version_0/replicate_0"
    whole, rest = (load(replicate / part / "trained.pt") for part in ("ticket/level_00", "rest_0/level_01"))
    assert equal(whole["weights"], rest["weights"])
    curves = [rows(replicate / part / "metrics.csv") for part in ("ticket/level_00", "rest_0/level_01")]
    assert [row["val_loss"] for row in curves[0]][-len(curves[1]) :] == [row["val_loss"] for row in curves[1]]


@pytest.mark.thorough
def test_a_report_is_made_of_it(served: tuple[Kind, Path, str], tmp_path: Path) -> None:
    _, run, _ = served
    with contextlib.redirect_stdout(io.StringIO()):
        assert command.main(["report", str(run), "--out", str(tmp_path / "report")]) == 0
    assert (tmp_path / "report" / "report.html").exists()


@pytest.mark.parametrize("kind", REFUSED, ids=str)
def test_what_cannot_be_served_is_refused_in_one_line(kind: Kind, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=kind.refusal) as error:
        go(kind, tmp_path)
    assert "\n" not in str(error.value)
    assert (tmp_path / "run").exists() == kind.trained
    assert not list(tmp_path.rglob("result.json")), "no level is trained first"
