"""`lth report` in the terminal: what it wrote, and its verdicts."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from lth_lightning.report.figure import Choice
from lth_lightning.report.terminal import complain
from lth_lightning.report.verdict import Verdict, by_reason
from lth_lightning.report.write import Report, write

STYLES = {"holds": "green", "does not hold": "red"}

FEW = 4
"""Runs of which the terminal says which tickets win."""


def show(paths: Sequence[Path], out: Path | None, choice: Choice, console: Console) -> int:
    """Write the report, say where it is and what it says, and return the exit code: 2 where something was damaged."""
    report = write(paths, out, choice, console)
    for run in report.runs[:FEW]:
        if run.result:
            name = f"{run.name}: " if len(report.runs) > 1 else ""
            console.print(f"{name}{' '.join(run.result)}", markup=False)
    _say_verdicts(report, console)
    number = len(report.pictures)
    damaged = set(report.problems)
    notes = [note for note in report.notes if not any(note.endswith(problem) for problem in damaged)]
    if notes:
        more = f" And {len(notes) - 1} more note{'' if len(notes) == 2 else 's'} on the page." if len(notes) > 1 else ""
        console.print(f"{notes[0]}{more}", markup=False)  # paths may have brackets
    text = f"report: {report.page}  ({number} figure{'' if number == 1 else 's'} beside it)"
    console.print(text, soft_wrap=True, markup=False)
    return complain(report.problems)


def _say_verdicts(report: Report, console: Console) -> None:
    """What holds and what does not in a table; of what cannot be told only why."""
    verdicts = report.verdicts
    if not any(run.config for run in report.runs):
        console.print("No claim of the paper is judged.")
        return
    if not verdicts:
        console.print("None of the paper's claims is about such networks, data and settings.")
        return
    decided = [one for one in verdicts if one.outcome != "cannot tell"]
    if decided:
        console.print(_table(decided))
    if len(decided) < len(verdicts):
        most = "; ".join(f"{reason} ({len(group)})" for reason, group in by_reason(verdicts)[:3])
        number = len(verdicts) - len(decided)
        claims = "1 claim" if number == 1 else f"{number} claims"
        console.print(f"{claims} cannot be told from these runs, most for: {most}", markup=False)


def _table(verdicts: Sequence[Verdict]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for name in ("claim", "verdict", "measured, of the means", "the paper"):
        table.add_column(name)
    for one in verdicts:
        claim = f"[bold]{one.claim}[/bold] {one.text}"
        outcome = f"[{STYLES[one.outcome]}]{one.outcome}[/]"
        measured = f"{one.measured} ({one.spread})" if one.spread else one.measured
        table.add_row(claim, outcome, measured, one.paper or one.accepted)
    return table
