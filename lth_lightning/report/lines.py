"""What a figure draws: one line for each arm of each run, over the levels, and how it looks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.colors import to_hex

from lth_lightning.report.folders import sweep_of
from lth_lightning.report.runs import Run, arm_order
from lth_lightning.results.training import TICKET

COLOURS = ("#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9", "#8c6d31")
"""Okabe and Ito's palette, told apart by colour-blind readers; the paper's blue, orange, green, red come first."""

FIXED = (TICKET, "random_reinit", "random_mask")
"""Arms that have the palette's first colours in every report; others share the rest, in the order of their names."""

DENSE = "#808080"
"""Of the dense network, and of weights that no ticket keeps; seen on white and on black."""

MARKERS = "osD^vP*X"
DASHES = ("-", "--", ":", "-.")


@dataclass(frozen=True)
class Line:
    """An arm of a run.

    Colour, dash and marker stay the same in all figures of a report, and tell arms apart without the colour too.

    Attributes:
        label: names it anywhere: `lr=0.1: ticket`.
        entry: names it in a legend whose title is `varied`: `0.1`.
        varied: the flags in which the cells of a sweep differ, such as `lr`; empty for other runs.
    """

    run: Run
    arm: str
    label: str
    entry: str
    varied: str
    colour: str
    dash: str
    marker: str
    is_hollow: bool = False

    @property
    def look(self) -> dict[str, Any]:
        """What matplotlib draws it with."""
        hollow = {"markerfacecolor": "none", "markeredgewidth": 1} if self.is_hollow else {}
        return {"color": self.colour, "linestyle": self.dash, "marker": self.marker, **hollow}

    @property
    def is_ticket(self) -> bool:
        return self.arm == TICKET

    def table(self) -> pd.DataFrame:
        """The rows of results.csv, diverged trainings left out."""
        return self.run.trained[self.run.trained.arm == self.arm]

    def spread(self, quantity: str) -> pd.DataFrame:
        """A column of results.csv over replicates and trials.

        Indexed by level: density (the trials' mean), weights (remaining), mean, low, high, trials. Levels whose
        trainings have no value are left out.
        """
        return spread(self.table(), quantity)

    def curves(self, level: int, quantity: str) -> pd.DataFrame:
        """A column of metrics.csv over replicates and trials, indexed by step: mean, low, high, trials.

        Steps that not all trials have evaluated are left out.
        """
        found = self.run.curve_spreads(quantity)
        if (self.arm, level) not in found.index:
            return found.iloc[:0].droplevel(["arm", "level"])
        return found.loc[(self.arm, level), :]


def spread(rows: pd.DataFrame, quantity: str) -> pd.DataFrame:
    """`Line.spread` of the rows of one arm."""
    rows = rows.dropna(subset=[quantity])
    grouped = rows.groupby("level")
    values = grouped[quantity]
    columns = {
        "density": grouped["density"].mean(),
        "weights": grouped["weights_remaining"].mean(),
        "mean": values.mean(),
        "low": values.min(),
        "high": values.max(),
        "trials": values.count(),
    }
    return pd.DataFrame(columns).astype(dict.fromkeys(("mean", "low", "high"), float))


def lines(runs: Sequence[Run]) -> list[Line]:
    """All lines of the report, in the order of the runs, the tickets first.

    An arm has the same colour in every report of one or two runs; the second run's lines are dashed, their marks hollow
    (LTH Fig. 4 and 14). More runs, or two of a single arm: a colour for each run, a dash and a mark for each arm
    (Fig. 5), or a mark for each run where there is one arm; of more runs than there are colours, shades in their order
    (a sweep's values).
    """
    arms = sorted({arm for run in runs for arm in run.arms}, key=arm_order)
    colours = arm_colours(arms)
    varied, values = _sweep(runs)
    by_arm = len(runs) == 1 or (len(runs) == 2 and len(arms) > 1)
    found: list[Line] = []
    for number, run in enumerate(runs):
        for arm in run.arms:
            index = arms.index(arm)
            dash = DASHES[number if by_arm and len(runs) > 1 else min(index, len(DASHES) - 1)]
            place = number if len(arms) == 1 else index
            label = named(arm) if len(runs) == 1 else f"{run.name}: {named(arm)}"
            entry = label
            if varied:
                entry = values[number] if len(arms) == 1 else f"{values[number]}: {named(arm)}"
            colour = colours[arm] if by_arm else shade(number, len(runs))
            marker = MARKERS[place % len(MARKERS)]
            found.append(Line(run, arm, label, entry, varied, colour, dash, marker, by_arm and number > 0))
    return found


def arm_colours(arms: Sequence[str]) -> dict[str, str]:
    """A colour for each arm; the usual ones have theirs whatever else there is."""
    others = [arm for arm in sorted(arms) if arm not in FIXED]
    rest = COLOURS[len(FIXED) :]
    fixed = dict(zip(FIXED, COLOURS, strict=False))
    return {arm: fixed.get(arm) or rest[others.index(arm) % len(rest)] for arm in arms}


def _sweep(runs: Sequence[Run]) -> tuple[str, list[str]]:
    """The flags in which the cells of one sweep differ, and their values in each; empty for other runs."""
    cells = [sweep_of(run.folder) or {} for run in runs]
    if len(runs) < 2 or len({run.folder.resolve().parents[1] for run in runs}) > 1 or not all(cells):
        return "", []
    texts = [{flag: _value(value) for flag, value in cell.items()} for cell in cells]
    flags = [flag for flag in texts[0] if len({text.get(flag) for text in texts}) > 1]
    values = [", ".join(text.get(flag, "") for flag in flags) for text in texts]
    if len(set(values)) < len(values):
        return "", []
    last = [flag.rsplit(".", 1)[-1] for flag in flags]
    return ", ".join(last if len(set(last)) == len(last) else flags), values


def _value(value: Any) -> str:
    """A setting as a legend shows it: a class by its name."""
    if isinstance(value, Mapping):
        if "class_path" in value:
            options = value.get("init_args") or {}
            name = str(value["class_path"]).rsplit(".", 1)[-1]
            return f"{name} ({_value(options)})" if options else name
        return ", ".join(f"{name} {_value(part)}" for name, part in value.items())
    return "-".join(map(_value, value)) if isinstance(value, list) else str(value)


def densities(labels: Sequence[str], full: str) -> dict[str, str]:
    """A colour for each percentage of weights: the sparser the darker, grey for `full`, the dense network's."""
    sparse = sorted(set(labels) - {full}, key=lambda label: -float(label.removesuffix("%")))
    # Neither end of the map: its dark one cannot be seen on a black page, its light one on a white one.
    places = np.linspace(0.75, 0.2, len(sparse)) if len(sparse) != 1 else [0.4]
    colours = {label: to_hex(colormaps["plasma"](place)) for label, place in zip(sparse, places, strict=True)}
    return {full: DENSE, **colours} if full in labels else colours


def shade(index: int, number: int) -> str:
    """The colour of one of `number` things in an order."""
    if number <= len(COLOURS):
        return COLOURS[index]
    return to_hex(colormaps["viridis"](0.8 * index / (number - 1)))


def named(arm: str) -> str:
    """`random_reinit` as `random reinit`."""
    return arm.replace("_", " ")
