"""Controls with other masks than the ticket's, of the same counts in each layer."""

import torch

from lth_lightning.callbacks.controls.base import Control
from lth_lightning.callbacks.start import Start
from lth_lightning.pruning import Weights, same_counts_shuffled


class RandomMask(Control):
    """As many survivors in each layer, at random places, freshly initialized (LTH Fig. 1's random sparse networks)."""

    def start(self, ticket: Start, fresh: Weights, generator: torch.Generator) -> Start:
        return Start(same_counts_shuffled(ticket.mask, generator), fresh)


class ShuffledMask(Control):
    """As many survivors in each layer, at random places, with the original weights of those places.

    What the ticket's mask knows beyond its counts a layer is lost, the initialization is not (arXiv 2009.08576
    section 4, "random shuffling").
    """

    def start(self, ticket: Start, fresh: Weights, generator: torch.Generator) -> Start:
        return Start(same_counts_shuffled(ticket.mask, generator), ticket.weights, ticket.step)
