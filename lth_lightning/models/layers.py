"""The small parts that several networks share."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import nn

from lth_lightning.errors import UserError
from lth_lightning.kernels import Linear
from lth_lightning.machine import free_bytes

Activation = Literal["relu", "sigmoid", "tanh"]
_ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "sigmoid": nn.Sigmoid, "tanh": nn.Tanh}


def make_activation(name: Activation) -> nn.Module:
    """The activation of that name. Raises `UserError` for another name."""
    if name not in _ACTIVATIONS:
        raise UserError(f"activation '{name}' is unknown: use one of {', '.join(_ACTIVATIONS)}")
    return _ACTIVATIONS[name]()


class GlobalAveragePool(nn.Module):
    """[B, C, H, W] -> [B, C]. Unlike nn.AdaptiveAvgPool2d, a mean has a deterministic gradient on a GPU."""

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return features.mean(dim=(2, 3))


def fully_connected(
    in_features: int, hidden: Sequence[int], num_classes: int, activation: Activation, dropout: float
) -> dict[str, nn.Module]:
    """Named layers from [B, in_features] to logits [B, num_classes]: `fc1`, `fc2`, ... and `output`.

    Dropout, where it is above 0, follows the activation of every hidden layer.

    Raises:
        UserError: a dropout outside [0, 1), a hidden layer without units, more units than fit into the memory, or an
            unknown activation.
    """
    if not 0.0 <= dropout < 1.0:
        raise UserError(f"dropout is {dropout}: give the fraction of units to drop, from 0 up to but not including 1")
    if any(units < 1 for units in hidden):
        raise UserError(f"hidden layers of {list(hidden)} units: give every layer at least 1")
    _check_memory([in_features, *hidden, num_classes])
    layers: dict[str, nn.Module] = {}
    for index, units in enumerate(hidden, start=1):
        layers[f"fc{index}"] = Linear(in_features, units)
        layers[f"fc{index}_activation"] = make_activation(activation)
        if dropout > 0.0:
            layers[f"fc{index}_dropout"] = nn.Dropout(dropout)
        in_features = units
    layers["output"] = Linear(in_features, num_classes)
    return layers


def _check_memory(units: Sequence[int]) -> None:
    """Raise `UserError` for layers between so many units that the memory cannot hold: before it is asked for."""
    weights = sum(before * after for before, after in pairwise(units))
    needed = 4 * 4 * weights  # in float32: weights, gradients, and two numbers a weight of Adam
    if (free := free_bytes()) is not None and needed > free:
        raise UserError(
            f"a network of {weights:,} weights needs {needed / 1e9:,.0f} GB to be trained, and {free / 1e9:,.0f} GB of "
            "memory are free: give fewer hidden units"
        )


def check_poolable(network: str, shape: tuple[int, int, int], pools: int) -> None:
    """Raise `UserError` when images of `shape` (C, H, W) do not survive `pools` 2x2 max pools."""
    smallest = 2**pools
    if min(shape[1:]) < smallest:
        raise UserError(
            f"{network} halves its images {pools} times and cannot take {shape[1]}x{shape[2]} ones: "
            f"use images of at least {smallest}x{smallest} or a network with fewer pools"
        )
