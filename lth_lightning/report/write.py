"""Makes a report: reads runs, judges claims, draws figures, and writes all of it into a folder."""

import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from lth_lightning import __version__
from lth_lightning.files import write_bytes, write_text
from lth_lightning.report import folders
from lth_lightning.report.curves import add_curves
from lth_lightning.report.facts import facts
from lth_lightning.report.figure import Choice, Picture
from lth_lightning.report.figures import ALL
from lth_lightning.report.gaps import of_all
from lth_lightning.report.lines import lines
from lth_lightning.report.page import Page, render
from lth_lightning.report.runs import Run, read
from lth_lightning.report.style import styled
from lth_lightning.report.table import summary
from lth_lightning.report.verdict import Verdict
from lth_lightning.report.verdicts import verdicts

PAGE, SUMMARY = "report.html", "summary.csv"

DPI = 150
"""Of the PNGs."""


@dataclass(frozen=True)
class Report:
    """What was written, and what the terminal says of it."""

    page: Path
    verdicts: Sequence[Verdict]
    pictures: Sequence[Picture]
    problems: Sequence[str]
    runs: Sequence[Run]


def write(paths: Sequence[Path], out: Path | None, choice: Choice, console: Console) -> Report:
    """Report on the runs in `paths` into `out`, by default `report/` in the deepest folder that holds all of them.

    Raises UserError where a path holds no run. What is damaged is left out and named in `problems`.
    """
    found = folders.find(paths)
    out = out or Path(os.path.relpath(os.path.commonpath([folder.resolve() for folder in found]))) / "report"
    with Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), console=console, transient=True
    ) as progress:
        task = progress.add_task("reading", total=sum(len(folders.trainings(folder)) for folder in found))
        runs = [read(folder, name) for folder, name in zip(found, folders.names(found), strict=True)]
        for run in runs:
            add_curves(run, lambda: progress.advance(task))
        drawn = lines(runs)
        pictures, svgs = [], {}
        task = progress.add_task("drawing", total=len(ALL))
        with styled():
            for draw in ALL:
                picture = draw(drawn, choice)
                if picture is not None:
                    pictures.append(picture)
                    svgs[picture.name] = _save(picture, out)
                progress.advance(task)
        judged = verdicts(runs)
        table = summary(runs)
        write_text(out / SUMMARY, table.to_csv(index=False, lineterminator="\n"))
        page = Page(
            title=f"Lottery tickets: {', '.join(run.name for run in runs[:3])}{', …' if len(runs) > 3 else ''}",
            runs=[facts(run) for run in runs],
            notes=list(of_all(runs)),
            verdicts=judged,
            pictures=pictures,
            summary=table,
            made=f"lth_lightning {__version__}, {datetime.now():%Y-%m-%d %H:%M}",
        )
        write_text(out / PAGE, render(page, svgs))
    return Report(out / PAGE, judged, pictures, [problem for run in runs for problem in run.problems], runs)


def _save(picture: Picture, out: Path) -> str:
    """Write both files of a figure, and return the SVG."""
    image, drawing = io.BytesIO(), io.StringIO()
    # A PNG goes into slides and papers, so its ground is white; the SVG has the page's.
    picture.figure.savefig(image, format="png", dpi=DPI, transparent=False, facecolor="white")
    picture.figure.savefig(drawing, format="svg", metadata={"Date": None})
    write_bytes(out / f"{picture.name}.png", image.getvalue())
    write_text(out / f"{picture.name}.svg", drawing.getvalue())
    return drawing.getvalue()
