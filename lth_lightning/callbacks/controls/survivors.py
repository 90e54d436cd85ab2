"""Controls with the ticket's own mask and other values in it: what is it about the initial weights?

Where a class has `keep_signs`, the survivors keep the signs of their initial weights (arXiv 1905.01067 section 3,
mask-1 actions).
Only weights of prunable layers change; biases and norm parameters stay the ticket's, but for `RandomReinit`.
"""

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor

from lth_lightning.callbacks.controls.base import Control
from lth_lightning.callbacks.start import Start
from lth_lightning.errors import UserError
from lth_lightning.pruning import Weights


class Signed(Control):
    """A control that can keep the survivors' signs.

    Args:
        keep_signs: the survivors' signs are those of the rewind point.
    """

    def __init__(self, *args: Any, keep_signs: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.keep_signs = keep_signs

    @property
    def arm(self) -> str:
        return super().arm + ("_same_signs" if self.keep_signs and not self.name else "")


class Rewound(Control):
    """The ticket as the paper has it: the level's mask with the weights of the rewind point.

    For runs whose own tickets go on from trained weights (LTH app. B, continued training, resets but once); and with
    `steps: 0` the untrained accuracy of a mask, a supermask (arXiv 1905.01067 section 5).
    """

    def start(self, ticket: Start, fresh: Weights, generator: torch.Generator) -> Start:
        return Start(ticket.mask, ticket.weights, ticket.step)


class RandomReinit(Signed):
    """The ticket's own mask with freshly initialized weights (LTH section 2, the dashed lines of Fig. 3-5).

    It trains from step 0, also where tickets rewind to a later step: weights that were never trained have no step k.

    Args:
        keep_signs: the survivors' signs are those of the rewind point.
    """

    def start(self, ticket: Start, fresh: Weights, generator: torch.Generator) -> Start:
        if not self.keep_signs:
            return Start(ticket.mask, fresh)
        return Start(ticket.mask, {**fresh, **{n: fresh[n].abs() * ticket.weights[n].sign() for n in ticket.mask}})


class Changed(Control):
    """The ticket with other values in each layer's survivors."""

    def start(self, ticket: Start, fresh: Weights, generator: torch.Generator) -> Start:
        weights = dict(ticket.weights)
        for name, mask in ticket.mask.items():
            weights[name] = ticket.weights[name].clone()
            weights[name][mask] = self.change(ticket.weights[name], mask, generator)
        return Start(ticket.mask, weights, ticket.step)

    @abstractmethod
    def change(self, initial: Tensor, mask: Tensor, generator: torch.Generator) -> Tensor:
        """New values [number of survivors] of one layer.

        Args:
            initial: all the layer's weights at the rewind point, the pruned ones too.
            mask: True survives.
            generator: for draws.
        """


class Reshuffle(Changed, Signed):
    """The survivors' initial weights, shuffled among the survivors of their layer (arXiv 1905.01067 section 3).

    Args:
        keep_signs: magnitudes are shuffled, the signs stay.
    """

    def change(self, initial: Tensor, mask: Tensor, generator: torch.Generator) -> Tensor:
        kept = initial[mask]
        new = kept[torch.randperm(len(kept), generator=generator)]
        return new.abs() * kept.sign() if self.keep_signs else new


class SignedConstant(Changed, Signed):
    """Every survivor of a layer is plus or minus the standard deviation of the layer's initial weights
    (arXiv 1905.01067 section 3).

    Args:
        keep_signs: the signs are those of the initial weights, not random ones.
    """

    def change(self, initial: Tensor, mask: Tensor, generator: torch.Generator) -> Tensor:
        kept = initial[mask]
        coins = torch.randint(0, 2, kept.shape, generator=generator) * 2 - 1
        return initial.std(correction=0) * (kept.sign() if self.keep_signs else coins)


class SurvivorReinit(Changed):
    """Survivors drawn anew, with replacement, from the initial weights of their layer's survivors (LTH app. F.3)."""

    def change(self, initial: Tensor, mask: Tensor, generator: torch.Generator) -> Tensor:
        kept = initial[mask]
        return kept[torch.randint(len(kept), kept.shape, generator=generator)]


class Noise(Changed):
    """Gaussian noise on the survivors' initial weights (LTH app. F.7, Fig. 25).

    Args:
        sd: its standard deviation, in those of the layer's initial weights; the paper has 0.5, 1, 2 and 3.
    """

    def __init__(self, sd: float, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if not 0 < sd < float("inf"):
            raise UserError(f"Noise has sd={sd}: give a number above 0.")
        self.sd = sd

    @property
    def arm(self) -> str:
        return self.name or f"noise_{self.sd:g}"

    def change(self, initial: Tensor, mask: Tensor, generator: torch.Generator) -> Tensor:
        kept = initial[mask]
        return kept + self.sd * initial.std(correction=0) * torch.randn(kept.shape, generator=generator)


class SignFlips(Changed):
    """A fraction of each layer's survivors, chosen at random, with the other sign (arXiv 2002.10365 section 5).

    Args:
        fraction: of the survivors, above 0; 1 flips all.
    """

    def __init__(self, fraction: float = 0.5, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if not 0 < fraction <= 1:
            raise UserError(f"SignFlips has fraction={fraction}: give a number above 0, at most 1.")
        self.fraction = fraction

    @property
    def arm(self) -> str:
        return self.name or f"sign_flips_{self.fraction:g}"

    def change(self, initial: Tensor, mask: Tensor, generator: torch.Generator) -> Tensor:
        new = initial[mask]
        new[torch.randperm(len(new), generator=generator)[: round(self.fraction * len(new))]] *= -1
        return new
