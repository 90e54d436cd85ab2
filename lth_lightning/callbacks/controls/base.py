"""What a control is: an arm that a ticket is compared with."""

import re
from abc import ABC, abstractmethod

import torch

from lth_lightning.callbacks.start import Start
from lth_lightning.errors import UserError
from lth_lightning.pruning import Criterion, Weights

Levels = str | list[int]


class Control(ABC):
    """One further training at each chosen level of each replicate, `trials` times over.

    A control of your own is one class: subclass this, return what to train from, and name the class by its import path
    in `--pruning.controls`.

    Args:
        levels: `all` (every level that has lost weights), a range such as `0-12`, or a list.
        trials: independent repetitions, each with draws of its own.
        steps: train so many optimizer steps instead of the whole length; 0 evaluates the weights untrained.
        name: the arm's name in folders and tables; the class's in snake case without. Two arms of one class need two.
    """

    score: Criterion | None = None
    """Where it is given, the arm searches masks of its own: each level's is cut by this from the arm's own training
    one level before, level 1's from the dense ticket's. Otherwise its masks are the ticket's."""

    def __init__(
        self, levels: Levels = "all", trials: int = 1, steps: int | None = None, name: str | None = None
    ) -> None:
        if trials < 1:
            raise UserError(f"{type(self).__name__} has trials={trials}: give 1 or more, or drop the control.")
        if steps is not None and steps < 0:
            raise UserError(f"{type(self).__name__} has steps={steps}: give 0 (untrained) or more, or drop it.")
        if name is not None and not re.fullmatch(r"[A-Za-z][\w.+-]{0,99}", name):
            raise UserError(f"{name!r} cannot name a control: use up to 100 letters, digits, '.', '_', '+' and '-'.")
        self.levels = levels
        self.trials = trials
        self.steps = steps
        self.name = name
        self._wanted = parse_levels(levels)

    @property
    def arm(self) -> str:
        """The name in folders and tables."""
        return self.name or re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", type(self).__name__).lower()

    def levels_of(self, last: int, first: int = 1) -> list[int]:
        """The levels it trains at, of a run whose pruned levels are `first` to `last`.

        Raises UserError for one that is not run, or for gaps where the arm searches masks of its own.
        """
        wanted = list(range(first, last + 1)) if self._wanted is None else self._wanted
        if beyond := [level for level in wanted if level > last]:
            raise UserError(
                f"{self.arm} asks for level {beyond[0]}, but the run ends at level {last}: "
                "change the control's levels or run more levels."
            )
        if self.score and [level for level in wanted if level > 0] != list(range(1, max(wanted, default=0) + 1)):
            raise UserError(
                f"{self.arm} searches its own masks, level by level: give it 'all', or a range that begins at 1."
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
