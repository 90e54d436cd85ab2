"""How evenly the survivors are spread over units (LTH Fig. 21 to 24, appendix F.6)."""

from collections.abc import Sequence

import numpy as np
from matplotlib.artist import Artist
from matplotlib.figure import Figure

from lth_lightning.report.figure import Choice, Picture
from lth_lightning.report.figures import layers
from lth_lightning.report.figures.layers import FULL, Row
from lth_lightning.report.lines import Line
from lth_lightning.report.style import below, styled
from lth_lightning.report.weights import Array, surviving

INCOMING, OUTGOING = 0, 1
"""Axes of a weight."""

Fractions = dict[str, dict[str, tuple[Array, Array]]]
"""Of one run, by parameter and by density: what survives of each unit's weights, sorted, [replicates, units]; and the
same of a random mask."""


def incoming(lines: Sequence[Line], choice: Choice) -> Picture | None:
    """The fraction of each unit's incoming weights that survive, units sorted by it (LTH Fig. 21 and 22).

    The paper draws the distribution of these fractions; sorted, the same numbers show single units too.
    """
    return _picture(
        lines,
        choice,
        INCOMING,
        ("into the units of {}", "units of the layer"),
        name="incoming",
        title="Incoming weights of each unit that survive",
        paper="LTH Fig. 21, 22",
    )


def outgoing(lines: Sequence[Line], choice: Choice) -> Picture | None:
    """As `incoming`, of the weights that go out from a layer's inputs: pixels, or units before it (LTH Fig. 23, 24)."""
    return _picture(
        lines,
        choice,
        OUTGOING,
        ("from the inputs of {}", "inputs of the layer"),
        name="outgoing",
        title="Outgoing weights of each unit that survive",
        paper="LTH Fig. 23, 24",
    )


def _picture(lines: Sequence[Line], choice: Choice, axis: int, units: tuple[str, str], **words: str) -> Picture | None:
    found = {row: fractions for row in layers.rows(lines, choice) if (fractions := _fractions(row, axis))}
    if not found:
        return None
    with styled():
        figure = _draw(found, units)
    counts = [
        {label: len(measured) for label, (measured, _) in next(iter(fractions.values())).items()}
        for fractions in found.values()
    ]
    way = "come into" if axis == INCOMING else "go out from"
    caption = (
        f"Of the weights that {way} each unit, the percentage that the ticket keeps, from the best connected unit to "
        "the worst: means over replicates, and their range. Where units keep alike the line is flat; dotted lines are "
        "for as many weights at random places, so only what is steeper than these is more than chance. "
        f"{layers.notes(list(found), counts, lines)}"
    )
    alt = layers.told([(row, _say(row, fractions, units[0])) for row, fractions in found.items()])
    return Picture(caption=caption, alt=alt, figure=figure, **words)


def _fractions(row: Row, axis: int) -> Fractions:
    # The numbers are for the eye; the same ones each time.
    random = np.random.default_rng(0)
    rows: dict[str, dict[str, list[tuple[Array, Array]]]] = {}
    for replicate in row.replicates:
        for level, mask in row.masks(replicate).items():
            for name, part in mask.items():
                # A dense network's are all 1.
                if row.levels[level] != FULL:
                    pair = np.sort(surviving(part, axis))[::-1], _by_chance(part, axis, random)
                    rows.setdefault(name, {}).setdefault(row.levels[level], []).append(pair)
    return {
        name: {
            label: (np.array([pair[0] for pair in by_label[label]]), np.array([pair[1] for pair in by_label[label]]))
            for label in row.levels.values()
            if label in by_label
        }
        for name, by_label in rows.items()
    }


def _by_chance(part: Array, axis: int, random: np.random.Generator) -> Array:
    """What `surviving` gives, sorted, for a mask with as many survivors at random places."""
    units = part.shape[axis]
    size = part.size // units
    counts = random.multivariate_hypergeometric([size] * units, int(np.count_nonzero(part)), method="marginals")
    fractions: Array = np.sort(counts)[::-1] / size
    return fractions


def _draw(found: dict[Row, Fractions], units: tuple[str, str]) -> Figure:
    figure, grid = layers.panels(list(found))
    colours = layers.shades(list(found))
    handles: dict[str, Artist] = {}
    for (row, fractions), line in zip(found.items(), grid, strict=True):
        for number, (axes, name) in enumerate(zip(line, row.layers, strict=True)):
            for label, (measured, chance) in fractions[name].items():
                edges = np.linspace(0, 100, measured.shape[1] + 1)
                colour, low, high = colours[label], 100 * measured.min(0), 100 * measured.max(0)
                handles[label] = axes.stairs(100 * measured.mean(0), edges, baseline=None, color=colour, linewidth=1.4)
                axes.stairs(high, edges, baseline=low, color=colour, fill=True, alpha=0.25, linewidth=0)
                axes.stairs(100 * chance.mean(0), edges, baseline=None, color=colour, linewidth=1, linestyle=":")
            axes.set_title(layers.titled(row, units[0].format(row.labels[name]), number, list(found)))
            axes.set_ylim(0, 100)
            axes.set_xlabel(f"{units[1]}, sorted (%)")
            axes.set_ylabel("weights surviving (%)")
    labels = [label for label in colours if label in handles]
    below(figure, [handles[label] for label in labels], [f"{label} of the weights" for label in labels])
    return figure


def _say(row: Row, fractions: Fractions, title: str) -> list[str]:
    said = []
    for name, by_label in fractions.items():
        label, (measured, _) = next(reversed(by_label.items()))
        curve = measured.mean(0)
        tenth = max(1, len(curve) // 10)
        said.append(
            f"{title.format(row.labels[name])}, at {label} of the weights, the best connected tenth keeps "
            f"{curve[:tenth].mean():.0%} and the worst tenth {curve[-tenth:].mean():.0%}"
        )
    return said
