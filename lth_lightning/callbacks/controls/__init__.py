"""Controls: what a ticket is compared with. One class each; add yours here, or give its import path in a config."""

from lth_lightning.callbacks.controls.base import Control
from lth_lightning.callbacks.controls.masks import RandomMask, ShuffledMask
from lth_lightning.callbacks.controls.searched import RandomPruning, SearchedAnew
from lth_lightning.callbacks.controls.survivors import (
    Noise,
    RandomReinit,
    Reshuffle,
    Rewound,
    SignedConstant,
    SignFlips,
    SurvivorReinit,
)

__all__ = [
    "Control",
    "Noise",
    "RandomMask",
    "RandomPruning",
    "RandomReinit",
    "Reshuffle",
    "Rewound",
    "SearchedAnew",
    "ShuffledMask",
    "SignFlips",
    "SignedConstant",
    "SurvivorReinit",
]
