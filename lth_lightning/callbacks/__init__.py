"""PruningLoop, the experiment's driver, and the controls it trains beside the tickets."""

from lth_lightning.callbacks.controls import (
    Control,
    Noise,
    RandomMask,
    RandomPruning,
    RandomReinit,
    Reshuffle,
    Rewound,
    SearchedAnew,
    ShuffledMask,
    SignedConstant,
    SignFlips,
    SurvivorReinit,
)
from lth_lightning.callbacks.display import Display
from lth_lightning.callbacks.pruning_loop import PruningLoop
from lth_lightning.callbacks.retraining import FineTune, LearningRateRewind, Retraining, Rewind
from lth_lightning.callbacks.start import Start

__all__ = [
    "Control",
    "Display",
    "FineTune",
    "LearningRateRewind",
    "Noise",
    "PruningLoop",
    "RandomMask",
    "RandomPruning",
    "RandomReinit",
    "Reshuffle",
    "Retraining",
    "Rewind",
    "Rewound",
    "SearchedAnew",
    "ShuffledMask",
    "SignFlips",
    "SignedConstant",
    "Start",
    "SurvivorReinit",
]
