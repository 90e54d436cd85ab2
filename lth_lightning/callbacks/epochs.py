"""A fit that goes on within an epoch goes on as if it had not been interrupted."""

import copy
from collections.abc import Callable
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import GradientAccumulationScheduler
from pytorch_lightning.trainer import call

from lth_lightning.callbacks.replay import EpochBatches
from lth_lightning.callbacks.trainer import gives, parameter_groups
from lth_lightning.pruning import snapshot


def begin_epochs_within(trainer: Trainer, loop: Callback, restore: Callable[[], None] | None) -> None:
    """Have a fit that goes on within an epoch call `on_train_epoch_start` first, and then `restore`.

    Lightning leaves the hook out where a fit goes on from a checkpoint of the middle of an epoch, which every ticket
    that rewinds to such a step does. A hook that freezes a norm layer, or begins a list, is needed all the same. What
    it does to the weights, the optimizers and their schedules was done before the checkpoint, so that is put back.

    Args:
        trainer: whose fit is about to start.
        loop: the run's own callback, whose hook seeds what the others draw.
        restore: puts back whatever else these hooks, and those of the fit's start, have changed; None where the
            checkpoint does not say what.
    """
    fit = trainer.fit_loop
    advance_starts = fit.on_advance_start

    def on_advance_start() -> None:
        is_within = fit.restarted_mid_epoch or fit.restarted_on_epoch_end
        advance_starts()
        if is_within:
            _begin_epoch(trainer, loop)
        if is_within and restore is not None:
            # Data sets may count or draw as they give the batches that this fit has had: before they are put back.
            for batches in getattr(getattr(fit._combined_loader, "_iterator", None), "iterators", []):
                if isinstance(batches, EpochBatches):
                    batches.skip()
            restore()

    fit.on_advance_start = on_advance_start  # type: ignore[method-assign]


def end_batches(trainer: Trainer, masks: Callable[[], None], ended: Callable[[], None], goes_on: bool) -> None:
    """Have each batch of a fit call `masks` when its hooks are over, and `ended` when all is over that follows it.

    What follows is an evaluation that is due, and schedules that wait for its metrics. A checkpoint of that moment
    lacks nothing that the module's own last hooks do.

    Args:
        trainer: whose fit is about to start.
        masks: called before an evaluation.
        ended: called after it.
        goes_on: whether the fit goes on from a checkpoint of such a moment.
    """
    fit, epoch = trainer.fit_loop, trainer.fit_loop.epoch_loop
    batch_ends, epoch_ends = epoch.on_advance_end, fit.on_advance_end

    def on_batch_over(fetcher: Any) -> None:
        if goes_on and epoch._skip_next_val:
            epoch._skip_next_val = False  # Lightning would do again what follows the checkpoint's batch
            return
        masks()
        batch_ends(fetcher)
        ended()

    def on_epoch_over() -> None:
        if goes_on:
            # Lightning leaves schedules that wait for metrics as they are, since its checkpoints have no metrics.
            fit._restarting = False
        epoch_ends()

    epoch.on_advance_end = on_batch_over  # type: ignore[method-assign,assignment]
    fit.on_advance_end = on_epoch_over  # type: ignore[method-assign]


def _begin_epoch(trainer: Trainer, loop: Callback) -> None:
    model: LightningModule = trainer.lightning_module
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    theirs = [c for c in callbacks if c is not loop and _needs_hook(c)]
    if not theirs and not gives(model, "on_train_epoch_start"):
        return
    weights = snapshot(model)
    groups = [{key: value for key, value in group.items() if key != "params"} for group in parameter_groups(trainer)]
    schedules = [config.scheduler for config in trainer.lr_scheduler_configs]
    places = [copy.deepcopy(schedule.state_dict()) for schedule in schedules]
    loop.on_train_epoch_start(trainer, model)
    for callback in theirs:
        callback.on_train_epoch_start(trainer, model)
    call._call_lightning_module_hook(trainer, "on_train_epoch_start")
    model.load_state_dict(weights)
    for schedule, place in zip(schedules, places, strict=True):
        schedule.load_state_dict(place)
    for group, before in zip(parameter_groups(trainer), groups, strict=True):
        group.update(before)


def _needs_hook(callback: Callback) -> bool:
    """Whether it is a hook of the user's own. Lightning's go on without, but for the one that sets a Trainer's flag."""
    owner = next(kind for kind in type(callback).__mro__ if "on_train_epoch_start" in vars(kind))
    return owner is GradientAccumulationScheduler or not owner.__module__.startswith("pytorch_lightning.")
