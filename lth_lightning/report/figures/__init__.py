"""The figures of a report, each in a file of its own.

To add one: a function that takes the runs' `Line`s and returns a `Picture`, or None where the runs do not hold what it
shows; and its name in `ALL`, at its place on the page.
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
