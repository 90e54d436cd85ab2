"""What a figure draws: one line for each arm of each run, over the levels, and how it looks."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
from matplotlib import colormaps
from matplotlib.colors import to_hex

from lth_lightning.report.runs import OTHER, Run, arm_order
from lth_lightning.results.training import TICKET

COLOURS = ("#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9", "#8c6d31")
"""Okabe and Ito's palette, told apart by colour-blind readers; the paper's blue, orange, green, red come first."""

MARKERS = "osD^vP*X"
DASHES = ("-", "--", ":", "-.")


@dataclass(frozen=True)
class Line:
    """An arm of a run.

    Colour, dash and marker stay the same in all figures of a report, and any one of them tells lines apart where the
    print lacks the others.
    """

    run: Run
    arm: str
    label: str
    colour: str
    dash: str
    marker: str

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

    One or two runs: a colour for each arm of each, as in LTH Fig. 4 (tickets and reinitializations of both take the
    first four) and 14. More: a colour for each run, a dash for each arm (Fig. 5); of more runs than there are colours,
    shades in their order (a sweep's values).
    """
    arms = sorted({arm for run in runs for arm in run.arms}, key=arm_order)
    each = [(number, arm) for number, run in enumerate(runs) for arm in run.arms]
    each.sort(key=lambda place: arm_order(place[1])[0] == OTHER)
    found: list[Line] = []
    for number, run in enumerate(runs):
        for arm in run.arms:
            if len(runs) <= 2:
                index = each.index((number, arm))
                colour, marker = COLOURS[index % len(COLOURS)], MARKERS[index % len(MARKERS)]
            else:
                colour, marker = shade(number, len(runs)), MARKERS[number % len(MARKERS)]
            label = named(arm) if len(runs) == 1 else f"{run.name}: {named(arm)}"
            found.append(Line(run, arm, label, colour, DASHES[min(arms.index(arm), len(DASHES) - 1)], marker))
    return found


def shade(index: int, number: int) -> str:
    """The colour of one of `number` things in an order."""
    if number <= len(COLOURS):
        return COLOURS[index]
    return to_hex(colormaps["viridis"](0.8 * index / (number - 1)))


def named(arm: str) -> str:
    """`random_reinit` as `random reinit`."""
    return arm.replace("_", " ")
