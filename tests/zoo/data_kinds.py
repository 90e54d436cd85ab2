"""Data modules that keep something, let something go, or change batches on their way; precisions."""

import json
import random
from pathlib import Path
from typing import Any, ClassVar

import pytest
import pytorch_lightning as pl
import torch
from loop_helpers import load
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from zoo_base import TEST, TRAIN, VAL, Data, Kind, Plain


class LetsGo(Data):
    """Has the training data between `setup` for a fit and the next `teardown` alone."""

    def setup(self, stage: str) -> None:
        if stage == "fit":
            self.train: Any = TRAIN

    def teardown(self, stage: str) -> None:
        self.train = None

    def train_dataloader(self) -> Any:
        return DataLoader(self.train, batch_size=8, shuffle=True)


class ChangesBatches(Data):
    """What a network gets is made of a batch on the device."""

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        return [1 - 3 * batch[0], batch[1]]


def accuracy_on_changed_batches(run: Path) -> None:
    model = Plain().eval()
    for folder in (path.parent for path in run.glob("replicate_*/*/*/trained.pt")):
        model.load_state_dict(load(folder / "trained.pt")["weights"])
        inputs, labels = TRAIN.tensors
        found = (model(1 - 3 * inputs).argmax(1) == labels).float().mean()
        assert json.loads((folder / "result.json").read_text())["final_train_acc"] == pytest.approx(float(found))


class MovesStatistics(pl.Callback):
    """Sets a norm layer's statistics anew at the end of training; no weight moves."""

    def on_train_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        assert isinstance(module, Plain)
        assert isinstance(module.norm.running_mean, Tensor)
        module.norm.running_mean.add_(1.0)


class CountsBatches(Data):
    """Inputs that grow with the number of batches that this data module has given."""

    firsts: ClassVar[set[int]] = set()
    """What the first batches of fits have found."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0
        self.fitted_by: Any = None

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        assert self.trainer is not None
        if not self.trainer.training:
            return batch
        if self.trainer is not self.fitted_by:
            self.fitted_by = self.trainer
            self.firsts.add(self.count)
        self.count += 1
        return [batch[0] * (1 + 0.1 * self.count), batch[1]]

    def state_dict(self) -> dict[str, Any]:
        return {"count": self.count}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.count = state_dict["count"]


def each_counts_alone(_: Any) -> None:
    assert CountsBatches.firsts == {0}


class ShufflesEvaluations(Data):
    """Evaluations of a part of the data, in the order of a generator that lives as long as the data module."""

    def __init__(self) -> None:
        super().__init__()
        self.generator = torch.Generator().manual_seed(3)

    def val_dataloader(self) -> Any:
        return DataLoader(VAL, 5, shuffle=True, generator=self.generator)

    def test_dataloader(self) -> Any:
        return DataLoader(TEST, 5, shuffle=True, generator=self.generator)


class Noisy(Dataset[Any]):
    """Draws from two global generators, which a worker process has of its own."""

    def __len__(self) -> int:
        return len(TRAIN)

    def __getitem__(self, index: int) -> Any:
        inputs, label = TRAIN[index]
        return inputs + 0.1 * torch.randn(6) + 0.1 * random.random(), label


class KeepsWorkers(Data):
    """One loader for all fits, and worker processes that outlive an epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.loader = DataLoader(Noisy(), 8, shuffle=True, num_workers=1, persistent_workers=True)

    def train_dataloader(self) -> Any:
        return self.loader


KINDS = [
    Kind("data let go", data=LetsGo, thorough=True),
    Kind("batches changed on the device", data=ChangesBatches, check=accuracy_on_changed_batches),
    Kind("a norm layer's statistics set anew", callbacks=lambda: [MovesStatistics()], thorough=True),
    Kind("64 bits", flags={"precision": "64-true"}, thorough=True),
    Kind("a data module that counts", data=CountsBatches, loop={"rewind_step": 0}, check=each_counts_alone),
    Kind(
        "evaluations shuffled by a generator of their own",
        data=ShufflesEvaluations,
        flags={"limit_val_batches": 2},
        draws_data=True,
    ),
    Kind("workers that are kept", data=KeepsWorkers, thorough=True),
]
