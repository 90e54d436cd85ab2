"""Whether what the reader asked to see is there."""

from collections.abc import Sequence

from lth_lightning.errors import UserError
from lth_lightning.report.figure import Choice
from lth_lightning.report.figures import chosen, fixed_steps
from lth_lightning.report.lines import Line
from lth_lightning.report.style import percent


def check(lines: Sequence[Line], choice: Choice) -> None:
    """Raise UserError where no level has about one of the densities, or no curve reaches one of the steps.

    The nearest would be drawn in its place, or nothing at all, and nobody be told.
    """
    there = [float(density) for line in lines for density in line.table().groupby("level")["density"].mean()]
    for wanted in choice.densities if there else ():
        nearest = chosen.nearest(there, wanted)
        if not chosen.is_near(nearest, wanted):
            hint = f" Percent are expected: {1e4 * wanted:g} for {1e4 * wanted:g}%." if wanted <= 0.01 else ""
            raise UserError(f"No level has {100 * wanted:g}% of the weights; the nearest has {percent(nearest)}.{hint}")
    for step in fixed_steps.absent(lines, choice):
        raise UserError(
            f"No training was evaluated near step {step:,}; the last evaluation is that of step "
            f"{max(int(line.run.curves.step.max()) for line in lines if len(line.run.curves)):,}."
        )
