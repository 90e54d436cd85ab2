"""Whether Lightning has anything to do around each optimizer step of manual optimization; it costs 6% of a LeNet's."""

import pytorch_lightning as pl
from pytorch_lightning.plugins.precision import Precision
from pytorch_lightning.profilers import PassThroughProfiler
from pytorch_lightning.strategies import SingleDeviceStrategy

HOOKS = ("on_before_backward", "on_after_backward", "on_before_optimizer_step", "on_before_zero_grad")


def attends_steps(trainer: pl.Trainer) -> bool:
    """Whether steps must go through Lightning: several devices, a precision or a profiler of its own, or a hook.

    Where they need not, `loss.backward()` and the bare optimizer do the same, bit for bit, with `count_steps` after.
    """
    module = trainer.lightning_module
    return (
        type(trainer.strategy) is not SingleDeviceStrategy
        or type(trainer.precision_plugin) is not Precision
        or type(trainer.profiler) is not PassThroughProfiler  # type: ignore[attr-defined]
        or any(_overrides(module, hook, pl.LightningModule) for hook in (*HOOKS, "backward", "manual_backward"))
        or any(_overrides(callback, hook, pl.Callback) for callback in trainer.callbacks for hook in HOOKS)  # type: ignore[attr-defined]
    )


def _overrides(owner: object, name: str, base: type) -> bool:
    return name in vars(owner) or getattr(type(owner), name) is not getattr(base, name)


def count_steps(trainer: pl.Trainer, steps: int) -> None:
    """Advance Lightning's step counter, `trainer.global_step`, past optimizer steps that it has not seen."""
    progress = trainer.fit_loop.epoch_loop.manual_optimization.optim_step_progress
    for count in (progress.total, progress.current):
        count.ready += steps
        count.completed += steps
