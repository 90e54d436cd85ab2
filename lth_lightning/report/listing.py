"""`lth ls`: the runs in a folder, the one written last at the end."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from lth_lightning.errors import UserError
from lth_lightning.report.folders import runs_in
from lth_lightning.report.pool import pool
from lth_lightning.report.runs import Run, read
from lth_lightning.report.terminal import broken, complain, patiently
from lth_lightning.results.run_folder import CHECKPOINT, CONFIG, METRICS, RESULT, SESSIONS, TABLE
from lth_lightning.results.summary import Point, summarize
from lth_lightning.results.training import TICKET
from lth_lightning.results.winning import winning_levels

ROOM = 24
"""Characters that a run's path gets at least, where it is longer."""

LEGEND = (
    "Of trainings, replicates and levels: done/planned. level: the highest that all replicates have finished. "
    "best ticket: the sparsest winning one; its level, the weights left, and its test accuracy at early stop over the "
    "dense network's, in points; none: no level wins; -: no verdict."
)


@dataclass(frozen=True)
class Row:
    """What is told of a run.

    Attributes:
        state: finished, running, stopped, empty (no training has got as far as a checkpoint or a line of its curve),
            not begun (a sweep's, which was stopped before it), or ended (nothing is open that was begun; an older
            version did not write down what was planned).
        done, planned: trainings; `planned` counts those that a divergence has made impossible out.
        level: the highest that the tickets of all replicates with results have finished.
        best: the sparsest winning ticket; None where there is none.
        dense: what it is compared with; None where tickets cannot be judged.
        written: when, in seconds since the epoch.
        damaged: names of files.
    """

    name: str
    state: str
    done: int
    diverged: int
    planned: int | None
    replicates: int
    planned_replicates: int | None
    level: int | None
    planned_level: int | None
    best: Point | None
    dense: Point | None
    controls: tuple[str, ...]
    written: float
    damaged: tuple[str, ...] = ()


def show(folder: Path, console: Console) -> int:
    """List the runs below `folder`: a table on a terminal, a line each elsewhere; both are explained.

    Returns 2 where a run is damaged, or a folder may not be read. Raises UserError where there is no run.
    """
    if not folder.is_dir():
        raise UserError(f"There is no folder {folder}: name the one that your runs are in, `lth ls FOLDER`.")
    problems: list[str] = []
    found = runs_in(folder, problems)
    if not found:
        told = f"{folder} holds no run: name the folder that yours are in, `lth ls FOLDER`."
        raise UserError(problems[0] if problems else told)
    runs = pool([read(path, _name(path, folder)) for path in patiently(found, "runs")], is_strict=False)
    rows = [_row(run) for run in runs]
    problems += [problem for run in runs for problem in run.problems]
    rows.sort(key=lambda row: (row.written, row.name))
    if not console.is_terminal:
        _print_plain(rows, console)
    else:
        console.print(_table(rows, console.width))
        console.print(LEGEND, style="dim")
    return complain(problems)


def _name(path: Path, folder: Path) -> str:
    if path == folder:
        return "/".join(path.resolve().parts[-2:])
    return path.relative_to(folder).as_posix()


def _row(run: Run) -> Row:
    made = {(record.replicate, record.label, record.level) for record in run.records}
    left = _left(run, made) if run.plan else None
    replicates = {record.replicate for record in run.records}
    tickets = [[r.level for r in run.records if r.arm == TICKET and r.replicate == number] for number in replicates]
    levels = run.plan.get("arms", {}).get(TICKET)
    points = summarize(run.records)
    winners = None if run.trains_on else winning_levels(run.records)
    return Row(
        name=run.name,
        state=_state(run, left),
        done=len(made),
        diverged=len(run.diverged),
        planned=None if left is None else len(made) + left,
        replicates=len(replicates),
        planned_replicates=len(run.replicates) if run.plan else None,
        level=min(map(max, tickets)) if tickets and all(tickets) else None,
        planned_level=max(levels) if levels else None,
        best=min((winner.point for winner in winners), key=lambda p: p.density) if winners else None,
        dense=None if winners is None else next(p for p in points if p.arm == TICKET and p.density == 1),
        controls=tuple(arm for arm in run.arms if arm != TICKET),
        written=max(map(_written, run.folders)),
        damaged=tuple(
            name
            for name in (CONFIG, TABLE, SESSIONS)
            if any(problem.startswith(str(folder / name)) for problem in run.problems for folder in run.folders)
        ),
    )


def _left(run: Run, made: set[tuple[int, str, int]]) -> int:
    """How many of the planned trainings are still to be made; above a level that diverged, none is."""
    ends: dict[tuple[int, str], int] = {}
    for record in run.diverged:
        ends[record.replicate, record.label] = record.level
    return sum(
        (replicate, label, level) not in made
        and not any(level > ends.get((replicate, line), level) for line in (label, TICKET))
        for replicate in run.replicates
        for label, levels in run.plan["arms"].items()
        for level in levels
    )


def _state(run: Run, left: int | None) -> str:
    if left == 0 and run.records:
        return "finished"
    if run.is_owned:
        return "running"
    levels = (path for folder in run.folders for path in folder.glob("replicate_*/*/level_*"))
    begun = (path for path in levels if not (path / RESULT).exists())
    if not run.records:
        if any((path / name).exists() for path in begun for name in (CHECKPOINT, METRICS)):
            return "stopped"
        # A sweep makes all its runs' folders at its start.
        has_begun = any((folder / SESSIONS).exists() or any(folder.glob("replicate_*")) for folder in run.folders)
        return "empty" if has_begun else "not begun"
    return "stopped" if left is not None or any(begun) else "ended"


def _written(folder: Path) -> float:
    paths = [folder / name for name in (CONFIG, TABLE, SESSIONS)]
    return max(path.stat().st_mtime for path in paths if path.exists())


NARROW = ("run", "state", "done", "reps", "level", "best ticket", "age")
WIDE = ("run", "state", "trainings", "replicates", "level", "best ticket", "controls", "last written")


def _table(rows: Sequence[Row], width: int) -> Table:
    """As much as fits into so many characters."""
    names: Sequence[str] = WIDE
    cells: Sequence[Sequence[str]] = [_wide(row, longest=30) for row in rows]
    room = _room(names, cells, width, 2)
    gap = 2
    if room < min(max(len(row.name) for row in rows), 2 * ROOM):
        names, cells, gap = NARROW, [_narrow(row) for row in rows], 1
        room = max(ROOM, _room(names, cells, width, gap))
    table = Table(box=None, padding=(0, gap, 0, 0), pad_edge=False)
    for name in names:
        is_number = name not in ("run", "state", "best ticket", "controls", "last written")
        table.add_column(name, justify="right" if is_number else "left", no_wrap=True)
    for name, state, *others in cells:
        table.add_row(
            Text("\n".join(broken(name, room, "/,"))), state, *others, style="bold" if state == "running" else None
        )
    return table


def _room(names: Sequence[str], cells: Sequence[Sequence[str]], width: int, gap: int) -> int:
    """What is left for the first column."""
    columns = list(zip(names, *cells, strict=True))[1:]
    return width - sum(gap + max(map(len, column)) for column in columns)


def _print_plain(rows: Sequence[Row], console: Console) -> None:
    # Above the table, so that its last line is the run that was written last.
    console.out(f"# {LEGEND}", highlight=False)
    lines = [WIDE, *(_wide(row) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        text = "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        console.out(text.rstrip(), highlight=False)


def _narrow(row: Row) -> tuple[str, ...]:
    best = _best(row, "{level} ({density:.1%}) {gain:+.2f}")
    return row.name, row.state, *_counts(row), best, _age(row)


def _wide(row: Row, longest: int = 10_000) -> tuple[str, ...]:
    done, replicates, level = _counts(row)
    return (
        row.name,
        row.state,
        f"{done} ({row.diverged} diverged)" if row.diverged else done,
        replicates,
        level,
        _best(row, "level {level}, {density:.1%}, {gain:+.2f} points"),
        _controls(row.controls, longest),
        time.strftime("%Y-%m-%d %H:%M", time.localtime(row.written)),
    )


def _controls(controls: Sequence[str], longest: int) -> str:
    """Their names, or how many they are."""
    listed = ", ".join(controls) or "-"
    return listed if len(listed) <= longest or len(controls) == 1 else f"{len(controls)} controls"


def _counts(row: Row) -> tuple[str, str, str]:
    """Trainings, replicates and levels: done of planned."""
    level = "-" if row.level is None else str(row.level)
    return (
        _of(str(row.done), row.planned),
        _of(str(row.replicates), row.planned_replicates),
        _of(level, row.planned_level),
    )


def _of(done: str, planned: int | None) -> str:
    return done if planned is None else f"{done}/{planned}"


def _best(row: Row, form: str) -> str:
    if row.damaged:
        return f"damaged: {row.damaged[0]}"
    if row.dense is None:
        return "-"
    if row.best is None:
        return "none"
    spreads = row.best.early_stop_test_acc, row.dense.early_stop_test_acc
    best, dense = (spread.mean for spread in spreads if spread)
    return form.format(level=row.best.level, density=row.best.density, gain=100 * (best - dense))


def _age(row: Row) -> str:
    if row.state == "running":
        return "now"
    seconds = time.time() - row.written
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{int(seconds // size)} {unit}"
    return "now"
