"""What the ticket arm trains from after pruning: where its survivors go back to, and on which schedule.

A way of your own is one class: subclass `Retraining`, return a Start, and name the class by its import path in
`--pruning.retrain`.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import replace

from lth_lightning.callbacks.start import Start
from lth_lightning.errors import UserError
from lth_lightning.pruning import Weights


class Retraining(ABC):
    """From a pruned, trained network to the start of the next training."""

    steps: int | None = None
    """Optimizer steps of the trainings above level 0, where they have a length of their own."""
    optimizer_state: bool = False
    """Whether the rewind point must hold the optimizer's state, which all that start there go on with."""
    trains_on: bool = False
    """Whether tickets go on from trained weights: none can be called a winning one then."""
    uses_rates: bool = False
    """Whether `start` needs the learning rates, which are otherwise not kept."""

    @abstractmethod
    def start(self, ticket: Start, final: Weights, learning_rates: list[float]) -> Start:
        """What a level's ticket is trained from.

        Args:
            ticket: the level's mask, and the weights and step of the rewind point.
            final: the whole state dict at the end of the parent level's training.
            learning_rates: those of that training's last step, one a parameter group; none unless `uses_rates`.
        """


class Rewind(Retraining):
    """Survivors go back to the rewind point, and so does the schedule: step 0, the initialization (LTH section 2), or a
    later one (late rewinding, arXiv 1903.01611; "weight rewinding" in arXiv 2003.02389).

    Args:
        optimizer_state: the optimizer too goes on with its state of the rewind step, instead of starting fresh.
    """

    def __init__(self, optimizer_state: bool = False) -> None:
        self.optimizer_state = optimizer_state

    def start(self, ticket: Start, final: Weights, learning_rates: list[float]) -> Start:
        return replace(ticket, optimizer_state=self.optimizer_state)


class LearningRateRewind(Retraining):
    """Survivors stay as trained, and the schedule goes back to the rewind step (arXiv 2003.02389 section 3).

    With rewind step 0 this is LTH's continued training (app. B): train on from level to level. The control `Rewound`
    beside it resets the weights once, at its level.
    """

    trains_on = True

    def start(self, ticket: Start, final: Weights, learning_rates: list[float]) -> Start:
        return Start(ticket.mask, final, ticket.step)


class FineTune(Retraining):
    """Survivors stay as trained, and train on at the last learning rate (arXiv 2003.02389 section 3).

    Args:
        steps: how long, in optimizer steps.
        learning_rate: another constant rate than the one that the schedule ended with.
    """

    trains_on = True
    uses_rates = True

    def __init__(self, steps: int, learning_rate: float | None = None) -> None:
        if steps < 1:
            raise UserError(f"FineTune has steps={steps}: give 1 or more.")
        if learning_rate is not None and not 0 < learning_rate < math.inf:
            raise UserError(f"FineTune has learning_rate={learning_rate}: give a number above 0, or drop it.")
        self.steps = steps
        self.learning_rate = learning_rate

    def start(self, ticket: Start, final: Weights, learning_rates: list[float]) -> Start:
        rates = [self.learning_rate or rate for rate in learning_rates]
        if not any(rates):
            raise UserError("The schedule ends with the learning rate 0: give FineTune a learning_rate.")
        return Start(ticket.mask, final, steps=self.steps, learning_rates=rates)
