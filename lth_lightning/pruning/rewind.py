"""Copies of a network's state, and the way back to one."""

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lth_lightning.errors import UserError
from lth_lightning.pruning.mask import MaskKeeper

Weights = dict[str, Any]
"""A state dict: parameters and buffers by name."""


def snapshot(model: nn.Module, device: torch.device | str | None = None) -> Weights:
    """The whole state dict, parameters and buffers, as copies that share no memory with the model.

    Args:
        model: any module.
        device: where the copies go; where each tensor lies by default.
    """
    return {
        # `copy=True`: `.to` alone returns the live tensor where it already lies there, and the snapshot would train on.
        name: value.detach().to(device or value.device, copy=True)
        if isinstance(value, Tensor)
        else copy.deepcopy(value)
        for name, value in model.state_dict().items()
    }


def same_values(first: Tensor, second: Tensor) -> bool:
    """The same values in the same shape, what is no number counting as equal to itself."""
    if first.shape != second.shape or first.layout != second.layout:
        return False
    pairs = list(zip(dense_parts(first), dense_parts(second), strict=True))
    return all(one.shape == other.shape and bool(_equal(one, other).all()) for one, other in pairs)


def _equal(one: Tensor, other: Tensor) -> Tensor:
    same = one == other
    has_nan = one.is_floating_point() or one.is_complex()
    return same | (one.isnan() & other.isnan()) if has_nan else same


def dense_parts(value: Tensor) -> list[Tensor]:
    """The tensor, or those that a sparse one consists of."""
    value = value.detach()
    if value.layout == torch.sparse_coo:
        value = value.coalesce()
        return [value.values(), value.indices()]
    if value.layout == torch.sparse_csr:
        return [value.values(), value.crow_indices(), value.col_indices()]
    return [value]


def to_cpu(weights: Mapping[str, Any]) -> Weights:
    """The same state dict on the CPU, for a file that any machine can read."""
    return {name: value.cpu() if isinstance(value, Tensor) else value for name, value in weights.items()}


def check_fits(model: nn.Module, weights: Mapping[str, Any], source: str) -> None:
    """Raise UserError naming the first entry that `model` and `weights` do not share, or have in other shapes."""
    own = model.state_dict()
    for name, value in own.items():
        if name not in weights:
            raise UserError(
                f"{source} does not fit this network: it has no '{name}'. Choose the network it was made for."
            )
        if isinstance(value, Tensor) and value.shape != weights[name].shape:
            theirs, ours = tuple(weights[name].shape), tuple(value.shape)
            raise UserError(
                f"{source} does not fit this network: '{name}' has shape {theirs} there and {ours} here. "
                "Choose the network and data set it was made for."
            )
    for name in weights:
        if name not in own:
            raise UserError(
                f"{source} does not fit this network: '{name}' is not in it. Choose the network it was made for."
            )


def rewind(
    model: nn.Module,
    weights: Mapping[str, Any],
    mask: Mapping[str, Tensor],
    pruned: Mapping[str, Tensor] | None = None,
) -> None:
    """Set every survivor, bias, norm parameter and buffer to `weights`, bit for bit, and every pruned weight to 0.0.

    `pruned` holds other values for pruned weights than 0.0, as a MaskKeeper takes them.

    The values are copied into the model's own tensors; `weights` shares no memory with the model afterwards.
    """
    model.load_state_dict(weights)
    MaskKeeper(model, mask, pruned).mask_weights()
