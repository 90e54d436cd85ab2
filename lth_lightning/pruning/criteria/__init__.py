"""Criteria: which weights go. One class each; add yours as a file here, or give its import path in a config."""

from lth_lightning.pruning.criteria.base import Criterion, Evidence, Score
from lth_lightning.pruning.criteria.plain import Magnitude, Random

__all__ = ["Criterion", "Evidence", "Magnitude", "Random", "Score"]
