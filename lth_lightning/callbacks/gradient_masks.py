"""What automatic optimization needs besides the mask on the weights."""

from typing import TYPE_CHECKING, Any

from pytorch_lightning import Callback, LightningModule, Trainer

if TYPE_CHECKING:
    from lth_lightning.callbacks.pruning_loop import PruningLoop


class GradientMasks(Callback):
    """Keeps the gradients of pruned weights out of a clip by norm, which comes after this hook.

    Not part of PruningLoop: under manual optimization nothing is clipped, and a hook that is there would be called at
    every step.
    """

    def __init__(self, loop: "PruningLoop") -> None:
        self._loop = loop

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
        if pl_module.automatic_optimization:
            self._loop.keeper.mask_gradients()
