"""Conv-2, Conv-4 and Conv-6: small VGG-like networks (LTH section 3)."""

from typing import ClassVar

import torch
from pytorch_lightning.cli import LRSchedulerCallable, OptimizerCallable
from torch import nn

from lth_lightning.models.classifier import Classifier
from lth_lightning.models.initialization import glorot_normal_
from lth_lightning.models.layers import Activation, check_poolable, fully_connected, make_activation

_PAIR_CHANNELS = (64, 128, 256)


def _conv_net(
    pairs: int, shape: tuple[int, int, int], num_classes: int, activation: Activation, dropout: float
) -> nn.Sequential:
    """`pairs` times (3x3 conv, 3x3 conv, 2x2 max pool), then fc 256, 256, num_classes."""
    check_poolable(f"Conv{2 * pairs}", shape, pools=pairs)
    net = nn.Sequential()
    channels, height, width = shape
    for pair, out_channels in enumerate(_PAIR_CHANNELS[:pairs], start=1):
        for index in (2 * pair - 1, 2 * pair):
            net.add_module(f"conv{index}", nn.Conv2d(channels, out_channels, kernel_size=3, padding=1))
            net.add_module(f"conv{index}_activation", make_activation(activation))
            channels = out_channels
        net.add_module(f"pool{pair}", nn.MaxPool2d(2))
        height, width = height // 2, width // 2
    net.add_module("flatten", nn.Flatten())
    features = channels * height * width
    for name, layer in fully_connected(features, (256, 256), num_classes, activation, dropout).items():
        net.add_module(name, layer)
    glorot_normal_(net)
    return net


class Conv2(Classifier):
    """64, 64, pool; fc 256, 256, 10: 4,300,992 weights, 38,592 of them in conv layers (LTH Fig. 2).

    Trained with Adam at 2e-4 for 20K steps of 60. Parameters are named `net.conv1` ..., `net.fc1`, `net.fc2`,
    `net.output`.

    Args:
        shape: of an image: channels, height, width.
        num_classes: the number of logits.
        activation: after every hidden layer.
        dropout: the fraction of units dropped after the activation of both hidden fully connected layers. LTH
            section 3 uses 0.5 and does not say where; none follows the conv layers here.
        optimizer: makes the optimizer from the parameters.
        lr_scheduler: makes a scheduler, in optimizer steps, from the optimizer.

    Raises:
        UserError: images smaller than 2x2, a dropout outside [0, 1), or an unknown activation.
    """

    def __init__(
        self,
        shape: tuple[int, int, int] = (3, 32, 32),
        num_classes: int = 10,
        activation: Activation = "relu",
        dropout: float = 0.0,
        optimizer: OptimizerCallable = lambda p: torch.optim.Adam(p, lr=2e-4, fused=True),
        lr_scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        net = _conv_net(1, shape, num_classes, activation, dropout)
        super().__init__(net, num_classes, optimizer, lr_scheduler)


class Conv4(Classifier):
    """64, 64, pool; 128, 128, pool; fc 256, 256, 10: 2,425,024 weights, 259,776 in conv layers (LTH Fig. 2).

    Trained with Adam at 3e-4 for 25K steps of 60. Arguments and names as for `Conv2`.

    Args:
        shape: of an image: channels, height, width.
        num_classes: the number of logits.
        activation: after every hidden layer.
        dropout: the fraction of units dropped after the activation of both hidden fully connected layers.
        optimizer: makes the optimizer from the parameters.
        lr_scheduler: makes a scheduler, in optimizer steps, from the optimizer.

    Raises:
        UserError: images smaller than 4x4, a dropout outside [0, 1), or an unknown activation.
    """

    pairs: ClassVar[int] = 2
    """Pairs of conv layers, a pool behind each."""

    def __init__(
        self,
        shape: tuple[int, int, int] = (3, 32, 32),
        num_classes: int = 10,
        activation: Activation = "relu",
        dropout: float = 0.0,
        optimizer: OptimizerCallable = lambda p: torch.optim.Adam(p, lr=3e-4, fused=True),
        lr_scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        net = _conv_net(self.pairs, shape, num_classes, activation, dropout)
        super().__init__(net, num_classes, optimizer, lr_scheduler)


class Conv6(Conv4):
    """64, 64, pool; 128, 128, pool; 256, 256, pool; fc 256, 256, 10: 2,261,184 weights (LTH Fig. 2).

    Of these, 1,144,512 are in conv layers. The table of LTH Fig. 2 says 1.7M; the paper's own densities fit
    these. Trained with Adam at 3e-4 for 30K steps of 60. Images of 8x8 at least; all else as for `Conv4`.
    """

    pairs: ClassVar[int] = 3
