"""When trainings stop early, and how accurate they are there (LTH Fig. 1, 4a, 5, 6, 9, 10, 17, 18, 25)."""

from collections.abc import Sequence

from lth_lightning.report.figure import Choice, Picture
from lth_lightning.report.figures import sweep, tables
from lth_lightning.report.lines import Line

SHOWN = ("early_stop_step", "early_stop_test_acc", "early_stop_train_acc")


def draw(lines: Sequence[Line], choice: Choice) -> Picture | None:
    """Early-stop step, test accuracy and training accuracy there, against the weights remaining.

    None where nothing is trained, or where the runs are a sweep, which has a figure of its own.
    """
    if sweep.is_sweep(lines):
        return None
    return tables.draw(
        lines,
        SHOWN,
        name="early_stop",
        title="Early-stop step and accuracy there",
        reads=(
            "From left to right ever fewer weights remain. The early-stop step is when the validation loss was lowest: "
            "a ticket wins where it stops no later than the dense network, at the left edge, and is as accurate."
        ),
        paper="LTH Fig. 1, 4a, 5, 6, 9, 10, 17, 18, 25",
    )
