"""Modules, callbacks and data that keep something which Lightning's checkpoints leave out, and train by it."""

import collections
import random
from typing import Any

import numpy
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchmetrics import MeanMetric
from zoo_base import TRAIN, Data, Kind, Plain


class Scaled(Plain):
    """Every loss is scaled by what `scale` says, which moves with what the module keeps."""

    def scale(self) -> Any:
        raise NotImplementedError

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return super().training_step(batch, batch_idx) * (1 + 0.1 * self.scale())

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.02, momentum=0.9)


class Counts(Scaled):
    """Counts in many ways: in numbers, strings, tensors, arrays, and collections that share an entry."""

    def __init__(self) -> None:
        super().__init__()
        self.count, self.phase, self.best = 0, "warm", None
        self.pair: Any = (0, 0)
        self.table: dict[Any, Any] = {}
        self.last = collections.deque([0.0], maxlen=3)
        self.seen: set[int] = set()
        self.sum = torch.zeros(2)
        self.array = numpy.zeros(2)
        self.norm.calls = 0
        self.register_buffer("hidden", torch.zeros(1), persistent=False)

    def on_train_start(self) -> None:
        self.count = 0
        self.shared = [0]
        self.table["shared"] = self.shared

    def scale(self) -> Any:
        self.count += 1
        self.norm.calls += 2
        self.phase = "warm" if self.count < 7 else "cold"
        self.best = min(self.count, self.best or 99)
        self.pair = (self.pair[0] + 1, self.count)
        self.table[self.count % 2] = [self.count]
        self.shared[0] += 1
        self.last.append(float(self.count))
        self.seen.add(self.count % 5)
        self.sum += torch.tensor([1.0, 2.0])
        self.array += 0.5
        self.hidden += 1
        self.made = getattr(self, "made", 0) + 1
        numbers = (
            self.count, self.norm.calls, len(self.phase), self.best, sum(self.pair), self.table.get(0, [0])[0],
            self.table["shared"][0], sum(self.last), len(self.seen), float(self.sum.sum()), float(self.array.sum()),
            float(self.hidden), self.made,
        )  # fmt: skip
        return sum(number / (10 + place) for place, number in enumerate(numbers)) / 10


class CountsInLastHooks(Scaled):
    """Counts in the hooks that come last: of a batch, and of an evaluation."""

    def __init__(self) -> None:
        super().__init__()
        self.batches = self.evaluations = 0

    def scale(self) -> Any:
        return self.batches / 10 + self.evaluations

    def on_train_batch_end(self, *_: Any) -> None:
        self.batches += 1

    def on_validation_end(self) -> None:
        self.evaluations += 1


class Turns(Scaled):
    """A mode that each epoch turns back and forth, so that it is now and then what it was at first."""

    def __init__(self) -> None:
        super().__init__()
        self.mode = 0

    def on_train_epoch_start(self) -> None:
        self.mode = 1 - self.mode

    def scale(self) -> Any:
        return self.mode


class Stacks(Scaled):
    """A list that is stacked and let go at an epoch's end; checkpoints are of an epoch's last batch."""

    def __init__(self) -> None:
        super().__init__()
        self.losses: list[Tensor] = []
        self.mean = 0.0

    def scale(self) -> Any:
        return self.mean

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        loss = super().training_step(batch, batch_idx)
        self.losses.append(loss.detach())
        return loss

    def on_train_epoch_end(self) -> None:
        assert len(self.losses) == self.trainer.fit_loop.epoch_loop.batch_progress.current.ready
        self.mean = float(torch.stack(self.losses).mean())
        self.losses = []


class Tracker:
    """Somebody's own object, of which another one is a part."""

    def __init__(self) -> None:
        self.total, self.children = 0.0, []
        self.parent: Tracker | None = None

    def add(self, value: float) -> None:
        self.total += value
        self.children.append(value)


class Tracks(Scaled):
    """Objects, a hidden average of the weights, a schedule that nobody else knows, and generators of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.tracker = Tracker()
        self.tracker.parent = self.tracker
        self.teacher = [nn.Linear(10, 3)]
        self.generator = torch.Generator().manual_seed(1)
        self.random, self.numpy = random.Random(2), numpy.random.default_rng(3)

    def on_fit_start(self) -> None:
        self.own = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
        self.schedule = torch.optim.lr_scheduler.StepLR(self.own, 2, 0.9)

    def scale(self) -> Any:
        self.own.step()
        self.schedule.step()
        with torch.no_grad():
            self.teacher[0].weight.lerp_(self.head.weight, 0.5)
        draws = torch.rand(1, generator=self.generator).item() + self.random.random() + self.numpy.random()
        self.tracker.add(draws)
        return draws + self.own.param_groups[0]["lr"] + self.teacher[0].weight.sum().item() + self.tracker.total / 10


class FreezesLater(Plain):
    """From its second epoch on a norm layer keeps its statistics, and the stem its weights."""

    def on_train_epoch_end(self) -> None:
        if self.current_epoch == 0:
            self.norm.eval()
            self.stem.requires_grad_(False)


class Meters(Scaled):
    """A metric of its own that an epoch's end looks at, and one that is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.meter, self.logged = MeanMetric(), MeanMetric()
        self.value = 0.0

    def scale(self) -> Any:
        return self.value

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        loss = super().training_step(batch, batch_idx)
        self.meter.update(loss.detach())
        self.logged.update(loss.detach() * 2)
        self.log("logged", self.logged, on_step=False, on_epoch=True)
        return loss

    def on_train_epoch_end(self) -> None:
        self.value = float(self.meter.compute())
        self.meter.reset()


class TrainPlateau(Plain):
    """The learning rate follows the epoch's mean of a training loss, in two forms, and is halved whenever it rises."""

    monitor, interval = "mean_loss", "epoch"

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        loss = super().training_step(batch, batch_idx)
        self.log("mean_loss", loss, on_epoch=True, on_step=False)
        self.log("train_max", loss, on_epoch=True, on_step=True, reduce_fx="max")
        return loss

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1)
        # Every mean reduces it by what it is.
        schedule = FollowsMetric(optimizer)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {
                "scheduler": schedule, "monitor": self.monitor, "interval": self.interval, "reduce_on_plateau": True
            },
        }  # fmt: skip


class FollowsMetric(torch.optim.lr_scheduler.ReduceLROnPlateau):
    """A plateau schedule for which each value counts."""

    def step(self, metrics: Any, epoch: Any = None) -> None:
        super().step(metrics)
        for group in self.optimizer.param_groups:
            group["lr"] *= 1 / (1 + 0.1 * float(metrics))


class MaxPlateau(TrainPlateau):
    monitor = "train_max_epoch"


class StepPlateau(TrainPlateau):
    """The schedule takes the last evaluation at each step."""

    monitor, interval = "val_loss", "step"

    def configure_optimizers(self) -> Any:
        made = super().configure_optimizers()
        made["lr_scheduler"]["strict"] = False
        return made


class EvaluationPlateau(TrainPlateau):
    monitor = "val_loss"


class CountingCallback(pl.Callback):
    """Moves a bias by what it has counted, which it tells nobody."""

    def __init__(self) -> None:
        self.count = 0

    @torch.no_grad()
    def on_train_batch_end(self, trainer: pl.Trainer, module: Any, *_: Any) -> None:
        self.count += 1
        module.head.bias.add_(0.001 * self.count)


class TellingCallback(CountingCallback):
    """Says in a `state_dict` what it has counted."""

    def state_dict(self) -> dict[str, Any]:
        return {"count": self.count}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.count = state_dict["count"]


class Drawing(Dataset[Any]):
    """Noise from a generator of its own, which goes on from epoch to epoch."""

    def __init__(self) -> None:
        self.generator = numpy.random.default_rng(1)

    def __len__(self) -> int:
        return len(TRAIN)

    def __getitem__(self, index: int) -> Any:
        inputs, label = TRAIN[index]
        return inputs + torch.from_numpy(0.3 * self.generator.standard_normal(6)).float(), label


class DrawsInData(Data):
    """A data set that lives as long as the data module, and counts that nobody asks for."""

    def __init__(self) -> None:
        super().__init__()
        self.set, self.counts = Drawing(), {"batches": 0}

    def train_dataloader(self) -> Any:
        return DataLoader(self.set, batch_size=8, shuffle=True)

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        assert self.trainer is not None
        if not self.trainer.training:
            return batch
        self.counts["batches"] += 1
        return [batch[0] * (1 + 0.02 * self.counts["batches"]), batch[1]]


class DrawsInLoader(Data):
    """A data set that is made with its loader."""

    def train_dataloader(self) -> Any:
        return DataLoader(Drawing(), batch_size=8, shuffle=True)


class Remembers(Scaled):
    """Saves a list itself; a hook of the epoch's start begins it anew."""

    def __init__(self) -> None:
        super().__init__()
        self.list: list[float] = []

    def on_train_epoch_start(self) -> None:
        self.list = []

    def scale(self) -> Any:
        self.list.append(0.5)
        return sum(self.list)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["list"] = self.list

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.list = list(checkpoint["list"])


ENDS = {"evaluate_every": 6, "checkpoint_every": 6, "rewind_step": 6}
"""Checkpoints and the rewind step are at the ends of epochs."""
KINDS = [
    Kind("counts in many ways", model=Counts),
    Kind("counts in last hooks", model=CountsInLastHooks, thorough=True),
    Kind(
        "counts in last hooks at the rewind step's evaluation",
        model=CountsInLastHooks,
        loop={"rewind_step": 5},
        thorough=True,
    ),
    Kind("a mode that turns back and forth", model=Turns, thorough=True),
    Kind("a list stacked at epochs' ends", model=Stacks, loop=ENDS, thorough=True),
    Kind("a list stacked within epochs", model=Stacks, thorough=True),
    Kind("objects and generators", model=Tracks, thorough=True),
    Kind("freezes later", model=FreezesLater, loop={"rewind_step": 8}, thorough=True),
    Kind("metrics of its own", model=Meters, thorough=True),
    Kind("a schedule on the training loss", model=TrainPlateau, thorough=True),
    Kind("a schedule on the training loss, at epochs' ends", model=TrainPlateau, loop=ENDS),
    Kind("a schedule on the training loss' maximum", model=MaxPlateau, thorough=True),
    Kind("a schedule on evaluations, each step", model=StepPlateau, thorough=True),
    Kind("a schedule on evaluations, at epochs' ends", model=EvaluationPlateau, loop=ENDS, thorough=True),
    Kind("callbacks that count", callbacks=lambda: [CountingCallback(), TellingCallback()], thorough=True),
    Kind("a data set that draws", data=DrawsInData, thorough=True),
    Kind("a data set that draws, made with its loader", data=DrawsInLoader, thorough=True),
    Kind("saves a list itself", model=Remembers, thorough=True),
]
