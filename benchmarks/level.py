"""One level as `lth fit` makes it, with everything on, and a clock for the parts of it that are not training."""

import csv
import io
import tempfile
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from rich.console import Console

from benchmarks.task import EVERY, Timing, wait
from lth_lightning.callbacks import Display, PruningLoop
from lth_lightning.data import MNIST
from lth_lightning.models import LeNet300
from lth_lightning.pruning import Ticket


class Clock(pl.Callback):
    """Adds up the seconds of a level's parts.

    `evaluations`: Lightning's whole validation loop and what follows in it (curve, snapshot), but for `checkpoints`;
    `measure`: test set and training set at the end; `fit`: all between the first step and the last one.
    """

    def __init__(self, device: str = "cpu") -> None:
        self.device = device
        self.seconds = dict.fromkeys(("fit", "evaluations", "checkpoints", "measure"), 0.0)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._time(trainer.fit_loop.epoch_loop.val_loop, "run", "evaluations")
        self._time(trainer.strategy, "save_checkpoint", "checkpoints")
        for name in ("test", "validate"):
            self._time(trainer, name, "measure")
        self._began = self._now()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.seconds["fit"] = self._now() - self._began

    def _time(self, owner: object, name: str, part: str) -> None:
        function = getattr(owner, name)

        def timed(*args: Any, **kwargs: Any) -> Any:
            began = self._now()
            result = function(*args, **kwargs)
            self.seconds[part] += self._now() - began
            return result

        setattr(owner, name, timed)

    def _now(self) -> float:
        wait(self.device)
        return time.perf_counter()

    def shares(self, timing: Timing, steps: int) -> tuple[float, float]:
        """Of a level of `steps` steps: the share of evaluations and end measurement together, and of the latter.

        From the timed level: what comes once a level stays as it is, what comes with steps grows with them.
        """
        parts, growth = self.seconds, steps / timing.steps
        assert min(parts["evaluations"], parts["measure"]) > 0, (
            "a level evaluates in a way that this clock does not see"
        )
        evaluations = parts["evaluations"] - parts["checkpoints"]
        whole = timing.seconds - parts["fit"] + parts["fit"] * growth
        return (evaluations * growth + parts["measure"]) / whole, parts["measure"] / whole


def level(data: MNIST, ticket: Ticket, steps: int, device: str = "cpu", clock: Clock | None = None) -> Timing:
    """A run of one level from `ticket`: evaluation every 100 steps, early-stop snapshot, checkpoints every 500,
    TensorBoard, metrics.csv, bars on a terminal (in memory), test and training accuracy, files, results.
    """
    clock = clock or Clock(device)
    accelerator = "gpu" if device == "cuda" else device
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ticket.pt"
        ticket.save(path)
        wait(device)
        began = time.perf_counter()
        PruningLoop(levels=0, ticket=str(path), evaluate_every=EVERY).run(
            lambda training: pl.Trainer(max_steps=steps, accelerator=accelerator, devices=1, callbacks=[clock]),
            LeNet300,
            data,
            logs=Path(folder) / "logs",
            display=Display(console=Console(file=io.StringIO(), force_terminal=True)),
        )
        wait(device)
        seconds = time.perf_counter() - began
        (curve,) = Path(folder).glob("logs/**/metrics.csv")
        (result,) = Path(folder).glob("logs/**/trained.pt")
        with curve.open(newline="") as file:
            validations = len(list(csv.DictReader(file)))
        weights = torch.load(result, weights_only=True)["weights"]
    return Timing(seconds, steps, validations, 0, {name.removeprefix("net."): w for name, w in weights.items()})
