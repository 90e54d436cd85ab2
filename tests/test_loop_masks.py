"""PruningLoop: a pruned weight is exactly zero after every optimizer step, whatever the optimizer."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from loop_helpers import RATES, Captures, OwnModule, SmallData, go, level, load, tiny
from torch import Tensor

OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "adam": lambda p: torch.optim.Adam(p, lr=0.01),
    "fused adam": lambda p: torch.optim.Adam(p, lr=0.01, fused=True),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.1),
    "nesterov": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, weight_decay=0.01, nesterov=True),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.003, momentum=0.9, centered=True),
}


class Watcher(pl.Callback):
    """After every optimizer step: the largest pruned weight, and how many survivors are zero."""

    def __init__(self, training: Any) -> None:
        self.training = training
        self.mask: dict[str, Tensor] = {}
        self.pruned: list[float] = []
        self.zeros: list[int] = []
        self.saved: list[float] = []

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        # Here rather than in on_train_start: hooks run in the order of their registration.
        if not self.mask:
            self.mask = load(self.training.folder / "mask.pt")["mask"]
            parameters = dict(pl_module.named_parameters())

            def look(*_: Any) -> None:
                weights = {name: parameters[name].detach() for name in self.mask}
                self.pruned.append(largest_pruned(weights, self.mask))
                self.zeros.append(sum(int((weights[name][part] == 0).sum()) for name, part in self.mask.items()))

            for optimizer in trainer.optimizers:
                optimizer.register_step_post_hook(look)
        checkpoint = self.training.folder / "last.ckpt"
        if checkpoint.exists():
            self.saved.append(largest_pruned(load(checkpoint)["state_dict"], self.mask))


def largest_pruned(weights: dict[str, Tensor], mask: dict[str, Tensor]) -> float:
    gone = torch.cat([weights[name][~part].abs() for name, part in mask.items()])
    return float(gone.max()) if len(gone) else 0.0


class Watchers(Captures):
    def __call__(self, training: Any) -> list[pl.Callback]:
        made = Watcher(training)
        self.of[training.replicate, training.arm, training.trial, training.level] = made
        return [made]


@pytest.mark.parametrize("flags", [{}, {"gradient_clip_val": 0.1}], ids=["long batches", "clipped"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_pruned_weights_are_zero_after_every_step(tmp_path: Path, name: str, flags: dict[str, Any]) -> None:
    watchers = Watchers()
    settings = {"levels": 2, "rates": RATES, "evaluate_every": 5, "checkpoint_every": 5}
    make = OPTIMIZERS[name]
    go(tmp_path, settings, model=lambda: tiny(optimizer=make), callbacks=watchers, **flags)
    for number in (1, 2):
        watcher = watchers.ticket(number)
        assert watcher.pruned == [0.0] * 20
        # Nor does the mask freeze what should train.
        assert watcher.zeros == [0] * 20
        assert watcher.saved
        assert set(watcher.saved) == {0.0}
        folder = level(tmp_path / "run" / "version_0", number)
        assert largest_pruned(load(folder / "trained.pt")["weights"], watcher.mask) == 0.0
        assert sum(int((~part).sum()) for part in watcher.mask.values()) > 200


def test_pruned_weights_of_a_foreign_module_are_zero_after_every_step(tmp_path: Path) -> None:
    watchers = Watchers()
    settings = {"levels": 1, "rates": {"conv": 0.3, "output": 0.3}, "evaluate_every": 5, "checkpoint_every": 5}
    go(tmp_path, settings, model=OwnModule, data=SmallData(), callbacks=watchers)
    assert watchers.ticket(1).pruned == [0.0] * 20
    assert set(watchers.ticket(1).saved) == {0.0}


class ClippedStep(pl.Callback):
    """Works out a clipped SGD step from the raw gradients, and notes how far the real one is from it."""

    def __init__(self, training: Any, lr: float, limit: float) -> None:
        self.training, self.lr, self.limit = training, lr, limit
        self.errors: list[float] = []

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        mask = load(self.training.folder / "mask.pt")["mask"]
        named = dict(pl_module.named_parameters())
        raw = {name: p.grad.clone() for name, p in named.items() if p.grad is not None}
        kept = {name: grad * mask[name] if name in mask else grad for name, grad in raw.items()}
        norm = torch.sqrt(sum((grad.double() ** 2).sum() for grad in kept.values()))
        assert norm > self.limit
        assert all(torch.equal(raw[name], grad) for name, grad in kept.items()), "a hook of a user's may clip, too"
        self.expected = {
            name: named[name].detach().double() - self.lr * self.limit / norm * grad.double()
            for name, grad in kept.items()
        }

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.errors += [
            float((p.detach() - self.expected[name]).abs().max()) for name, p in pl_module.named_parameters()
        ]


def test_a_clip_by_norm_counts_the_survivors_alone(tmp_path: Path) -> None:
    lr, limit = 0.5, 0.01
    callbacks: dict[int, ClippedStep] = {}

    def attach(training: Any) -> list[pl.Callback]:
        callbacks[training.level] = ClippedStep(training, lr, limit)
        return [callbacks[training.level]]

    settings = {"levels": 2, "rates": {"linear": 0.6, "output": 0.6}, "evaluate_every": 10}
    model = lambda: tiny(optimizer=lambda p: torch.optim.SGD(p, lr=lr))  # noqa: E731
    go(tmp_path, settings, model=model, callbacks=attach, gradient_clip_val=limit)
    assert max(callbacks[2].errors) < 1e-6
    assert len(callbacks[2].errors) == 20 * 6
