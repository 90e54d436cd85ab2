"""The two criteria that every comparison needs."""

import torch
from torch import Tensor

from lth_lightning.pruning.criteria.base import Score


class Magnitude(Score):
    """|w_T|, the paper's criterion (LTH section 2; `large_final` in arXiv 1905.01067, section 2)."""

    def __call__(self, final: Tensor, initial: Tensor, generator: torch.Generator) -> Tensor:
        return final.abs()


class Random(Score):
    """Uniform random scores: random pruning, layer by layer or global as the pools are."""

    def __call__(self, final: Tensor, initial: Tensor, generator: torch.Generator) -> Tensor:
        return torch.rand(final.shape, generator=generator)
