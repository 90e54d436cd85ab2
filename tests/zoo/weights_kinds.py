"""Callbacks and hooks that put other weights into the network than those that the optimizer has made."""

from collections.abc import Mapping
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import EMAWeightAveraging, ModelPruning, StochasticWeightAveraging
from torch import Tensor
from zoo_base import Kind, Plain


class Average(pl.Callback):
    """A running average of the weights, put into the network at the end of training."""

    def __init__(self) -> None:
        self.mean: dict[str, Tensor] = {}

    def on_train_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, *_: Any) -> None:
        for name, value in module.named_parameters():
            mean = self.mean.get(name, value.detach())
            self.mean[name] = 0.8 * mean + 0.2 * value.detach()

    def on_train_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        put(module, self.mean)

    def state_dict(self) -> dict[str, Any]:
        return {"mean": self.mean}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.mean = state_dict["mean"]


class EvaluatesTheAverage(Average):
    """The average is in the network while it is evaluated, and the trained weights come back after it."""

    def on_validation_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self.kept = {name: value.detach().clone() for name, value in module.named_parameters()}
        put(module, self.mean)

    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        put(module, self.kept)


@torch.no_grad()
def put(module: pl.LightningModule, weights: Mapping[str, Tensor]) -> None:
    for name, value in module.named_parameters():
        value.copy_(weights[name])


class BringsAnAverage(Plain):
    """The module itself brings such a callback, and the same average of Lightning's."""

    def configure_callbacks(self) -> Any:
        return EMAWeightAveraging()


class MovesInItsHooks(Plain):
    """Moves all weights after every batch, at each epoch's end and at the end."""

    @torch.no_grad()
    def _move(self) -> None:
        for value in self.parameters():
            value.add_(0.001)

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        self._move()

    def on_train_epoch_end(self) -> None:
        self._move()

    def on_train_end(self) -> None:
        self._move()


AVERAGES = "averages of the weights"
KINDS = [
    Kind("stochastic weight averaging", callbacks=lambda: [StochasticWeightAveraging(0.01)], refusal=AVERAGES),
    Kind("averages of the module's own", model=BringsAnAverage, refusal=AVERAGES),
    Kind("an average at the end", callbacks=lambda: [Average()]),
    Kind(
        "an average that is evaluated", callbacks=lambda: [EvaluatesTheAverage()], refusal="other weights", trained=True
    ),
    Kind("hooks that move weights", model=MovesInItsHooks),
    Kind("Lightning's own pruning", callbacks=lambda: [ModelPruning("l1_unstructured")], refusal="prune beside"),
]
