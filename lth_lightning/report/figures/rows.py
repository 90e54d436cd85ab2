"""Lines that have one level each: a row for each, since they would lie over one another on an axis of weights."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from lth_lightning.report import style
from lth_lightning.report.figures.panels import Panel, count_axis, trials_of
from lth_lightning.report.lines import Line

ROW, NAME = 0.25, 0.16
"""Heights of a row, and of a line of its name above it, in inches."""

LETTERS = 44
"""The most in a row's name; longer ones are broken."""


def fit(panels: Sequence[Panel]) -> bool:
    """Whether no line of any panel has more than one level."""
    return all(len(spread) <= 1 for panel in panels for spread in panel.spreads)


def draw(lines: Sequence[Line], panels: Sequence[Panel]) -> tuple[Figure, list[str]]:
    """The panels in a row, their lines below one another, each under its name; otherwise as `panels.draw`."""
    shown = [number for number in range(len(lines)) if any(len(panel.spreads[number]) for panel in panels)]
    names = [_name(lines[number], panels, number) for number in shown]
    heights = np.array([ROW + NAME * (1 + name.count("\n")) for name in names])
    figure = Figure(figsize=(style.PANEL[0] * len(panels), heights.sum() + 0.9))
    places = -np.cumsum(heights)
    found: list[str] = []
    for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        for name, place, number in zip(names, places, shown, strict=True):
            # Each panel has them, as panels may be below one another on the page.
            axes.text(0.02, place + ROW / 3, name, transform=axes.get_yaxis_transform(), fontsize=8, va="bottom")
            line, spread = lines[number], panel.spreads[number]
            if spread.empty:
                continue
            row = spread.iloc[0]
            bars = np.maximum([[row["mean"] - row.low], [row.high - row["mean"]]], 0) if row.trials > 1 else None
            axes.errorbar([row["mean"]], [place], xerr=bars, **line.look, markersize=5, capthick=0.9)
        axes.set_yticks(places, [""] * len(places))
        axes.set_ylim(places[-1] - ROW, 0)
        axes.set_xlabel(panel.label)
        axes.set_title(panel.title)
        style.few_ticks(axes.xaxis, panel.unit == "%", not panel.unit)
        found += count_axis(axes, panel, "x")
    return figure, found


def _name(line: Line, panels: Sequence[Panel], number: int) -> str:
    density = next(panel.spreads[number].density.iloc[0] for panel in panels if len(panel.spreads[number]))
    return style.broken(f"{line.label}, {style.percent(density)} {trials_of(panels, number)}", LETTERS)
