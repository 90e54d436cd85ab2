"""Panels of curves: for each run a block of them, with one pair of axes' limits."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lth_lightning.report import style
from lth_lightning.report.figures.panels import trials
from lth_lightning.report.lines import Line, named

ACROSS = 3
"""Panels in a row."""

POINTS = 125
"""More evaluations than these are thinned out: a panel is not wide enough to show them."""

EARLY = 0.05
"""The share of the axis that is left out when the limits of y are chosen."""

MOST = 0.85
"""The share of what then follows of each line that lies between them."""

LETTERS = 36
"""The most in a row above a panel."""

TOLD = 8
"""The curves of a run that an alternative text tells."""


@dataclass(frozen=True)
class Curve:
    """An arm at one level. `values` is as of `Line.curves`, in the unit that is drawn."""

    line: Line
    level: int
    density: float
    colour: str
    values: pd.DataFrame

    @property
    def label(self) -> str:
        number = int(self.values.trials.max())
        return f"{style.percent(self.density)} {trials(number, number)}"


@dataclass(frozen=True)
class Panel:
    """Some curves; of tickets alone, or as many of a control behind them."""

    title: str
    curves: Sequence[Curve]
    is_of_tickets: bool


@dataclass(frozen=True)
class Block:
    """A run's panels, drawn up to the step `until`."""

    name: str
    panels: Sequence[Panel]
    until: int

    @property
    def curves(self) -> list[Curve]:
        """Each once."""
        found = {(curve.line.arm, curve.level): curve for panel in self.panels for curve in panel.curves}
        return list(found.values())

    def shown(self, curve: Curve) -> pd.DataFrame:
        """What of a curve lies within the axis, thinned out."""
        values = curve.values[curve.values.index <= self.until]
        # The last evaluation is always among them.
        return values.iloc[:: -thinning(values)].iloc[::-1]

    @property
    def every(self) -> int:
        """Of how many evaluations one is drawn, at most."""
        return max(thinning(curve.values[curve.values.index <= self.until]) for curve in self.curves)


def draw(blocks: Sequence[Block], label: str, lower_is_better: bool) -> Figure:
    """The blocks below one another, each under its run's name where there are several.

    Blocks of a single panel stand side by side.
    """
    across = max(min(len(block.panels), ACROSS) for block in blocks)
    beside = min(len(blocks), ACROSS // across)
    width, height = style.PANEL
    panel_rows = max(-(-len(block.panels) // ACROSS) for block in blocks)
    heights = [panel_rows * (height + 0.9) + 0.3 * (len(blocks) > 1)] * -(-len(blocks) // beside)
    if beside == 1:
        heights = [-(-len(block.panels) // ACROSS) * (height + 0.9) + 0.3 * (len(blocks) > 1) for block in blocks]
    figure = Figure(figsize=(max(width * across * beside, 1.3 * width), sum(heights)))
    parts = figure.subfigures(len(heights), beside, height_ratios=heights, squeeze=False).flat
    for block, part in zip(blocks, parts, strict=False):
        if len(blocks) > 1:
            part.suptitle(block.name, x=0.01, ha="left", fontweight="bold")
        rows = -(-len(block.panels) // ACROSS)
        every = list(part.subplots(rows, across, squeeze=False).flat)
        for axes in every[len(block.panels) :]:
            axes.remove()
        limits = _limits([block.shown(curve) for curve in block.curves], lower_is_better)
        for axes, panel in zip(every, block.panels, strict=False):
            for curve in panel.curves:
                _draw(axes, curve, block.shown(curve))
            style.step_axis(axes)
            axes.set_ylim(*limits)
            axes.set_xlim(0, block.until)
            style.named(axes, label, not lower_is_better)
            axes.legend(
                title=textwrap.fill(panel.title, LETTERS),
                alignment="left",
                loc="lower left",
                bbox_to_anchor=(0, 1.01),
                ncols=1 if panel.is_of_tickets else 2,
                handlelength=1.6,
                columnspacing=1,
            )
    return figure


def thinning(values: pd.DataFrame) -> int:
    """Of how many evaluations one is drawn."""
    return -(-len(values) // POINTS)


def _draw(axes: Axes, curve: Curve, values: pd.DataFrame) -> None:
    dash = "-" if curve.line.is_ticket else "--"
    axes.plot(values.index, values["mean"], color=curve.colour, linestyle=dash, label=curve.label)
    if values.trials.max() > 1:
        axes.fill_between(values.index, values.low, values.high, color=curve.colour, alpha=0.18, linewidth=0)


def _limits(shown: Sequence[pd.DataFrame], lower_is_better: bool) -> tuple[float, float]:
    """Limits of y that leave out steep first steps and single outliers, but have most of each line between them."""
    later = [values[values.index > EARLY * values.index[-1]] for values in shown]
    if lower_is_better:
        low = min(values.low.min() for values in shown)
        high = max(values["mean"].quantile(MOST) for values in later)
    else:
        low = min(values["mean"].quantile(1 - MOST) for values in later)
        high = max(values.high.max() for values in shown)
    room = 0.04 * (high - low) or 0.5
    return low - room, high + room


def alt(blocks: Sequence[Block], label: str, lower_is_better: bool) -> str:
    """What the curves show, in numbers: each one's best and its end."""
    unit = "%" if label.endswith("(%)") else ""
    sentences = []
    for block in blocks:
        told = [_told(curve, unit, lower_is_better) for curve in block.curves[:TOLD]]
        more = f"; and {len(block.curves) - TOLD} more" if len(block.curves) > TOLD else ""
        start = f"{block.name}: " if len(blocks) > 1 else ""
        sentences.append(f"{start}{'; '.join(told)}{more}.")
    name = label.removesuffix(" (%)")
    return f"{name[:1].upper()}{name[1:]} against the optimizer's step. {' '.join(sentences)}"


def _told(curve: Curve, unit: str, lower_is_better: bool) -> str:
    means = curve.values["mean"]
    step = int(means.index[int(means.argmin() if lower_is_better else means.argmax())])
    digits = 2 if unit else 4
    word = "lowest" if lower_is_better else "highest"
    return (
        f"{named(curve.line.arm)} at {style.percent(curve.density)}: {word} {means[step]:.{digits}f}{unit} "
        f"at step {step:,}, {means.iloc[-1]:.{digits}f}{unit} at the end"
    )
