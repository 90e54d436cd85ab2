"""Which levels of a run are shown where there is room for a few."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

PAPER = (1.0, 0.513, 0.211, 0.070, 0.036, 0.019)
"""The densities of LTH Fig. 3 and 11."""

NEAR = 1.15
"""A level stands for a density if they differ by no more than this factor, half a round that leaves 80%, or a bit."""

FEW = 3


def levels(densities: Mapping[int, float], wanted: Sequence[float] = ()) -> list[int]:
    """Of the levels that have these densities, those nearest to the `wanted` ones, each once, the densest first.

    Where nothing is wanted: those at the paper's densities; of a run that has hardly any of them, levels evenly apart.
    """
    if not densities:
        return []
    in_order = sorted(densities, key=lambda level: -densities[level])
    if wanted:
        return _in_order(in_order, {_nearest(densities, density) for density in wanted})
    found = {density: _nearest(densities, density) for density in PAPER}
    there = {level for density, level in found.items() if is_near(densities[level], density)}
    if len(there) >= min(FEW, len(in_order)):
        return _in_order(in_order, there)
    places = np.linspace(0, len(in_order) - 1, min(len(PAPER), len(in_order)))
    return [in_order[round(place)] for place in places]


def nearest(densities: Iterable[float], wanted: float) -> float:
    """The one that differs by the smallest factor."""
    return min(densities, key=lambda density: abs(np.log(density / wanted)))


def is_near(density: float, wanted: float) -> bool:
    """Whether a level of this density stands for the one that is wanted."""
    return 1 / NEAR <= density / wanted <= NEAR


def _nearest(densities: Mapping[int, float], density: float) -> int:
    return min(densities, key=lambda level: abs(np.log(densities[level] / density)))


def _in_order(levels: Sequence[int], some: set[int]) -> list[int]:
    return [level for level in levels if level in some]
