"""Accuracy and loss against the optimizer's step, at a few densities (LTH Fig. 3, 11)."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from lth_lightning.report import notes, style
from lth_lightning.report.figure import Choice, Picture
from lth_lightning.report.figures import chosen, curve_panels, fixed_steps
from lth_lightning.report.figures.curve_panels import Block, Curve, Panel
from lth_lightning.report.figures.layers import FULL
from lth_lightning.report.lines import Line, named
from lth_lightning.report.lines import densities as shades

TOGETHER = 3
"""Levels in a panel."""

COMPARED = 2
"""Levels of a control beside the tickets'."""

RUNS = 4
"""More runs than these are not drawn: their curves are too many to look at."""

LOSS = "val_loss"


def draw_accuracy(lines: Sequence[Line], choice: Choice) -> Picture | None:
    """Test accuracy, else validation accuracy, against the step (LTH Fig. 3); None without curves."""
    quantity = fixed_steps.accuracy(lines)
    if quantity is None:
        return None
    called = fixed_steps.CALLED[quantity]
    return _draw(
        lines,
        choice,
        quantity,
        name="accuracy_curves",
        title=f"{called.capitalize()} as training proceeds",
        label=f"{called} (%)",
        reads="A network learns faster where its line is above another's, and better where it ends above it.",
        paper="LTH Fig. 3",
    )


def draw_loss(lines: Sequence[Line], choice: Choice) -> Picture | None:
    """Validation loss against the step (LTH Fig. 11); None without curves."""
    return _draw(
        lines,
        choice,
        LOSS,
        name="loss_curves",
        title="Validation loss as training proceeds",
        label="validation loss",
        reads="Where a line is lowest is the early stop; from there on the network overfits.",
        paper="LTH Fig. 11",
    )


def _draw(
    lines: Sequence[Line], choice: Choice, quantity: str, *, name: str, title: str, label: str, reads: str, paper: str
) -> Picture | None:
    """A block of panels for each of the first runs that have such curves."""
    by_run: dict[int, list[Line]] = {}
    for line in lines:
        by_run.setdefault(id(line.run), []).append(line)
    having = [own for own in by_run.values() if not own[0].run.curve_spreads(quantity).empty]
    found = [(own[0].run.name, _panels(own, quantity, choice)) for own in having[:RUNS]]
    drawn = [Block(run, panels, _until(panels)) for run, panels in found if panels]
    if not drawn:
        return None
    with style.styled():
        figure = curve_panels.draw(drawn, label, lower_is_better=quantity == LOSS)
    words = [
        reads,
        "Colours are the percent of weights remaining. Lines are means over trials, bands reach from their minimum to "
        "their maximum. What lies far from the rest, as the first steps do, is beyond the axis.",
    ]
    if any(style.percent(curve.density) == FULL for block in drawn for curve in block.curves):
        words.append("The dense network (100%) is grey, and in each panel to be compared with.")
    if any(not panel.is_of_tickets for block in drawn for panel in block.panels):
        words.append(f"Dashed are controls, at the first {COMPARED} of these levels that they have.")
    if len(having) > RUNS:
        words.append(f"Of {len(having)} runs the first {RUNS} are drawn; give others alone to see theirs.")
    names = {block.name for block in drawn}
    known = names | {own[0].run.name for own in having[RUNS:]}
    without = [own[0].run.name for own in by_run.values() if own[0].run.name not in known]
    if without:
        words.append(f"No such curves: {notes.listed(without)}.")
    if (every := max(block.every for block in drawn)) > 1:
        words.append(f"One of {every} evaluations is drawn.")
    cut = [
        f"{block.until:,} of {whole:,}" + (f" ({block.name})" if len(drawn) > 1 else "")
        for block in drawn
        if (whole := _length(block.panels)) > block.until
    ]
    if cut:
        words.append(f"Drawn to twice the latest early stop, step {', '.join(cut)}.")
    curves = [curve for block in drawn for curve in block.curves]
    if any(curve.values.trials.max() == 1 for curve in curves):
        words.append("Where n=1 there is one trial, and no band.")
    words += notes.of_curves([line for line in lines if line.run.name in names], quantity)
    words += _absent(lines, drawn)
    return Picture(name, title, " ".join(words), curve_panels.alt(drawn, label, quantity == LOSS), paper, figure)


def _panels(lines: Sequence[Line], quantity: str, choice: Choice) -> list[Panel]:
    """Of one run: tickets, three levels a panel; then each control beside the tickets of its first two levels.

    The dense network is in each panel, to be compared with.
    """
    tickets = [line for line in lines if line.is_ticket] or lines[:1]
    called = "tickets" if tickets[0].is_ticket else named(tickets[0].arm)
    # A network that is not trained has one evaluation, which is no curve.
    evaluations = lines[0].run.curve_spreads(quantity).groupby(["arm", "level"]).size()
    there = {(arm, level) for arm, level in evaluations.index[evaluations > 1]}
    sizes: dict[Any, float] = tickets[0].table().groupby("level")["density"].mean().to_dict()
    densities = {int(level): size for level, size in sizes.items() if (tickets[0].arm, level) in there}
    levels = chosen.levels(densities, choice.densities)
    labels = {level: style.percent(densities[level]) for level in levels}
    by_label = shades(list(labels.values()), FULL)
    colours = {level: by_label[label] for level, label in labels.items()}
    dense = [level for level in levels[:1] if labels[level] == FULL]

    def curve(line: Line, level: int) -> Curve:
        values = line.curves(level, quantity)
        if quantity != LOSS:
            values = values.assign(**{name: 100 * values[name] for name in ("mean", "low", "high")})
        return Curve(line, level, densities[level], colours[level], values)

    parts = [levels[start : start + TOGETHER] for start in range(0, len(levels), TOGETHER)]
    panels = [
        Panel(called, [curve(tickets[0], level) for level in dict.fromkeys([*dense, *part])], True) for part in parts
    ]
    for line in lines:
        both = [level for level in levels if (line.arm, level) in there][:COMPARED]
        if both and line is not tickets[0]:
            curves = [curve(tickets[0], level) for level in dict.fromkeys([*dense, *both])]
            curves += [curve(line, level) for level in both]
            panels.append(Panel(f"{called}; dashed: {named(line.arm)}", curves, False))
    return panels


def _until(panels: Sequence[Panel]) -> int:
    """Twice the latest early stop of what is drawn, in round numbers; to the end where that is later or unknown."""
    stops = [
        stop
        for panel in panels
        for curve in panel.curves
        if (stop := curve.line.spread("early_stop_step")["mean"].get(curve.level)) is not None
    ]
    if not stops or max(stops) == 0:
        return _length(panels)
    twice = 2 * max(stops)
    unit = 10.0 ** max(0, int(np.log10(twice)) - 1)
    return min(_length(panels), int(np.ceil(twice / unit) * unit))


def _length(panels: Sequence[Panel]) -> int:
    return max(int(curve.values.index[-1]) for panel in panels for curve in panel.curves)


def _absent(lines: Sequence[Line], blocks: Sequence[Block]) -> list[str]:
    """Controls of the runs drawn that have none of the levels shown."""
    shown = {curve.line.label for block in blocks for curve in block.curves}
    names = {block.name for block in blocks}
    absent = [line.label for line in lines if line.run.name in names and line.label not in shown]
    return [f"Not trained at any of these densities, or without a curve: {notes.listed(absent)}."] if absent else []
