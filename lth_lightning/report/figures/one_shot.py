"""One-shot pruning on a linear axis (LTH Fig. 4c)."""

from collections.abc import Sequence

from lth_lightning.report.figure import Choice, Picture
from lth_lightning.report.figures import early_stop, tables
from lth_lightning.report.lines import Line


def draw(lines: Sequence[Line], choice: Choice) -> Picture | None:
    """The panels of `early_stop` for one-shot runs alone, on a linear axis; None where there is no such run."""
    return tables.draw(
        [line for line in lines if line.run.setting("pruning.one_shot")],
        early_stop.SHOWN,
        name="one_shot",
        title="One-shot pruning",
        reads=(
            "All networks are cut from the dense one in a single step. The axis is linear, for one-shot pruning finds "
            "tickets while many weights remain, which a log axis crowds at its left."
        ),
        paper="LTH Fig. 4c",
        axis="linear density",
    )
