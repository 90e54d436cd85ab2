"""The table at the end of a run."""

from collections.abc import Sequence

from rich.table import Table

from lth_lightning.results.record import Record
from lth_lightning.results.summary import Spread, has_loss_alone, summarize
from lth_lightning.results.training import TICKET
from lth_lightning.results.winning import winning_levels


def results_table(records: Sequence[Record], trains_on: bool = False) -> Table:
    """Level, density, early-stop step and test accuracies of ticket and controls: mean (minimum-maximum).

    Where no accuracy is known, the losses on the test set are shown.

    Tickets that go on from trained weights (`trains_on`) are not marked as winning.
    """
    points = summarize(records)
    winners = {} if trains_on else {winner.point.level: winner for winner in winning_levels(records) or []}
    is_of_losses = has_loss_alone(points)
    marks = "" if trains_on or is_of_losses else "; * wins, ** beyond chance"
    table = Table(
        title=f"Mean (minimum-maximum) over replicates and trials{marks}",
        title_justify="left",
        box=None,
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )
    for name in ("level", "weights", "arm", "trials"):
        table.add_column(name, justify="left" if name == "arm" else "right", no_wrap=name == "arm")
    what = "test loss" if is_of_losses else "test acc %"
    for name in ("early-stop step", f"{what} there", f"{what} at the end"):
        # On a narrow terminal a range goes below its mean, but is not broken.
        table.add_column(name, justify="right", min_width=len("(97.98-98.74)"))
    level = None
    for point in points:
        first = point.level != level
        level = point.level
        winner = winners.get(point.level) if point.arm == TICKET else None
        there, end = point.early_stop_test_acc, point.final_test_acc
        if is_of_losses:
            there, end = point.early_stop_test_loss, point.final_test_loss
        table.add_row(
            str(level) if first else "",
            f"{point.density:.1%}" if first else "",
            point.arm + ("" if not winner else " **" if winner.is_certain else " *"),
            f"{point.trials}" + (f" (+{point.diverged} diverged)" if point.diverged else ""),
            range_cell(point.early_stop_step, 1, 0),
            *(range_cell(spread, 1, 4) if is_of_losses else range_cell(spread, 100, 2) for spread in (there, end)),
            style="bold" if winner else None,
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
