"""LeNet-300-100 (LTH section 2)."""

import math
from collections.abc import Sequence

import torch
from pytorch_lightning.cli import LRSchedulerCallable, OptimizerCallable
from torch import nn

from lth_lightning.models.classifier import Classifier
from lth_lightning.models.initialization import gaussian_, glorot_normal_
from lth_lightning.models.layers import Activation, fully_connected


class LeNet300(Classifier):
    """Fully connected 784-300-100-10, 266,200 weights (LTH Fig. 2).

    Trained with Adam at 1.2e-3 for 50K steps of 60. Parameters are named `net.fc1`, `net.fc2` and
    `net.output`.

    Args:
        shape: of an image: channels, height, width.
        num_classes: the number of logits.
        hidden: units of each hidden layer (LTH app. G sweeps them).
        activation: after every hidden layer.
        dropout: the fraction of units dropped after every hidden layer's activation; the paper has none.
        init_sd: one standard deviation of all initial weights, instead of Gaussian Glorot's of each layer (LTH app. G
            sweeps it).
        optimizer: makes the optimizer from the parameters.
        lr_scheduler: makes a scheduler, in optimizer steps, from the optimizer.

    Raises:
        UserError: a layer without units, a dropout outside [0, 1), an init_sd of 0 or below, or an unknown activation.
    """

    def __init__(
        self,
        shape: tuple[int, int, int] = (1, 28, 28),
        num_classes: int = 10,
        hidden: Sequence[int] = (300, 100),
        activation: Activation = "relu",
        dropout: float = 0.0,
        init_sd: float | None = None,
        optimizer: OptimizerCallable = lambda p: torch.optim.Adam(p, lr=1.2e-3, fused=True),
        lr_scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        net = nn.Sequential()
        net.add_module("flatten", nn.Flatten())
        for name, layer in fully_connected(math.prod(shape), hidden, num_classes, activation, dropout).items():
            net.add_module(name, layer)
        glorot_normal_(net) if init_sd is None else gaussian_(net, init_sd)
        super().__init__(net, num_classes, optimizer, lr_scheduler)
