"""Lines that have one level each: a row for each, since they would lie over one another on an axis of weights."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, StrMethodFormatter

from lth_lightning.report import style
from lth_lightning.report.figures.panels import Panel, label_of
from lth_lightning.report.lines import Line

WIDTH, ROW = 2.5, 0.3
"""Of a panel, and the height of a row, in inches."""

LETTERS = 44
"""The most in a row's name; longer ones are broken."""


def fit(panels: Sequence[Panel]) -> bool:
    """Whether no line of any panel has more than one level."""
    return all(len(spread) <= 1 for panel in panels for spread in panel.spreads)


def draw(lines: Sequence[Line], panels: Sequence[Panel]) -> Figure:
    """The panels in a row, their lines below one another; bars as in `panels.draw`."""
    shown = [number for number in range(len(lines)) if any(len(panel.spreads[number]) for panel in panels)]
    names = [_name(lines[number], panels, number) for number in shown]
    heights = np.array([ROW * (1 + 0.5 * name.count("\n")) for name in names])
    width = WIDTH * len(panels) + style.width(max((row for name in names for row in name.split("\n")), key=len))
    figure = Figure(figsize=(width, heights.sum() + 0.9))
    places = -np.cumsum(heights)
    for axes, panel in zip(figure.subplots(1, len(panels), sharey=True, squeeze=False)[0], panels, strict=True):
        for place, number in zip(places, shown, strict=True):
            line, spread = lines[number], panel.spreads[number]
            if spread.empty:
                continue
            row = spread.iloc[0]
            bars = np.maximum([[row["mean"] - row.low], [row.high - row["mean"]]], 0) if row.trials > 1 else None
            axes.errorbar([row["mean"]], [place], xerr=bars, color=line.colour, marker=line.marker, markersize=5)
        axes.set_yticks(places, names)
        axes.set_xlabel(panel.label)
        axes.set_title(panel.title)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        if not panel.unit:
            axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        axes.margins(y=0.5 / len(shown))
    return figure


def _name(line: Line, panels: Sequence[Panel], number: int) -> str:
    density = next(panel.spreads[number].density.iloc[0] for panel in panels if len(panel.spreads[number]))
    name, _, number_of_trials = label_of(line, panels, number).rpartition(" ")
    return style.broken(f"{name}, {style.percent(density)} {number_of_trials}", LETTERS)
