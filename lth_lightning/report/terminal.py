"""What `lth ls` and `lth diff` share in how they show things."""

import re
import sys
import time
from collections.abc import Iterator, Sequence
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

Thing = TypeVar("Thing")

PATIENCE = 1.0
"""Seconds that a command may take before it shows how far it is."""


def console() -> Console:
    """Standard output; a file or a pipe has no width, and gets whole lines."""
    made = Console(highlight=False)
    if not made.is_terminal:
        made.width = 10_000
    return made


def patiently(things: Sequence[Thing], what: str) -> Iterator[Thing]:
    """The things, one by one; where that takes a while, a bar on standard error counts them."""
    bar = Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
        console=Console(stderr=True), transient=True,
    )  # fmt: skip
    task = bar.add_task(what, total=len(things))
    began, is_shown = time.monotonic(), False
    try:
        for thing in things:
            if not is_shown and bar.console.is_terminal and time.monotonic() - began > PATIENCE:
                bar.start()
                is_shown = True
            yield thing
            bar.advance(task)
    finally:
        if is_shown:
            bar.stop()


def complain(problems: Sequence[str]) -> int:
    """A line on standard error for each, and the exit code."""
    for problem in problems:
        print(f"lth: {problem}", file=sys.stderr)
    return 2 if problems else 0


def broken(text: str, room: int, behind: str) -> list[str]:
    """`text` in lines of at most `room` characters, parted behind those of `behind` if that will do."""
    lines = [""]
    for part in re.findall(f"[{behind}]*[^{behind}]+[{behind}]?|[{behind}]+", text):
        if lines[-1].strip() and len(lines[-1]) + len(part) > room:
            lines.append(" ")  # further lines are indented
        while len(lines[-1]) + len(part) > room:
            cut = room - len(lines[-1])
            lines[-1] += part[:cut]
            part = part[cut:]
            lines.append(" ")
        lines[-1] += part
    return lines
