"""What a module logs, and how."""

from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from loop_helpers import level, rows
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader
from zoo_base import TRAIN, VAL, Data, Kind, Plain


class ByStepAndEpoch(Plain):
    """Lightning makes `val_loss_step` and `val_loss_epoch` of it."""

    def evaluate(self, name: str, batch: Any) -> None:
        logits = self(batch[0])
        self.log(f"{name}_loss", cross_entropy(logits, batch[1]), on_step=True, on_epoch=True)
        self.log(f"{name}_acc", (logits.argmax(1) == batch[1]).float().mean(), on_step=True, on_epoch=True)


class WithASlash(Plain):
    """`val/loss`, as many templates have it."""

    def evaluate(self, name: str, batch: Any) -> None:
        logits = self(batch[0])
        self.log(f"{name}/loss", cross_entropy(logits, batch[1]))
        self.log(f"{name}/acc", (logits.argmax(1) == batch[1]).float().mean())


class ByStepAlone(Plain):
    """Only the last batch's loss: no mean over the validation set is logged."""

    def evaluate(self, name: str, batch: Any) -> None:
        logits = self(batch[0])
        self.log(f"{name}_loss", cross_entropy(logits, batch[1]), on_step=True, on_epoch=False)
        self.log(f"{name}_acc", (logits.argmax(1) == batch[1]).float().mean())


class AtEpochEnd(Plain):
    """Collects, and logs once in `on_*_epoch_end`."""

    def on_validation_epoch_start(self) -> None:
        self.found: list[Any] = []

    on_test_epoch_start = on_validation_epoch_start

    def evaluate(self, name: str, batch: Any) -> None:
        self.found.append((self(batch[0]), batch[1]))

    def _log(self, name: str) -> None:
        logits, labels = (torch.cat(part) for part in zip(*self.found, strict=True))
        self.log(f"{name}_loss", cross_entropy(logits, labels))
        self.log(f"{name}_acc", (logits.argmax(1) == labels).float().mean())

    def on_validation_epoch_end(self) -> None:
        self._log("val")

    def on_test_epoch_end(self) -> None:
        self._log("test")


class OtherNames(Plain):
    """One of two is called otherwise."""

    def evaluate(self, name: str, batch: Any) -> None:
        logits = self(batch[0])
        self.log(f"{name}_loss", cross_entropy(logits, batch[1]))
        self.log(f"{name}_accuracy", (logits.argmax(1) == batch[1]).float().mean())


class TwoValidationSets(Data):
    def val_dataloader(self) -> Any:
        return [DataLoader(VAL, batch_size=10), DataLoader(TRAIN, batch_size=10)]


class OfTwo(Plain):
    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        self.evaluate("val", batch)


class Sometimes(Plain):
    """Logs nothing in every second evaluation of a fit: an earlier value must not stand in for it."""

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        if not (self.trainer.state.fn == "fit" and self.global_step % 10 == 0):
            super().validation_step(batch, batch_idx)


def gaps(run: Path) -> None:
    curve = {row["step"]: row["val_loss"] for row in rows(level(run, 0) / "metrics.csv")}
    assert [step for step, loss in curve.items() if not loss] == ["10"]


class Accumulates(Plain):
    """Notes the loss of each batch, to compare the curve with."""

    losses: ClassVar[list[float]] = []

    def on_train_start(self) -> None:
        self.losses.clear()

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        loss = super().training_step(batch, batch_idx)
        self.losses.append(float(loss))
        return loss


def mean_losses(run: Path) -> None:
    """Of the last training, which started at step 0: evaluated after each 5 x 4 batches."""
    curve = [float(row["train_loss"]) for row in rows(run / "replicate_0/random_reinit_0/level_02/metrics.csv")]
    chunks = [Accumulates.losses[start : start + 20] for start in range(0, len(Accumulates.losses), 20)]
    assert curve == pytest.approx([sum(chunk) / len(chunk) for chunk in chunks], rel=1e-5)


KINDS = [
    Kind("logs by step and epoch", model=ByStepAndEpoch),
    Kind("logs with a slash", model=WithASlash),
    Kind(
        "logs a loss by step alone",
        model=ByStepAlone,
        empty=("val_loss", "test_loss"),
        told="logs no val_loss.*logs no test_loss",
    ),
    Kind("logs at an epoch's end", model=AtEpochEnd),
    Kind(
        "other names",
        model=OtherNames,
        empty=("val_acc", "test_acc"),
        told=r"logs no val_acc \(it logs val_accuracy\).*logs no test_acc \(it logs test_accuracy\)",
    ),
    Kind(
        "two validation sets",
        model=OfTwo,
        data=TwoValidationSets,
        empty=("val_loss", "val_acc"),
        told="logs no val_loss and no val_acc .*dataloader_idx_0",
    ),
    Kind("logs sometimes", model=Sometimes, check=gaps),
    Kind("accumulates", model=Accumulates, flags={"accumulate_grad_batches": 4}, check=mean_losses),
]
