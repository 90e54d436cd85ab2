"""What a kind of the zoo is, and the plain module and data that the kinds differ from in one thing each."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

STEPS, REWIND_STEP, EVERY = 15, 4, 5


def points(count: int, seed: int) -> TensorDataset:
    """Inputs [n, 6] and labels [n] of 3 classes."""
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(count, 6, generator=generator)
    return TensorDataset(inputs, inputs[:, :3].argmax(1))


TRAIN, VAL, TEST = points(48, 1), points(20, 2), points(25, 3)


class Data(pl.LightningDataModule):
    """6 shuffled batches an epoch."""

    def train_dataloader(self) -> Any:
        return DataLoader(TRAIN, batch_size=8, shuffle=True)

    def val_dataloader(self) -> Any:
        return DataLoader(VAL, batch_size=10)

    def test_dataloader(self) -> Any:
        return DataLoader(TEST, batch_size=10)


class Plain(pl.LightningModule):
    """A user's module as a tutorial shows it, with a norm layer and dropout: it draws, and has buffers."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(6, 10)
        self.norm = nn.BatchNorm1d(10)
        self.dropout = nn.Dropout(0.2)
        self.head = nn.Linear(10, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.dropout(self.norm(self.stem(x)).relu()))

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.evaluate("val", batch)

    def test_step(self, batch: Any, batch_idx: int) -> None:
        self.evaluate("test", batch)

    def evaluate(self, name: str, batch: Any) -> None:
        logits = self(batch[0])
        self.log(f"{name}_loss", cross_entropy(logits, batch[1]))
        self.log(f"{name}_acc", (logits.argmax(1) == batch[1]).float().mean())

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=0.02)


def nothing(run: Path) -> None:
    """No further check."""


@dataclass(frozen=True)
class Kind:
    """One kind of what a user may bring: served with right numbers, or refused in one line."""

    name: str
    model: Callable[[], pl.LightningModule] = Plain
    data: Callable[[], pl.LightningDataModule | None] = Data
    callbacks: Callable[[], list[pl.Callback]] = list
    flags: Mapping[str, Any] = field(default_factory=dict)
    """Of the Trainer."""
    loop: Mapping[str, Any] = field(default_factory=dict)
    """Of PruningLoop."""
    refusal: str = ""
    """What the line says, as a pattern; empty where the kind is served."""
    trained: bool = False
    """Whether the refusal comes only once a training has begun."""
    empty: tuple[str, ...] = ()
    """Columns that stay empty, because the module does not log them."""
    told: str = ""
    """What a run says of it, as a pattern."""
    prunable: tuple[str, ...] = ("stem.weight", "head.weight")
    """The names of the weights that are pruned, the last one as output."""
    draws_data: bool = False
    """Whether Lightning alone would draw other data, so that its numbers cannot be compared."""
    thorough: bool = False
    """Whether only the thorough tests have it."""
    check: Callable[[Path], None] = nothing
    """What else must hold of the finished run."""

    def __str__(self) -> str:
        return self.name
