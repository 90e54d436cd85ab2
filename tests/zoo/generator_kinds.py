"""Generators that a user's parts hold, samplers that hear of epochs, and accuracies that are no fractions."""

import random
from typing import Any, ClassVar

import numpy as np
import torch
from torch.nn.functional import cross_entropy
from torch.utils.data import BatchSampler, DataLoader, Dataset, Sampler, Subset
from zoo_base import TRAIN, VAL, Data, Kind, Plain


class Shuffles(Sampler[int]):
    """An order from NumPy's newer generators."""

    def __init__(self) -> None:
        self.draws = np.random.default_rng(3)

    def __len__(self) -> int:
        return len(TRAIN)

    def __iter__(self) -> Any:
        return iter(self.draws.permutation(len(TRAIN)).tolist())


class Shifts:
    """A transform with Python's and NumPy's older generators."""

    def __init__(self) -> None:
        self.draws = (random.Random(5), {"numpy": np.random.RandomState(4)})

    def __call__(self, inputs: Any) -> Any:
        first, second = self.draws
        return inputs + 0.1 * first.random() + 0.1 * float(second["numpy"].rand())


class Transformed(Dataset[Any]):
    """One set of samples for training and validation, as a split at random makes of it."""

    def __init__(self) -> None:
        self.transforms = [Shifts()]
        self.generator = torch.Generator().manual_seed(2)

    def __len__(self) -> int:
        return len(TRAIN)

    def __getitem__(self, index: int) -> Any:
        inputs, label = TRAIN[index]
        for transform in self.transforms:
            inputs = transform(inputs)
        return inputs + 0.1 * torch.randn(6, generator=self.generator), label


class DrawsEverywhere(Data):
    """Draws in the sampler, the samples and a hook, each from generators that live as long as the data module."""

    def __init__(self, workers: int = 0) -> None:
        super().__init__()
        self.samples, self.sampler, self.workers = Transformed(), Shuffles(), workers
        self.noise = np.random.default_rng(9)

    def train_dataloader(self) -> Any:
        return DataLoader(Subset(self.samples, range(48)), 8, sampler=self.sampler, num_workers=self.workers)

    def val_dataloader(self) -> Any:
        return DataLoader(Subset(self.samples, range(20)), 10)

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        return [batch[0] + 0.1 * float(self.noise.normal()), batch[1]]


class DrawsInSteps(Plain):
    """Noise from the module's own generators."""

    def __init__(self) -> None:
        super().__init__()
        self.noise = torch.Generator().manual_seed(4)
        self.draws = [np.random.default_rng(7)]

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        noise = 0.1 * torch.randn(6, generator=self.noise) + 0.1 * float(self.draws[0].normal())
        return super().training_step([batch[0] + noise, batch[1]], batch_idx)


class OrderOfEpoch(Sampler[int]):
    """An order that depends on the epoch that Lightning tells it."""

    told: ClassVar[list[int]] = []

    def __init__(self) -> None:
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return len(TRAIN)

    def __iter__(self) -> Any:
        self.told.append(self.epoch)
        return iter(torch.randperm(len(TRAIN), generator=torch.Generator().manual_seed(self.epoch)).tolist())


class InCollections(Data):
    """Such samplers in a dictionary of loaders, one of them in a batch sampler."""

    def train_dataloader(self) -> Any:
        return {
            "main": DataLoader(TRAIN, 8, sampler=OrderOfEpoch()),
            "more": DataLoader(TRAIN, batch_sampler=BatchSampler(OrderOfEpoch(), 8, False)),
        }


class TakesMain(Plain):
    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return sum(Plain.training_step(self, part, batch_idx) for part in batch.values())


def all_epochs(_: Any) -> None:
    # The last training began at step 0: three epochs of two loaders.
    assert OrderOfEpoch.told[-6:] == [0, 0, 1, 1, 2, 2]


class Percents(Plain):
    def evaluate(self, name: str, batch: Any) -> None:
        logits = self(batch[0])
        self.log(f"{name}_loss", cross_entropy(logits, batch[1]))
        self.log(f"{name}_acc", 100 * (logits.argmax(1) == batch[1]).float().mean())


class Negatives(Plain):
    """Takes a Trainer to evaluate, so that nothing is known before the first evaluation."""

    def evaluate(self, name: str, batch: Any) -> None:
        logits = self(batch[0])
        assert self.trainer.evaluating or self.trainer.validating or self.trainer.training
        self.log(f"{name}_loss", cross_entropy(logits, batch[1]))
        self.log(f"{name}_acc", -0.5 - (logits.argmax(1) == batch[1]).float().mean())


class EmptyValidation(Data):
    def val_dataloader(self) -> Any:
        return DataLoader(Subset(VAL, []), 8)


KINDS = [
    Kind("generators of its own everywhere", model=DrawsInSteps, data=DrawsEverywhere, draws_data=True),
    Kind(
        "generators of its own in workers",
        model=DrawsInSteps,
        data=lambda: DrawsEverywhere(1),
        draws_data=True,
        thorough=True,
    ),
    Kind("samplers in collections", model=TakesMain, data=InCollections, check=all_epochs, thorough=True),
    Kind("percentages", model=Percents, refusal="fractions of 1"),
    Kind("negative accuracies", model=Negatives, refusal="fractions of 1", trained=True),
    Kind(
        "an empty validation set",
        data=EmptyValidation,
        empty=("val_loss", "val_acc"),
        told="validation_step logs nothing and no val_loss",
        thorough=True,
    ),
]
