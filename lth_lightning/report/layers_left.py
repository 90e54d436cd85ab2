"""What pruning leaves of each layer, as the page shows it, and a warning where that is next to nothing."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from lth_lightning.report import weights
from lth_lightning.report.figures import chosen
from lth_lightning.report.notes import at, listed
from lth_lightning.report.runs import Run
from lth_lightning.report.style import percent


@dataclass(frozen=True)
class Left:
    """Attributes:
    share: of the layer's weights, in percent, the mean over replicates.
    weights: their number.
    is_thin: whether a replicate has none left, or fewer than the layer has units.
    """

    share: str
    weights: str
    is_thin: bool


@dataclass(frozen=True)
class Layers:
    """A table of a run.

    Attributes:
        run: its name.
        levels: the columns: number and density of the whole network.
        rows: a layer's name, its number of weights, and what is left at each level; None where no mask is kept.
    """

    run: str
    levels: Sequence[tuple[int, str]]
    rows: Sequence[tuple[str, str, Sequence[Left | None]]]


def of_run(run: Run) -> tuple[Layers | None, list[str]]:
    """The table of a run, None where it holds no weights, and a warning for layers that are nearly or wholly gone."""
    found = weights.remaining(run)
    if found.empty:
        return None, []
    names = weights.layer_names(list(dict.fromkeys(found.layer)))
    sizes = weights.tickets(run).groupby("level").density.mean()
    densities = {int(level): float(sizes[level]) for level in sorted(set(found.level))}
    shown = list(dict.fromkeys([*chosen.levels(densities), max(densities)]))
    rows = []
    for layer, name in names.items():
        own = found[found.layer == layer]
        rows.append((name, f"{own['size'].iloc[0]:,}", [_left(own[own.level == level]) for level in shown]))
    return Layers(run.name, [(level, percent(densities[level])) for level in shown], rows), _warnings(found, names)


def _left(rows: pd.DataFrame) -> Left | None:
    if rows.empty:
        return None
    mean = rows.left.mean()
    number = f"{mean:,.0f}" if mean >= 10 or mean == int(mean) else f"{mean:,.1f}"
    share = percent(mean / rows["size"].iloc[0]) if mean else "0%"
    return Left(share, number, bool((rows.left < rows.units).any()))


def _warnings(found: pd.DataFrame, names: dict[str, str]) -> list[str]:
    gone, thin = found[found.left == 0], found[(found.left > 0) & (found.left < found.units)]
    lines = []
    for rows, words in ((gone, "no weight at all"), (thin, "fewer weights than units")):
        if len(rows):
            where = [f"{names[str(layer)]} ({at(own.level)})" for layer, own in rows.groupby("layer", sort=False)]
            lines.append(f"Nearly or wholly pruned layers: {words} left, in a replicate or more, in {listed(where)}.")
    return lines
