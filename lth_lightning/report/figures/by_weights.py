"""Networks of different sizes by the number of their weights (LTH Fig. 31, 37)."""

from collections.abc import Sequence

from lth_lightning.report.figure import Choice, Picture
from lth_lightning.report.figures import tables
from lth_lightning.report.lines import Line
from lth_lightning.report.runs import Run


def draw(lines: Sequence[Line], choice: Choice) -> Picture | None:
    """Early-stop step and validation accuracy there, against the number of weights remaining.

    None where all runs have networks of one size and prune the same kinds of layers: the percent says it all then.
    """
    trained = [line.run for line in lines if len(line.table())]
    sizes = {run.trained.weights.iloc[0] for run in trained}
    if len(sizes) < 2 and len({_pruned(run) for run in trained if run.config}) < 2:
        return None
    return tables.draw(
        lines,
        ("early_stop_step", "early_stop_val_acc"),
        name="by_weights",
        title="By the number of weights",
        reads=(
            "From left to right ever fewer weights remain, by their number, since the networks have different sizes "
            "or prune different layers: at one place on the axis all are equally big."
        ),
        paper="LTH Fig. 31, 37",
        axis="weights",
    )


def _pruned(run: Run) -> frozenset[str]:
    """The kinds of layers that lose weights."""
    return frozenset(key for key, rate in run.settings.items() if key.startswith("pruning.rates.") and rate)
