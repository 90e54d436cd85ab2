"""The criteria of Deconstructing Lottery Tickets (arXiv 1905.01067, section 2), w_i at the rewind point, w_f trained.

Its nine are these but the last, `Magnitude` (large_final) and `Random` (random).
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from lth_lightning.errors import UserError
from lth_lightning.pruning.criteria.base import Criterion, Evidence, Score, Scores


class SmallFinal(Score):
    """-|w_f|: the largest go (small_final in arXiv 1905.01067, section 2)."""

    def __call__(self, final: Tensor, initial: Tensor, generator: torch.Generator) -> Tensor:
        return -final.abs()


class LargeInit(Score):
    """|w_i| (large_init in arXiv 1905.01067, section 2).

    In a one-shot run whose rewind step is 0 this is magnitude pruning before any training (LTH appendix F).
    """

    def __call__(self, final: Tensor, initial: Tensor, generator: torch.Generator) -> Tensor:
        return initial.abs()


class SmallInit(Score):
    """-|w_i|: the largest go (small_init in arXiv 1905.01067, section 2)."""

    def __call__(self, final: Tensor, initial: Tensor, generator: torch.Generator) -> Tensor:
        return -initial.abs()


class MagnitudeIncrease(Score):
    """|w_f| - |w_i| (magnitude_increase in arXiv 1905.01067, section 2)."""

    def __call__(self, final: Tensor, initial: Tensor, generator: torch.Generator) -> Tensor:
        return final.abs() - initial.abs()


class Movement(Score):
    """|w_f - w_i| (movement in arXiv 1905.01067, section 2)."""

    def __call__(self, final: Tensor, initial: Tensor, generator: torch.Generator) -> Tensor:
        return (final - initial).abs()


class LargeInitLargeFinal(Criterion):
    """min(a |w_f|, |w_i|) (large_init_large_final in arXiv 1905.01067, section 2).

    The paper leaves a to whatever makes the two comparable. Its code cuts both at the same percentile.

    Args:
        scale: a, of every layer; None for each layer's mean |w_i| / mean |w_f| over its survivors.

    Raises:
        UserError: a scale of 0 or below.
    """

    def __init__(self, scale: float | None = None) -> None:
        self.scale = _checked(scale)

    def scores(self, evidence: Evidence) -> Scores:
        return {name: torch.minimum(final, initial) for name, final, initial in _scaled(evidence, self.scale)}


class SmallInitSmallFinal(LargeInitLargeFinal):
    """-max(a |w_f|, |w_i|): the largest go (small_init_small_final in arXiv 1905.01067, section 2), a as there."""

    def scores(self, evidence: Evidence) -> Scores:
        return {name: -torch.maximum(final, initial) for name, final, initial in _scaled(evidence, self.scale)}


class LargeFinalSameSign(Score):
    """sign(w_i) w_f: |w_f| where the sign did not change, and below all of those where it did.

    The criterion of supermasks, large_final_same_sign (arXiv 1905.01067, section 5): max(0, w_i w_f / |w_i|). Where
    more must stay than kept their sign, the paper draws among the others; here those that went furthest go first.
    """

    def __call__(self, final: Tensor, initial: Tensor, generator: torch.Generator) -> Tensor:
        return torch.where(final.sign() == initial.sign(), final.abs(), -final.abs())


def _checked(scale: float | None) -> float | None:
    if scale is not None and not scale > 0:
        raise UserError(f"scale is {scale}: give a positive factor on the final weights, or none to have it computed.")
    return scale


def _scaled(evidence: Evidence, scale: float | None) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Of each layer its name, a |w_f| and |w_i|."""
    for layer in evidence.layers:
        final, initial = evidence.final[layer.name].cpu().abs(), evidence.initial[layer.name].cpu().abs()
        factor: float | Tensor
        if scale is not None:
            factor = scale
        else:
            alive = evidence.mask[layer.name].cpu()
            mean = final[alive].mean()
            # All at 0: any factor leaves them there.
            factor = initial[alive].mean() / mean if mean > 0 else 1.0
        yield layer.name, factor * final, initial
