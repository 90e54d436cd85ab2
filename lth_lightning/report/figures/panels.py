"""Panels side by side, each a quantity of all lines over what remains of the weights, with one legend (LTH Fig. 4)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure
from matplotlib.ticker import StrMethodFormatter

from lth_lightning.report import notes, style
from lth_lightning.report.lines import Line

Axis = Literal["density", "linear density", "weights"]

MANY = 9
"""More lines than these have thin bars and small marks."""

_PLAIN: Mapping[str, Any] = {"elinewidth": 0.9, "capthick": 0.9}
_THIN: Mapping[str, Any] = {"linewidth": 1, "markersize": 3, "elinewidth": 0.5, "capsize": 0}

DETAILED = 6
"""The lines that an alternative text tells one by one."""


@dataclass(frozen=True)
class Panel:
    """A quantity of all lines.

    Attributes:
        label: of the y axis.
        spreads: for each line, as of `Line.spread`, in the unit that is drawn; empty where it has none.
        title: above the panel.
        lower_is_better: of an alternative text, what it names between a line's ends.
        unit: behind numbers of the alternative text.
    """

    label: str
    spreads: Sequence[pd.DataFrame]
    title: str = ""
    lower_is_better: bool = False
    unit: str = ""

    @property
    def is_empty(self) -> bool:
        return all(spread.empty for spread in self.spreads)


COLUMNS: Mapping[str, str] = {
    "early_stop_step": "early-stop step",
    "early_stop_val_acc": "validation accuracy at early stop",
    "early_stop_test_acc": "test accuracy at early stop",
    "early_stop_train_acc": "training accuracy at early stop",
    "final_test_acc": "test accuracy at the end",
    "final_train_acc": "training accuracy at the end",
}
"""Columns of results.csv that have a panel, and what they are called."""


def of_column(lines: Sequence[Line], column: str) -> Panel:
    """A panel of a column of results.csv; accuracies in percent."""
    spreads = [line.spread(column) for line in lines]
    if column == "early_stop_step":
        return Panel(COLUMNS[column], spreads, lower_is_better=True)
    return Panel(f"{COLUMNS[column]} (%)", [in_percent(spread) for spread in spreads], unit="%")


def in_percent(spread: pd.DataFrame) -> pd.DataFrame:
    """`spread` with its values a hundredfold."""
    return spread.assign(**{name: 100 * spread[name] for name in ("mean", "low", "high")})


def draw(lines: Sequence[Line], panels: Sequence[Panel], axis: Axis = "density") -> tuple[Figure, list[str]]:
    """The panels in a row, and one sentence for each thing that their axes leave out or bend."""
    width, height = style.PANEL
    # Few panels are wider ones, so that all figures of a page are about as wide.
    figure = Figure(figsize=(width * (len(panels) if len(panels) > 2 else 1.3 * len(panels)), height))
    found: list[str] = []
    handles: dict[int, ErrorbarContainer] = {}
    for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        for number, (line, spread) in enumerate(zip(lines, panel.spreads, strict=True)):
            if len(spread):
                in_order = spread.sort_values("density", ascending=False)
                handles[number] = _bars(axes, line, in_order, axis, len(lines) > MANY)
        found += _finish(axes, panel, axis)
        found += _zoom(axes, lines, panel)
    order = sorted(handles)
    labels = [label_of(lines[number], panels, number) for number in order]
    style.below(figure, [handles[number] for number in order], labels, lines[0].varied)
    return figure, found


def _bars(axes: Axes, line: Line, spread: pd.DataFrame, axis: Axis, is_crowded: bool) -> ErrorbarContainer:
    # One trial has no spread; a bar without length would look like a very small one.
    below, above = (spread[name].where(spread.trials > 1) for name in ("low", "high"))
    return axes.errorbar(
        places(spread, axis),
        spread["mean"],
        # The mean of equal numbers may be a rounding less than each.
        yerr=np.maximum([spread["mean"] - below, above - spread["mean"]], 0),
        **line.look,
        **(_THIN if is_crowded else _PLAIN),
    )


def places(spread: pd.DataFrame, axis: Axis) -> "pd.Series[float]":
    """Where the points of a spread stand on x."""
    return spread.weights if axis == "weights" else 100 * spread.density


def _finish(axes: Axes, panel: Panel, axis: Axis) -> list[str]:
    together = pd.concat([spread for spread in panel.spreads if len(spread)])
    if axis == "density":
        style.density_axis(axes, together.density)
    elif axis == "weights":
        style.weights_axis(axes, together.weights)
    else:
        style.linear_axis(axes)
    style.named(axes, panel.label, panel.unit == "%", not panel.unit)
    axes.set_title(panel.title)
    return count_axis(axes, panel)


def count_axis(axes: Axes, panel: Panel, which: Literal["x", "y"] = "y") -> list[str]:
    """Write numbers of steps in full, on a log axis where they are far apart; then a sentence that says so."""
    if panel.unit:
        return []
    together = pd.concat([spread for spread in panel.spreads if len(spread)])
    if style.is_wide(together["mean"]):
        style.log_axis(axes, which, together.low.min(), together.high.max())
        return [f"The axis of the {panel.label} is logarithmic."]
    (axes.yaxis if which == "y" else axes.xaxis).set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    return []


def _zoom(axes: Axes, lines: Sequence[Line], panel: Panel) -> list[str]:
    """Cut off accuracies far below the others, which would make a flat line of them all, and say which."""
    if panel.unit != "%":
        return []
    together = pd.concat(list(panel.spreads))
    most, quarter = together["mean"].max(), together["mean"].quantile(0.25)
    least = quarter - 2 * max(most - quarter, 0.5)
    if together.low.min() >= least - (most - least) / 2:
        return []
    axes.set_ylim(bottom=least)
    cut = [
        f"{line.label} {notes.at(spread.index[spread.low < least])}"
        for line, spread in zip(lines, panel.spreads, strict=True)
        if (spread.low < least).any()
    ]
    return [f"Reaching below the axis of {panel.label.removesuffix(' (%)')}: {notes.listed(cut)}."]


def label_of(line: Line, panels: Sequence[Panel], number: int) -> str:
    """The name of the line with this number in a legend, and of how many trials its points are."""
    return f"{line.entry} {trials_of(panels, number)}"


def trials_of(panels: Sequence[Panel], number: int) -> str:
    """Of how many trials the points of the line with this number are."""
    counts = pd.concat([panel.spreads[number].trials for panel in panels])
    return trials(int(counts.min()), int(counts.max()))


def trials(least: int, most: int) -> str:
    """`(n=3)`, or `(n=2-3)` where levels differ."""
    return f"(n={most})" if least == most else f"(n={least}-{most})"


def alt(lines: Sequence[Line], panels: Sequence[Panel], axis: Axis = "density") -> str:
    """What the panels show, in numbers: each line's ends and its best."""
    sentences = []
    for panel in panels:
        shown = [(line, spread) for line, spread in zip(lines, panel.spreads, strict=True) if len(spread)]
        name = f"{panel.title}, {panel.label}" if panel.title else panel.label
        told = "; ".join(f"{line.label} {_told(spread, panel, axis)}" for line, spread in shown[:DETAILED])
        rest = [spread for _, spread in shown[DETAILED:]]
        if rest:
            together = pd.concat(rest)["mean"]
            told += f"; {len(rest)} further lines between {_value(together.min(), panel)}"
            told += f" and {_value(together.max(), panel)}"
        sentences.append(f"{name[:1].upper()}{name[1:]}: {told}.".replace(" (%)", ""))
    return " ".join(sentences)


def _told(spread: pd.DataFrame, panel: Panel, axis: Axis) -> str:
    spread = spread.sort_values("density", ascending=False)
    best = int(np.argmin(spread["mean"]) if panel.lower_is_better else np.argmax(spread["mean"]))
    last = len(spread) - 1
    word = "lowest" if panel.lower_is_better else "highest"
    parts = []
    for place in sorted({0, best, last}):
        row = spread.iloc[place]
        where = f"{row.weights:,.0f} weights" if axis == "weights" else style.percent(row.density)
        what = f"{word} " if place == best and last > 0 else ""
        parts.append(f"{what}{_value(row['mean'], panel)} at {where}")
    return ", ".join(parts)


def _value(value: float, panel: Panel) -> str:
    return f"{value:.2f}{panel.unit}" if panel.unit else f"{value:,.0f}"
