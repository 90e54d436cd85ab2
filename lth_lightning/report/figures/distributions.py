"""Histograms of weights: the survivors' initial values, and how training moves them (LTH appendix F.1, F.2, F.5)."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from matplotlib.artist import Artist
from matplotlib.figure import Figure

from lth_lightning.report import weights
from lth_lightning.report.figure import Choice, Picture
from lth_lightning.report.figures import layers
from lth_lightning.report.figures.layers import FULL, Row
from lth_lightning.report.lines import COLOURS, DENSE, Line
from lth_lightning.report.style import below, few_ticks, styled
from lth_lightning.report.weights import Array

IN_TICKET = (0.169,)
"""Which ticket's weights are set apart from the others, unless the reader chooses a density."""

TICKET, OTHERS = "in the ticket", "others"
BLUE, GREY = COLOURS[0], DENSE
"""Of the two: the colour that tickets have in all figures, and that of the dense network."""

Measure = Callable[[Array, Array], Array]
"""Of initial and final values."""


class Histogram:
    """Counts of values that come replicate by replicate, so that none has to be kept.

    Args:
        edges: of the bins. Values beyond them are in no bin, but count in `density` and `mean`.
    """

    def __init__(self, edges: Array) -> None:
        self.edges = edges
        self.counts = np.zeros(len(edges) - 1)
        self.total = self.positive = self.replicates = 0
        self.sum = 0.0

    def add(self, values: Array) -> None:
        """Those of another replicate."""
        self.counts += np.histogram(values, self.edges)[0]
        self.total += values.size
        self.positive += int(np.count_nonzero(values > 0))
        self.sum += float(values.sum(dtype=float))
        self.replicates += 1

    @property
    def density(self) -> Array:
        """Counts / (number of values * width of the bin): the area is 1, less what lies beyond the edges."""
        found: Array = self.counts / (max(1, self.total) * np.diff(self.edges))
        return found

    @property
    def mean(self) -> float:
        return self.sum / max(1, self.total)

    @property
    def peak(self) -> float:
        """Where the density is highest."""
        place = int(self.counts.argmax())
        return float(self.edges[place] + self.edges[place + 1]) / 2

    @property
    def at_zero(self) -> float:
        """The density in the bins that touch zero / the highest."""
        touching = (self.edges[:-1] <= 0) & (self.edges[1:] >= 0)
        return float(self.counts[touching].mean() / max(1, self.counts.max()))


Drawn = dict[str, dict[str, Histogram]]
"""Of one run: by parameter, and by what a line in its panel shows."""


def initializations(lines: Sequence[Line], choice: Choice) -> Picture | None:
    """Densities of the initial values of the weights that survive (LTH Fig. 15 and 16, appendix F.1 and F.2).

    Values of rewind.pt, all replicates together. A panel for each layer and a line for each density, where the paper
    has a panel for each density and a line for each layer: so what pruning leaves of a layer is seen in one place.
    """
    found = {row: drawn for row in layers.rows(lines, choice) if (drawn := _initial_values(row))}
    if not found:
        return None
    at_start = all(weights.rewind_step(row.run) == 0 for row in found)
    with styled():
        colours = layers.shades(list(found))
        label = "initial value" if at_start else "value at the rewind point"
        figure = _draw(found, colours, label, {shown: f"{shown} of the weights" for shown in colours})
    return Picture(
        name="initializations",
        title="Initial values of the weights that survive",
        caption="Each line is the distribution of the initial values of the weights that a ticket keeps, an area of 1; "
        "the dense network's is filled with grey. Two peaks with a gap at zero: the ticket keeps weights that began "
        f"large. {_notes(found, lines)}",
        alt=layers.told([(row, _say_initial(row, drawn)) for row, drawn in found.items()]),
        paper="LTH Fig. 15, 16",
        figure=figure,
    )


def movement(lines: Sequence[Line], choice: Choice) -> Picture | None:
    """Densities of |w_T - w_0| in the dense network's training, in the ticket and not (LTH Fig. 19, appendix F.5).

    The paper: "Between the first and last training iteration of the unpruned network, the magnitude by which weights in
    the network change", orange for weights that are "in the eventual winning ticket" and blue for the others. So both
    come from level 0's training alone; the ticket only says which weights are which. Here tickets are blue throughout.
    """
    return _moves(
        lines,
        choice,
        lambda first, last: np.abs(last - first),
        "distance from initial to final value",
        lambda part: f"move by {part.mean:.2g} on average",
        name="movement",
        title="How far training moves a weight",
        reading="a line further to the right is of weights that move more",
        paper="LTH Fig. 19",
    )


def growth(lines: Sequence[Line], choice: Choice) -> Picture | None:
    """As `movement`, of |w_T| - |w_0|: whether weights move away from zero (LTH Fig. 20, appendix F.5)."""
    return _moves(
        lines,
        choice,
        lambda first, last: np.abs(last) - np.abs(first),
        "final less initial magnitude",
        lambda part: f"grow in magnitude in {part.positive / max(1, part.total):.0%} of cases",
        name="growth",
        title="Whether training moves a weight away from zero",
        reading="right of zero are weights that grow in magnitude, left of it those that shrink",
        paper="LTH Fig. 20",
    )


def _initial_values(row: Row) -> Drawn:
    drawn: Drawn = {}
    for replicate in row.replicates:
        masks = row.masks(replicate)
        start = weights.initial(row.run, replicate, row.layers) if masks else None
        for name, values in start.items() if start else ():
            if name not in drawn:
                smallest = len(row.replicates) * min(int(mask[name].sum()) for mask in masks.values())
                edges = _edges_in_deviations(values, smallest)
                drawn[name] = {label: Histogram(edges) for label in row.levels.values()}
            for level, mask in masks.items():
                drawn[name][row.levels[level]].add(values[mask[name]])
    return drawn


def _edges_in_deviations(values: Array, smallest: int) -> Array:
    """Bins of a quarter of the values' standard deviation, or of an eighth for large samples, within 4 of it."""
    deviation = float(values.std()) or 1.0
    width = deviation / (8 if smallest >= 2000 else 4)
    number = int(np.ceil(min(float(np.abs(values).max()), 4 * deviation) / width)) or 1
    edges: Array = width * np.arange(-number, number + 1)
    return edges


def _moves(
    lines: Sequence[Line], choice: Choice, measure: Measure, label: str, say: Callable[[Histogram], str], **words: str
) -> Picture | None:
    """A figure of `measure` in level 0's training, for the first pruned density that is asked for."""
    pruned = Choice(tuple(density for density in choice.densities if density < 1)[:1])
    found = {row: drawn for row in layers.rows(lines, pruned, IN_TICKET) if (drawn := _moved(row, measure))}
    if not found:
        return None
    with styled():
        sizes = " or ".join(dict.fromkeys(next(reversed(row.levels.values())) for row in found))
        names = {TICKET: f"weights that the ticket with {sizes} of them keeps", OTHERS: "other weights"}
        figure = _draw(found, {TICKET: BLUE, OTHERS: GREY}, label, names)
    caption = (
        f"What the training of the dense network does to the weights that the ticket with {sizes} of them will keep "
        f"(blue) and to the others (grey), each as a distribution: {words.pop('reading')}. "
        f"Up to 1% of either lie outside of a panel. {_notes(found, lines)}"
    )
    alt = layers.told(
        [
            (row, [f"in {row.labels[name]} weights in the ticket {say(parts[TICKET])}, others {say(parts[OTHERS])}"])
            for row, drawn in found.items()
            for name, parts in drawn.items()
        ]
    )
    return Picture(caption=caption, alt=alt, figure=figure, **words)


def _moved(row: Row, measure: Measure) -> Drawn:
    drawn: Drawn = {}
    for replicate in sorted(weights.finished(row.run, 0)):
        first = weights.mask(row.run, replicate, 0, row.layers)
        start = weights.initial(row.run, replicate, row.layers)
        end = weights.trained(row.run, replicate, 0, row.layers)
        if not (first and start and end):
            continue
        # Level 0 may be a ticket that was given: it has no others.
        for mask in [mask for level, mask in row.masks(replicate).items() if level > 0]:
            for name in row.layers:
                values = measure(start[name], end[name])
                parts = {TICKET: values[mask[name]], OTHERS: values[first[name] & ~mask[name]]}
                if name not in drawn:
                    edges = _edges_of_moves(list(parts.values()), len(row.replicates))
                    drawn[name] = {label: Histogram(edges) for label in parts}
                for label, part in parts.items():
                    drawn[name][label].add(part)
    return drawn


def _edges_of_moves(parts: Sequence[Array], replicates: int) -> Array:
    """Bins that hold all but the outermost hundredth of each part, 24 to 60 of them by Rice's rule.

    Of values of both signs zero is amid a bin: some weights never move, such as those of pixels that are always 0.
    """
    number = float(np.clip(2 * (replicates * min(part.size for part in parts)) ** (1 / 3), 24, 60))
    parts = [part for part in parts if part.size] or [np.zeros(1)]
    if all(float(part.min()) >= 0 for part in parts):
        return np.linspace(0, max(float(np.quantile(part, 0.99)) for part in parts) or 1.0, round(number) + 1)
    low = min(float(np.quantile(part, 0.005)) for part in parts)
    high = max(float(np.quantile(part, 0.995)) for part in parts)
    width = (high - low) / number or 1.0
    edges: Array = width * (np.arange(np.floor(low / width), np.ceil(high / width) + 2) - 0.5)
    return edges


def _draw(found: Mapping[Row, Drawn], colours: Mapping[str, str], label: str, names: Mapping[str, str]) -> Figure:
    """A line for each histogram; the dense network's filled."""
    figure, grid = layers.panels(list(found))
    handles: dict[str, Artist] = {}
    for (row, drawn), line in zip(found.items(), grid, strict=True):
        for number, (axes, name) in enumerate(zip(line, row.layers, strict=True)):
            for shown, histogram in drawn[name].items():
                if histogram.total:
                    is_dense = shown == FULL
                    handles[shown] = axes.stairs(
                        histogram.density,
                        histogram.edges,
                        color=colours[shown],
                        fill=is_dense,
                        alpha=0.45 if is_dense else None,
                        linewidth=0 if is_dense else 1.4,
                    )
            axes.set_title(layers.titled(row, row.labels[name], number, list(found)))
            axes.set_ylim(bottom=0)
            axes.set_xlabel(label)
            axes.set_ylabel("probability density")
            few_ticks(axes.xaxis)
    labels = [shown for shown in colours if shown in handles]
    below(figure, [handles[shown] for shown in labels], [names[shown] for shown in labels])
    return figure


def _notes(found: Mapping[Row, Drawn], lines: Sequence[Line]) -> str:
    first = [next(iter(drawn.values())) for drawn in found.values()]
    counts = [{label: histogram.replicates for label, histogram in histograms.items()} for histograms in first]
    notes = layers.notes(list(found), counts, lines)
    if steps := sorted({step for row in found if (step := weights.rewind_step(row.run))}):
        notes += f" Initial values are those at the rewind point, step {' and '.join(map(str, steps))}."
    return notes


def _say_initial(row: Row, drawn: Drawn) -> list[str]:
    said = []
    for name, histograms in drawn.items():
        known = {label: histogram for label, histogram in histograms.items() if histogram.total}
        places = [
            f"{label} of the weights peak at {part.peak:.2g} with {part.at_zero:.0%} of that height at zero"
            for label, part in known.items()
            if label in (next(iter(known)), next(reversed(known)))
        ]
        said.append(f"in {row.labels[name]} {' and '.join(places)}")
    return said
