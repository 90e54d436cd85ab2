"""PruningLoop: runs that diverge, that are extended, and what a run leaves on disk."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from loop_helpers import (
    RATES,
    TEST,
    TRAIN,
    VAL,
    OwnModule,
    SmallData,
    assert_same,
    contents,
    equal,
    go,
    level,
    load,
    rows,
    tiny,
)
from torch import Tensor

from lth_lightning.callbacks import RandomMask, RandomReinit
from lth_lightning.data import Digits
from lth_lightning.errors import UserError

LOOP: dict[str, Any] = {"levels": 2, "rates": RATES, "evaluate_every": 5}


class Poison(pl.Callback):
    """Makes the weights NaN when a batch after `step` is due."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step >= self.step:
            with torch.no_grad():
                for parameter in pl_module.parameters():
                    parameter.fill_(math.nan)


def poisoned(*trainings: tuple[int, str, int]) -> Callable[[Any], list[pl.Callback]]:
    return lambda training: [Poison(10)] if (training.replicate, training.arm, training.level) in trainings else []


def found(run: Path) -> list[tuple[int, str, int, str]]:
    return [(int(r["replicate"]), r["arm"], int(r["level"]), r["status"]) for r in rows(run / "results.csv")]


def test_a_ticket_that_diverges_ends_its_replicates_arms_and_no_other(tmp_path: Path) -> None:
    settings = {**LOOP, "replicates": 2, "controls": [RandomReinit()]}
    records = go(tmp_path, settings, callbacks=poisoned((0, "ticket", 1)))
    run = tmp_path / "run" / "version_0"
    assert found(run) == [
        (0, "random_reinit", 1, "ok"),
        (0, "ticket", 0, "ok"),
        (0, "ticket", 1, "diverged"),
        *[(1, "random_reinit", number, "ok") for number in (1, 2)],
        *[(1, "ticket", number, "ok") for number in (0, 1, 2)],
    ]
    diverged = next(record for record in records if record.status == "diverged")
    # Steps 11-15 give the first evaluation that is not a number; it is not trained on.
    assert diverged.steps == 15
    row = next(row for row in rows(run / "results.csv") if row["status"] == "diverged")
    assert [row[name] for name in row if name.startswith("final_")] == [""] * 5
    assert row["early_stop_step"] in ("5", "10")
    assert row["early_stop_test_acc"]
    assert not level(run, 2).exists()
    metrics = rows(level(run, 1) / "metrics.csv")
    assert [int(row["step"]) for row in metrics] == [5, 10, 15]
    assert math.isnan(float(metrics[-1]["val_loss"]))
    # Going on changes nothing and repeats nothing.
    before = contents(run)
    again = go(tmp_path, settings, folder=run)
    assert [vars(record) for record in again] == [vars(record) for record in records]
    assert list(contents(run)) == list(before)


def test_a_control_that_diverges_ends_its_own_trial_alone(tmp_path: Path) -> None:
    settings = {**LOOP, "controls": [RandomReinit(), RandomMask(trials=2)]}

    def attach(training: Any) -> list[pl.Callback]:
        bad = (training.arm, training.trial, training.level) == ("random_mask", 1, 1)
        return [Poison(10)] if bad else []

    go(tmp_path, settings, callbacks=attach)
    table = rows(tmp_path / "run" / "version_0" / "results.csv")
    assert [(row["arm"], row["trial"], row["level"]) for row in table] == [
        *[("random_mask", "0", "1"), ("random_mask", "0", "2"), ("random_mask", "1", "1")],
        *[("random_reinit", "0", "1"), ("random_reinit", "0", "2")],
        *[("ticket", "0", "0"), ("ticket", "0", "1"), ("ticket", "0", "2")],
    ]
    assert [row["status"] == "diverged" for row in table] == [False, False, True, *[False] * 5]


@pytest.mark.parametrize("rewind_step", [0, 17])
def test_a_huge_learning_rate_is_recorded_as_diverged(tmp_path: Path, rewind_step: int) -> None:
    model = lambda: tiny(optimizer=lambda p: torch.optim.SGD(p, lr=1e30))  # noqa: E731
    settings = {**LOOP, "controls": [RandomReinit()], "rewind_step": rewind_step}
    (record,) = go(tmp_path, settings, model=model)
    assert (record.status, record.level, record.steps) == ("diverged", 0, 5)
    assert (record.early_stop_step, record.final_val_loss, record.final_test_acc) == (None, None, None)
    assert rows(tmp_path / "run" / "version_0" / "results.csv")[0]["status"] == "diverged"


class Nan(OwnModule):
    """Its loss is not a number from batch 8 on."""

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        loss = super().training_step(batch, batch_idx)
        return loss * math.nan if batch_idx >= 7 else loss


def test_a_foreign_module_that_returns_nan_is_recorded_as_diverged(tmp_path: Path) -> None:
    settings = {**LOOP, "rates": {"output": 0.2}, "train_accuracy": True}
    (record,) = go(tmp_path, settings, model=Nan, data=SmallData())
    assert (record.status, record.steps, record.early_stop_step) == ("diverged", 10, 5)
    assert record.final_train_acc is None
    assert record.early_stop_test_acc is not None


def test_a_run_is_extended_by_levels_replicates_and_controls(tmp_path: Path) -> None:
    controls: dict[str, Any] = {"controls": [RandomReinit(trials=2), RandomMask(levels=[2])]}
    go(tmp_path / "whole", {**LOOP, "levels": 4, "replicates": 2, **controls})
    go(tmp_path, {**LOOP, "levels": 2})
    run = tmp_path / "run" / "version_0"

    def held() -> dict[str, tuple[int, bytes]]:
        paths = sorted(run.glob("replicate_*/**/*"))
        return {str(p): (p.stat().st_mtime_ns, p.read_bytes()) for p in paths if p.is_file()}

    steps = [{"levels": 4}, {"levels": 4, "replicates": 2}, {"levels": 4, "replicates": 2, **controls}]
    for more in steps:
        before = held()
        go(tmp_path, {**LOOP, **more}, folder=run)
        after = held()
        assert {path: after[path] for path in before} == before
        assert len(after) > len(before)
    assert_same(run, tmp_path / "whole" / "run" / "version_0")
    table = rows(run / "results.csv")
    expected = rows(tmp_path / "whole" / "run" / "version_0" / "results.csv")
    assert [{**row, "seconds": ""} for row in table] == [{**row, "seconds": ""} for row in expected]
    for less in ({"levels": 3, "replicates": 2, **controls}, {"levels": 4, **controls}, {"levels": 4, "replicates": 2}):
        before = held()
        with pytest.raises(UserError, match="extended, not cut") as error:
            go(tmp_path, {**LOOP, **less}, folder=run)
        assert "\n" not in str(error.value)
        assert held() == before


@pytest.mark.parametrize("extra", [{"one_shot": True}, {"rewind_step": 7}, {"until_density": 0.66}])
def test_other_runs_are_extended_too(tmp_path: Path, extra: dict[str, Any]) -> None:
    further = {"until_density": 0.45} if "until_density" in extra else {"levels": 4}
    go(tmp_path / "whole", {**LOOP, **extra, **further})
    go(tmp_path, {**LOOP, **extra})
    run = tmp_path / "run" / "version_0"
    go(tmp_path, {**LOOP, **extra, **further}, folder=run)
    assert len(rows(run / "results.csv")) == 5
    assert_same(run, tmp_path / "whole" / "run" / "version_0")


def test_a_finished_run_that_goes_on_trains_nothing(tmp_path: Path) -> None:
    records = go(tmp_path, LOOP)
    run = tmp_path / "run" / "version_0"

    def refuse(training: Any) -> list[pl.Callback]:
        # One Trainer is made to look at its settings, with no folder to train in.
        assert training.run == Path()
        return []

    again = go(tmp_path, LOOP, folder=run, callbacks=refuse)
    assert [vars(record) for record in again] == [vars(record) for record in records]


def promised(run: Path, controls: bool) -> set[str]:
    names = {"config.yaml", "run.json", "results.csv", "replicate_0/rewind.pt"}
    for number in range(3):
        training = {"mask.pt", "metrics.csv", "result.json", "hparams.yaml"}
        names |= {f"replicate_0/ticket/level_{number:02d}/{name}" for name in (*training, "trained.pt")}
        if controls and number == 2:
            names |= {f"replicate_0/random_reinit_0/level_02/{name}" for name in training}
    return names


@pytest.mark.parametrize("own", [False, True], ids=["LeNet", "somebody's own module"])
@pytest.mark.parametrize("rewind_step", [0, 7])
def test_a_run_leaves_the_promised_files_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own: bool, rewind_step: int
) -> None:
    # A bare `Trainer(max_steps=…)` would leave lightning_logs and checkpoints in the working folder.
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    settings = {**LOOP, "controls": [RandomReinit(levels=[2])], "rewind_step": rewind_step, "checkpoint_every": 5}
    model, data = (OwnModule, SmallData()) if own else (tiny, Digits())
    go(tmp_path / "logs", {**settings, "rates": {"linear": 0.2, "output": 0.1}}, model=model, data=data)
    run = tmp_path / "logs" / "run" / "version_0"
    files = {p.relative_to(run).as_posix() for p in run.rglob("*") if p.is_file()}
    events = {name for name in files if "events.out.tfevents" in name}
    summary = {name for name in files if name.startswith("summary/")}
    assert files - events - summary == promised(run, controls=True)
    assert summary == {name for name in events if name.startswith("summary/")}
    folders = {Path(name).parent.as_posix() for name in events - summary}
    tickets = {f"replicate_0/ticket/level_{number:02d}" for number in range(3)}
    assert folders == {*tickets, "replicate_0/random_reinit_0/level_02"}
    assert not list((tmp_path / "elsewhere").iterdir())
    assert {p.name for p in (tmp_path / "logs").rglob("*") if p.name.startswith(".")} == set()
    assert [p.name for p in (tmp_path / "logs").iterdir()] == ["run"]


def test_files_load_into_plain_values(tmp_path: Path) -> None:
    go(tmp_path, {**LOOP, "save_early_stop": True, "rewind_step": 5})
    run = tmp_path / "run" / "version_0"
    trained = load(level(run, 1) / "trained.pt")
    identity = {"format", "replicate", "arm", "trial", "level", "seed"}
    assert set(trained) == {*identity, "weights", "early_stop_weights"}
    assert set(load(level(run, 1) / "mask.pt")) == {*identity, "mask", "density"}
    assert {"format", "weights", "step", "seed", "replicate"} <= set(load(run / "replicate_0" / "rewind.pt"))
    assert all(part.dtype == torch.bool for part in load(level(run, 1) / "mask.pt")["mask"].values())
    result = json.loads((level(run, 1) / "result.json").read_text())
    assert list(result)[-1] == "checksum"
    del result["checksum"]
    assert list(result) == list(rows(run / "results.csv")[0])
    assert ", ".join(result) == (
        "replicate, arm, trial, level, status, weights, weights_remaining, density, steps, early_stop_step, "
        "early_stop_val_loss, early_stop_val_acc, early_stop_test_loss, early_stop_test_acc, early_stop_train_acc, "
        "final_val_loss, final_val_acc, final_test_loss, final_test_acc, final_train_acc, seconds"
    )
    tiny().load_state_dict(trained["weights"])


def test_runs_count_up(tmp_path: Path) -> None:
    for _ in range(3):
        go(tmp_path, {"levels": 0, "rates": RATES, "evaluate_every": 10})
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["version_0", "version_1", "version_2"]


def test_loaders_given_to_a_data_module_serve_every_level(tmp_path: Path) -> None:
    data = pl.LightningDataModule.from_datasets(TRAIN, VAL, TEST, batch_size=8)
    original = data.train_dataloader
    settings = {**LOOP, "rates": {"conv": 0.2, "output": 0.1}}
    records = go(tmp_path, settings, model=OwnModule, data=data)
    assert [record.status for record in records] == ["ok"] * 3
    assert all(record.final_test_acc is not None for record in records)
    assert data.train_dataloader is original
    assert not equal(*(load(level(tmp_path / "run" / "version_0", n) / "trained.pt")["weights"] for n in (0, 1)))
