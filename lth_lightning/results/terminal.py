"""The table at the end of a run."""

from collections.abc import Sequence

from rich.table import Table

from lth_lightning.results.record import Record
from lth_lightning.results.summary import Spread, summarize
from lth_lightning.results.training import TICKET
from lth_lightning.results.winning import winning_levels


def results_table(records: Sequence[Record], trains_on: bool = False) -> Table:
    """Level, density, early-stop step and test accuracies of ticket and controls: mean (minimum-maximum).

    Tickets that go on from trained weights (`trains_on`) are not marked as winning.
    """
    points = summarize(records)
    winners = {} if trains_on else {winner.point.level: winner for winner in winning_levels(records) or []}
    table = Table(
        title="Mean (minimum-maximum) over replicates and trials" + ("" if trains_on else "; * wins, ** beyond chance"),
        title_justify="left",
        box=None,
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )
    for name in ("level", "weights", "arm", "trials"):
        table.add_column(name, justify="left" if name == "arm" else "right", no_wrap=name == "arm")
    for name in ("early-stop step", "test acc % there", "test acc % at the end"):
        # On a narrow terminal a range goes below its mean, but is not broken.
        table.add_column(name, justify="right", min_width=len("(97.98-98.74)"))
    level = None
    for point in points:
        first = point.level != level
        level = point.level
        winner = winners.get(point.level) if point.arm == TICKET else None
        table.add_row(
            str(level) if first else "",
            f"{point.density:.1%}" if first else "",
            point.arm + ("" if not winner else " **" if winner.is_certain else " *"),
            f"{point.trials}" + (f" (+{point.diverged} diverged)" if point.diverged else ""),
            range_cell(point.early_stop_step, 1, 0),
            range_cell(point.early_stop_test_acc, 100, 2),
            range_cell(point.final_test_acc, 100, 2),
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
