"""Modules and flags that a run was not made for: served, or refused; never recorded wrongly."""

from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from loop_helpers import StopAt, StoppedError, assert_same, go, level, load, rows, tiny
from pytorch_lightning.callbacks import EarlyStopping
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from lth_lightning.callbacks import PruningLoop
from lth_lightning.cli import main
from lth_lightning.errors import UserError
from lth_lightning.models import LeNet300


class OnlyTrains(pl.LightningModule):
    """A module without any evaluation."""

    def __init__(self, rate: float = 0.1, nan_at: int | None = None) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 6)
        self.head = nn.Linear(6, 2)
        self.rate, self.nan_at = rate, nan_at

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        images, labels = batch
        loss = cross_entropy(self.head(self.layer(images).relu()), labels)
        return loss * float("nan") if self.global_step == self.nan_at else loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), self.rate)

    def train_dataloader(self) -> DataLoader:
        generator = torch.Generator().manual_seed(0)
        images = torch.randn(60, 4, generator=generator)
        return DataLoader(TensorDataset(images, (images.sum(1) > 0).long()), batch_size=7, shuffle=True, drop_last=True)


class Looks(OnlyTrains):
    """Also evaluates, over loaders that look at its train loader."""

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        images, labels = batch
        logits = self.head(self.layer(images).relu())
        self.log("val_loss", cross_entropy(logits, labels))
        self.log("val_acc", (logits.argmax(1) == labels).float().mean())

    def test_step(self, batch: list[Tensor], batch_idx: int) -> None:
        self.log("test_acc", 1.0)

    def val_dataloader(self) -> DataLoader:
        return DataLoader(self.train_dataloader().dataset, batch_size=self.train_dataloader().batch_size)

    def test_dataloader(self) -> DataLoader:
        return self.val_dataloader()


class StopInTest(pl.Callback):
    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        torch.rand(3)  # whatever was drawn before the kill
        raise StoppedError


def assert_goes_on(logs: Path, model: Any, stop: pl.Callback, **options: Any) -> tuple[Path, Path]:
    """A run that `stop` stops and one that nobody stops end the same; both folders."""

    def run(name: str, *callbacks: pl.Callback, folder: Path | None = None) -> Path:
        loop = PruningLoop(rates={"linear": 0.2, "output": 0.2}, **options)
        go(logs / name, loop, model=model, own_data=True, callbacks=lambda _: callbacks, folder=folder)
        return logs / name / "run" / "version_0"

    whole, part = run("whole"), logs / "part" / "run" / "version_0"
    with pytest.raises(StoppedError):
        run("part", stop)
    assert (level(part, 0) / "last.ckpt").exists()
    assert_same(whole, run("part", folder=part))
    return whole, part


def test_nan_is_noticed_without_any_validation(tmp_path: Path) -> None:
    loop = {"levels": 1, "evaluate_every": 5}
    records = go(tmp_path, loop, model=lambda: OnlyTrains(nan_at=7), own_data=True, steps=20)
    assert [(record.level, record.status) for record in records] == [(0, "diverged")]
    assert records[0].steps == 10


def test_a_module_without_validation_is_checkpointed_and_goes_on(tmp_path: Path) -> None:
    whole, _ = assert_goes_on(tmp_path, OnlyTrains, StopAt(13), levels=1, evaluate_every=4, checkpoint_every=4)
    assert [row["step"] for row in rows(level(whole, 0) / "metrics.csv")] == ["4", "8", "12", "16", "20"]


def test_measuring_draws_the_same_after_a_kill_between_fit_and_test(tmp_path: Path) -> None:
    """Accuracy on the training set is taken over a loader that shuffles and drops its last samples."""
    options = {"levels": 0, "evaluate_every": 5, "checkpoint_every": 5, "train_accuracy": True}
    assert_goes_on(tmp_path, Looks, StopInTest(), **options)


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        ({"max_time": "00:00:01:00"}, "drop EarlyStopping and trainer.max_time"),
        ({"overfit_batches": 1}, "overfit_batches"),
        ({"barebones": True, "logger": False}, "barebones"),
        ({"precision": "bf16-mixed", "gradient_clip_val": 1.0}, "clips no gradients"),
    ],
)
def test_flags_that_would_spoil_a_run_are_refused(tmp_path: Path, flags: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError, match=told):
        go(tmp_path, {"levels": 1}, **flags)
    assert list(tmp_path.iterdir()) == []


def test_early_stopping_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="drop EarlyStopping"):
        go(tmp_path, {"levels": 1}, callbacks=lambda _: [EarlyStopping("val_loss")])
    assert list(tmp_path.iterdir()) == []


def test_a_training_that_a_callback_cuts_short_is_not_recorded(tmp_path: Path) -> None:
    class Cut(pl.Callback):
        def on_validation_end(self, trainer: pl.Trainer, *_: Any) -> None:
            trainer.should_stop = True

    with pytest.raises(UserError, match="ended at step 5 of 20"):
        go(tmp_path, {"levels": 1, "evaluate_every": 5}, callbacks=lambda _: [Cut()])
    assert not list(tmp_path.rglob("result.json"))


@pytest.mark.parametrize("limit", [1, 3])
def test_limited_train_batches_limit_them(tmp_path: Path, limit: int) -> None:
    records = go(tmp_path, {"levels": 0}, max_epochs=2, limit_train_batches=limit)
    assert records[0].steps == 2 * limit


class Stateful(DataLoader):
    """A loader that can say where it stands, as torchdata's does."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.given, self.skip = 0, 0

    def __iter__(self) -> Any:
        for index, batch in enumerate(super().__iter__()):
            if index >= self.skip:
                self.given = index + 1
                yield batch
        self.given, self.skip = 0, 0

    def state_dict(self) -> dict[str, int]:
        return {"given": self.given}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.skip = state["given"]


def test_a_loader_that_keeps_its_own_position_is_not_moved_on_twice(tmp_path: Path) -> None:
    class Module(Looks):
        def train_dataloader(self) -> DataLoader:
            return Stateful(super().train_dataloader().dataset, batch_size=7, shuffle=True, drop_last=True)

    assert_goes_on(tmp_path, Module, StopAt(14), levels=0, evaluate_every=3, checkpoint_every=3)


def test_a_network_of_ones_own_may_configure_its_optimizer_as_it_likes(tmp_path: Path) -> None:
    class Own(LeNet300):
        def configure_optimizers(self) -> torch.optim.Optimizer:  # type: ignore[override]
            return torch.optim.SGD(self.parameters(), lr=1 / self.trainer.max_steps)

    records = go(tmp_path, {"levels": 1}, model=lambda: Own(shape=(1, 8, 8), hidden=(16, 8)))
    assert [record.status for record in records] == ["ok", "ok"]


def test_a_classs_own_message_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "told.py").write_text(
        "from lth_lightning.data import Digits\n"
        "from lth_lightning.errors import UserError\n"
        "class Data(Digits):\n"
        "    def __init__(self):\n"
        "        try:\n"
        "            {}['k']\n"
        "        except KeyError:\n"
        "            raise UserError('give k as 3') from None\n"
        "class Bug(Digits):\n"
        "    def __init__(self):\n"
        "        raise RuntimeError('my own bug')\n"
    )
    assert main(["fit", "--config", "quickstart", "--data", "told.Data"]) == 2
    assert capsys.readouterr().err.strip() == "lth: give k as 3"
    assert main(["fit", "--config", "quickstart", "--data", "told.Bug"]) == 1
    assert capsys.readouterr().err.endswith(
        "RuntimeError: my own bug\nlth: Nothing was begun. (LTH_TRACEBACK=full shows all frames.)\n"
    )


def test_without_a_logger_there_are_no_events(tmp_path: Path) -> None:
    go(tmp_path, {"levels": 1}, logger=False)
    assert not list(tmp_path.rglob("events.*"))
    assert rows(tmp_path / "run" / "version_0" / "results.csv")


def test_early_stop_weights_are_kept_on_the_cpu(tmp_path: Path) -> None:
    go(tmp_path, {"levels": 0, "save_early_stop": True})
    content = load(level(tmp_path / "run" / "version_0", 0) / "trained.pt")
    assert all(value.device.type == "cpu" for value in content["early_stop_weights"].values())


def test_a_rate_that_no_optimizer_takes_is_told_before_anything_is_written(tmp_path: Path) -> None:
    model = lambda: tiny(optimizer=lambda p: torch.optim.Adam(p, lr=-1))  # noqa: E731
    with pytest.raises(UserError, match="Invalid learning rate"):
        go(tmp_path, {"levels": 0}, model=model)
    assert list(tmp_path.iterdir()) == []


def test_a_module_of_ones_own_runs_by_import_path_with_two_groups_a_conv_a_norm_and_nesting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["--model=loop_helpers.OwnModule", "--data=loop_helpers.SmallData", "--trainer.max_steps=12"]
    options = ["--pruning.levels=2", "--pruning.evaluate_every=5", "--pruning.controls=[RandomReinit]"]
    assert main(["fit", *words, *options, "--trainer.accelerator=cpu"]) == 0
    run = tmp_path / "lightning_logs" / "run" / "version_0"
    table = rows(run / "results.csv")
    assert [(row["arm"], row["level"], row["status"]) for row in table] == [
        ("random_reinit", "1", "ok"),
        ("random_reinit", "2", "ok"),
        ("ticket", "0", "ok"),
        ("ticket", "1", "ok"),
        ("ticket", "2", "ok"),
    ]
    mask = load(level(run, 2) / "mask.pt")["mask"]
    weights = load(level(run, 2) / "trained.pt")["weights"]
    assert any(part.dim() == 4 for part in mask.values())
    for name, part in mask.items():
        assert int(part.sum()) < part.numel()
        assert not weights[name][~part].any()
