"""The cells of a sweep beside one another (LTH Fig. 26-30, 35, 38, 39, 42-45)."""

from collections.abc import Sequence

from lth_lightning.report.figure import Choice, Picture
from lth_lightning.report.figures import tables
from lth_lightning.report.folders import sweep_of
from lth_lightning.report.lines import Line

FEW = 3
"""So many cells are compared like any other runs."""

SHOWN = ("early_stop_step", "early_stop_val_acc", "early_stop_test_acc")


def is_sweep(lines: Sequence[Line]) -> bool:
    """Whether the runs are cells of one sweep, and more than a few."""
    folders = {line.run.folder.resolve() for line in lines}
    sweeps = {folder.parents[1] for folder in folders}
    return len(folders) > FEW and len(sweeps) == 1 and all(sweep_of(folder) is not None for folder in folders)


def draw(lines: Sequence[Line], choice: Choice) -> Picture | None:
    """Early-stop step, validation accuracy there, which the paper compares settings by, and test accuracy there.

    None where the runs are no sweep.
    """
    if not is_sweep(lines):
        return None
    return tables.draw(
        lines,
        SHOWN,
        name="sweep",
        title="The settings of a sweep compared",
        reads=(
            "From left to right ever fewer weights remain. Settings are chosen by the validation accuracy, as in the "
            "paper; the test accuracy is what the choice then gives."
        ),
        paper="LTH Fig. 26-30, 35, 38, 39, 42-45",
    )
