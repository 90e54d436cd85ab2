"""Schedules and callbacks that would make one training of a run unlike another."""

from typing import Any

import torch
from pytorch_lightning.callbacks import (
    BackboneFinetuning,
    BatchSizeFinder,
    EarlyStopping,
    GradientAccumulationScheduler,
    LearningRateFinder,
    LearningRateMonitor,
)
from torch import Tensor, nn
from zoo_base import Kind, Plain


class Plateau(Plain):
    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1)
        schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "monitor": "val_loss"}}


class ByEpoch(Plain):
    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.5)]


class StopsItself(Plain):
    def configure_callbacks(self) -> Any:
        return [EarlyStopping("val_loss")]


class WithBackbone(Plain):
    """What BackboneFinetuning asks for."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(self.stem, self.norm)
        del self.stem, self.norm
        self.lr = 0.02

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.backbone(x).relu())

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD([p for p in self.parameters() if p.requires_grad], lr=self.lr)


def thaw() -> list[Any]:
    return [BackboneFinetuning(unfreeze_backbone_at_epoch=1, verbose=False)]


NAMES = ("head.weight", "backbone.0.weight")
KINDS = [
    Kind("a schedule on plateaus", model=Plateau),
    Kind(
        "plateaus with rare evaluations",
        model=Plateau,
        loop={"evaluate_every": 10},
        refusal="evaluate_every to an epoch or less",
        trained=True,
    ),
    Kind("a schedule by epochs", model=ByEpoch, callbacks=lambda: [LearningRateMonitor()]),
    Kind("stops itself", model=StopsItself, refusal="EarlyStopping"),
    Kind("a finder of rates", callbacks=lambda: [LearningRateFinder()], refusal="LearningRateFinder"),
    Kind("a finder of batch sizes", callbacks=lambda: [BatchSizeFinder()], refusal="BatchSizeFinder"),
    Kind("thaws, rewinding to a step", model=WithBackbone, callbacks=thaw, refusal="BackboneFinetuning"),
    Kind("thaws", model=WithBackbone, callbacks=thaw, loop={"rewind_step": 0}, prunable=NAMES),
    Kind("accumulates ever more", callbacks=lambda: [GradientAccumulationScheduler({0: 1, 1: 2})]),
]
