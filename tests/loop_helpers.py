"""What the tests of PruningLoop share: tiny networks and data, and readers of the run folder that are not its own."""

import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, relu
from torch.utils.data import DataLoader, TensorDataset

from lth_lightning.callbacks import Display, PruningLoop
from lth_lightning.callbacks.driver import Driver
from lth_lightning.data import Digits
from lth_lightning.errors import UserError
from lth_lightning.models import LeNet300
from lth_lightning.results import Record

SHAPE, HIDDEN = (1, 8, 8), (16, 8)
SIZES = {"net.fc1.weight": 64 * 16, "net.fc2.weight": 16 * 8, "net.output.weight": 8 * 10}
RATES = {"linear": 0.2, "output": 0.1}
ALL_RATES = {"conv": 0.2, "linear": 0.2, "output": 0.2}
SMALL_REWOUND: dict[str, Any] = {
    "rates": {"conv": 0.2, "output": 0.1},
    "levels": 1,
    "evaluate_every": 4,
    "checkpoint_every": 4,
    "rewind_step": 6,
    "train_accuracy": False,
}
"""A loop of two levels for `OwnModule`, evaluated and saved within an epoch of `SmallData`, rewinding into one."""
Weights = dict[str, Tensor]


def tiny(**arguments: Any) -> LeNet300:
    """LeNet of 1,232 weights for Digits."""
    return LeNet300(shape=SHAPE, hidden=HIDDEN, **arguments)


def make_trainer(steps: int = 20, callbacks: Sequence[pl.Callback] = (), **flags: Any) -> pl.Trainer:
    limits = {"max_steps": steps} if "max_epochs" not in flags else {}
    return pl.Trainer(accelerator="cpu", callbacks=list(callbacks), **limits, **flags)


def go(
    logs: Path,
    loop: PruningLoop | dict[str, Any],
    *,
    steps: int = 20,
    model: Callable[[], pl.LightningModule] = tiny,
    data: pl.LightningDataModule | None = None,
    callbacks: Callable[[Any], Sequence[pl.Callback]] = lambda training: (),
    display: Display | None = None,
    seed: int = 0,
    folder: Path | None = None,
    own_data: bool = False,
    **flags: Any,
) -> list[Record]:
    """A run in `logs/run/version_N`."""
    loop = loop if isinstance(loop, PruningLoop) else PruningLoop(**loop)
    return loop.run(
        lambda training: make_trainer(steps, callbacks(training), **flags),
        model,
        None if own_data else data or Digits(),
        seed=seed,
        logs=logs,
        folder=folder,
        display=display or Display(enabled=False),
    )


def load(path: Path) -> dict[str, Any]:
    return torch.load(path, weights_only=True)


def level(run: Path, number: int, arm: str = "ticket", replicate: int = 0) -> Path:
    return run / f"replicate_{replicate}" / arm / f"level_{number:02d}"


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def equal(first: Weights, second: Weights) -> bool:
    """The same names and the same values, bit for bit but for the sign of zeros."""
    return list(first) == list(second) and all(torch.equal(first[name], second[name]) for name in first)


def pruned_by_magnitude(mask: Weights, trained: Weights, rates: dict[str, float]) -> Weights:
    """Each layer loses its `round(rate * left)` smallest survivors, the first in order first: one at a time."""
    new = {name: part.clone() for name, part in mask.items()}
    for name, part in new.items():
        flat = part.view(-1)
        sizes = trained[name].abs().flatten().tolist()
        alive = [place for place, kept in enumerate(flat.tolist()) if kept]
        for place in sorted(alive, key=lambda p: (sizes[p], p))[: round(rates[name] * len(alive))]:
            flat[place] = False
    return new


class Capture(pl.Callback):
    """Notes the whole state dict when the first batch of a fit is due, and the step it is due at."""

    def __init__(self) -> None:
        self.weights: Weights = {}
        self.step = -1
        self.optimizers: list[torch.optim.Optimizer] = []
        self.state_sizes: list[int] = []

    def state_dict(self) -> dict[str, Any]:
        return {}  # what it notes is of this fit alone

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if self.step < 0:
            self.step = trainer.global_step
            self.weights = {name: value.detach().clone() for name, value in pl_module.state_dict().items()}
            self.optimizers = list(trainer.optimizers)
            self.state_sizes = [len(optimizer.state) for optimizer in trainer.optimizers]


class Captures:
    """A Capture a training, by (replicate, arm, trial, level)."""

    def __init__(self, factory: Callable[[], pl.Callback] = Capture) -> None:
        self.of: dict[tuple[int, str, int, int], Any] = {}
        self.factory = factory

    def __call__(self, training: Any) -> list[pl.Callback]:
        made = self.factory()
        self.of[training.replicate, training.arm, training.trial, training.level] = made
        return [made]

    def ticket(self, number: int, replicate: int = 0) -> Any:
        return self.of[replicate, "ticket", 0, number]


def small_set(count: int, seed: int) -> TensorDataset:
    """Images [n, 1, 6, 6] and labels [n] of 3 classes: which third of the rows is brightest."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(3, (count,), generator=generator)
    images = torch.rand(count, 1, 6, 6, generator=generator)
    for image, label in zip(images, labels.tolist(), strict=True):
        image[0, 2 * label : 2 * label + 2] += 0.5
    return TensorDataset(images, labels)


TRAIN, VAL, TEST = small_set(96, 1), small_set(30, 2), small_set(33, 3)


class SmallData(pl.LightningDataModule):
    """Somebody's own data: torch DataLoaders, shuffled; 12 batches an epoch."""

    def train_dataloader(self) -> Any:
        return DataLoader(TRAIN, batch_size=8, shuffle=True)

    def val_dataloader(self) -> Any:
        return DataLoader(VAL, batch_size=16)

    def test_dataloader(self) -> Any:
        return DataLoader(TEST, batch_size=16)


class Block(nn.Module):
    """A nested module with a norm layer: parameters and buffers."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        return x + relu(self.norm(self.conv(x)))


class OwnModule(pl.LightningModule):
    """Somebody's own module, automatically optimized: conv, batch norm, dropout, two parameter groups."""

    def __init__(self, dropout: float = 0.2, epoch_schedule: bool = False) -> None:
        super().__init__()
        self.epoch_schedule = epoch_schedule
        self.stem = nn.Conv2d(1, 4, 3, padding=1)
        self.block = Block(4)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(4 * 36, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.dropout(self.block(relu(self.stem(x))).flatten(1)))

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        return cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        self._evaluate("val", batch)

    def test_step(self, batch: list[Tensor], batch_idx: int) -> None:
        self._evaluate("test", batch)

    def _evaluate(self, name: str, batch: list[Tensor]) -> None:
        logits = self(batch[0])
        self.log(f"{name}_loss", cross_entropy(logits, batch[1]))
        self.log(f"{name}_acc", (logits.argmax(1) == batch[1]).float().mean())

    def configure_optimizers(self) -> Any:
        norms = [*self.block.norm.parameters()]
        others = [p for p in self.parameters() if all(p is not norm for norm in norms)]
        groups = [{"params": others, "weight_decay": 0.01}, {"params": norms, "lr": 0.02}]
        optimizer = torch.optim.SGD(groups, lr=0.05, momentum=0.9)
        if not self.epoch_schedule:
            return optimizer
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.5)]


class WithLoaders(OwnModule):
    """The same with loaders of its own: no data module."""

    train_dataloader = SmallData.train_dataloader
    val_dataloader = SmallData.val_dataloader
    test_dataloader = SmallData.test_dataloader


class StoppedError(Exception):
    """What stops a run in these tests."""


class StopAt(pl.Callback):
    """Raises when the batch after `step` optimizer steps is due."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step >= self.step:
            raise StoppedError


def driver(loop: dict[str, Any], model: Any = OwnModule, data: Any = None, display: Any = None, **flags: Any) -> Driver:
    """A run that is not begun."""
    options = PruningLoop(**{"levels": 2, "rates": ALL_RATES, "evaluate_every": 5, **loop})
    source = SmallData() if data is None else data or None
    shown = display or Display(enabled=False)
    return Driver(options, lambda _: make_trainer(6, **flags), model, source, seed=3, display=shown)


def refusal(*args: Any, **options: Any) -> str:
    with pytest.raises(UserError) as error:
        driver(*args, **options).prepare()
    text = str(error.value)
    assert "\n" not in text
    return text


def contents(run: Path) -> dict[str, Any]:
    """Everything of a run that must not depend on when it was interrupted."""
    found: dict[str, Any] = {}
    for path in sorted(run.glob("replicate_*/**/*")):
        name = path.relative_to(run).as_posix()
        if path.name == "metrics.csv":
            found[name] = path.read_text()
        elif path.name == "result.json":
            found[name] = {key: value for key, value in json.loads(path.read_text()).items() if key != "seconds"}
        elif path.suffix == ".pt":
            found[name] = load(path)
    return found


def assert_same(first: Path, second: Path) -> None:
    """The same files with the same content, tensors bit for bit."""
    ours, theirs = contents(first), contents(second)
    assert list(ours) == list(theirs)
    for name in ours:
        _assert_same(ours[name], theirs[name], name)


def _assert_same(first: Any, second: Any, name: str) -> None:
    if isinstance(first, Tensor) and first.is_sparse:
        _assert_same(first.to_dense(), second.to_dense(), name)
    elif isinstance(first, Tensor):
        assert torch.equal(first.reshape(-1).view(torch.uint8), second.reshape(-1).view(torch.uint8)), name
    elif isinstance(first, dict):
        assert list(first) == list(second), name
        for key in first:
            _assert_same(first[key], second[key], f"{name}: {key}")
    elif isinstance(first, (list, tuple)):
        assert len(first) == len(second), name
        for index, pair in enumerate(zip(first, second, strict=True)):
            _assert_same(*pair, f"{name}: {index}")
    else:
        assert first == second, name
