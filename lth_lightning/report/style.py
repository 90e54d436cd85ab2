"""How figures look: the style file, axes of weights remaining, and one legend below all panels."""

import contextlib
import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

STYLE = Path(__file__).with_name("style.mplstyle")

PANEL = 3.2, 2.5
"""Width and height of a panel, in inches."""

TICKS = 6
"""The most that an axis of weights remaining has."""

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
    low, high = sorted(axes.get_xlim())
    for multiples in ((1,), (1, 3), (1, 2, 5)):
        powers = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
        ticks = [m * 10.0**power for power in powers for m in multiples if low <= m * 10.0**power <= high]
        if len(ticks) >= 4:
            break
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
    axes.set_xlabel("number of weights remaining")


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


def named(axes: Axes, label: str) -> None:
    """Name y, in two rows where one is higher than a panel."""
    if len(label) > _HIGH:
        spaces = [place for place, letter in enumerate(label) if letter == " "]
        middle = min(spaces, key=lambda place: abs(place - len(label) / 2))
        label = f"{label[:middle]}\n{label[middle + 1 :]}"
    axes.set_ylabel(label)
    axes.yaxis.set_major_locator(MaxNLocator(6))


def step_axis(axes: Axes) -> None:
    axes.set_xlabel("optimizer step")
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))


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


def width(text: str) -> float:
    """About how wide a row of a legend's text is, in inches."""
    return _LETTER * len(text)


def below(figure: Figure, handles: Sequence[Any], labels: Sequence[str]) -> None:
    """One legend below all panels; the figure grows by its height, so that panels keep theirs."""
    wide, high = figure.get_size_inches()
    rows, columns, more = legend_rows(labels, wide)
    figure.set_size_inches(wide, high + more)
    # Older versions of matplotlib leave out what is called `_…`, so it gets its name afterwards.
    legend = figure.legend(handles, [row.lstrip("_") for row in rows], loc="outside lower center", ncols=columns)
    for text, row in zip(legend.get_texts(), rows, strict=True):
        text.set_text(row)
