"""What a figure cannot show, in words for its caption: no gap stays silent."""

from collections.abc import Iterable, Mapping, Sequence

import pandas as pd

from lth_lightning.report.lines import Line
from lth_lightning.report.runs import Run
from lth_lightning.results.record import DIVERGED
from lth_lightning.results.summary import ranges
from lth_lightning.results.training import TICKET

MOST = 5
"""The things that a note names before it counts the others."""


def listed(things: Sequence[str]) -> str:
    """`a, b, c`, or `a, b, c, d, e and 3 more`."""
    if len(things) <= MOST + 1:
        return ", ".join(things)
    return f"{', '.join(things[:MOST])} and {len(things) - MOST} more"


def at(levels: Iterable[int]) -> str:
    """`level 7`, `levels 7-9, 12`."""
    found = sorted(set(levels))
    return f"level{'s' if len(found) > 1 else ''} {ranges(found)}"


def of_table(lines: Sequence[Line], columns: Mapping[str, str]) -> list[str]:
    """What is missing from figures of these columns of results.csv: sentences. `columns`: a column to its words."""
    runs = list({id(line.run): line.run for line in lines}.values())
    found = [_diverged(lines), *_trials(lines, columns), *of_levels(lines), _columns(lines, columns)]
    found += [_unfinished(runs), _training(lines, runs)]
    return [note for note in found if note]


def of_curves(lines: Sequence[Line], quantity: str) -> list[str]:
    """What is missing from figures of this column of the curves: sentences."""
    runs = list({id(line.run): line.run for line in lines}.values())
    found = [_diverged(lines), _without_curves(lines, quantity), _unfinished(runs), _training(lines, runs)]
    return [note for note in found if note]


def _without_curves(lines: Sequence[Line], quantity: str) -> str:
    """Trainings with a row in the table but no curve, or a damaged one."""
    where = []
    for line in lines:
        table = line.table()
        trained = table[table.steps > 0].groupby("level").size()
        curves = line.run.curve_spreads(quantity)
        drawn = curves[curves.index.get_level_values("arm") == line.arm]["trials"].groupby("level").max()
        lacking = trained[trained > drawn.reindex(trained.index, fill_value=0)]
        if len(lacking):
            where.append(f"{line.label} {at(lacking.index)}")
    return f"Some trials have no curve, or a damaged one: {listed(where)}." if where else ""


def _diverged(lines: Sequence[Line]) -> str:
    number, where = 0, []
    for line in lines:
        rows = line.run.table[(line.run.table.arm == line.arm) & (line.run.table.status == DIVERGED)]
        if len(rows):
            number += len(rows)
            where.append(f"{line.label} {at(rows.level)}")
    if not number:
        return ""
    return f"{number} diverged {'training is' if number == 1 else 'trainings are'} left out: {listed(where)}."


def _trials(lines: Sequence[Line], columns: Iterable[str]) -> list[str]:
    single: list[str] = []
    partly: list[str] = []
    differing: list[str] = []
    for line in lines:
        counts = trials_of(line, columns)
        if counts.empty:
            continue
        if counts.max() == 1:
            single.append(line.label)
            continue
        # What diverged has a sentence of its own.
        table = line.run.table[(line.run.table.arm == line.arm) & (line.run.table.status == DIVERGED)]
        begun = counts.add(table.groupby("level").size(), fill_value=0)
        few = counts[begun.reindex(counts.index) < begun.max()]
        if len(few):
            (partly if (few == 1).all() else differing).append(f"{line.label} {at(few.index)}")
    found = []
    if single:
        shown = [line for line in lines if not line.table().empty]
        found.append(
            "Each point is one trial, so there is no spread to see."
            if len(single) == len(shown)
            else f"One trial only, so no spread: {listed(single)}."
        )
    if partly:
        found.append(f"One trial only: {listed(partly)}.")
    if differing:
        found.append(f"Fewer trials than elsewhere on the line: {listed(differing)}.")
    return found


def trials_of(line: Line, columns: Iterable[str]) -> "pd.Series[int]":
    """How many trials each level of a line has; where columns differ, the fewest."""
    table = line.table()
    counts = table.groupby("level")[[column for column in columns if table[column].notna().any()]].count()
    return counts.min(axis=1)


def of_levels(lines: Sequence[Line]) -> list[str]:
    """Levels that a line has not been trained at."""
    gaps, only = [], []
    for line in lines:
        table = line.run.table
        there = set(table.level[table.arm == line.arm])
        tickets = table[table.arm == TICKET]
        # The dense network is the ticket arm's: nothing is pruned that a control could change.
        pruned = set(tickets.level[tickets.density < 1])
        wanted = set(range(min(there), max(there) + 1)) if line.is_ticket else pruned
        lacking = wanted - there
        if not lacking:
            continue
        if line.is_ticket or len(lacking) < len(there):
            gaps.append(f"{line.label} {at(lacking)}")
        else:
            only.append(f"{line.label} at {at(there)}")
    sentences = [f"Not there: {listed(gaps)}."] if gaps else []
    if only:
        sentences.append(f"Only at some levels: {listed(only)}.")
    return sentences


def _columns(lines: Sequence[Line], columns: Mapping[str, str]) -> str:
    """Which lines lack what others have; what all lack has no panel, which needs no words."""
    sentences = []
    for column, words in columns.items():
        without = [line.label for line in lines if line.table()[column].isna().all()]
        if 0 < len(without) < len(lines):
            sentences.append(f"No {words}: {listed(without)}.")
    return " ".join(sentences)


def _unfinished(runs: Sequence[Run]) -> str:
    where = []
    for run in runs:
        planned = _planned(run)
        last = max((record.level for record in run.records if record.arm == TICKET), default=0)
        parts = [f"tickets end at level {last} of {planned}"] if planned is not None and last < planned else []
        if run.unfinished:
            parts.append(f"{len(run.unfinished)} of its trainings not finished and left out")
        if parts:
            where.append((f"{run.name}, " if len(runs) > 1 else "") + ", ".join(parts))
    if not where:
        return ""
    more = f"; and {len(where) - MOST} more runs" if len(where) > MOST else ""
    return f"The run is not complete: {'; '.join(where[:MOST])}{more}."


def _planned(run: Run) -> int | None:
    """The last level that the ticket arm is to have, as far as the folder says."""
    levels = run.plan.get("arms", {}).get(TICKET)
    if levels:
        return int(max(levels))
    grid = run.setting("pruning.grid") if run.setting("pruning.one_shot") else None
    if run.setting("pruning.until_density") is not None:
        return None
    levels = len(grid) if isinstance(grid, list) else run.setting("pruning.levels")
    return levels if isinstance(levels, int) else None


def _training(lines: Sequence[Line], runs: Sequence[Run]) -> str:
    """Arms that are not trained as tickets are."""
    sentences = []
    trained_on = [run for run in runs if run.trains_on]
    if trained_on:
        which = listed([f"{run.name} ({run.setting('pruning.retrain')})" for run in trained_on])
        where = "in " + which if len(runs) > 1 else f"({trained_on[0].setting('pruning.retrain')})"
        sentences.append(f"Tickets {where} train on from trained weights: their steps are not all of their training.")
    untrained = [line.label for line in lines if len(line.table()) and (line.table().steps == 0).all()]
    if untrained:
        sentences.append(f"Not trained at all: {listed(untrained)}.")
    return " ".join(sentences)


def falling(lines: Sequence[Line]) -> str:
    """Trainings too short to have an early stop: the validation loss was lowest at their last evaluation."""
    where = []
    for line in lines:
        table = line.table()
        rows = table[(table.early_stop_step == table.steps) & (table.steps > 0)]
        if len(rows):
            where.append(f"{line.label} {at(rows.level)}")
    if not where:
        return ""
    return f"The validation loss of a trial or more was lowest at the last step, and may fall further: {listed(where)}."
