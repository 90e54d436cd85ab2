"""From raw uint8 pixels to what a network sees. The lottery ticket paper states no normalization."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from lth_lightning.errors import UserError


@dataclass(frozen=True)
class MeanStd:
    """A normalization of one's own, for pixels in [0, 1]: one number a channel, or one for all."""

    mean: list[float]
    std: list[float]


NormalizationName = Literal["dataset", "none", "half", "lecun", "unit_l2"]
Normalization = NormalizationName | MeanStd

# The ablation of the TU Delft reproduction (2022) compares none, half, LeCun's and the data set's own.
_FIXED = {"half": MeanStd([0.5], [0.5]), "lecun": MeanStd([0.078], [0.784])}


class Normalizer:
    """Callable: uint8 pixels [..., C, H, W] in 0..max_value to float32 of the same shape, on the same device.

    `dataset`: the set's published mean and standard deviation; `none`: pixels in [0, 1]; `half`, `lecun`:
    fixed numbers; `unit_l2`: each image scaled to Euclidean norm 1 (the paper author's re-implementation); or
    a `MeanStd`.

    Raises UserError for an unknown name, for a mean or std whose length is neither 1 nor `channels`, for numbers
    that are not finite, and for a std that is not positive.
    """

    def __init__(self, normalization: Normalization, channels: int, dataset: MeanStd, max_value: int) -> None:
        self.max_value = max_value
        self.unit_l2 = normalization == "unit_l2"
        self.mean_std: MeanStd | None
        if isinstance(normalization, MeanStd):
            self.mean_std = normalization
        elif normalization == "dataset":
            self.mean_std = dataset
        elif normalization in ("none", "unit_l2"):
            self.mean_std = None
        elif isinstance(normalization, str) and normalization in _FIXED:
            self.mean_std = _FIXED[normalization]
        else:
            names = ", ".join(get_args(NormalizationName))
            raise UserError(f"Unknown normalization {normalization!r}: use {names}, or mean and std.")
        if self.mean_std is not None:
            _check(self.mean_std, channels)

    def __call__(self, images: Tensor) -> Tensor:
        # Divide, subtract, divide in float32, as torchvision's ToTensor and Normalize do: the same bits.
        pixels = images.to(torch.float32).div_(self.max_value)
        if self.mean_std is not None:
            pixels.sub_(_per_channel(self.mean_std.mean, pixels))
            pixels.div_(_per_channel(self.mean_std.std, pixels))
        if self.unit_l2:
            norms = torch.linalg.vector_norm(pixels, dim=(-3, -2, -1), keepdim=True)
            pixels.div_(norms.clamp_min(1e-12))  # an all-black image stays zero
        return pixels


def _per_channel(values: list[float], like: Tensor) -> Tensor:
    return torch.tensor(values, dtype=torch.float32, device=like.device).view(-1, 1, 1)


def _check(mean_std: MeanStd, channels: int) -> None:
    for name, values in (("mean", mean_std.mean), ("std", mean_std.std)):
        if len(values) not in (1, channels):
            wanted = "1 number" if channels == 1 else f"1 or {channels} numbers"
            raise UserError(f"The normalization's {name} has {len(values)} numbers: give {wanted}.")
        if not all(map(math.isfinite, values)):
            raise UserError(f"The normalization's {name} is {values}: give finite numbers.")
    if not all(value > 0 for value in mean_std.std):
        raise UserError(f"The normalization's std is {mean_std.std}: every number of it must be above 0.")
