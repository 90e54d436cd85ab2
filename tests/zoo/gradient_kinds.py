"""Steps that a user's own code makes, or changes gradients before: no pruned weight takes part in them."""

from typing import Any, ClassVar

import pytorch_lightning as pl
import torch
from torch.nn.functional import cross_entropy
from torch.optim.lr_scheduler import CosineAnnealingLR, ExponentialLR
from zoo_base import REWIND_STEP, Data, Kind, Plain


class LooksAtGradients(Plain):
    """Asserts that the gradients of zeros are zeros, and the zeros those of the mask."""

    zeros = 0

    def on_train_start(self) -> None:
        self.zeros = self._count()

    def _count(self) -> int:
        return sum(int((layer.weight == 0).sum()) for layer in (self.stem, self.head))

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        assert self._count() == self.zeros, "weights came back between two batches"
        return super().training_step(batch, batch_idx)

    def look(self) -> None:
        for layer in (self.stem, self.head):
            assert isinstance(layer.weight.grad, torch.Tensor)
            assert not layer.weight.grad[layer.weight == 0].any(), "a pruned weight would count in a norm"


class ClipsAfterBackward(LooksAtGradients):
    """Clips in a hook that comes before any of a callback's; moves weights after a batch."""

    def on_after_backward(self) -> None:
        self.look()
        torch.nn.utils.clip_grad_norm_(self.parameters(), 0.1)

    @torch.no_grad()
    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        for value in self.parameters():
            value.add_(0.001)


class ClipsByHand(LooksAtGradients):
    """Accumulates, clips and steps by hand; returns a loss for each sample."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        optimizer: Any = self.optimizers()
        self.manual_backward(super().training_step(batch, batch_idx) / 2)
        if batch_idx % 2:
            self.look()
            self.clip_gradients(optimizer, 0.1, "norm")
            optimizer.step()
            optimizer.zero_grad()
        with torch.no_grad():
            return cross_entropy(self(batch[0]), batch[1], reduction="none")


class StepsItself(LooksAtGradients):
    """Overrides what Lightning does in a step: a rate that warms up, a clip, gradients that are kept."""

    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None) -> None:
        for group in optimizer.param_groups:
            group["lr"] = 0.02 * min(1.0, (self.global_step + 1) / 6)
        optimizer.step(closure=optimizer_closure)

    def configure_gradient_clipping(self, optimizer: Any, *_: Any, **__: Any) -> None:
        self.look()
        self.clip_gradients(optimizer, 0.05, "norm")

    def optimizer_zero_grad(self, epoch: int, batch_idx: int, optimizer: Any) -> None:
        optimizer.zero_grad(set_to_none=False)


class Adversaries(Plain):
    """Two optimizers, toggled, one of which rests every second batch; both schedules are stepped by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        for number, (optimizer, schedule) in enumerate(zip(self.optimizers(), self.lr_schedulers(), strict=True)):
            if number and batch_idx % 2:
                continue
            self.toggle_optimizer(optimizer)
            loss = Plain.training_step(self, batch, batch_idx)
            optimizer.zero_grad()
            self.manual_backward(loss)
            optimizer.step()
            self.untoggle_optimizer(optimizer)
            schedule.step()
        return {"first": loss.detach()}

    def configure_optimizers(self) -> Any:
        first = torch.optim.Adam([*self.stem.parameters(), *self.norm.parameters()], 0.02)
        second = torch.optim.SGD(self.head.parameters(), 0.1, 0.9)
        return [first, second], [ExponentialLR(first, 0.9), CosineAnnealingLR(second, 10)]


class StepsItsSchedule(Plain):
    """Steps its schedule when an epoch starts, by hand; notes the rate of every step."""

    rates: ClassVar[dict[int, set[float]]] = {}

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def on_train_epoch_start(self) -> None:
        schedule: Any = self.lr_schedulers()
        if self.current_epoch > 0:
            schedule.step()

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        optimizer: Any = self.optimizers()
        loss = super().training_step(batch, batch_idx)
        optimizer.zero_grad()
        self.manual_backward(loss)
        self.rates.setdefault(self.global_step, set()).add(round(optimizer.param_groups[0]["lr"], 9))
        optimizer.step()
        return loss.detach()

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), 0.1, 0.9)
        return [optimizer], [CosineAnnealingLR(optimizer, 4)]


def one_rate_a_step(_: Any) -> None:
    assert all(len(rates) == 1 for rates in StepsItsSchedule.rates.values())
    assert len(set.union(*StepsItsSchedule.rates.values())) == 3


class Primed(torch.optim.SGD):
    """Has its state from the beginning."""

    def __init__(self, params: Any, lr: float) -> None:
        super().__init__(params, lr)
        for group in self.param_groups:
            for p in group["params"]:
                self.state[p]["sum"] = torch.full_like(p, 0.5)

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        loss = None if closure is None else torch.enable_grad()(closure)()
        for group in self.param_groups:
            for p in group["params"]:
                p.addcdiv_(p.grad, self.state[p]["sum"].add_(p.grad.abs()), value=-group["lr"])
        return loss


class WithPrimed(Plain):
    """Notes the state at the first step of each fit."""

    firsts: ClassVar[list[bool]] = []

    def on_train_start(self) -> None:
        state = self.trainer.optimizers[0].state
        self.firsts.append(all(bool((own["sum"] == 0.5).all()) for own in state.values()) and len(state) > 0)

    def configure_optimizers(self) -> Any:
        return Primed(self.parameters(), 0.02)


def always_fresh(_: Any) -> None:
    assert WithPrimed.firsts[:4] == [True] * 4


class WithoutOptimizer(Plain):
    def configure_optimizers(self) -> Any:
        return None


class StepsAnother(Plain):
    """Steps an optimizer that Lightning does not count."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        optimizer: Any = self.optimizers(use_pl_optimizer=False)
        loss = super().training_step(batch, batch_idx)
        optimizer.zero_grad()
        self.manual_backward(loss)
        optimizer.step()
        return loss.detach()


class SmallEpochs(Data):
    """Fewer samples than one batch, which is dropped."""

    def train_dataloader(self) -> Any:
        loader = super().train_dataloader()
        return torch.utils.data.DataLoader(loader.dataset, batch_size=64, drop_last=True)


class StopsAfterTwo(pl.Callback):
    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        trainer.should_stop = trainer.current_epoch == 1


EPOCHS = {"max_epochs": 3}
KINDS = [
    Kind("clips after a backward pass", model=ClipsAfterBackward),
    Kind("clips by hand", model=ClipsByHand, thorough=True),
    Kind("steps of a module's own", model=StepsItself, thorough=True),
    Kind("adversaries", model=Adversaries, loop={"rewind_step": 3}, thorough=True),
    Kind(
        "steps its schedule at an epoch's start",
        model=StepsItsSchedule,
        loop={"rewind_step": 2 * REWIND_STEP},
        check=one_rate_a_step,
    ),
    Kind("an optimizer with a first state", model=WithPrimed, check=always_fresh, thorough=True),
    Kind("no optimizer", model=WithoutOptimizer, refusal="gives no optimizer", trained=True),
    Kind("an optimizer that is not counted", model=StepsAnother, flags=EPOCHS, refusal="made no step", trained=True),
    Kind(
        "an optimizer that is never counted",
        model=StepsAnother,
        refusal="2,000 batches have made no",
        trained=True,
        thorough=True,
    ),
    Kind("epochs without a batch", data=SmallEpochs, refusal="made no step.*drop_last", trained=True),
    Kind(
        "stops after two epochs of three",
        callbacks=lambda: [StopsAfterTwo()],
        flags=EPOCHS,
        refusal="ended at epoch 2 of 3",
        trained=True,
    ),
]
