"""What stands in a drawn figure, read back from matplotlib's artists, and the same numbers reckoned from the files."""

import csv
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lth_lightning.report.curves import add_curves
from lth_lightning.report.folders import find, names
from lth_lightning.report.lines import Line, lines
from lth_lightning.report.runs import read

Point = tuple[float, float, float, float]
"""x, mean, low and high; low and high are the mean where there is no bar."""


def lines_of(*folders: Path) -> list[Line]:
    """As `lth report` makes them of these folders."""
    found = find(folders, [])
    runs = [read(folder, name) for folder, name in zip(found, names(found), strict=True)]
    for run in runs:
        add_curves(run)
    return lines(runs)


def bars(axes: Axes) -> list[list[Point]]:
    """The points of each line of a panel, in the order in which they are joined."""
    found = []
    for container in axes.containers:
        data, _, bars = container
        points = []
        segments = bars[0].get_segments() if bars else [[]] * len(data.get_xdata())
        for x, y, segment in zip(data.get_xdata(), data.get_ydata(), segments, strict=True):
            ends = [end for _, end in segment] or [y, y]
            points.append((float(x), float(y), float(min(ends)), float(max(ends))))
        found.append(points)
    return found


def legend(figure: Figure) -> list[str]:
    """The texts of the legend below all panels."""
    return [text.get_text() for text in figure.legends[0].get_texts()]


def overlapping_ticks(figure: Figure) -> list[str]:
    """Labels of ticks that run into the next one on their axis."""
    figure.draw_without_rendering()
    found = []
    for axes in figure.axes:
        if axes.get_visible():
            for axis, side in ((axes.xaxis, "x"), (axes.yaxis, "y")):
                labels = [label for label in axis.get_ticklabels() if label.get_text() and label.get_visible()]
                boxes = sorted(
                    (label.get_window_extent() for label in labels), key=lambda box: getattr(box, f"{side}0")
                )
                for one, other in pairwise(boxes):
                    if getattr(other, f"{side}0") < getattr(one, f"{side}1"):
                        found.append(f"{axes.get_title(loc='left')} {side}: {[label.get_text() for label in labels]}")
    return found


def reckoned(folder: Path, arm: str, column: str, x: str = "density", scale: float = 1.0) -> list[Point]:
    """What `bars` should be for an arm: mean, minimum and maximum of a column of results.csv, by the csv module."""
    with (folder / "results.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["arm"] == arm and row["status"] == "ok" and row[column]]
    points = []
    for level in sorted({int(row["level"]) for row in rows}):
        here = [row for row in rows if int(row["level"]) == level]
        values = [scale * float(row[column]) for row in here]
        place = sum(float(row[x]) for row in here) / len(here) * (100 if x == "density" else 1)
        points.append((place, sum(values) / len(values), min(values), max(values)))
    return sorted(points, reverse=True)


def curve(
    folder: Path, arm: str, level: int, column: str, trials: Sequence[tuple[int, int]]
) -> dict[int, tuple[float, float, float]]:
    """Mean, minimum and maximum at each step that all of these (replicate, trial) have, from metrics.csv."""
    steps: dict[int, list[float]] = {}
    for replicate, trial in trials:
        label = arm if arm == "ticket" else f"{arm}_{trial}"
        path = folder / f"replicate_{replicate}" / label / f"level_{level:02d}" / "metrics.csv"
        with path.open(newline="") as file:
            for row in csv.DictReader(file):
                if row[column]:
                    steps.setdefault(int(row["step"]), []).append(float(row[column]))
    whole = {step: values for step, values in steps.items() if len(values) == len(trials)}
    return {step: (sum(values) / len(values), min(values), max(values)) for step, values in whole.items()}
