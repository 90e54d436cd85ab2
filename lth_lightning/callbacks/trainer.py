"""Turns any Trainer into one that serves a training of a run."""

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from lightning_fabric.plugins import TorchCheckpointIO
from pytorch_lightning import Callback, LightningDataModule, LightningModule, Trainer
from pytorch_lightning.callbacks import (
    BaseFinetuning,
    BatchSizeFinder,
    EarlyStopping,
    LearningRateFinder,
    ModelCheckpoint,
    ModelPruning,
    ModelSummary,
    ProgressBar,
    StochasticWeightAveraging,
    Timer,
    WeightAveraging,
)
from pytorch_lightning.core.optimizer import _MockOptimizer
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.strategies.launchers import _MultiProcessingLauncher
from pytorch_lightning.utilities import rank_zero_only

from lth_lightning.callbacks import loggers
from lth_lightning.callbacks.checkpoint_io import AtomicCheckpointIO
from lth_lightning.errors import UserError


def is_rank_zero() -> bool:
    """Whether this process is the one that writes and speaks."""
    return rank() == 0


def rank() -> int:
    """Which of the run's processes this is; known before any process group exists."""
    return int(getattr(rank_zero_only, "rank", 0))


def refuse_unfit(trainer: Trainer, model: LightningModule, rewind_step: int) -> None:
    """Raise UserError for Trainer settings and callbacks under which a run's promises cannot hold.

    Those that `model.configure_callbacks` brings are looked at, too.
    """
    if isinstance(trainer.strategy.launcher, _MultiProcessingLauncher):
        raise UserError(
            "Strategies that spawn or fork (ddp_spawn, ddp_fork, ddp_notebook) lose the callback's state between fits: "
            "use --trainer.strategy=ddp, which starts the command once a device."
        )
    # Where a time is given, Lightning sets no such attribute.
    if getattr(trainer, "val_check_interval", "a time") not in (None, 1.0):
        raise UserError(
            "trainer.val_check_interval counts batches, or is a time: set --pruning.evaluate_every, in steps, instead."
        )
    for flag in ("fast_dev_run", "barebones", "overfit_batches"):
        if getattr(trainer, flag, False):
            raise UserError(
                f"trainer.{flag} skips what a run consists of: set --trainer.max_steps to a few steps instead."
            )
    _refuse_callbacks(trainer, model, rewind_step)
    if trainer.accumulate_grad_batches < 1:
        raise UserError(f"trainer.accumulate_grad_batches is {trainer.accumulate_grad_batches}: give 1 batch or more.")
    clip = trainer.gradient_clip_val
    if clip is not None and not clip >= 0:
        raise UserError(f"trainer.gradient_clip_val is {clip}: give a number above 0, or drop it.")
    if trainer.max_steps == 0 or trainer.max_epochs == 0 or trainer.limit_train_batches == 0:
        raise UserError("A training of 0 steps finds no ticket: set --trainer.max_steps to 1 or more.")


def _refuse_callbacks(trainer: Trainer, model: LightningModule, rewind_step: int) -> None:
    model.trainer = trainer
    own = model.configure_callbacks()
    model.trainer = None
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    for callback in [*callbacks, *(own if isinstance(own, Sequence) else [own])]:
        name = type(callback).__name__
        if isinstance(callback, (EarlyStopping, Timer)):
            raise UserError(
                "Trainings of a run have their full length, and the early-stop step is found afterwards: "
                f"drop EarlyStopping and trainer.max_time (here: {name}), and set --trainer.max_steps."
            )
        if isinstance(callback, (StochasticWeightAveraging, WeightAveraging)):
            raise UserError(
                f"{name} evaluates and keeps averages of the weights, and a run prunes and rewinds the weights that "
                "are trained: drop it."
            )
        if isinstance(callback, ModelPruning):
            raise UserError(f"{name} would prune beside the run, whose counts would be wrong: drop it.")
        if isinstance(callback, (LearningRateFinder, BatchSizeFinder)):
            raise UserError(
                f"{name} would choose for each training anew, and trainings that are compared must not differ in that: "
                "find a value once, set it, and drop the callback."
            )
        if isinstance(callback, BaseFinetuning) and rewind_step:
            raise UserError(
                f"{name} gives the optimizer other parameters in the course of a training, so a training cannot begin "
                "at a later step: set --pruning.rewind_step 0, or drop it."
            )


def told_of_shared(trainer: Trainer, earlier: Trainer, loop: Callback) -> list[str]:
    """A line where a recipe for Trainers gives two of them the same callback; raises UserError for the same Trainer."""
    if trainer is earlier:
        raise UserError("make_trainer gives the same Trainer each time, which fits once: have it make a new one.")
    before: list[Callback] = earlier.callbacks  # type: ignore[attr-defined]
    theirs: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    names = [type(c).__name__ for c in theirs if c is not loop and any(c is other for other in before)]
    if not names:
        return []
    return [
        f"make_trainer gives each Trainer the same {' and '.join(names)}: what it keeps of one training reaches the "
        "next, and a resumed run differs. Make callbacks inside make_trainer."
    ]


@torch.no_grad()
def share_buffers(trainer: Trainer, model: LightningModule) -> None:
    """Have all ranks evaluate rank 0's buffers, such as a norm layer's statistics, with which its weights are kept.

    DistributedDataParallel does so before each training batch, and not before an evaluation.
    """
    own = dict(model.named_buffers())
    if trainer.world_size > 1 and own:
        for name, value in trainer.strategy.broadcast(own).items():
            if trainer.global_rank:
                own[name].copy_(value)


def refuse_no_optimizer(trainer: Trainer) -> None:
    """Raise UserError where nothing moves the weights of a fit that begins; Lightning counts its steps all the same."""
    if all(isinstance(optimizer, _MockOptimizer) for optimizer in trainer.optimizers):
        raise UserError("configure_optimizers gives no optimizer, so nothing would be trained: have it return one.")


def keep_fresh_optimizers(trainer: Trainer) -> None:
    """Have the optimizers of a fit that goes on from a checkpoint keep the state that they were made with.

    Their groups, and so their learning rates, are the checkpoint's. An optimizer may have a state from the beginning,
    such as Adagrad's first sums.
    """
    strategy = trainer.strategy
    load = strategy.load_optimizer_state_dict

    def load_groups(checkpoint: Mapping[str, Any]) -> None:
        pairs = zip(strategy.optimizers, checkpoint["optimizer_states"], strict=True)
        states = [{**saved, "state": optimizer.state_dict().get("state", {})} for optimizer, saved in pairs]
        load({**checkpoint, "optimizer_states": states})

    strategy.load_optimizer_state_dict = load_groups  # type: ignore[method-assign]


def refuse_schedules(trainer: Trainer, evaluate_every: int) -> None:
    """Raise UserError where a schedule of a fit that begins needs evaluations more often than there will be any."""
    batches = trainer.num_training_batches
    for config in trainer.lr_scheduler_configs:
        waits = config.reduce_on_plateau and config.interval == "epoch" and "val" in str(config.monitor)
        if waits and trainer.val_check_batch is not None and trainer.val_check_batch > batches * config.frequency:
            raise UserError(
                f"ReduceLROnPlateau waits for '{config.monitor}' at the end of an epoch of {batches} batches, but "
                f"evaluations come every {evaluate_every} steps: set --pruning.evaluate_every to an epoch or less."
            )


def refuse_workers(trainer: Trainer) -> None:
    """Raise UserError where trainings cannot be made side by side in processes of their own."""
    if trainer.world_size > 1 or trainer.strategy.root_device.type != "cpu":
        raise UserError(
            "Several workers train on the CPU, each by itself: set --trainer.accelerator cpu and --trainer.devices 1, "
            "or --workers 1."
        )


def wants_ordinary_batches(trainer: Trainer) -> str | None:
    """The Trainer flag that needs automatic optimization, one step a batch, or None."""
    if trainer.gradient_clip_val:
        return "gradient_clip_val"
    if trainer.accumulate_grad_batches != 1:
        return "accumulate_grad_batches"
    # The integer 1 is one batch, the float 1.0 all of them.
    if isinstance(trainer.limit_train_batches, int) or trainer.limit_train_batches != 1.0:
        return "limit_train_batches"
    return None


def numbers_files(trainer: Trainer) -> bool:
    """Whether something of the user's names its files by those that are there: two processes would take one name."""
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    return bool(loggers.own(trainer)) or any(isinstance(c, ModelCheckpoint) and not _default(c) for c in callbacks)


def evaluates_a_part(trainer: Trainer) -> str | None:
    """The Trainer flag by which evaluations leave batches out, or None."""
    for flag in ("limit_val_batches", "limit_test_batches"):
        limit = getattr(trainer, flag)
        if isinstance(limit, int) or limit != 1.0:
            return flag
    return None


def total_steps(trainer: Trainer, steps_per_epoch: int) -> int:
    """Optimizer steps of a training: the lower of max_steps and max_epochs."""
    limits = []
    if trainer.max_steps > 0:
        limits.append(trainer.max_steps)
    if trainer.max_epochs is not None and trainer.max_epochs > 0:
        limits.append(trainer.max_epochs * steps_per_epoch)
    if not limits:
        raise UserError("A training needs an end: set --trainer.max_steps or --trainer.max_epochs.")
    return min(limits)


def parameter_groups(trainer: Trainer) -> list[dict[str, Any]]:
    """Those of all optimizers."""
    return [group for optimizer in trainer.optimizers for group in optimizer.param_groups]


def learning_rates(trainer: Trainer) -> list[float]:
    """The present one of each parameter group."""
    return [float(group["lr"]) for group in parameter_groups(trainer)]


def set_end(trainer: Trainer, steps: int) -> None:
    """Have a training end after so many steps, whatever its length was."""
    trainer.fit_loop.epoch_loop.max_steps = steps
    trainer.fit_loop.max_epochs = -1


def adopt(
    trainer: Trainer,
    loop: Callback,
    logger: TensorBoardLogger | None,
    *,
    evaluate_every: int,
    long_steps: int | None,
    keep_display: bool = False,
) -> None:
    """Set `trainer` up for one training.

    Args:
        trainer: fresh, as the user's recipe made it; what they added to it stays.
        loop: the callback that drives the run.
        logger: the training's TensorBoard logger.
        evaluate_every: optimizer steps between evaluations.
        long_steps: for long batches the training's steps; None for ordinary batches.
        keep_display: leave Lightning's progress bar and summary on.
    """
    # Lightning's own display, checkpoints and loggers come with a bare `Trainer(max_steps=…)`; the run has its own.
    theirs: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    dropped = () if keep_display else (ProgressBar, ModelSummary)
    kept = [c for c in theirs if not isinstance(c, dropped) and not _default(c)]
    trainer.callbacks = [*kept, loop]  # type: ignore[attr-defined]
    trainer.loggers = loggers.own(trainer) + ([logger] if logger else [])
    trainer.num_sanity_val_steps = 0
    trainer.check_val_every_n_epoch = None
    if long_steps is None:
        trainer.val_check_interval = evaluate_every * trainer.accumulate_grad_batches
    else:
        # One Lightning epoch is the whole training, one batch an evaluation interval.
        trainer.val_check_interval = 1
        trainer.log_every_n_steps = 1  # type: ignore[attr-defined]
        set_end(trainer, long_steps)
    if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:
        trainer.strategy.checkpoint_io = AtomicCheckpointIO()
    # Lightning's SIGTERM handler broadcasts from inside the handler, which can meet another collective half way, and
    # loses the signal during a test. The command's own handler stays in force instead: files are whole at any moment.
    trainer._signal_connector.register_signal_handlers = lambda: None  # type: ignore[method-assign]


def leave_no_files(trainer: Trainer) -> None:
    """Set `trainer` up for an evaluation that reads a checkpoint and writes nothing where the command is typed."""
    # A module may ask for its logger: one that keeps nothing.
    trainer.loggers = [
        logger if logger in loggers.own(trainer) else loggers.MutedLogger(logger) for logger in trainer.loggers
    ]
    if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:
        trainer.strategy.checkpoint_io = AtomicCheckpointIO(for_weights=True)


@contextlib.contextmanager
def without_driver_checks() -> Iterator[None]:
    """Within it an optimizer's step does not look for a GPU's driver, where there is none.

    Each step of torch's optimizers asks whether there is a GPU. Lightning's import has torch ask NVML, lest CUDA is
    initialized before a fork; without a driver that takes some 60 microseconds, a twentieth of a LeNet's step.
    """
    name = "PYTORCH_NVML_BASED_CUDA_CHECK"
    before = os.environ.get(name)
    if before == "1" and not torch.cuda.is_available():
        os.environ[name] = "0"
    try:
        yield
    finally:
        if before is not None:
            os.environ[name] = before


def _default(callback: Callback) -> bool:
    """Whether it is the checkpoint callback that every Trainer makes for itself."""
    if type(callback) is not ModelCheckpoint:
        return False
    named = callback.dirpath or callback.filename or callback.monitor
    return not named and callback.save_top_k == 1 and callback.save_last is None


def gives(source: LightningDataModule | LightningModule, name: str) -> bool:
    """Whether `source` defines the hook `name`, such as `test_dataloader`, itself."""
    base = LightningDataModule if isinstance(source, LightningDataModule) else LightningModule
    # An object may have a hook that its class has not: `LightningDataModule.from_datasets` makes such ones.
    return name in vars(source) or getattr(type(source), name, None) is not getattr(base, name, None)
