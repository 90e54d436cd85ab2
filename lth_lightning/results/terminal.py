"""The table at the end of a run."""

from collections.abc import Sequence

from rich.table import Table

from lth_lightning.results.record import Record
from lth_lightning.results.summary import Spread, has_accuracy, summarize, winning_levels


def results_table(records: Sequence[Record], trains_on: bool = False) -> Table:
    """Level, density, early-stop step and test accuracies of ticket and controls: mean (minimum-maximum).

    Where no accuracy is known, the losses on the test set are shown.

    Tickets that go on from trained weights (`trains_on`) are not marked as winning.
    """
    points = summarize(records)
    winners = set() if trains_on else {point.level for point in winning_levels(points) or []}
    has_loss_alone = not has_accuracy(points) and any(point.final_test_loss for point in points)
    marks = "" if trains_on or has_loss_alone else "; * winning ticket"
    table = Table(
        title=f"Mean (minimum-maximum) over replicates and trials{marks}",
        title_justify="left",
        box=None,
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )
    for name in ("level", "weights", "arm", "trials"):
        table.add_column(name, justify="left" if name == "arm" else "right", no_wrap=name == "arm")
    what = "test loss" if has_loss_alone else "test acc %"
    for name in ("early-stop step", f"{what} there", f"{what} at the end"):
        # On a narrow terminal a range goes below its mean, but is not broken.
        table.add_column(name, justify="right", min_width=len("(97.98-98.74)"))
    level = None
    for point in points:
        first = point.level != level
        level = point.level
        there, end = point.early_stop_test_acc, point.final_test_acc
        if has_loss_alone:
            there, end = point.early_stop_test_loss, point.final_test_loss
        wins = point.arm == "ticket" and point.level in winners
        table.add_row(
            str(level) if first else "",
            f"{point.density:.1%}" if first else "",
            point.arm + (" *" if wins else ""),
            f"{point.trials}" + (f" (+{point.diverged} diverged)" if point.diverged else ""),
            range_cell(point.early_stop_step, 1, 0),
            *(range_cell(spread, 1, 4) if has_loss_alone else range_cell(spread, 100, 2) for spread in (there, end)),
            style="bold" if wins else None,
        )
    return table


def range_cell(spread: Spread | None, scale: float, digits: int) -> str:
    """`98.05 (97.98-98.74)`: a range where there is one."""
    if spread is None:
        return "-"
    mean = f"{spread.mean * scale:.{digits}f}"
    if spread.low == spread.high:
        return mean
    return f"{mean} ({spread.low * scale:.{digits}f}-{spread.high * scale:.{digits}f})"
