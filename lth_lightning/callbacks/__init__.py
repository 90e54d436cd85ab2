"""PruningLoop, the experiment's driver, and the controls it trains beside the tickets."""

from lth_lightning.callbacks.controls import Control, RandomMask, RandomReinit, Start
from lth_lightning.callbacks.display import Display
from lth_lightning.callbacks.pruning_loop import PruningLoop

__all__ = ["Control", "Display", "PruningLoop", "RandomMask", "RandomReinit", "Start"]
