"""The controls of the TU Delft reproduction (2022), which search masks of their own.

Both are called "random reinit" there, which is something else in the paper: `RandomReinit` has the ticket's mask.
"""

from typing import Any

import torch

from lth_lightning.callbacks.controls.base import Control
from lth_lightning.callbacks.start import Start
from lth_lightning.pruning import Criterion, Magnitude, RandomButOutput, Weights


class SearchedAnew(Control):
    """Pruning that draws all weights anew after each round, instead of rewinding: the mask of a level is found in the
    reinitialized network trained one level before. (In one shot it is found in the dense ticket, and so the ticket's.)

    Args:
        score: which weights go.
    """

    def __init__(self, *args: Any, score: Criterion = Magnitude(), **kwargs: Any) -> None:  # noqa: B008  stateless
        super().__init__(*args, **kwargs)
        self.score = score

    def start(self, ticket: Start, fresh: Weights, generator: torch.Generator) -> Start:
        return Start(ticket.mask, fresh)


class RandomPruning(SearchedAnew):
    """The same where random weights go, but of the output layer those of the smallest magnitude."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, score=RandomButOutput(), **kwargs)
