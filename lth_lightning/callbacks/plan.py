"""Which trainings a run consists of, in the order they are made."""

from collections.abc import Sequence
from pathlib import Path

from lth_lightning.callbacks.controls import Control
from lth_lightning.errors import UserError
from lth_lightning.results.training import TICKET, Training

MOST_TRAININGS = 1_000_000


def plan_trainings(
    run: Path, replicates: range, last_level: int, controls: Sequence[Control], first_pruned: int = 1
) -> list[Training]:
    """Replicate by replicate, level by level: the ticket, then each control's trials from that level's mask.

    `first_pruned` is the first level that has lost weights: 0 where the run starts from a ticket.

    Raises:
        UserError: no replicate, or one below 0, more trainings than could ever be made, two controls of one name, or a
            control at a level that is not run.
    """
    if not replicates:
        raise UserError(f"The number of replicates is {replicates.stop - replicates.start}: give 1 or more.")
    if replicates.start < 0:
        raise UserError(f"The first replicate is {replicates.start}: give 0 or more.")
    trainings = len(replicates) * (1 + sum(control.trials for control in controls)) * (last_level + 1)
    if trainings > MOST_TRAININGS:  # before they are all in the memory
        raise UserError(
            f"Up to {trainings:,} trainings are asked for: give fewer replicates, trials or levels, for at most "
            f"{MOST_TRAININGS:,}."
        )
    names = [control.arm for control in controls]
    for name in names:
        if names.count(name) > 1 or name == TICKET:
            raise UserError(
                f"Two arms are called '{name}': give each control once, with all its levels and trials, or a name."
            )
    chosen = [(control, set(control.levels_of(last_level, first_pruned))) for control in controls]
    return [
        Training(replicate, arm, trial, level, run)
        for replicate in replicates
        for level in range(last_level + 1)
        for arm, trials in [(TICKET, 1), *((c.arm, c.trials) for c, levels in chosen if level in levels)]
        for trial in range(trials)
    ]
