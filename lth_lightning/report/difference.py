"""`lth diff`: what sets two runs apart, in settings, machine, trainings and results."""

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from lth_lightning.errors import UserError
from lth_lightning.report.folders import find, names
from lth_lightning.report.pool import OF_PLACE, pool
from lth_lightning.report.runs import Run, read
from lth_lightning.report.terminal import broken, complain
from lth_lightning.results.summary import Point, Spread, ranges, summarize
from lth_lightning.results.terminal import range_cell
from lth_lightning.results.training import TICKET

QUANTITIES = (
    ("early_stop_step", "Early-stop step", 1, 0),
    ("early_stop_test_acc", "Test accuracy at early stop, %", 100, 2),
    ("final_test_acc", "Test accuracy at the end, %", 100, 2),
)
"""What is compared: a field of `Point`, what it is called, by how much it is multiplied, and its decimals."""

NEAR = 0.04
"""Fraction by which the weights of two levels may differ that are compared."""

KEY = 32
"""Characters of a setting's name in a line."""

MISSING = object()

Difference = tuple[str, str, str]
"""What it is, and both runs' values."""


def show(first: Path, second: Path, console: Console) -> int:
    """Print what sets the runs apart; returns 2 where a file of theirs is damaged.

    Raises UserError where one is no run.
    """
    problems: list[str] = []
    folders = [find([first], problems), find([second], problems)]
    if [path.resolve() for path in folders[0]] == [path.resolve() for path in folders[1]]:
        raise UserError(f"{first} and {second} are one run: name two.")
    named = iter(names([*folders[0], *folders[1]]))
    a, b = (_run(path, of, [next(named) for _ in of]) for path, of in zip((first, second), folders, strict=True))
    heads = (a.name, b.name) if max(len(a.name), len(b.name)) <= 20 else ("A", "B")
    for head, run in zip(heads, (a, b), strict=True):
        console.print(Text(head, style="bold"), end="")
        console.print(f"  {', '.join(map(str, run.folders))}", soft_wrap=True, markup=False)
    settings = list(_settings(a, b))
    sections = {
        "Settings": [found for found in settings if found[0] not in OF_PLACE],
        "Place and upkeep": [found for found in settings if found[0] in OF_PLACE],
        "Made with": list(_machines(a, b)),
        "Trainings": list(_trainings(a, b)),
    }
    for title, differences in sections.items():
        if differences:
            console.print()
            console.print(_section(title, heads, differences))
    unknown = [head for head, run in zip(heads, (a, b), strict=True) if not run.plan]
    equal = [title.lower() for title, found in sections.items() if not found and not (title == "Made with" and unknown)]
    if equal:
        _say(console, f"No difference: {'; '.join(equal)}.")
    if unknown:
        _say(console, f"Versions and machine are not known of {' and '.join(unknown)}: there is no whole run.json.")
    _results(a, b, heads, console)
    return complain([*problems, *a.problems, *b.problems])


def _run(path: Path, folders: Sequence[Path], named: Sequence[str]) -> Run:
    """The run that is meant: `path`, the only one in it, or those in it put together where they are one study."""
    found = pool([read(folder, name) for folder, name in zip(folders, named, strict=True)])
    if len(found) > 1:
        raise UserError(f"{path} holds {len(found)} runs: name one of them, such as {found[-1].folder}.")
    return found[0]


def _settings(a: Run, b: Run) -> Iterator[Difference]:
    for key, left, right in _both_sides(dict(_parted(a.settings)), dict(_parted(b.settings))):
        if isinstance(left, dict) and isinstance(right, dict):
            for name, ours, theirs in _both_sides(left, right):
                yield f"{key}.{name}", _text(ours), _text(theirs)
        else:
            yield key, _text(left), _text(right)


def _both_sides(ours: dict[str, Any], theirs: dict[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """Keys whose values differ, and both values. What is null is as good as not there."""
    for key in [*ours, *(key for key in theirs if key not in ours)]:
        if ours.get(key) != theirs.get(key):
            yield key, ours.get(key, MISSING), theirs.get(key, MISSING)


def _parted(settings: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Lists of classes, such as controls, parted: each by its name, with its settings."""
    for key, value in settings.items():
        if isinstance(value, list) and value and all(isinstance(part, dict) and "class_path" in part for part in value):
            seen: list[str] = []
            for part in value:
                options = part.get("init_args") or {}
                name = str(options.get("name") or part["class_path"].rsplit(".", 1)[-1])
                seen.append(name)
                count = seen.count(name)
                yield f"{key}.{name}" + (f" ({count})" if count > 1 else ""), options
        elif value != []:
            yield key, value


def _text(value: Any) -> str:
    if value is MISSING:
        return "-"
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return f"[{', '.join(map(_text, value))}]"
    if isinstance(value, dict):
        said = {name: part for name, part in value.items() if part is not None and part is not False}
        return ", ".join(f"{name}: {_text(part)}" for name, part in said.items()) or "yes"
    return json.dumps(value, default=str)


def _machines(a: Run, b: Run) -> Iterator[Difference]:
    if not (a.plan and b.plan):
        return
    for key, left, right in _both_sides(_machine(a), _machine(b)):
        yield key, _text(left), _text(right)


NOT_OF_MACHINE = ("versions", "started", "experiment")
"""What a session tells besides: versions one by one, when, and the run's name."""


def _machine(run: Run) -> dict[str, str]:
    """What the run's sessions were made with, each value once."""
    found: dict[str, list[str]] = {}
    for session in run.plan["sessions"]:
        said = {**dict(session.get("versions") or {}), **session}
        for key, value in said.items():
            if key not in NOT_OF_MACHINE and str(value) not in found.setdefault(key, []):
                found[key].append(str(value))
    return {key: ", ".join(values) for key, values in found.items()}


def _trainings(a: Run, b: Run) -> Iterator[Difference]:
    for key, left, right in _both_sides(_made(a), _made(b)):
        yield key, _text(left), _text(right)


def _made(run: Run) -> dict[str, str]:
    """What is finished: replicates, and the levels of each arm."""
    levels: dict[str, set[int]] = {}
    for record in sorted(run.records, key=lambda record: (record.arm != TICKET, record.order)):
        levels.setdefault(record.label, set()).add(record.level)
    made = {
        "finished": str(len(run.records)),
        "replicates": str(len({record.replicate for record in run.records})),
        **{f"levels of {label}": ranges(sorted(of)) for label, of in levels.items()},
    }
    if run.diverged:
        made["diverged"] = str(len(run.diverged))
    return made


def _results(a: Run, b: Run, heads: tuple[str, str], console: Console) -> None:
    ours, theirs = ({record.order: record for record in run.records} for run in (a, b))
    if not (ours and theirs):
        nothing = [head for head, run in zip(heads, (a, b), strict=True) if not run.records]
        _say(console, f"Results: {' and '.join(nothing)} {'has' if len(nothing) == 1 else 'have'} none yet.")
        return
    shared = [order for order in ours if order in theirs]
    equal = sum(_quantities(ours[order]) == _quantities(theirs[order]) for order in shared)
    if not shared:
        _say(console, "Results: there is no training that both have.")
    elif equal == len(shared):
        _say(console, f"Results: all {equal} shared trainings are equal bit for bit.")
    else:
        _say(console, f"Results: {equal} of {len(shared)} shared trainings are equal bit for bit.")
    # Also where those are equal: one run may have more replicates.
    points = summarize(a.records), summarize(b.records)
    pairs = list(_pairs(*points))
    tables = [
        table
        for arm in dict.fromkeys(point.arm for point, _ in pairs)
        for quantity in QUANTITIES
        if (table := _compared([pair for pair in pairs if pair[0].arm == arm], heads, *quantity))
    ]
    alone = [_alone(of, [pair[side] for pair in pairs]) for side, of in enumerate(points)]
    for head, levels in zip(heads, alone, strict=True):
        if levels:
            _say(console, f"Only in {head}, counting levels by their weights (to {NEAR:.0%}): {levels}.")
    if tables:
        _say(
            console,
            f"Mean (minimum-maximum) over the trials of each, and {heads[1]} less {heads[0]}. "
            "* The ranges do not overlap."
            + (" One trial has no range." if min(p.trials for pair in pairs for p in pair) < 2 else ""),
        )
    for table in tables:
        console.print()
        console.print(table)


def _alone(points: Sequence[Point], paired: Sequence[Point]) -> str:
    """Arms and levels of points that have no counterpart."""
    levels: dict[str, list[int]] = {}
    for point in points:
        if point not in paired:
            levels.setdefault(point.arm, []).append(point.level)
    return "; ".join(f"{arm} at level {ranges(of)}" for arm, of in levels.items())


def _pairs(ours: Sequence[Point], theirs: Sequence[Point]) -> Iterator[tuple[Point, Point]]:
    """Points of one arm with as many weights left, each other's nearest: at other rates levels count differently."""
    for point in ours:
        other = _nearest(point, theirs)
        if other and _nearest(other, ours) is point:
            yield point, other


def _nearest(point: Point, others: Sequence[Point]) -> Point | None:
    near = [p for p in others if p.arm == point.arm and math.isclose(p.density, point.density, rel_tol=NEAR)]
    return min(near, key=lambda p: (abs(p.density - point.density), p.level != point.level), default=None)


def _quantities(record: Any) -> dict[str, Any]:
    return {name: value for name, value in asdict(record).items() if name != "seconds"}


def _compared(
    pairs: Sequence[tuple[Point, Point]], heads: tuple[str, str], name: str, title: str, scale: float, digits: int
) -> Table | None:
    """A row for each level that differs; None where none does."""
    table = Table(title_justify="left", box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for head in ("level", "weights", "trials"):
        table.add_column(head, justify="right")
    for head in heads:
        # On a narrow terminal a range goes below its mean, but is not broken.
        table.add_column(Text(head), justify="right", min_width=len("(97.98-98.74)"))
    table.add_column("difference", justify="right", no_wrap=True)
    equal, apart = [], []
    for left, right in pairs:
        ours: Spread | None = getattr(left, name)
        theirs: Spread | None = getattr(right, name)
        if ours == theirs and left.trials == right.trials:
            equal.append(left.level)
            continue
        is_apart = _is_apart(left, right, ours, theirs)
        if is_apart:
            apart.append(left.level)
        table.add_row(
            _both(str(left.level), str(right.level)),
            _both(f"{left.density:.1%}", f"{right.density:.1%}"),
            _both(str(left.trials), str(right.trials)),
            range_cell(ours, scale, digits),
            range_cell(theirs, scale, digits),
            f"{(theirs.mean - ours.mean) * scale:+.{digits}f} {'*' if is_apart else ' '}" if ours and theirs else "- ",
            style="bold" if is_apart else None,
        )
    where = f"; ranges apart at level {ranges(apart)}" if apart else ""
    table.title = Text(f"{title}, {pairs[0][0].arm}{where}")
    if equal:
        table.caption, table.caption_justify = f"Equal at level {ranges(equal)}.", "left"
    return table if table.row_count else None


def _is_apart(left: Point, right: Point, ours: Spread | None, theirs: Spread | None) -> bool:
    if not (ours and theirs) or min(left.trials, right.trials) < 2:
        return False
    return ours.high < theirs.low or theirs.high < ours.low


def _both(left: str, right: str) -> str:
    return left if left == right else f"{left}, {right}"


def _section(title: str, heads: tuple[str, str], differences: Sequence[Difference]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column(title, no_wrap=True)
    for head in heads:
        table.add_column(Text(head), overflow="fold")
    for difference in differences:
        key, *values = difference
        table.add_row(Text("\n".join(broken(key, KEY, "."))), *map(Text, values))
    return table


def _say(console: Console, text: str) -> None:
    console.print()
    console.print(text, markup=False)
