"""What pruned weights become: 0, or values that they are frozen at (arXiv 1905.01067 section 4, mask-0 actions)."""

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

Pruned = Literal["zero", "init", "zero_if_shrunk"]


def frozen(
    what: Pruned,
    mask: Mapping[str, Tensor],
    initial: Mapping[str, Tensor],
    final: Mapping[str, Tensor],
    origin: Mapping[str, Tensor],
) -> dict[str, Tensor]:
    """Values [shape of the weight] for the pruned weights, by parameter name, 0 where one survives; {} for `zero`.

    Args:
        what: `init`: the initial value; `zero_if_shrunk`: 0 where training has moved the weight towards 0, its initial
            value otherwise. A weight that was pruned before keeps what it got then.
        mask: True survives.
        initial: the weights that a training starts from, which are what the pruned ones are frozen at.
        final: the weights at the end of the parent level's training, pruned ones at what they were frozen at.
        origin: the weights at the rewind point, which `final` is compared with.
    """
    if what == "zero":
        return {}
    values = {}
    for name, part in mask.items():
        kept = initial[name].cpu().masked_fill(part.cpu(), 0.0)
        if what == "zero_if_shrunk":
            kept = torch.where(final[name].cpu().abs() < origin[name].cpu().abs(), 0.0, kept)
        values[name] = kept
    return values
