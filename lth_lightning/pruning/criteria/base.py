"""What a pruning criterion is: it scores the weights, and the lowest scores of a pool are pruned."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from lth_lightning.errors import UserError
from lth_lightning.pruning.layers import Layer

Scores = dict[str, Tensor]
"""Parameter name to a float tensor of the parameter's shape."""

Samples = Callable[[int, torch.Generator], Any]
"""From a number n and a generator: a batch of n training samples, drawn at random. Data of this package, and loaders
that give pairs of tensors, give inputs [n, ...] and targets [n]; other loaders' batches have their own form."""

Loss = Callable[[nn.Module, Any, torch.Generator], Tensor]
"""From a network, a batch of samples and a generator for its draws: the scalar that the network is trained by."""


def _no_network() -> nn.Module:
    raise UserError("This criterion looks at the network, and none was given: pass `network` to Schedule.prune.")


def _no_samples(number: int, generator: torch.Generator) -> Any:
    raise UserError("This criterion looks at training samples, and none were given: pass `samples` to Schedule.prune.")


@dataclass
class Evidence:
    """What a criterion may judge by; everything lies on the CPU.

    The tensors are shared: do not change them in place. A network is the caller's own to change.
    """

    layers: tuple[Layer, ...]
    """The prunable layers, in the order of the network."""
    mask: Mapping[str, Tensor]
    """What survives so far, by parameter name."""
    final: Mapping[str, Tensor]
    """The whole state dict at the end of the parent level's training."""
    initial: Mapping[str, Tensor]
    """The whole state dict at the rewind point: the initialization, or step k."""
    generator: torch.Generator
    """For random draws; derived from the seed, replicate and level, so that a resumed run draws the same."""
    network: Callable[[], nn.Module] = field(default=_no_network)
    """A fresh copy of the network in evaluation mode, with the weights `initial`, the pruned ones at 0."""
    samples: Samples = field(default=_no_samples)
    loss: Loss | None = None
    """Without it the network gives class logits, and is trained by their cross entropy."""


class Criterion(ABC):
    """Decides which weights go, from all that is known of the network: see `Score` for the simple kind."""

    rounds: int = 1
    """In how many rounds the weights of a level go, `scores` being asked anew in each; the survivors' number falls
    exponentially from one to the next (SynFlow's schedule, arXiv 2006.05467 section 5)."""
    samples: int = 0
    """How many training samples `scores` asks for: a run that has fewer is refused before its first training."""

    @abstractmethod
    def scores(self, evidence: Evidence) -> Scores:
        """By the name of each of `evidence.layers` a float tensor of the weight's shape; the lowest of a pool go.

        The scores of weights that are pruned already do not matter.
        """


class Score(Criterion):
    """How much each weight of one layer is worth keeping, judged by the layer's own weights.

    A criterion of your own is one class: subclass this, return a tensor of the weight's shape, and name the class by
    its import path in `--pruning.score`.
    """

    def scores(self, evidence: Evidence) -> Scores:
        """`self(final, initial, generator)` of each layer, in the order of the network."""
        return {
            layer.name: self(evidence.final[layer.name].cpu(), evidence.initial[layer.name].cpu(), evidence.generator)
            for layer in evidence.layers
        }

    @abstractmethod
    def __call__(self, final: Tensor, initial: Tensor, generator: torch.Generator) -> Tensor:
        """Scores of `final`'s shape, compared within a pool; the lowest go.

        Args:
            final: the layer's weights at the end of the training, pruned ones at 0 (CPU).
            initial: the same weights at the rewind point, not masked.
            generator: for random draws; derived from the seed, replicate and level, so a resumed run draws the same.
        """
