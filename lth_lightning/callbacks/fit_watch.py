"""What is kept of one training while it runs: its curve, its early-stop step and snapshot, whether it diverged."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from lth_lightning.pruning import Weights
from lth_lightning.results.curve import Row, shortest


class FitWatch:
    """Fed with losses and evaluations; saved in, and restored from, the training's checkpoint.

    The early-stop step is the step of the lowest validation loss over the full-length training, the first of equals
    (LTH section 2 and Fig. 3); training never stops for it.
    """

    def __init__(self) -> None:
        self.early_stop: Row = {}
        self.early_stop_weights: Weights | None = None
        self.last: Row = {}
        self.diverged = False
        self._loss: Tensor | float = 0.0
        self._batches = 0

    def batch(self, loss: Tensor, weight: int) -> None:
        """Add a batch's mean loss, of `weight` optimizer steps; stays on the device."""
        self._loss = self._loss + loss.detach() * weight
        self._batches += weight

    def train_loss(self) -> Tensor | None:
        """Mean training loss since the last evaluation, which starts anew with this call."""
        mean = torch.as_tensor(self._loss) / self._batches if self._batches else None
        self._loss, self._batches = 0.0, 0
        return mean

    def evaluation(self, step: int, metrics: Mapping[str, float | None], snapshot: Callable[[], Weights]) -> Row:
        """Take an evaluation at `step`; `snapshot` is called where its validation loss is the lowest so far."""
        row: Row = {"step": step, **{name: shortest(value) for name, value in metrics.items()}}
        self.last = row
        losses = [row.get("train_loss"), row.get("val_loss")]
        self.diverged |= any(loss is not None and not math.isfinite(loss) for loss in losses)
        loss, best = row.get("val_loss"), self.early_stop.get("val_loss")
        if loss is not None and math.isfinite(loss) and (best is None or loss < best):
            self.early_stop = row
            self.early_stop_weights = snapshot()
        return row

    def state_dict(self) -> dict[str, Any]:
        return {
            "early_stop": self.early_stop,
            "early_stop_weights": self.early_stop_weights,
            "last": self.last,
            "diverged": self.diverged,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for name in self.state_dict():
            setattr(self, name, state[name])
