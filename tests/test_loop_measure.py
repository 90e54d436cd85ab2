"""PruningLoop: the numbers of results.csv, worked out again from the files of the run."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from loop_helpers import RATES, TEST, TRAIN, VAL, OwnModule, SmallData, go, level, load, rows, tiny
from pytorch_lightning import Callback
from torch import Tensor
from torch.nn.functional import cross_entropy

from lth_lightning.data import Digits

Row = dict[str, str]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose trainings overfit: their early-stop step is not their last."""
    logs = tmp_path_factory.mktemp("measure")
    settings = {"levels": 2, "rates": RATES, "evaluate_every": 10, "save_early_stop": True, "replicates": 2}
    model = lambda: tiny(optimizer=lambda p: torch.optim.Adam(p, lr=0.1))  # noqa: E731
    go(logs, settings, steps=55, model=model)
    return logs / "run" / "version_0"


def folders(run: Path) -> list[tuple[Row, Path]]:
    table = rows(run / "results.csv")
    return [(row, level(run, int(row["level"]), row["arm"], int(row["replicate"]))) for row in table]


def first_minimum(metrics: Sequence[Row]) -> Row:
    best = metrics[0]
    for row in metrics[1:]:
        if float(row["val_loss"]) < float(best["val_loss"]):
            best = row
    return best


def by_hand(weights: dict[str, Tensor], images: Tensor, labels: Tensor) -> tuple[float, float]:
    """Loss and accuracy of the tiny LeNet, layer by layer in float64."""
    x = images.flatten(1).double()
    for name in ("fc1", "fc2", "output"):
        x = x @ weights[f"net.{name}.weight"].double().T + weights[f"net.{name}.bias"].double()
        x = x.clamp(min=0) if name != "output" else x
    return float(cross_entropy(x, labels)), float((x.argmax(1) == labels).double().mean())


def test_metrics_hold_one_row_an_evaluation_the_last_step_too(run: Path) -> None:
    for _, folder in folders(run):
        assert [int(row["step"]) for row in rows(folder / "metrics.csv")] == [10, 20, 30, 40, 50, 55]
        assert all(row[name] for row in rows(folder / "metrics.csv") for name in ("train_loss", "val_loss", "val_acc"))


def test_early_stop_is_the_first_minimum_of_the_validation_loss(run: Path) -> None:
    steps = []
    for row, folder in folders(run):
        best = first_minimum(rows(folder / "metrics.csv"))
        assert row["early_stop_step"] == best["step"]
        assert float(row["early_stop_val_loss"]) == float(best["val_loss"])
        assert float(row["early_stop_val_acc"]) == float(best["val_acc"])
        steps.append(int(best["step"]))
    assert len(steps) == 6
    assert min(steps) < 55, "no training of this test stops early: it says nothing"


def test_final_numbers_are_those_of_the_trained_weights(run: Path) -> None:
    data = Digits()
    data.setup("fit")
    for row, folder in folders(run):
        weights = load(folder / "trained.pt")["weights"]
        for part, split in (("val", data.val), ("test", data.test), ("train", data.train)):
            loss, accuracy = by_hand(weights, data.normalize(split.images), split.labels)
            assert float(row[f"final_{part}_acc"]) == pytest.approx(accuracy, abs=1e-6)
            if part != "train":
                assert float(row[f"final_{part}_loss"]) == pytest.approx(loss, rel=1e-5)
        last = rows(folder / "metrics.csv")[-1]
        assert float(row["final_val_loss"]) == float(last["val_loss"])
        assert int(row["steps"]) == 55


def test_early_stop_numbers_are_those_of_the_early_stop_weights(run: Path) -> None:
    data = Digits()
    data.setup("fit")
    for row, folder in folders(run):
        weights = load(folder / "trained.pt")["early_stop_weights"]
        for part, split in (("val", data.val), ("test", data.test), ("train", data.train)):
            loss, accuracy = by_hand(weights, data.normalize(split.images), split.labels)
            assert float(row[f"early_stop_{part}_acc"]) == pytest.approx(accuracy, abs=1e-6)
            if part != "train":
                assert float(row[f"early_stop_{part}_loss"]) == pytest.approx(loss, rel=1e-5)


class Scripted(OwnModule):
    """Validation losses by step."""

    losses: ClassVar = {10: 3.0, 20: 1.5, 30: 2.0, 40: 1.5, 50: 1.75}

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        self.log("val_loss", self.losses[self.global_step])


def test_of_equal_validation_losses_the_first_counts(tmp_path: Path) -> None:
    settings = {"levels": 0, "rates": {"output": 0.1}, "evaluate_every": 10, "train_accuracy": False}
    (record,) = go(tmp_path, settings, steps=50, model=Scripted, data=SmallData())
    assert (record.early_stop_step, record.early_stop_val_loss) == (20, 1.5)
    assert (record.final_val_loss, record.early_stop_val_acc) == (1.75, None)


def test_train_loss_is_the_mean_since_the_last_evaluation(tmp_path: Path) -> None:
    losses: list[float] = []

    class Noting(OwnModule):
        def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
            loss = super().training_step(batch, batch_idx)
            losses.append(float(loss.detach()))
            return loss

    go(tmp_path, {"levels": 0, "rates": {"output": 0.1}, "evaluate_every": 4}, steps=10, model=Noting, data=SmallData())
    found = [float(row["train_loss"]) for row in rows(level(tmp_path / "run" / "version_0", 0) / "metrics.csv")]
    means = [math.fsum(part) / len(part) for part in (losses[:4], losses[4:8], losses[8:])]
    assert found == pytest.approx(means, rel=1e-6)


def test_a_foreign_modules_numbers_are_those_of_its_weights(tmp_path: Path) -> None:
    settings = {"levels": 1, "rates": {"conv": 0.2, "output": 0.1}, "evaluate_every": 10, "save_early_stop": True}
    settings["train_accuracy"] = True
    records = go(tmp_path, settings, steps=35, model=OwnModule, data=SmallData())
    for record in records:
        # 35 is not a multiple of 10: the last evaluation is made after the fit.
        folder = level(tmp_path / "run" / "version_0", record.level)
        assert [int(row["step"]) for row in rows(folder / "metrics.csv")] == [10, 20, 30, 35]
        content = load(folder / "trained.pt")
        for prefix, key in (("final", "weights"), ("early_stop", "early_stop_weights")):
            module = OwnModule().eval()
            module.load_state_dict(content[key])
            with torch.no_grad():
                for part, data in (("val", VAL), ("test", TEST), ("train", TRAIN)):
                    logits, labels = module(data.tensors[0]), data.tensors[1]
                    accuracy = float((logits.argmax(1) == labels).double().mean())
                    assert getattr(record, f"{prefix}_{part}_acc") == pytest.approx(accuracy, abs=1e-6)
                    if part != "train":
                        loss = float(cross_entropy(logits, labels))
                        assert getattr(record, f"{prefix}_{part}_loss") == pytest.approx(loss, rel=1e-4)


class OtherTest(Digits):
    """Digits with nonsense for a test set."""

    def setup(self, stage: str | None = None) -> None:
        super().setup(stage)
        self.test = type(self.test)(255 - self.test.images, (self.test.labels + 1) % 10)


def test_the_test_set_changes_nothing_but_the_test_columns(tmp_path: Path) -> None:
    settings = {"levels": 2, "rates": RATES, "evaluate_every": 10}
    ours, theirs = (go(tmp_path, settings, data=data) for data in (Digits(), OtherTest()))
    for first, second in zip(ours, theirs, strict=True):
        for name in vars(first):
            if "test" in name:
                assert getattr(first, name) != getattr(second, name)
            elif name != "seconds":
                assert getattr(first, name) == getattr(second, name)
    one, other = (tmp_path / "run" / f"version_{n}" for n in (0, 1))
    for number in (0, 1, 2):
        assert (level(one, number) / "metrics.csv").read_text() == (level(other, number) / "metrics.csv").read_text()
        assert torch.equal(
            load(level(one, number) / "trained.pt")["weights"]["net.fc1.weight"],
            load(level(other, number) / "trained.pt")["weights"]["net.fc1.weight"],
        )


class Bare(OwnModule):
    """Logs a validation loss and nothing else, and has no test step."""

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        self.log("val_loss", cross_entropy(self(batch[0]), batch[1]))


Bare.test_step = Bare.__mro__[2].test_step  # type: ignore[method-assign]


class Blind(OwnModule):
    """Evaluates nothing."""


for name in ("validation_step", "test_step"):
    setattr(Blind, name, getattr(Blind.__mro__[2], name))


def test_what_a_module_does_not_log_stays_empty(tmp_path: Path) -> None:
    settings = {"levels": 1, "rates": {"conv": 0.2, "output": 0.1}, "evaluate_every": 10}
    go(tmp_path, settings, steps=20, model=Bare, data=SmallData())
    table = rows(tmp_path / "run" / "version_0" / "results.csv")
    for row in table:
        empty = [name for name, value in row.items() if not value]
        assert empty == [
            *("early_stop_val_acc", "early_stop_test_loss", "early_stop_test_acc", "early_stop_train_acc"),
            *("final_val_acc", "final_test_loss", "final_test_acc", "final_train_acc"),
        ]
        assert row["status"] == "ok"


def test_a_module_that_evaluates_nothing_is_pruned_all_the_same(tmp_path: Path) -> None:
    settings = {"levels": 1, "rates": {"conv": 0.2, "output": 0.1}, "evaluate_every": 10}
    records = go(tmp_path, settings, steps=20, model=Blind, data=SmallData())
    assert [(record.status, record.steps) for record in records] == [("ok", 20)] * 2
    assert [record.early_stop_step for record in records] == [None, None]
    assert records[1].weights_remaining == 36 + 144 + 432 - 7 - 29 - 43


def test_a_test_curve_is_the_test_set_at_every_evaluation(tmp_path: Path) -> None:
    settings = {"levels": 1, "rates": RATES, "evaluate_every": 10, "test_curve": True}
    records = go(tmp_path, settings, steps=30)
    plain = go(tmp_path, {**settings, "test_curve": False}, steps=30)
    for record, same in zip(records, plain, strict=True):
        metrics = rows(level(tmp_path / "run" / "version_0", record.level) / "metrics.csv")
        others = rows(level(tmp_path / "run" / "version_1", record.level) / "metrics.csv")
        assert list(metrics[0]) == ["step", "train_loss", "val_loss", "val_acc", "test_loss", "test_acc"]
        assert [{k: v for k, v in row.items() if "test" not in k} for row in metrics] == others
        assert float(metrics[-1]["test_acc"]) == record.final_test_acc
        assert float(metrics[-1]["test_loss"]) == pytest.approx(record.final_test_loss, rel=1e-6)
        assert {**vars(record), "seconds": 0} == {**vars(same), "seconds": 0}


def test_loggers_are_given_back_after_the_measurement_as_they_were(tmp_path: Path) -> None:
    trainers: list[Any] = []
    seen: list[Any] = []

    class Keeps(Callback):
        def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
            trainers.append((trainer, list(trainer.loggers)))

        def on_test_start(self, trainer: Any, pl_module: Any) -> None:
            seen.append([logger._logger for logger in trainer.loggers])

    go(tmp_path, {"levels": 1, "rates": RATES, "save_early_stop": True}, callbacks=lambda _: [Keeps()])
    assert len(seen) >= len(trainers) == 2
    for trainer, loggers in trainers:
        assert [type(logger).__name__ for logger in loggers] == ["TensorBoardLogger"]
        assert trainer.loggers == loggers
        assert loggers in seen  # muted, and not once more each time
