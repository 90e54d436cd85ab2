"""Hooks at an epoch's start, where a fit goes on within an epoch: after an interruption, and at a rewind step."""

from typing import Any, ClassVar

import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, Subset
from zoo_base import REWIND_STEP, TRAIN, Data, Kind, Plain


class FreezesItsNorm(Plain):
    """A norm layer that keeps its statistics; notes whether every batch found it so."""

    modes: ClassVar[set[bool]] = set()

    def on_train_epoch_start(self) -> None:
        self.norm.eval()

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        self.modes.add(self.norm.training)
        return super().training_step(batch, batch_idx)


def always_frozen(_: Any) -> None:
    assert FreezesItsNorm.modes == {False}


class CollectsLosses(Plain):
    """Begins a list at an epoch's start."""

    def on_train_epoch_start(self) -> None:
        self.losses: list[Any] = []

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        loss = super().training_step(batch, batch_idx)
        self.losses.append(loss.detach())
        return loss

    def on_train_epoch_end(self) -> None:
        self.log("mean_loss", torch.stack(self.losses).mean())


class MovesAtEpochStart(pl.Callback):
    """Halves the learning rate and all weights when an epoch starts: once an epoch, also where a fit goes on in it."""

    @torch.no_grad()
    def on_train_epoch_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if trainer.current_epoch == 0:
            return  # before step 0 the weights are the ticket's
        trainer.optimizers[0].param_groups[0]["lr"] *= 0.5
        for value in module.parameters():
            value.mul_(0.5)


class EachEpochOthers(Data):
    """Trains on other samples in each epoch, which it chooses when its loader is made anew."""

    parts: ClassVar[set[int]] = set()
    """The first samples of the parts that were chosen."""

    def train_dataloader(self) -> Any:
        assert self.trainer is not None
        first = 4 * self.trainer.current_epoch
        self.parts.add(first)
        return DataLoader(Subset(TRAIN, range(first, first + 32)), batch_size=8, shuffle=True)


def each_epoch_its_part(_: Any) -> None:
    assert {0, 4, 8, 12} <= EachEpochOthers.parts


KINDS = [
    Kind(
        "loaders made anew for each epoch",
        data=EachEpochOthers,
        flags={"reload_dataloaders_every_n_epochs": 1},
        told="what their hooks draw at random is the same each time",
        check=each_epoch_its_part,
    ),
    Kind("a norm layer frozen at an epoch's start", model=FreezesItsNorm, check=always_frozen),
    Kind("a list begun at an epoch's start", model=CollectsLosses, thorough=True),
    Kind(
        "a callback that halves at an epoch's start",
        callbacks=lambda: [MovesAtEpochStart()],
        loop={"rewind_step": REWIND_STEP + 4},
        thorough=True,
    ),
]
