"""What is wrong with a run's settings, told before a folder is claimed: a small function for each mistake.

Each raises UserError. Those that return lines instead say what a run will lack, and it goes on.
"""

import copy
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import torch
from pytorch_lightning import LightningDataModule, LightningModule, Trainer
from torch import Tensor

from lth_lightning.callbacks import limits
from lth_lightning.callbacks import trainer as trainers
from lth_lightning.callbacks.controls import Control
from lth_lightning.callbacks.freshness import is_constant
from lth_lightning.callbacks.maker import Maker
from lth_lightning.callbacks.metrics import check_fractions, find, forms
from lth_lightning.callbacks.rehearsal import STEPS, logged
from lth_lightning.callbacks.retraining import Retraining
from lth_lightning.callbacks.samples import loss_of
from lth_lightning.callbacks.start import Start, checked_start
from lth_lightning.errors import UserError
from lth_lightning.models import Classifier, Supermask
from lth_lightning.pruning import Criterion, Mask, Schedule, Score, Ticket, snapshot
from lth_lightning.pruning.criteria.base import Samples
from lth_lightning.pruning.layers import others
from lth_lightning.pruning.mask import ELEMENTWISE
from lth_lightning.pruning.rewind import same_values
from lth_lightning.signatures import check_signature

if TYPE_CHECKING:
    from lth_lightning.callbacks.pruning_loop import PruningLoop


def refuse_supermask(model: LightningModule, schedule: Schedule, loop: "PruningLoop") -> None:
    """A Supermask has nothing to prune."""
    if isinstance(model, Supermask) and (schedule.levels[-1] > 0 or loop.kernels != "masked"):
        raise UserError(
            "A Supermask learns its mask in one training: set --pruning.levels 0, and drop pruning.kernels."
        )


def refuse_frozen_search(loop: "PruningLoop") -> None:
    """Where pruned weights are frozen, only tickets are searched."""
    if loop.pruned != "zero" and any(control.score for control in loop.controls):
        raise UserError("A control that searches its own masks prunes to zero: drop it, or set pruning.pruned zero.")


def refuse_other_state(model: LightningModule, schedule: Schedule) -> None:
    """Its state dict must hold its parameters as they are: a run saves and rewinds what it finds there."""
    state, pruned = model.state_dict(), _pruned(schedule)
    for name, parameter in model.named_parameters():
        value = state.get(name)
        if parameter.requires_grad or name in pruned:
            if not isinstance(value, Tensor):
                how = "leaves out or renames"
            elif value.dtype != parameter.dtype or not same_values(value, parameter):
                how = "changes"
            else:
                continue
            raise UserError(
                f"The state dict of {type(model).__name__} {how} '{name}', so a run could not keep and rewind it: let "
                "its state_dict hold all parameters as they are (on_save_checkpoint may leave parts out of files)."
            )


def refuse_no_data(model: LightningModule, datamodule: LightningDataModule | None) -> None:
    """There must be a train loader."""
    if datamodule is None and not trainers.gives(model, "train_dataloader"):
        raise UserError("There is no data to train on: name a data module, such as --data MNIST or --data Digits.")


def refuse_for_own_networks(model: LightningModule, loop: "PruningLoop", maker: Maker) -> None:
    """What this package can do with its own networks alone."""
    if loop.test_curve and not maker.can_be_long(model):
        raise UserError(
            "pruning.test_curve needs one of this package's networks and data sets: drop it, or log test_loss in "
            "your module's validation_step."
        )
    if loop.compile and not isinstance(model, Classifier):
        raise UserError("pruning.compile is for this package's networks: compile your own module's inside it.")
    if loop.retrain.uses_rates and not (model.automatic_optimization or isinstance(model, Classifier)):
        raise UserError("FineTune holds the learning rate, and a module that steps its own schedules would move it.")


def check_optimizer(model: LightningModule, trainer: Trainer) -> None:
    """Make the optimizer of a throwaway model of this package, so that a wrong setting is told."""
    if not _makes_one_optimizer(model):
        return
    try:
        made: Any = model.configure_optimizers()
        optimizer: torch.optim.Optimizer = made["optimizer"]
    except (ValueError, TypeError) as error:
        raise UserError(f"The optimizer or its schedule does not work: {error}") from None
    if trainer.gradient_clip_val and "mixed" in str(trainer.precision) and optimizer.defaults.get("fused"):
        raise UserError(
            "Lightning clips no gradients of a fused optimizer under mixed precision: "
            "set --model.optimizer.init_args.fused false."
        )


def check_steps(model: LightningModule, trainer: Trainer, steps: int | None) -> None:
    """The optimizer of a network of this package must step, and its schedule last, for a training of `steps`."""
    if _makes_one_optimizer(model):
        limits.check_steps(model, trainer, steps)


def _makes_one_optimizer(model: LightningModule) -> bool:
    return getattr(type(model), "configure_optimizers", None) is Classifier.configure_optimizers


def check_kernels(model: LightningModule, trainer: Trainer, maker: Maker, mask: Mask) -> None:
    """The network, its optimizer and the device must go with pruning.kernels; `mask` is level 0's."""
    kernels = maker.loop.kernels
    if kernels == "csr" and (trainer.strategy.root_device.type != "cpu" or trainer.precision != "32-true"):
        raise UserError("pruning.kernels csr is for CPUs, in float32: set --trainer.accelerator cpu, or drop it.")
    if kernels == "masked":
        return
    made: Any = model.configure_optimizers()
    optimizer: Any = made.get("optimizer") if isinstance(made, dict) else made
    if type(optimizer).__name__ not in ELEMENTWISE:
        raise UserError(
            f"pruning.kernels {kernels} needs one optimizer that moves each weight by itself, such as Adam, and "
            f"configure_optimizers gives {type(optimizer).__name__}: use masked."
        )
    if kernels == "compact" and any(group.get("weight_decay") for group in optimizer.param_groups):
        raise UserError(
            "pruning.kernels compact leaves dead weights as they are, and weight decay would not: use another."
        )
    maker.shrink(copy.deepcopy(model), mask)


def check_signatures(loop: "PruningLoop") -> None:
    """What a run calls of classes of somebody's own must take what it gives."""
    check_signature(loop.retrain.start, Retraining.start)
    for control in loop.controls:
        check_signature(control.start, Control.start)
    for score in (loop.score, *(control.score for control in loop.controls if control.score)):
        check_signature(score.scores, Criterion.scores)
        if isinstance(score, Score):
            check_signature(score.__call__, Score.__call__)


def try_controls(loop: "PruningLoop", model: LightningModule, schedule: Schedule, ticket: Ticket | None) -> None:
    """Ask every control of somebody's own once for a start, from the first mask that magnitude would cut.

    A copy of it is asked, so that one that counts its calls starts at 0 in the run. A bug in it keeps its traceback.
    """
    weights = {**snapshot(model, "cpu"), **(ticket.weights if ticket else {})}
    mask = {**schedule.dense_mask(model), **(ticket.mask if ticket else {})}
    for control in loop.controls:
        if type(control).__module__.startswith("lth_lightning."):
            continue
        # Stirred, for an initialization may be constant.
        trained = _stirred(weights, torch.Generator().manual_seed(0))
        cut = schedule.prune(1, mask, trained, weights) if schedule.levels[-1] else mask
        start = copy.deepcopy(control).start
        checked_start(start, Start(cut, weights, loop.rewind_step), weights, torch.Generator().manual_seed(0))


def try_criteria(
    loop: "PruningLoop", model: LightningModule, schedule: Schedule, ticket: Ticket | None, samples: Samples
) -> None:
    """Ask every criterion of the run for scores once: one that cannot score this network is told before level 0.

    Weights that training will move are stirred: at the initialization itself a criterion that compares the two would
    find them all equal.
    """
    if not schedule.levels[-1]:
        return
    generator = torch.Generator().manual_seed(0)
    first = {**snapshot(model, "cpu"), **(ticket.weights if ticket else {})}
    mask = {**schedule.dense_mask(model), **(ticket.mask if ticket else {})}
    trained = _stirred(first, generator)
    initial = trained if loop.rewind_step else first
    final = {**(_stirred(trained, generator) if loop.rewind_step else trained)}
    final |= {name: final[name] * part for name, part in mask.items()}
    for score in [loop.score, *(control.score for control in loop.controls if control.score)]:
        given = samples
        if score.samples:
            # Here, so that a bug in somebody's own data keeps its traceback.
            batch = samples(score.samples, generator)
            given = lambda *_, batch=batch: batch  # noqa: E731
        evidence = schedule.evidence(mask, final, initial, generator, lambda: model, given, loss_of(model))
        _try(score, partial(schedule.check_scores, score, evidence))


def _try(score: Criterion, action: Callable[[], None]) -> None:
    is_own = type(score).__module__.startswith("lth_lightning.")
    try:
        action()
    except UserError:
        raise
    except Exception as error:
        if not is_own:
            raise  # somebody's own criterion: they need to see where it failed
        text = str(error).strip().splitlines()
        reason = f"{type(error).__name__}: {text[0]}" if text else type(error).__name__
        raise UserError(
            f"{type(score).__name__} cannot score this network ({reason}): use another criterion."
        ) from error


def _stirred(weights: dict[str, Any], generator: torch.Generator) -> dict[str, Any]:
    """The weights after a little of something like training."""

    def stir(value: Any) -> Any:
        if not isinstance(value, Tensor) or not value.is_floating_point() or value.numel() == 0:
            return value
        if value.layout != torch.strided:
            return value  # no layer's
        scale = 0.01 * value.abs().mean() + 1e-4
        return value + scale * torch.randn(value.shape, generator=generator, dtype=value.dtype)

    return {name: stir(value) for name, value in weights.items()}


def told_of_others(model: LightningModule, schedule: Schedule) -> list[str]:
    """A line on the weights that are neither pruned nor counted, where there are such."""
    if isinstance(model, Supermask):
        return []  # the scores of its mask
    left = others(model)
    if not left:
        return []
    names = list(left)
    shown = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
    number = sum(parameter.numel() for parameter in left.values())
    return [
        f"Neither pruned nor counted, since they are no Linear or Conv layer's: {number:,} weights ({shown}). "
        f"Densities are of the other {schedule.total:,}."
    ]


def told_of_grid(schedule: Schedule, grid: Sequence[float] | None) -> list[str]:
    """A line where a level's density is not that of the grid, which is of the layers with the largest rate."""
    fastest = max(pool.rate for pool in schedule.pools)
    members = {name for pool in schedule.pools if pool.rate == fastest for name in pool.members}
    kinds = sorted({layer.kind for layer in schedule.layers if layer.name in members})
    less = "" if len(members) == len(schedule.layers) and not schedule.unpruned else ", and others lose less"
    for level, wanted in enumerate(grid or (), start=1):
        density = schedule.density(level)
        if f"{density:.1%}" != f"{wanted:.1%}":
            return [
                f"Level {level} has {density:.1%} of all weights: the grid's {wanted:g} is what is left of level 0's "
                f"{' and '.join(kinds)} layers{less}."
            ]
    return []


def told_of_copies(model: LightningModule, schedule: Schedule) -> list[str]:
    """Lines on networks beside the one that is trained: teachers, averages, targets."""
    if isinstance(model, Supermask):
        return []
    weights = {name: part for name, part in model.named_parameters() if name in _pruned(schedule)}
    firsts: list[str] = []
    beside: list[str] = []
    for name, weight in weights.items():
        is_copy = any(_is_copy(weight, weights[first]) for first in firsts)
        (beside if is_copy or not weight.requires_grad else firsts).append(name)
    copies = [
        (name, first)
        for name, value in model.named_buffers()
        for first, weight in weights.items()
        if _is_copy(value, weight)
    ]
    told = []
    if beside:
        told.append(
            f"Pruned and counted like other layers, though frozen or copies of others at the start: "
            f"{', '.join(beside[:4])}{' and more' if len(beside) > 4 else ''}. Each gets a mask of its own; "
            "pruning.exclude leaves a teacher or an average whole."
        )
    if copies:
        told.append(
            f"The buffer {copies[0][0]} begins as a copy of {copies[0][1]}, and buffers are not pruned: where it "
            "stands for the weight in an evaluation, as an average does, the results are not of the pruned network."
        )
    return told


def _is_copy(value: Tensor, weight: Tensor) -> bool:
    # A constant is a choice of an initialization, such as zeros.
    return value.shape == weight.shape and same_values(value, weight) and not is_constant(weight)


def _pruned(schedule: Schedule) -> set[str]:
    return {name for pool in schedule.pools for name in pool.members}


def told_of_verdict(
    model: LightningModule,
    datamodule: LightningDataModule | None,
    trainer: Trainer,
    fresh: Callable[[], LightningModule] | None,
    seed: int,
) -> list[str]:
    """A line where no ticket can win, since what a verdict needs is never measured.

    `fresh` makes throwaway modules, which evaluate a batch; None where the data are not to be touched. Hooks draw
    from the run's `seed`.
    """
    if isinstance(model, Classifier):
        return []
    lacks: list[str] = []
    by_step: list[str] = []
    parts: tuple[tuple[Literal["val", "test"], str], ...] = (("val", "val_loss"), ("test", "test_acc"))
    for part, metric in parts:
        step, loader = STEPS[part], f"{part}_dataloader"
        if not trainers.gives(model, step):
            lacks.append(f"the module has no {step} that would log {metric}")
        elif not trainers.gives(datamodule or model, loader):
            lacks.append(f"there is no {loader} for {metric}")
        elif getattr(trainer, f"limit_{part}_batches") == 0:
            lacks.append(f"trainer.limit_{part}_batches is 0, so there is no {metric}")
        elif fresh:
            found = logged(fresh(), datamodule, part, seed)
            if found is not None:
                means = found.means
                check_fractions({f"{part}_acc": find(means, f"{part}_acc")})
                alone = {name for name in (f"{part}_loss", f"{part}_acc") if {*forms(name)} & {*found.by_step}}
                by_step += [name for name in sorted(alone, reverse=True) if find(means, name) is None]
                if find(means, metric) is None and metric not in by_step:
                    names = ", ".join(sorted(means)) or "nothing"
                    lacks.append(f"{step} logs {names} and no {metric} (log it under that name)")
    told = []
    if by_step:
        names = f"{', '.join(by_step)} {'is' if len(by_step) == 1 else 'are'}"
        told.append(
            f"{names} logged on_step alone, so a run has no mean over the set, and its results have empty cells there: "
            "drop on_step and on_epoch=False."
        )
        if needed := [name for name in ("val_loss", "test_acc") if name in by_step]:
            lacks.append(f"it needs {' and '.join(needed)}")
    return [*told, f"No ticket of this run can be called a winning one: {', and '.join(lacks)}."] if lacks else told


def told_of_train_accuracy(loop: "PruningLoop", datamodule: LightningDataModule | None) -> list[str]:
    """A line where accuracy on the training set is left out, and nobody has asked for that."""
    if loop.train_accuracy is not None or loop.measures_train(datamodule):
        return []
    return ["Accuracy on the training set is not measured with data of your own; pruning.train_accuracy true does."]


def told_of_reloading(model: LightningModule, datamodule: LightningDataModule | None, trainer: Trainer) -> list[str]:
    """A line where loaders are made anew in the course of a training, whose hooks draw the same numbers each time."""
    every = trainer.reload_dataloaders_every_n_epochs  # type: ignore[attr-defined]
    if not every or not trainers.gives(datamodule or model, "train_dataloader"):
        return []
    return [
        "trainer.reload_dataloaders_every_n_epochs makes the loaders anew, and what their hooks draw at random is the "
        "same each time, as in all trainings: choose by self.trainer.current_epoch what is to differ between epochs."
    ]
