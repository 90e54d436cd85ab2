"""PruningLoop and the Trainer that it is given: what is refused, what is kept, and what is switched off."""

import io
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from loop_helpers import RATES, OwnModule, SmallData, StoppedError, go, level, load, rows, tiny
from pytorch_lightning.callbacks import LearningRateMonitor, ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger
from rich.console import Console
from torch import Tensor

from lth_lightning.callbacks import Display, PruningLoop
from lth_lightning.data import Digits
from lth_lightning.errors import UserError

LOOP: dict[str, Any] = {"levels": 1, "rates": RATES, "evaluate_every": 5}


def screen() -> tuple[Display, io.StringIO]:
    text = io.StringIO()
    return Display(Console(file=text, width=200)), text


class Shapes(pl.Callback):
    """Notes the shapes of the batches."""

    def __init__(self) -> None:
        self.seen: set[tuple[int, ...]] = set()
        self.automatic: set[bool] = set()

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self.seen.add(tuple(batch[0].shape))
        self.automatic.add(pl_module.automatic_optimization)


def test_our_networks_get_long_batches_cut_at_the_last_step(tmp_path: Path) -> None:
    shapes = Shapes()
    go(tmp_path, LOOP, steps=12, callbacks=lambda training: [shapes])
    assert shapes.seen == {(5, 60, 1, 8, 8), (2, 60, 1, 8, 8)}


@pytest.mark.parametrize(("flag", "value"), [("gradient_clip_val", 0.5), ("accumulate_grad_batches", 2)])
def test_flags_of_automatic_optimization_give_ordinary_batches_and_one_line(
    tmp_path: Path, flag: str, value: float
) -> None:
    shapes, (display, text) = Shapes(), screen()
    records = go(tmp_path, LOOP, steps=12, callbacks=lambda training: [shapes], display=display, **{flag: value})
    assert shapes.seen == {(60, 1, 8, 8)}
    assert shapes.automatic == {True}
    assert [record.steps for record in records] == [12, 12]
    lines = [line for line in text.getvalue().splitlines() if flag in line]
    assert len(lines) == 1
    assert "slower" in lines[0]
    for number in (0, 1):
        steps = [int(row["step"]) for row in rows(level(tmp_path / "run" / "version_0", number) / "metrics.csv")]
        assert steps == [5, 10, 12]


def test_a_clip_too_high_to_matter_gives_the_weights_of_long_batches_from_the_same_samples(tmp_path: Path) -> None:
    # The order of ordinary batches is drawn otherwise, so the data are one batch of all samples.
    loop = {**LOOP, "levels": 0}
    first = go(tmp_path, loop, data=Digits(batch_size=1200))
    second = go(tmp_path, loop, data=Digits(batch_size=1200), gradient_clip_val=1e9)
    weights = [load(level(tmp_path / "run" / f"version_{n}", 0) / "trained.pt")["weights"] for n in (0, 1)]
    assert all(torch.allclose(weights[0][name], weights[1][name], atol=1e-5) for name in weights[0])
    assert first[0].final_val_loss == pytest.approx(second[0].final_val_loss, rel=1e-4)


def test_somebodys_own_module_gets_our_data_in_ordinary_batches(tmp_path: Path) -> None:
    class Plain(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = torch.nn.Linear(64, 10)

        def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
            return torch.nn.functional.cross_entropy(self.net(batch[0].flatten(1)), batch[1])

        def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
            self.log("val_loss", self.training_step(batch, batch_idx))

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.1)

    shapes, (display, text) = Shapes(), screen()
    go(tmp_path, LOOP, model=Plain, callbacks=lambda training: [shapes], display=display)
    assert shapes.seen == {(60, 1, 8, 8)}
    assert "slower" not in text.getvalue()


def test_our_network_takes_somebodys_own_data(tmp_path: Path) -> None:
    from lth_lightning.models import LeNet300

    model = lambda: LeNet300(shape=(1, 6, 6), num_classes=3, hidden=(16, 8))  # noqa: E731
    records = go(tmp_path, LOOP, model=model, data=SmallData())
    assert [record.steps for record in records] == [20, 20]
    assert all(record.final_test_acc is not None for record in records)


@pytest.mark.parametrize(
    ("flags", "loop", "message"),
    [
        ({"strategy": "ddp_spawn", "devices": 2}, {}, "ddp"),
        ({"fast_dev_run": True}, {}, "fast_dev_run"),
        ({"val_check_interval": 10}, {}, "evaluate_every"),
        ({"val_check_interval": 0.5}, {}, "evaluate_every"),
        ({"steps": 0}, {}, "max_steps"),
        ({"max_epochs": 0}, {}, "max_steps"),
        ({"max_epochs": -1}, {}, "max_epochs"),
        ({}, {"rewind_step": 20}, "rewind_step"),
        ({}, {"replicates": 0}, "replicates"),
        ({}, {"levels": -1}, "levels"),
        ({}, {"levels": 60}, "level"),
        ({}, {"rates": {"conv": 0.2}}, "prune"),
        ({}, {"rates": {"*.fc9.weight": 0.2}}, "fc9"),
        ({}, {"exclude": ["*.fc9.*"]}, "fc9"),
        ({}, {"rates": {"linear": 1.5}}, "rate"),
        ({}, {"scope": "global"}, "global"),
        ({}, {"grid": [0.5]}, "one_shot"),
        ({}, {"until_density": 0.0}, "density"),
        ({}, {"ticket": "nowhere"}, "nowhere"),
    ],
)
def test_what_cannot_work_is_refused_in_one_line_before_anything_is_written(
    tmp_path: Path, flags: dict[str, Any], loop: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message) as error:
        go(tmp_path, {**LOOP, **loop}, **flags)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["evaluate_every", "checkpoint_every"])
def test_an_interval_of_no_steps_is_refused(name: str) -> None:
    with pytest.raises(UserError, match=name):
        PruningLoop(**{name: 0})


def test_a_test_curve_of_a_foreign_module_is_refused(tmp_path: Path) -> None:
    loop = {**LOOP, "test_curve": True, "rates": {"output": 0.1}}
    with pytest.raises(UserError, match="test_curve"):
        go(tmp_path, loop, model=OwnModule, data=SmallData())
    assert not list(tmp_path.iterdir())


def test_callbacks_and_loggers_of_the_users_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ends: list[int] = []

    class Counting(pl.Callback):
        def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            ends.append(trainer.global_step)

    def attach(training: Any) -> list[pl.Callback]:
        return [Counting(), LearningRateMonitor(), ModelCheckpoint(dirpath=tmp_path / f"kept_{training.level}")]

    logs: list[CSVLogger] = []

    def trainer(training: Any) -> pl.Trainer:
        logs.append(CSVLogger(tmp_path, "theirs", f"level_{training.level}_{len(logs)}"))
        return pl.Trainer(accelerator="cpu", max_steps=20, callbacks=attach(training), logger=logs[-1])

    PruningLoop(**LOOP).run(trainer, tiny, Digits(), logs=tmp_path / "logs", display=Display(enabled=False))
    assert ends == [20, 20]
    # The first Trainer was looked at only.
    for number, logger in enumerate(logs[1:]):
        assert logger.log_dir.endswith(f"level_{number}_{number + 1}")
        table = rows(Path(logger.log_dir) / "metrics.csv")
        assert {"val_loss", "lr-Adam"} <= set(table[0])
        assert len(list((tmp_path / f"kept_{number}").iterdir())) == 1
    assert list((tmp_path / "logs").glob("run/version_0/replicate_0/ticket/level_00/events*"))
    assert not (tmp_path / "lightning_logs").exists()


def test_lightning_shows_no_bar_and_no_summary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    go(tmp_path / "logs", LOOP)
    shown = capfd.readouterr().out + capfd.readouterr().err
    for text in ("Epoch 0", "Trainable params", "Testing", "Validating", "test_acc", "it/s"):
        assert text not in shown
    assert [path.name for path in tmp_path.iterdir()] == ["logs"]


def test_the_display_tells_each_training_once(tmp_path: Path) -> None:
    display, text = screen()
    go(tmp_path, {**LOOP, "replicates": 2}, display=display)
    lines = text.getvalue().splitlines()
    assert lines[:2] == [f"run: {tmp_path / 'run' / 'version_0'}", "network: LeNet300, data: Digits"]
    starts = [
        f"[{n}/4] replicate {r} ticket level {v}: " for n, (r, v) in enumerate([(0, 0), (0, 1), (1, 0), (1, 1)], 1)
    ]
    assert [line.startswith(start) for line, start in zip(lines[2:], starts, strict=True)] == [True] * 4


def test_a_display_that_is_off_says_nothing_of_what_takes_its_time() -> None:
    display = Display(Console(file=io.StringIO(), force_terminal=True), enabled=False)
    with display.busy("Timing"):
        pass
    assert display.console.file.getvalue() == ""  # type: ignore[attr-defined]


def test_an_exception_of_the_users_passes_through_and_the_run_can_be_told(tmp_path: Path) -> None:
    class Bad(pl.Callback):
        def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            raise StoppedError("theirs")

    loop = PruningLoop(**LOOP)
    with pytest.raises(StoppedError, match="theirs"):
        go(tmp_path, loop, callbacks=lambda training: [Bad()])
    assert loop.folder == tmp_path / "run" / "version_0"
    # The next run of this process is a run of its own.
    go(tmp_path, loop)
    assert loop.folder == tmp_path / "run" / "version_1"


class NoValidation(pl.LightningDataModule):
    train_dataloader = SmallData.train_dataloader


def test_a_validation_step_without_validation_data_is_no_reason_to_stop(tmp_path: Path) -> None:
    records = go(tmp_path, {**LOOP, "rates": {"output": 0.1}}, model=OwnModule, data=NoValidation())
    assert [(record.status, record.steps, record.final_val_loss) for record in records] == [("ok", 20, None)] * 2
