"""What figures of weights share: a row of panels for each run, a panel for each layer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lth_lightning.report import weights
from lth_lightning.report.figure import Choice
from lth_lightning.report.lines import Line, densities
from lth_lightning.report.runs import Run
from lth_lightning.report.style import PANEL, broken, percent
from lth_lightning.report.weights import Arrays

ROWS = 3
"""The most runs that a figure of weights shows."""

LETTERS = 40
"""The most in a row above a panel."""

FULL = percent(1.0)
"""Its label."""


@dataclass(frozen=True, eq=False)
class Row:
    """What a row of panels shows.

    Attributes:
        run: whose weights.
        levels: what is drawn: the percent of weights remaining, by level; at least one of them is pruned.
        layers: masks of the layers that are drawn, which say their shapes.
        labels: what all prunable layers are called above their panels, by parameter.
        trainings: the replicates that have finished each level.
    """

    run: Run
    levels: dict[int, str]
    layers: Arrays
    labels: dict[str, str]
    trainings: dict[int, set[int]]

    @property
    def replicates(self) -> list[int]:
        return sorted(set().union(*self.trainings.values()))

    @property
    def is_dense_at_first(self) -> bool:
        """Whether level 0 is a dense network, and not a ticket that was given."""
        first = weights.tickets(self.run).query("level == 0").density
        return first.empty or bool(first.min() >= 1)

    def masks(self, replicate: int) -> dict[int, Arrays]:
        """The masks of one replicate at `levels`, as far as they are there and whole."""
        done = [level for level in self.levels if replicate in self.trainings[level]]
        found = {level: weights.mask(self.run, replicate, level, self.layers) for level in done}
        return {level: mask for level, mask in found.items() if mask}


def rows(lines: Sequence[Line], choice: Choice, usual: Sequence[float] = weights.DENSITIES) -> list[Row]:
    """The first runs that hold weights and have pruned some, at levels near the `usual` densities, or the reader's."""
    found = (row for run in _runs(lines) if (row := _row(run, choice.densities or usual)))
    return list(islice(found, ROWS))


def _runs(lines: Sequence[Line]) -> list[Run]:
    return list({line.run.folder: line.run for line in lines}.values())


def _row(run: Run, wanted: Sequence[float]) -> Row | None:
    chosen = weights.choose_levels(run, wanted) if weights.has_weights(run) else {}
    if min(chosen.values(), default=1.0) >= 1:
        return None
    # What would have the same label is one line.
    levels = {level: percent(density) for density, level in {percent(d): (d, n) for n, d in chosen.items()}.values()}
    trainings = {level: weights.finished(run, level) for level in levels}
    for level, replicates in trainings.items():
        for replicate in sorted(replicates):
            if mask := weights.mask(run, replicate, level):
                drawn = {name: mask[name] for name in weights.shown(list(mask))}
                return Row(run, levels, drawn, weights.layer_titles(mask), trainings)
    return None


def panels(found: Sequence[Row]) -> tuple[Figure, list[list[Axes]]]:
    """A figure with a line of axes for each `Row`, one for each of its layers."""
    columns = max(len(row.layers) for row in found)
    figure = Figure(figsize=(PANEL[0] * columns, PANEL[1] * len(found)))
    grid = figure.subplots(len(found), columns, squeeze=False)
    for row, line in zip(found, grid, strict=True):
        for unused in line[len(row.layers) :]:
            unused.set_visible(False)
    return figure, [list(line[: len(row.layers)]) for row, line in zip(found, grid, strict=True)]


def titled(row: Row, title: str, number: int, found: Sequence[Row]) -> str:
    """A panel's title, with the run's name in the first panel of a row where there are several."""
    title = broken(title, LETTERS)
    return f"{row.run.name}\n{title}" if len(found) > 1 and number == 0 else title


def shades(found: Sequence[Row]) -> dict[str, str]:
    """A colour for each label of all rows: the sparser the darker, grey for a dense network's."""
    return densities([label for row in found for label in row.levels.values()], FULL)


def notes(found: Sequence[Row], counts: Sequence[Mapping[str, int]], lines: Sequence[Line]) -> str:
    """Sentences for a caption: whose weights, of how many replicates, which layers, and what is missing.

    Args:
        found: the rows that are drawn.
        counts: by what a line shows, of how many replicates, for each row.
        lines: of the report.
    """
    several = len(_runs(lines)) > 1
    together = []
    for row, by_line in zip(found, counts, strict=True):
        most = len(row.replicates)
        fewer = ", ".join(f"{number} at {label}" for label, number in by_line.items() if number < most)
        text = f"{most} replicate{'' if most == 1 else 's'}{f' ({fewer})' if fewer else ''}"
        together.append(f"{row.run.name}, {text}" if several else text)
    said = [f"Weights of {'; '.join(together)}."]
    drawn = {row.run.folder for row in found}
    if others := [run.name for run in _runs(lines) if run.folder not in drawn]:
        listed = ", ".join(others) if len(others) <= 5 else f"{', '.join(others[:4])} and {len(others) - 4} more"
        said.append(f"Not drawn, since they hold no pruned weights or come fourth or later: {listed}.")
    if more := sorted({len(row.labels) for row in found if len(row.labels) > len(row.layers)}):
        said.append(f"Of {' and '.join(map(str, more))} prunable layers the first, the middle and the last are drawn.")
    if not all(row.is_dense_at_first for row in found):
        said.append("A run that starts from a ticket has no dense network: its first level stands in for it.")
    return " ".join(said)


def told(parts: Sequence[tuple[Row, Sequence[str]]]) -> str:
    """An alternative text of clauses, each a sentence; the run is named where there are several."""
    several = len({row for row, _ in parts}) > 1
    sentences = [(row.run.name, f"{clause[0].upper()}{clause[1:]}.") for row, said in parts for clause in said]
    return " ".join(f"{name}: {sentence}" if several else sentence for name, sentence in sentences)
