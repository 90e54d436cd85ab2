"""VGG-19 for CIFAR10 (LTH section 4)."""

import torch
from pytorch_lightning.cli import LRSchedulerCallable, OptimizerCallable
from torch import nn

from lth_lightning.errors import UserError
from lth_lightning.models.classifier import Classifier
from lth_lightning.models.initialization import glorot_normal_
from lth_lightning.models.layers import Activation, GlobalAveragePool, check_poolable, make_activation

_GROUPS = ((64, 64), (128, 128), (256,) * 4, (512,) * 4, (512,) * 4)


class VGG19(Classifier):
    """2x64, pool, 2x128, pool, 4x256, pool, 4x512, pool, 4x512, average pool, 10; batch norm (LTH Fig. 2).

    20,024,000 weights, 5,120 of them in the output layer. Trained for 112,480 steps of 64 with SGD, momentum
    0.9 and weight decay 1e-4. Parameters are named `net.conv1` ... `net.conv16`, `net.norm1` ... and
    `net.output`.

    The default rate is the paper's 0.1 *without* its schedule, whose steps belong to the length of a run; the
    paper's is `WarmupMultiStepLR(warmup_steps=10_000, milestones=[56_240, 84_360])` (epochs 80 and 120 of 703
    steps; app. I).

    Args:
        shape: of an image: channels, height, width.
        num_classes: the number of logits.
        width: a factor on the number of channels of every layer.
        activation: after every convolution.
        optimizer: makes the optimizer from the parameters.
        lr_scheduler: makes a scheduler, in optimizer steps, from the optimizer.

    Raises:
        UserError: images smaller than 16x16, a width of 0 or below, or an unknown activation.
    """

    def __init__(
        self,
        shape: tuple[int, int, int] = (3, 32, 32),
        num_classes: int = 10,
        width: float = 1.0,
        activation: Activation = "relu",
        optimizer: OptimizerCallable = lambda p: torch.optim.SGD(
            p, lr=0.1, momentum=0.9, weight_decay=1e-4, fused=True
        ),
        lr_scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        if width <= 0:
            raise UserError(f"width is {width}: give a positive factor on the number of channels")
        # The last group ends in the average pool, not in a max pool.
        check_poolable("VGG19", shape, pools=len(_GROUPS) - 1)
        net = nn.Sequential()
        channels = shape[0]
        index = 0
        for group, group_channels in enumerate(_GROUPS, start=1):
            if group > 1:
                net.add_module(f"pool{group - 1}", nn.MaxPool2d(2))
            for full_width in group_channels:
                index += 1
                out_channels = max(1, round(width * full_width))
                # Batch norm follows, and would subtract a bias again.
                net.add_module(f"conv{index}", nn.Conv2d(channels, out_channels, kernel_size=3, padding=1, bias=False))
                net.add_module(f"norm{index}", nn.BatchNorm2d(out_channels))
                net.add_module(f"activation{index}", make_activation(activation))
                channels = out_channels
        net.add_module("pool", GlobalAveragePool())
        net.add_module("output", nn.Linear(channels, num_classes))
        super().__init__(glorot_normal_(net), num_classes, optimizer, lr_scheduler)
