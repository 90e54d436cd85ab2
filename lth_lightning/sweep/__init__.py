"""Sweeps: a grid over flags within one config, each cell a run of its own.

`sweep: {data.normalization: [none, half], seed_everything: [0, 1]}` makes four runs, each what `lth fit` with the same
words and `--data.normalization none --seed_everything 0` would make, in
`<logs>/<experiment>/normalization=none,seed_everything=0/version_N`. All are checked before the first is begun; then
all their folders are made, so that going on with a sweep is going on with the runs that `sweep.yaml` beside them lists.
"""

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from rich.live import Live

from lth_lightning import arguments, machine, resume
from lth_lightning.callbacks.agenda import Agenda
from lth_lightning.callbacks.crew import Crew, WorkerDiedError
from lth_lightning.callbacks.display import Display, duration
from lth_lightning.errors import UserError
from lth_lightning.results import read_records
from lth_lightning.results.run_folder import SWEEP, finished
from lth_lightning.sweep.cells import Cell, begun, claim_all, new_cells, refuse_same
from lth_lightning.sweep.show import Estimate, results
from lth_lightning.traces import during

if TYPE_CHECKING:
    from lth_lightning.cli import LTHCLI

__all__ = ["is_asked", "run"]

LOG = "output.txt"
"""In a run's folder, what it says where it is made beside others."""


def is_asked(options: Any) -> bool:
    """Whether the options of `fit` are a sweep's, be it a new one or one to go on with."""
    return bool(options["sweep"] or (options["resume"] and (Path(options["resume"]) / SWEEP).is_file()))


def run(base: "LTHCLI", words: Sequence[str]) -> None:
    """Make all cells that are not finished. `base` has parsed `words`, and has made nothing of them.

    Raises:
        UserError: whatever is wrong with the grid or a cell, before anything is written.
    """
    options, display, threads = base.config["fit"], Display(), torch.get_num_threads()
    experiment = options["experiment"] or arguments.experiment_of(words) or "run"
    folder = Path(options["resume"] or Path(options["logs"]) / experiment)
    grid = options["sweep"] or {}
    cells = begun(folder, words, grid) if options["resume"] else new_cells(experiment, words, grid)

    def cli(cell: Cell, *more: str, only_check: bool = False) -> "LTHCLI":
        torch.set_num_threads(threads)  # whatever the cell before was given
        return type(base).of_cell([*cell.words, *more], only_check)

    estimate, datamodules = Estimate(), []
    for cell in cells:
        with _named(cell):
            checked = cli(cell, only_check=True)
            _know(cell, checked)
        datamodules.append(checked.datamodule)
        if options["dry_run"] and not cell.is_finished:
            estimate.add(cell, checked, display)
    refuse_same(cells)
    waiting = [cell for cell in cells if not cell.is_finished]
    slots, each = _share_out(waiting)
    if not waiting:
        display.note(resume.nothing_left(folder, cells=len(cells)))
    elif len(waiting) < len(cells):
        display.note(f"{len(cells) - len(waiting)} of {len(cells)} cells are finished.")
    if options["dry_run"]:
        if waiting:
            estimate.show(waiting, display, slots)
        return
    for datamodule in datamodules:
        if datamodule is not None:
            datamodule.prepare_data()  # before anything is written, and not by several cells at once
    if new := [cell for cell in cells if cell.run is None]:
        claim_all(folder, new)
    resume.remember(folder)
    titles = {cell.name: f"cell {number} of {len(cells)}" for number, cell in enumerate(cells, 1)}

    def make(cell: Cell, *more: str) -> None:
        with _named(cell, has_begun=True):
            try:
                cli(cell, *more)
            finally:
                resume.remember(folder)  # rather than the cell's run

    def make_beside(cell: Cell, *_: Any) -> None:
        assert cell.run is not None
        with (cell.run / LOG).open("a", buffering=1) as log, contextlib.redirect_stdout(log):
            make(cell, "--workers=1", f"--threads={each}")

    if slots > 1:
        display.note(f"{slots} cells side by side, CPU threads of each: {each}. What each says: {LOG} of its run")
        _make_side_by_side(make_beside, waiting, titles, slots, each, display)
    else:
        for cell in waiting:
            display.note(f"{titles[cell.name]}: {cell}")
            make(cell)
    display.console.print(results(cells))
    display.note(f"Curves: tensorboard --logdir {folder}   Runs: {folder}/<cell>/version_N, listed in {folder}/{SWEEP}")


@contextlib.contextmanager
def _named(cell: Cell, has_begun: bool = False) -> Iterator[None]:
    """A mistake within it is told with the cell's flags and, where the sweep has begun, how to go on."""
    try:
        with during(f"the sweep, with {' '.join(cell.flags)}"):
            yield
    except UserError as error:
        advice = f" {resume.advice()}" if has_begun else ""
        raise UserError(f"In the sweep, with {' '.join(cell.flags)}: {error}{advice}") from None


def _know(cell: Cell, cli: "LTHCLI") -> None:
    """Put down what the cell's checked command knows."""
    if cli.world_size > 1 or int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError("a sweep is made on one device: set --trainer.devices 1, or start each run by itself.")
    cell.config = cli.resolved()
    cell.lines, cell.room = cli.driver.loop.lines, cli.room
    cell.trains_on = cli.driver.loop.retrain.trains_on
    planned, records = cli.driver.plan(cell.run or Path()), read_records(cell.run) if cell.run else []
    done = {record.order for record in records}
    cell.left = [training for training in planned if training.order not in done]
    cell.is_finished = not len(Agenda(cell.left, records))  # what a divergence has stopped is not left


def _share_out(cells: Sequence[Cell]) -> tuple[int, int]:
    """Cells side by side, and CPU threads of each: more than one cell where a cell's lines alone are fewer."""
    rooms = [cell.room for cell in cells if cell.room]
    if len(rooms) < len(cells) or len({room[:2] for room in rooms}) != 1:
        return 1, 1
    workers, threads, _ = rooms[0]
    slots, each = machine.share_out(len(rooms), max(room[2] for room in rooms), workers, threads)
    return (slots, each) if slots > max(cell.lines for cell in cells) else (1, 1)


def _make_side_by_side(
    make: Callable[..., None], cells: Sequence[Cell], titles: dict[str, str], slots: int, threads: int, display: Display
) -> None:
    todo, began, begin = list(cells), {}, time.monotonic()
    work: Any = make  # a crew's workers make what they are given by it, be it trainings or cells

    def progress() -> str:
        done = sum(finished(replace(training, run=cell.run)) for cell in cells if cell.run for training in cell.left)
        return f"{done} of {sum(len(cell.left) for cell in cells)} trainings, {duration(time.monotonic() - begin)}"

    # Its thread starts when the workers are forked.
    with (
        Crew(work, slots, threads, display) as crew,
        Live(console=display.console, get_renderable=progress, refresh_per_second=1, transient=True),
    ):
        give: Any = crew.give
        while True:
            while todo and crew.idle():
                cell = todo.pop(0)
                display.note(f"{titles[cell.name]}: {cell}")
                began[cell.name] = time.monotonic()
                give(cell, resume=False)
            if not crew.busy():
                break
            made: Any
            for made, _, _ in crew.wait():
                took = duration(time.monotonic() - began[made.name])
                display.note(f"{titles[made.name]} is finished: {made}, {took}")
    if crew.deaths:
        raise WorkerDiedError(crew.deaths[0])
