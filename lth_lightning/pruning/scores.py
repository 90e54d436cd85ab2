"""Scores: which weights go. The lowest scores of a pool are pruned.

A criterion of your own is one class: subclass `Score`, return a tensor of the weight's shape, and name the class by its
import path in `--pruning.score`.
"""

from abc import ABC, abstractmethod

import torch
from torch import Tensor


class Score(ABC):
    """How much each weight of one layer is worth keeping."""

    @abstractmethod
    def __call__(self, final: Tensor, initial: Tensor, generator: torch.Generator) -> Tensor:
        """Scores of `final`'s shape, compared within a pool; the lowest go.

        Args:
            final: the layer's weights at the end of the training (CPU).
            initial: the same weights at the rewind point.
            generator: for random draws; derived from the seed, replicate and level, so a resumed run draws the same.
        """


class Magnitude(Score):
    """|w_T|, the paper's criterion (LTH section 2; `large_final` in Deconstructing Lottery Tickets)."""

    def __call__(self, final: Tensor, initial: Tensor, generator: torch.Generator) -> Tensor:
        return final.abs()


class Random(Score):
    """Uniform random scores: random pruning, layer by layer or global as the pools are."""

    def __call__(self, final: Tensor, initial: Tensor, generator: torch.Generator) -> Tensor:
        return torch.rand(final.shape, generator=generator)
