"""What a sweep shows: what it would do, and what came out."""

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.table import Table

from lth_lightning import machine
from lth_lightning.callbacks.display import Display, duration
from lth_lightning.callbacks.estimate import disk_bytes, megabytes, seconds_a_training
from lth_lightning.errors import UserError
from lth_lightning.results import TICKET, read_records
from lth_lightning.results.summary import Spread, summarize
from lth_lightning.results.winning import winning_levels
from lth_lightning.sweep.cells import Cell

if TYPE_CHECKING:
    from lth_lightning.cli import LTHCLI


class Estimate:
    """What the cells would do, how long they would take and how much disk they would need."""

    def __init__(self) -> None:
        self._table = Table(box=None, pad_edge=False)
        self._table.add_column("cell", overflow="fold")
        for name in ("trainings", "steps"):
            self._table.add_column(name, justify="right")
        self._measured: dict[Any, float | None] = {}
        self._seconds: list[float | None] = []
        self._bytes = 0.0

    def add(self, cell: Cell, cli: "LTHCLI", display: Display) -> None:
        """A cell that is checked. Networks of one class and size are timed once."""
        driver = cli.driver
        model, steps = driver.make_model(), driver.steps
        size = sum(parameter.numel() for parameter in model.parameters())
        key = (type(model), size, type(cli.datamodule), getattr(cli.datamodule, "batch_size", None), steps)
        if key not in self._measured:
            try:
                self._measured[key] = seconds_a_training(driver, model, display)
            except UserError:  # the data set's files are not there
                self._measured[key] = None
        each = self._measured[key]
        total = sum(driver.loop.steps_of(training, steps or 0) for training in cell.left)
        self._seconds.append(None if each is None or not steps else each * total / steps)
        self._bytes += disk_bytes(driver, model, Counter(training.arm for training in cell.left))
        self._table.add_row(str(cell), str(len(cell.left)), f"{total:,}" if steps else "-")

    def show(self, cells: Sequence[Cell], display: Display, slots: int) -> None:
        """Say it all; `slots` cells are made side by side."""
        display.console.print(self._table)
        trainings = sum(len(cell.left) for cell in cells)
        display.note(f"{len(cells)} cell{'s' if len(cells) > 1 else ''}, {trainings} trainings.")
        known = [seconds for seconds in self._seconds if seconds is not None]
        if len(known) < len(cells):
            display.note("Time: not estimated for these modules and data, or before the data sets' files are there.")
        else:
            total = sum(seconds / _beside(cell, slots) for cell, seconds in zip(cells, known, strict=True))
            beside = f", {slots} cells side by side" if slots > 1 else ""
            display.note(f"Time: about {duration(total)} on this machine{beside}.")
        display.note(f"Disk: {megabytes(self._bytes)}.")


def _beside(cell: Cell, slots: int) -> int:
    """As how many trainings the cell's are made side by side, its share of several cells counted."""
    if slots > 1 or cell.room is None:
        return slots
    workers, threads, each = cell.room
    return machine.share_out(cell.lines, each, workers, threads)[0]


def results(cells: Sequence[Cell]) -> Table:
    """Test accuracies of each cell's tickets at the end, dense and at the last level, and how far down they win."""
    table = Table(
        title="Test accuracy at the end, mean over replicates; the smallest winning ticket",
        title_justify="left", box=None, padding=(0, 1, 0, 0), pad_edge=False,
    )  # fmt: skip
    for name in ("cell", "first level", "last level", "wins down to"):
        table.add_column(name, justify="left" if name == "cell" else "right", overflow="fold")
    for cell in cells:
        records = read_records(cell.run) if cell.run else []
        points = summarize(records)
        tickets = [point for point in points if point.arm == TICKET]
        winners = None if cell.trains_on else winning_levels(records)
        ends = [
            f"{_percent(point.final_test_acc) if point.trials else 'diverged'} at {point.density:.1%}"
            for point in (tickets[0], tickets[-1])
        ]
        table.add_row(
            str(cell),
            *ends,
            "no verdict"
            if winners is None
            else f"{min(winner.point.density for winner in winners):.1%}"
            if winners
            else "none",
        )
    return table


def _percent(accuracy: Spread | None) -> str:
    return f"{accuracy.mean:.2%}" if accuracy else "-"
