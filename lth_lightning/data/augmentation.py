"""Random flip and crop of whole batches on their device (the paper's for ResNet and VGG)."""

from typing import Literal

import torch
from torch import Generator, Tensor
from torch.nn import functional

Augmentation = Literal["none", "flip_crop"]

PADDING = 4
_OFFSETS = 2 * PADDING + 1
_CHOICES = 2 * _OFFSETS * _OFFSETS


def pad(images: Tensor) -> Tensor:
    """uint8 [n, C, H, W] to [n, C, H + 8, W + 8] with a black border, once: a crop is then only an index."""
    return functional.pad(images, (PADDING,) * 4)


def unpadded(padded: Tensor) -> Tensor:
    """The view of `pad`'s result that holds the images themselves."""
    return padded[..., PADDING:-PADDING, PADDING:-PADDING]


def draw_choices(count: int, generator: Generator) -> Tensor:
    """One number in [0, 162) a sample, int64 [count]: 81 positions of the crop times flipped or not."""
    return torch.randint(_CHOICES, (count,), generator=generator)


def flip_crop(padded: Tensor, index: Tensor, choices: Tensor) -> Tensor:
    """Gather, crop and flip: `pad`'s images, samples [m] and choices [m] to uint8 [m, C, H, W].

    All on one device. choice = 18 * rows down + 2 * columns right + (1 if flipped left to right).
    """
    height, width = padded.shape[2] - 2 * PADDING, padded.shape[3] - 2 * PADDING
    offsets = choices // 2
    # Every crop of every image as a view [n, C, 9, 9, H, W] without a copy; one gather takes m of them.
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)
    cropped = windows[index, :, offsets // _OFFSETS, offsets % _OFFSETS]
    return torch.where((choices % 2 == 1).view(-1, 1, 1, 1), cropped.flip(-1), cropped)
