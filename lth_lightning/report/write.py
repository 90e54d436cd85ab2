"""Makes a report: reads runs, judges claims, draws figures, and writes all of it into a folder."""

import contextlib
import io
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from lth_lightning import __version__
from lth_lightning.errors import UserError
from lth_lightning.files import write_bytes, write_text
from lth_lightning.report import asked, folders, layers_left
from lth_lightning.report.curves import add_curves
from lth_lightning.report.facts import facts
from lth_lightning.report.figure import Choice, Picture
from lth_lightning.report.figures import ALL, NAMES
from lth_lightning.report.gaps import of_all
from lth_lightning.report.layers_left import Layers
from lth_lightning.report.lines import lines
from lth_lightning.report.page import Page, RunFacts, render
from lth_lightning.report.pool import pool
from lth_lightning.report.runs import Run, read
from lth_lightning.report.style import styled
from lth_lightning.report.table import summary
from lth_lightning.report.verdict import Verdict
from lth_lightning.report.verdicts import verdicts
from lth_lightning.results.run_folder import training_folders

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
    notes: Sequence[str]
    runs: Sequence[RunFacts]


def write(paths: Sequence[Path], out: Path | None, choice: Choice, console: Console) -> Report:
    """Report on the runs in `paths` into `out`, by default `report/` in the deepest folder that holds all of them.

    What is damaged is left out and named in `problems`, and so is a path without a run beside others that hold some.
    Raises UserError where none does, or `out` cannot be written.
    """
    found, problems = _find(paths)
    out = out or _shared(found) / "report"
    bar = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
    with _made(out), Progress(*bar, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("reading", total=sum(len(training_folders(folder, [])) for folder in found))
        runs = [read(folder, name) for folder, name in zip(found, folders.names(found), strict=True)]
        for run in runs:
            add_curves(run, lambda: progress.advance(task))
        runs = pool(runs)
        drawn = lines(runs)
        pictures, svgs = [], {}
        asked.check(drawn, choice)
        _make(out)
        task = progress.add_task("drawing", total=len(ALL))
        with styled():
            for draw in ALL:
                picture = draw(drawn, choice)
                if picture is not None:
                    pictures.append(picture)
                    svgs[picture.name] = _save(picture, out)
                progress.advance(task)
        for name in set(NAMES) - set(svgs):
            for end in (".png", ".svg"):
                (out / f"{name}{end}").unlink(missing_ok=True)
        judged = verdicts(runs)
        layers, thin = _layers(runs)
        notes, told = [*thin, *of_all(runs)], [facts(run) for run in runs]
        table = summary(runs)
        write_text(out / SUMMARY, table.to_csv(index=False, lineterminator="\n"))
        page = Page(
            title=f"Lottery tickets: {_title(runs)}",
            runs=told,
            notes=[*problems, *notes],
            verdicts=judged,
            pictures=pictures,
            summary=table,
            made=f"lth_lightning {__version__}, {datetime.now():%Y-%m-%d %H:%M}",
            layers=layers,
        )
        write_text(out / PAGE, render(page, svgs))
    problems += [problem for run in runs for problem in run.problems]
    return Report(out / PAGE, judged, pictures, problems, notes, told)


@contextlib.contextmanager
def _made(out: Path) -> Iterator[None]:
    """Within it the folder `out` is there; where nothing was written to it, it is not left behind."""
    new = [path for path in (out, *out.parents) if not path.exists()]
    try:
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{out} cannot be written ({error.strerror}): choose another folder with --out.") from None
        yield
    finally:
        for path in new:
            with contextlib.suppress(OSError):  # it is not empty
                path.rmdir()


def _layers(runs: Sequence[Run]) -> tuple[list[Layers], list[str]]:
    """The runs' tables of layers, and warnings, each with the run's name where there are several."""
    tables, warnings = [], []
    for run in runs:
        table, lines = layers_left.of_run(run)
        tables += [table] if table else []
        warnings += lines if len(runs) == 1 else [f"{run.name}: {line}" for line in lines]
    return tables, warnings


def _title(runs: Sequence[Run]) -> str:
    if len(runs) <= 3:
        return ", ".join(run.name for run in runs)
    return f"{_shared([folder for run in runs for folder in run.folders]).resolve().name}, {len(runs)} runs"


def _shared(found: Sequence[Path]) -> Path:
    """The deepest folder that holds all of the runs, relative where it is below the current one."""
    shared = Path(os.path.commonpath([folder.resolve() for folder in found]))
    return shared.relative_to(Path.cwd()) if shared.is_relative_to(Path.cwd()) else shared


def _find(paths: Sequence[Path]) -> tuple[list[Path], list[str]]:
    """The runs, and a line for each path that holds none or is not read; raises UserError where there are no runs."""
    found: list[Path] = []
    problems: list[str] = []
    for path in paths:
        try:
            found += folders.find([path], problems)
        except UserError as error:
            problems.append(str(error))
    if not found:
        raise UserError(problems[0])
    return folders.find(found, problems), problems


def _make(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{out} cannot be written ({error.strerror}): choose another folder with --out.") from None


def _save(picture: Picture, out: Path) -> str:
    """Write both files of a figure, and return the SVG."""
    image, drawing = io.BytesIO(), io.StringIO()
    # A PNG goes into slides and papers, so its ground is white; the SVG has the page's.
    picture.figure.savefig(image, format="png", dpi=DPI, transparent=False, facecolor="white")
    picture.figure.savefig(drawing, format="svg", metadata={"Date": None})
    write_bytes(out / f"{picture.name}.png", image.getvalue())
    write_text(out / f"{picture.name}.svg", drawing.getvalue())
    return drawing.getvalue()
