"""ResNet-20 for CIFAR10, which the paper calls "Resnet-18" (LTH section 4)."""

import torch
from pytorch_lightning.cli import LRSchedulerCallable, OptimizerCallable
from torch import nn

from lth_lightning.models.classifier import Classifier
from lth_lightning.models.initialization import glorot_normal_
from lth_lightning.models.layers import Activation, GlobalAveragePool, make_activation

_STAGE_CHANNELS = (16, 32, 64)
_BLOCKS_A_STAGE = 3


def _projection(in_channels: int, out_channels: int, stride: int) -> nn.Sequential:
    """The 1x1 convolution and batch norm of a shortcut that changes shape."""
    shortcut = nn.Sequential()
    shortcut.add_module("conv", nn.Conv2d(in_channels, out_channels, kernel_size=1, stride=stride, bias=False))
    shortcut.add_module("norm", nn.BatchNorm2d(out_channels))
    return shortcut


class _Block(nn.Module):
    """Two 3x3 convolutions and a shortcut: [B, in, H, W] -> [B, out, H / stride, W / stride]."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, activation: Activation) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, kernel_size=3, stride=stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, kernel_size=3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(out_channels)
        self.activation = make_activation(activation)
        same = in_channels == out_channels and stride == 1
        self.shortcut = nn.Identity() if same else _projection(in_channels, out_channels, stride)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        residual = self.activation(self.norm1(self.conv1(features)))
        residual = self.norm2(self.conv2(residual))
        return self.activation(residual + self.shortcut(features))


class ResNet20(Classifier):
    """16; 3x[16, 16]; 3x[32, 32]; 3x[64, 64]; average pool; 10, batch norm: 270,896 weights (LTH Fig. 2).

    267,696 of them are pruned. The names of the others contain `shortcut` (2,560 weights of the 1x1
    projections where the shape changes) and `output` (640). Trained for 30K steps of 128 with SGD, momentum
    0.9 and weight decay 1e-4.

    The default rate is the paper's 0.03 *without* its schedule, whose steps belong to the length of a run;
    the paper's is `WarmupMultiStepLR(warmup_steps=20_000, milestones=[20_000, 25_000])` (LTH app. I).

    Args:
        shape: of an image: channels, height, width.
        num_classes: the number of logits.
        activation: after every convolution but the shortcuts'.
        optimizer: makes the optimizer from the parameters.
        lr_scheduler: makes a scheduler, in optimizer steps, from the optimizer.

    Raises:
        UserError: an unknown activation.
    """

    def __init__(
        self,
        shape: tuple[int, int, int] = (3, 32, 32),
        num_classes: int = 10,
        activation: Activation = "relu",
        optimizer: OptimizerCallable = lambda p: torch.optim.SGD(
            p, lr=0.03, momentum=0.9, weight_decay=1e-4, fused=True
        ),
        lr_scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        net = nn.Sequential()
        channels = _STAGE_CHANNELS[0]
        net.add_module("conv", nn.Conv2d(shape[0], channels, kernel_size=3, padding=1, bias=False))
        net.add_module("norm", nn.BatchNorm2d(channels))
        net.add_module("activation", make_activation(activation))
        for stage, out_channels in enumerate(_STAGE_CHANNELS, start=1):
            blocks = nn.Sequential()
            for block in range(_BLOCKS_A_STAGE):
                stride = 2 if stage > 1 and block == 0 else 1
                blocks.append(_Block(channels, out_channels, stride, activation))
                channels = out_channels
            net.add_module(f"stage{stage}", blocks)
        net.add_module("pool", GlobalAveragePool())
        net.add_module("output", nn.Linear(channels, num_classes))
        super().__init__(glorot_normal_(net), num_classes, optimizer, lr_scheduler)
