"""Criteria: which weights go. One class each; add yours as a file here, or give its import path in a config."""

from lth_lightning.pruning.criteria.base import Criterion, Evidence, Score
from lth_lightning.pruning.criteria.deconstructing import (
    LargeFinalSameSign,
    LargeInit,
    LargeInitLargeFinal,
    MagnitudeIncrease,
    Movement,
    SmallFinal,
    SmallInit,
    SmallInitSmallFinal,
)
from lth_lightning.pruning.criteria.delft import RandomButOutput
from lth_lightning.pruning.criteria.grasp import GraSP
from lth_lightning.pruning.criteria.plain import Magnitude, Random
from lth_lightning.pruning.criteria.snip import SNIP
from lth_lightning.pruning.criteria.synflow import SynFlow

__all__ = [
    "SNIP",
    "Criterion",
    "Evidence",
    "GraSP",
    "LargeFinalSameSign",
    "LargeInit",
    "LargeInitLargeFinal",
    "Magnitude",
    "MagnitudeIncrease",
    "Movement",
    "Random",
    "RandomButOutput",
    "Score",
    "SmallFinal",
    "SmallInit",
    "SmallInitSmallFinal",
    "SynFlow",
]
