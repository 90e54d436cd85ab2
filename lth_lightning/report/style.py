"""How figures look: the style file, axes of weights remaining, and one legend below all panels."""

import contextlib
import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import matplotlib.style
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

STYLE = Path(__file__).with_name("style.mplstyle")

PANEL = 3.2, 2.5
"""Width and height of a panel, in inches."""

TICKS = 6
"""The most that an axis of weights remaining has."""

WIDE = 8.0
"""Numbers of which the greatest is more than so many times the least are drawn on a log axis."""

_LETTER, _ROW = 0.066, 0.19
"""Width of a letter and height of a row of a legend, in inches."""

_HIGH = 24
"""Letters beside a panel."""


@contextlib.contextmanager
def styled() -> Iterator[None]:
    """Within it figures are drawn, and saved, in the reports' style."""
    with matplotlib.style.context(STYLE), warnings.catch_warnings():
        # Letters that the font lacks, such as Chinese ones, are boxes in a PNG; the page has the reader's fonts.
        warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from (current )?font")
        yield


def percent(density: float) -> str:
    """0.2107 as `21.1%`, as the paper writes it; two digits where one would say nothing."""
    return f"{_number(100 * density)}%"


def _number(value: float) -> str:
    if value >= 99.95:
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 0.1 else f"{value:.2g}"


def density_axis(axes: Axes, densities: Iterable[float]) -> None:
    """Make x, in percent, a log axis that descends, with ticks at levels that there are, evenly apart (LTH Fig. 4)."""
    values = np.unique(np.round(100 * np.array(list(densities)), 6))
    axes.set_xscale("log")
    _descend(axes, values)
    axes.xaxis.set_major_locator(FixedLocator(_apart(values)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _number(value)))
    axes.set_xlabel("weights remaining (%)")


def _apart(values: "np.ndarray[Any, np.dtype[np.float64]]") -> list[float]:
    """Both ends of rising `values`, and those between that are nearest to even distances and not too near another."""
    logs = np.log(values)
    wanted = np.linspace(logs[-1], logs[0], TICKS)
    distance = (logs[-1] - logs[0]) / (1.4 * TICKS)
    found = [len(values) - 1, 0]
    for want in wanted[1:-1]:
        nearest = int(np.argmin(np.abs(logs - want)))
        if all(abs(logs[nearest] - logs[other]) > distance for other in found):
            found.append(nearest)
    return sorted({float(values[place]) for place in found})


def linear_axis(axes: Axes) -> None:
    """Make x, in percent, an axis that descends (LTH Fig. 4c)."""
    axes.invert_xaxis()
    axes.xaxis.set_major_locator(MaxNLocator(TICKS, steps=[1, 2, 2.5, 5, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_xlabel("weights remaining (%)")


def weights_axis(axes: Axes, numbers: Iterable[float]) -> None:
    """Make x, a number of weights, a log axis that descends (LTH Fig. 31)."""
    values = np.unique(list(numbers))
    axes.set_xscale("log")
    _descend(axes, values)
    axes.xaxis.set_major_locator(FixedLocator(_round_numbers(*sorted(axes.get_xlim()))))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
    axes.set_xlabel("number of weights remaining")


def _round_numbers(low: float, high: float) -> list[float]:
    """Four or more numbers between two, evenly apart on a log axis, if there are so many."""
    powers = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    ticks: list[float] = []
    for multiples in ((1,), (1, 3), (1, 2, 5)):
        ticks = [m * 10.0**power for power in powers for m in multiples if low <= m * 10.0**power <= high]
        if len(ticks) >= 4:
            break
    return ticks


def is_wide(values: "pd.Series[float]") -> bool:
    """Whether a linear axis would make a flat line of the least of these numbers, but for zeros."""
    above = values[values > 0]
    return bool(len(above)) and bool(above.max() > WIDE * above.min())


def log_axis(axes: Axes, which: Literal["x", "y"], low: float, high: float) -> None:
    """Make x or y, a number of steps, a log axis for these limits; one that reaches down to 0 where `low` is 0."""
    is_y = which == "y"
    axis: Axis = axes.yaxis if is_y else axes.xaxis
    set_scale, set_limits = (axes.set_yscale, axes.set_ylim) if is_y else (axes.set_xscale, axes.set_xlim)
    least = low if low > 0 else max(1.0, axes.dataLim.minposy if is_y else axes.dataLim.minposx)
    room = (high / least) ** 0.06
    if low > 0:
        set_scale("log")
        set_limits(least / room, high * room)
    else:
        set_scale("symlog", linthresh=least, linscale=0.3)
        set_limits(-0.1 * least, high * room)
    axis.set_major_locator(FixedLocator([*([] if low > 0 else [0.0]), *_round_numbers(least / room, high * room)]))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))


class _UpTo100(MaxNLocator):
    """Round numbers of percent, none above 100: there is no accuracy of 100.25%, though an axis needs room up there."""

    def tick_values(self, vmin: float, vmax: float) -> Any:
        ticks: Any = super().tick_values(vmin, vmax)
        return ticks[ticks <= 100]


def few_ticks(axis: Axis, is_percent: bool = False, is_count: bool = False) -> None:
    """So few ticks that long ones, such as -0.0025, do not run into one another; `is_percent`: none above 100.

    `is_count`: whole numbers.
    """
    _tick(axis, 4, is_percent, is_count)


def _tick(axis: Axis, most: int, is_percent: bool, is_count: bool) -> None:
    axis.set_major_locator(_UpTo100(most) if is_percent else MaxNLocator(most, integer=is_count))
    low, high = axis.get_view_interval()
    if is_percent and low < 100 < high:
        # As little room as marks need.
        limit = axis.axes.set_ylim if axis is axis.axes.yaxis else axis.axes.set_xlim
        limit(low, min(high, 100 + 0.05 * (100 - low)))


def short(number: float) -> str:
    """20000 as `20K`."""
    for size, letter in ((1e6, "M"), (1e3, "K")):
        if number >= size:
            return f"{number / size:g}{letter}"
    return f"{number:g}"


def _descend(axes: Axes, values: "np.ndarray[Any, np.dtype[np.float64]]") -> None:
    """Limits for `values` with a little room, the greatest at the left."""
    room = max((values[-1] / values[0]) ** 0.04, 1.04)
    axes.set_xlim(values[-1] * room, values[0] / room)


def named(axes: Axes, label: str, is_percent: bool = False, is_count: bool = False) -> None:
    """Name y, in two rows where one is higher than a panel; its ticks are those of `few_ticks`, but more."""
    if len(label) > _HIGH:
        spaces = [place for place, letter in enumerate(label) if letter == " "]
        middle = min(spaces, key=lambda place: abs(place - len(label) / 2))
        label = f"{label[:middle]}\n{label[middle + 1 :]}"
    axes.set_ylabel(label)
    _tick(axes.yaxis, 6, is_percent, is_count)


def step_axis(axes: Axes) -> None:
    axes.set_xlabel("optimizer step")
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))


def legend_rows(labels: Sequence[str], wide: float) -> tuple[list[str], int, float]:
    """Labels, broken where they are wider than a figure (in inches), in how many columns, and how high these are."""
    letters = int((wide - 0.6) / _LETTER)
    rows = [broken(label, letters) for label in labels]
    longest = max(len(row) for label in rows for row in label.split("\n"))
    columns = max(1, min(len(labels), int(wide / (0.65 + _LETTER * longest))))
    # As even as they can be: four labels where three fit are two and two.
    columns = -(-len(labels) // -(-len(labels) // columns))
    heights = np.array_split([label.count("\n") + 1 for label in rows], columns)
    return rows, columns, max(int(column.sum()) for column in heights) * _ROW


def broken(text: str, letters: int) -> str:
    """`text` in rows of so many letters, broken at spaces, commas and such where it can be."""
    pieces = re.findall(r"[^\s,=:/]*[\s,=:/]*", text)
    rows = [""]
    for piece in pieces:
        if len(rows[-1]) + len(piece.rstrip()) > letters and rows[-1]:
            rows.append("")
        rows[-1] += piece
    return "\n".join(row.strip() for row in rows)


def below(figure: Figure, handles: Sequence[Any], labels: Sequence[str], title: str = "") -> None:
    """One legend below all panels; the figure grows by its height, so that panels keep theirs.

    Its texts have the labels without breaks as theirs (`get_label`), for the page.
    """
    wide, high = figure.get_size_inches()
    rows, columns, more = legend_rows(labels, wide)
    figure.set_size_inches(wide, high + more + _ROW * bool(title))
    # Older versions of matplotlib leave out what is called `_…`, so it gets its name afterwards.
    legend = figure.legend(
        handles, [row.lstrip("_") for row in rows], loc="outside lower center", ncols=columns, title=title or None
    )
    for text, row, label in zip(legend.get_texts(), rows, labels, strict=True):
        text.set_text(row)
        text.set_label(label)
