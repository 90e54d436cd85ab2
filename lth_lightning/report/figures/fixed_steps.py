"""Accuracies after fixed numbers of steps, where networks are not compared at early stop (LTH Fig. 7, 8)."""

from collections.abc import Sequence

import pandas as pd

from lth_lightning.report import notes, style
from lth_lightning.report.figure import Choice, Picture
from lth_lightning.report.figures import panels, rows
from lth_lightning.report.lines import Line

SHARES = (1 / 3, 2 / 3, 1)
"""Of the training length, where the reader names no steps."""

NEAR = 0.05
"""An evaluation stands for a step that differs from its own by no more than this share, or by half its distance."""


def draw(lines: Sequence[Line], choice: Choice) -> Picture | None:
    """Test accuracy, else validation accuracy, at fixed steps against the weights remaining; None without curves.

    A step is that of the nearest evaluation of each line.
    """
    quantity = accuracy(lines)
    if quantity is None:
        return None
    label = f"{CALLED[quantity]} (%)"
    shown: list[panels.Panel] = []
    words: list[str] = []
    for wanted in _wanted(lines, quantity, choice):
        found = {number: at for number, line in enumerate(lines) if len(at := _at(line, quantity, wanted))}
        steps = sorted({int(spread.step.iloc[0]) for spread in found.values()})
        if not found:
            words.append(f"No curve has an evaluation near step {wanted:,.0f}.")
            continue
        title = f"after {steps[0]:,} steps" if len(steps) == 1 else f"after about {wanted:,.0f} steps"
        if title in [panel.title for panel in shown]:
            continue
        empty = next(iter(found.values())).iloc[:0]
        spreads = [found.get(number, empty) for number in range(len(lines))]
        shown.append(panels.Panel(label, [panels.in_percent(spread) for spread in spreads], title, unit="%"))
    if not shown:
        return None
    with style.styled():
        alone = rows.fit(shown)
        figure, cut = rows.draw(lines, shown) if alone else panels.draw(lines, shown)
    missing = [
        line.label
        for number, line in enumerate(lines)
        if 0 < sum(panel.spreads[number].empty for panel in shown) < len(shown)
    ]
    if missing:
        words.append(f"No evaluation near some of these steps: {notes.listed(missing)}.")
    caption = f"{CALLED[quantity].capitalize()} after as many steps each. " + (
        "Each row is a network of one density, which is in its name."
        if alone
        else "From left to right ever fewer weights remain: where a line is as high as at its left edge, so small a "
        "network still learns as fast."
    )
    spread = "Points are means over trials, bars their minimum and maximum."
    gaps = notes.of_curves(lines, quantity) + notes.of_levels(lines)
    return Picture(
        "fixed_steps",
        f"{CALLED[quantity].capitalize()} at fixed steps",
        " ".join(dict.fromkeys([caption, spread, *cut, *words, *gaps])),
        panels.alt(lines, shown),
        "LTH Fig. 7, 8",
        figure,
    )


CALLED = {"test_acc": "test accuracy", "val_acc": "validation accuracy"}


def accuracy(lines: Sequence[Line]) -> str | None:
    """`test_acc` where the curves of all runs that have any have it, else `val_acc`; None without accuracies."""
    runs = list({id(line.run): line.run for line in lines}.values())
    for quantity in CALLED:
        having = [not run.curve_spreads(quantity).empty for run in runs if len(run.curves)]
        if having and (all(having) or (quantity == "val_acc" and any(having))):
            return quantity
    return None


def absent(lines: Sequence[Line], choice: Choice) -> list[int]:
    """Of the steps that the reader asked for, those near which no curve has an evaluation, where there are curves."""
    quantity = accuracy(lines)
    if quantity is None:
        return []
    return [step for step in choice.steps if all(_at(line, quantity, step).empty for line in lines)]


def _wanted(lines: Sequence[Line], quantity: str, choice: Choice) -> list[float]:
    if choice.steps:
        return [float(step) for step in choice.steps]
    lengths = []
    for run in {id(line.run): line.run for line in lines}.values():
        steps = run.curve_spreads(quantity).index.get_level_values("step")
        lengths += [int(steps.max())] if len(steps) else []
    # The shortest: all runs have been trained for so long.
    return [share * min(lengths) for share in SHARES]


def _at(line: Line, quantity: str, wanted: float) -> pd.DataFrame:
    """As `Line.spread`, at the evaluated step nearest to `wanted`, which is a further column."""
    curves = line.run.curve_spreads(quantity)
    curves = curves[curves.index.get_level_values("arm") == line.arm].droplevel("arm").reset_index("step")
    distance = pd.Series(curves.step.unique()).sort_values().diff().median()
    near = curves[(curves.step - wanted).abs() <= max(NEAR * wanted, distance / 2, 0.5)]
    if near.empty:
        return near.assign(density=0.0, weights=0.0)
    nearest = near.step.iloc[(near.step - wanted).abs().argmin()]
    sizes = line.table().groupby("level").agg(density=("density", "mean"), weights=("weights_remaining", "mean"))
    found: pd.DataFrame = near[near.step == nearest].join(sizes, how="inner")
    return found
