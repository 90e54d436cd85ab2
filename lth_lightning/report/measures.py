"""The numbers that claims are about, measured in runs: over all replicates, and in each by itself.

`claims.yaml` says what each measure does. To add one: a function that returns a `Rule`, and its name in `MEASURES`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import isclose, log
from statistics import fmean
from typing import Any

import pandas as pd

from lth_lightning.report.lines import named
from lth_lightning.report.runs import Run
from lth_lightning.report.weights import choose_levels, quantities

NEAR = log(1.12)
"""How far, in logarithms, a level's density may be from the one that a claim names: half a round of 20%."""

FEWEST_LEVELS = 3
"""Levels that anything about several of them needs."""

Check = Mapping[str, Any]

Row = Mapping[int, float]
"""A quantity by level."""


class CannotTellError(Exception):
    """The runs lack what a measure needs; the text says what."""


@dataclass(frozen=True)
class Measured:
    """A number of the means over replicates, and the same number in each replicate.

    Attributes:
        unit: how `shown` writes them.
        least, most: the number that further levels might still give; the number itself where they could not.
        reason: why they might give another.
    """

    value: float
    each: Sequence[float]
    unit: str
    least: float
    most: float
    reason: str = ""


@dataclass(frozen=True)
class Rule:
    """How a number comes from the levels of one arm, `base` being what it is held against, if anything.

    Attributes:
        levels: that it needs.
        number: of a replicate's row with these levels, its base, and the row of means over replicates.
        unit: of the number.
        is_open: whether further levels might give another number.
        reason: what to say then.
        rises: whether that would be a higher one.
    """

    levels: Sequence[int]
    number: Callable[[Row, float, Row], float]
    unit: str
    is_open: Callable[[Row, float], bool] = lambda row, base: False
    reason: str = ""
    rises: bool = True


@dataclass(frozen=True)
class Cells:
    """A quantity of one arm of a run.

    Attributes:
        name: of the arm.
        rows: for each replicate the means over its trials, by level, without those that are missing or diverged.
        density, weights: of each level, the weights being those that remain.
        endless: levels with a training whose validation loss was lowest at its last step, so that there is no early
            stop; empty for a quantity that does not need one.
    """

    name: str
    rows: Mapping[int, Row]
    density: Row
    weights: Row
    endless: Sequence[int] = ()

    def level(self, density: float) -> int:
        """The level nearest to a density; raises CannotTellError where none is near, or it has no early stop."""
        distance = {level: abs(log(there / density)) for level, there in self.density.items()}
        level = min(distance, key=lambda level: distance[level], default=None)
        if level is None or distance[level] > NEAR:
            raise CannotTellError(f"no {self.name} near {density:.1%} of the weights")
        self.check_end(level)
        return level

    def levels(self, check: Check, is_pruned: bool = False) -> list[int]:
        """The levels whose density is `between` those of the check, without the dense one if `is_pruned`.

        Raises CannotTellError where they are too few, or the run ends before them.
        """
        high, low = check.get("between", (1, 0))
        if ends := self.ends_before(low):
            raise CannotTellError(ends)
        near = 1e-9
        found = [level for level, density in sorted(self.density.items()) if low - near <= density <= high + near]
        found = [level for level in found if not (is_pruned and isclose(self.density[level], 1))]
        if len(found) < FEWEST_LEVELS:
            raise CannotTellError(f"levels of {self.name} there: {len(found)}, and it takes {FEWEST_LEVELS}")
        for level in found:
            self.check_end(level)
        return found

    def ends_before(self, density: float) -> str:
        """What to say where all levels are clearly denser; empty where they are not, and of density 0."""
        last = min(self.density.values(), default=0.0)
        is_short = density > 0 and last > 0 and log(last / density) > NEAR
        return f"{self.name} ends at {last:.1%} of the weights, before {density:.1%}" if is_short else ""

    def check_end(self, level: int) -> None:
        """Raise CannotTellError where a level has no early stop."""
        if level in self.endless:
            raise CannotTellError(
                f"the validation loss of {self.name} at level {level} was lowest at its last evaluation: too short"
            )


def cells(run: Run, arm: str, quantity: str, near: float | None = None) -> Cells:
    """The cells of a column of results.csv, or of a number computed from the weights (`weights.quantities`).

    The latter takes time: with a density that levels are to be `near`, only the nearest one is looked at.
    """
    rows = run.trained[run.trained.arm == arm]
    endless = []
    if quantity.startswith("early_stop"):
        at_end: Any = ((rows.early_stop_step == rows.steps) & (rows.steps > 0)).groupby(rows.level).any()
        endless = [int(level) for level, is_last in at_end.items() if is_last]
    source = rows
    if quantity not in rows:
        source = quantities(run, None if near is None else list(choose_levels(run, [near])))
        if source.empty:
            raise CannotTellError("the run's folder holds no weights")
    means: Any = source.dropna(subset=[quantity]).groupby(["replicate", "level"])[quantity].mean()
    by_replicate: dict[int, dict[int, float]] = {}
    for (replicate, level), value in means.items():
        by_replicate.setdefault(int(replicate), {})[int(level)] = float(value)
    by_level: Any = rows[["density", "weights_remaining"]].groupby(rows.level).mean()
    known = {level for row in by_replicate.values() for level in row}
    density, weights = (
        {int(level): float(value) for level, value in by_level[name].items() if level in known}
        for name in ("density", "weights_remaining")
    )
    return Cells(named(arm), by_replicate, density, weights, endless)


def measure(of: Cells, to: Cells | None, check: Check) -> Measured:
    """What a check measures, in the replicates that have all the levels it needs.

    Raises CannotTellError where there is none, or a level that it needs is missing.
    """
    rule = MEASURES[quantity_of(check)[0]](of, check)
    bases: Row = dict.fromkeys(of.rows, 0.0)
    if to is not None:
        at = to.level(check["to"]["density"])
        bases = {replicate: row[at] for replicate, row in to.rows.items() if at in row}
    rows = {replicate: row for replicate, row in of.rows.items() if replicate in bases and set(rule.levels) <= set(row)}
    if not rows:
        raise CannotTellError(f"no replicate has all levels of {of.name} that it takes")
    mean = {level: fmean(row[level] for row in rows.values()) for level in rule.levels}
    base = fmean(bases[replicate] for replicate in rows)
    value = rule.number(mean, base, mean)
    each = [rule.number(row, bases[replicate], mean) for replicate, row in rows.items()]
    if reason := of.ends_before(check.get("reach", 0)):
        return Measured(value, each, rule.unit, float("-inf"), float("inf"), reason)
    if not rule.is_open(mean, base):
        return Measured(value, each, rule.unit, value, value)
    ends = (value, float("inf")) if rule.rises else (float("-inf"), value)
    return Measured(value, each, rule.unit, *ends, rule.reason)


def compare(of: Cells, check: Check) -> Rule:
    """The quantity at one density, alone or against another."""
    level = of.level(check["of"]["density"])
    return Rule([level], lambda row, base, mean: _against(row[level], base, check), unit_of(check))


def extreme(of: Cells, check: Check) -> Rule:
    """The lowest or highest of the levels, as a number, against another, or as its level."""
    levels = of.levels(check)
    pick = max if check["find"] == "highest" else min
    gives_level = check.get("give") == "level"

    def best(row: Row) -> int:
        return pick(levels, key=lambda level: row[level])

    return Rule(
        levels,
        # A number is that of the means' best level: each replicate's own best would lie beside their mean.
        lambda row, base, mean: best(row) if gives_level else _against(row[best(mean)], base, check),
        unit_of(check),
        lambda row, base: "between" not in check and best(row) == levels[-1],
        f"the {check['find']} is at the run's last level, {levels[-1]}",
        rises=gives_level or check["find"] == "highest",
    )


def share(of: Cells, check: Check) -> Rule:
    """The percentage of levels at which `of` is lower or higher than the base."""
    levels = of.levels(check, is_pruned=True)
    return Rule(
        levels,
        lambda row, base, mean: 100 * fmean(_is_wanted(row[level], base, check) for level in levels),
        f"of {len(levels)} levels",
    )


def until(of: Cells, check: Check) -> Rule:
    """The sparsest level at which `of` is lower or higher than the base, or its weights; level 0 where it never is."""
    levels = of.levels(check, is_pruned=True)
    gives_weights = check.get("give") == "weights"

    def number(row: Row, base: float, mean: Row) -> float:
        level = max((level for level in levels if _is_wanted(row[level], base, check)), default=0)
        return of.weights.get(level, max(of.weights.values())) if gives_weights else level

    return Rule(
        levels,
        number,
        unit_of(check),
        lambda row, base: _is_wanted(row[levels[-1]], base, check),
        f"still so at the run's last level, {levels[-1]}",
        rises=not gives_weights,
    )


def trend(of: Cells, check: Check) -> Rule:
    """Spearman's rank correlation of the quantity with the level; 0 where it is the same at all."""
    levels = of.levels(check)

    def number(row: Row, base: float, mean: Row) -> float:
        correlation = pd.Series([row[level] for level in levels]).rank().corr(pd.Series(levels, dtype=float).rank())
        return 0.0 if pd.isna(correlation) else float(correlation)

    return Rule(levels, number, unit_of(check))


MEASURES: dict[str, Callable[[Cells, Check], Rule]] = {
    "compare": compare,
    "extreme": extreme,
    "share": share,
    "until": until,
    "trend": trend,
}

TRANSFORMS: dict[str, Callable[[float, float], float]] = {
    "sooner": lambda of, to: 100 * (1 - of / to),
    "times": lambda of, to: of / to,
    "points": lambda of, to: 100 * (of - to),
}


def quantity_of(check: Check) -> tuple[str, str]:
    """The measure of a check, and the quantity that it is about."""
    name = next(name for name in MEASURES if name in check)
    return name, check[name]


def unit_of(check: Check) -> str:
    """The unit of what a check measures, as `shown` takes it."""
    if "share" in check:
        return "of levels"
    if "trend" in check:
        return "rank"
    if "until" in check or "give" in check:
        return str(check.get("give", "level"))
    is_fraction = quantity_of(check)[1].endswith("_acc") or quantity_of(check)[1] == "grown"
    return "percent" if is_fraction and check["as"] == "value" else str(check["as"])


def _against(value: float, base: float, check: Check) -> float:
    if "to" in check:
        return TRANSFORMS[check["as"]](value, base)
    return 100 * value if unit_of(check) == "percent" else value


def _is_wanted(value: float, base: float, check: Check) -> bool:
    return value > base if check["want"] == "higher" else value < base
