"""Controls: what a ticket is compared with, trained from the same mask or density.

A control of your own is one class: subclass `Control`, return the mask and weights to train from, and name the class
by its import path in `--pruning.controls`. Its arm's name is the class's name in snake case.
"""

import re
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch

from lth_lightning.errors import UserError
from lth_lightning.pruning import Mask, Weights, same_counts_shuffled

Levels = str | list[int]


@dataclass
class Start:
    """What a training starts from."""

    mask: Mask
    weights: Weights
    step: int = 0
    """The optimizer step that the weights belong to: the schedule and the data order go on from there."""


class Control(ABC):
    """One further training at each chosen level of each replicate, `trials` times over.

    Args:
        levels: `all` (every pruned level; level 0 has nothing pruned), a range such as `0-12`, or a list.
        trials: independent repetitions, each with draws of its own.
    """

    def __init__(self, levels: Levels = "all", trials: int = 1) -> None:
        if trials < 1:
            raise UserError(f"{type(self).__name__} has trials={trials}: give 1 or more, or drop the control.")
        self.levels = levels
        self.trials = trials
        self._wanted = parse_levels(levels)

    @property
    def arm(self) -> str:
        """The name in folders and tables: the class's, in snake case."""
        return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", type(self).__name__).lower()

    def levels_of(self, last: int) -> list[int]:
        """The levels it trains at, of a run whose last level is `last`; raises UserError for one that is not run."""
        wanted = list(range(1, last + 1)) if self._wanted is None else self._wanted
        if beyond := [level for level in wanted if level > last]:
            raise UserError(
                f"{type(self).__name__} asks for level {beyond[0]}, but the run ends at level {last}: "
                "change the control's levels or run more levels."
            )
        return wanted

    @abstractmethod
    def start(self, ticket: Start, fresh: Weights, generator: torch.Generator) -> Start:
        """What to train from.

        Args:
            ticket: the level's mask, and the weights and step of the rewind point (shared: do not change in place).
            fresh: a state dict initialized anew for this training alone.
            generator: for further draws; its seed is this training's own.
        """


class RandomReinit(Control):
    """The ticket's own mask with freshly initialized weights (LTH section 2, the dashed lines of Fig. 3-5).

    It trains from step 0, also where tickets rewind to a later step: weights that were never trained have no step k.
    """

    def start(self, ticket: Start, fresh: Weights, generator: torch.Generator) -> Start:
        return Start(ticket.mask, fresh)


class RandomMask(Control):
    """As many survivors in each layer, at random places, freshly initialized (LTH Fig. 1's random sparse networks)."""

    def start(self, ticket: Start, fresh: Weights, generator: torch.Generator) -> Start:
        return Start(same_counts_shuffled(ticket.mask, generator), fresh)


def parse_levels(levels: Levels) -> list[int] | None:
    """`all` as None, `2-5` as [2, 3, 4, 5], a list sorted and without repeats; raises UserError for anything else."""
    if levels == "all":
        return None
    if isinstance(levels, str):
        if found := re.fullmatch(r"(\d+)(?:-(\d+))?", levels.strip()):
            first, last = int(found[1]), int(found[2] or found[1])
            if first <= last:
                return list(range(first, last + 1))
    elif all(isinstance(level, int) and level >= 0 for level in levels):
        return sorted(set(levels))
    raise UserError(f"A control's levels are {levels!r}: give 'all', a range such as '0-12', or a list such as [3, 7].")
