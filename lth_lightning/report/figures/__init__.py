"""The figures of a report, each in a file of its own.

To add one: a function that takes the runs' `Line`s and returns a `Picture`, or None where the runs do not hold what it
shows; the function in `ALL`, at its place on the page, and the picture's name in `NAMES`.
"""

from collections.abc import Callable, Sequence

from lth_lightning.report.figure import Choice, Picture
from lth_lightning.report.figures import (
    by_weights,
    connectivity,
    curves,
    distributions,
    early_stop,
    final,
    fixed_steps,
    one_shot,
    sweep,
)
from lth_lightning.report.lines import Line

NAMES = (
    *("early_stop", "sweep", "final", "one_shot", "by_weights", "fixed_steps", "accuracy_curves", "loss_curves"),
    *("initializations", "movement", "growth", "incoming", "outgoing"),
)
"""Of all pictures there may be: what an older report of the same runs has left goes."""

Draw = Callable[[Sequence[Line], Choice], Picture | None]

ALL: tuple[Draw, ...] = (
    early_stop.draw,
    sweep.draw,
    final.draw,
    one_shot.draw,
    by_weights.draw,
    fixed_steps.draw,
    curves.draw_accuracy,
    curves.draw_loss,
    distributions.initializations,
    distributions.movement,
    distributions.growth,
    connectivity.incoming,
    connectivity.outgoing,
)
