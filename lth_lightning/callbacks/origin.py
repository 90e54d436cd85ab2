"""What each training starts from: a mask, weights, and the step that they belong to."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from pytorch_lightning import LightningModule, Trainer

from lth_lightning.callbacks.checkpoint_io import HYPERPARAMETERS, TRAINING, read_checkpoint
from lth_lightning.callbacks.start import Start, checked_start
from lth_lightning.callbacks.trainer import is_rank_zero
from lth_lightning.errors import UserError
from lth_lightning.files import write_pt
from lth_lightning.pruning import Mask, Schedule, Ticket, Weights, remaining, snapshot
from lth_lightning.pruning.criteria.base import Loss
from lth_lightning.pruning.frozen import frozen
from lth_lightning.pruning.rewind import check_fits
from lth_lightning.pruning.ticket import FORMAT, check_finite, check_mask, check_seed, check_shapes, read_format
from lth_lightning.results.run_folder import CHECKPOINT, MASK, REWIND, TRAINED, finished
from lth_lightning.results.training import Training
from lth_lightning.seeding import derive_seed, seed_all

if TYPE_CHECKING:
    from pathlib import Path

    from lth_lightning.callbacks.pruning_loop import MakeModel, PruningLoop


class Origins:
    """Gives each training its start, from the files of the run where they exist.

    Args:
        loop: the options.
        make_model: a fresh, freshly initialized module.
        seed: what all draws of the run come from.
        ticket: what level 0 starts from, where it is not dense.
        schedule: survivors at each level.
        samples: draws training samples of a network's data, for criteria that look at them.
        loss: what the network is trained by, for the same; None for the cross entropy of class logits.
    """

    def __init__(
        self,
        loop: "PruningLoop",
        make_model: "MakeModel",
        seed: int,
        ticket: Ticket | None,
        schedule: Schedule,
        samples: Callable[["MakeModel", int, torch.Generator], Any],
        loss: Loss | None,
    ) -> None:
        self._loop, self._make_model, self._seed, self._ticket = loop, make_model, seed, ticket
        self.schedule = schedule
        self._samples, self._loss = samples, loss

    def fresh(self, replicate: int, *draw: int | str) -> LightningModule:
        """A module with the replicate's own initial weights, or with those of a further `draw`."""
        return fresh_model(self._make_model, self._seed, replicate, *draw)

    def start(self, training: Training, model: LightningModule) -> Start:
        """What `training` starts from; `model` is the replicate's, freshly initialized."""
        point = self._rewind_point(training, model)
        check_fits(model, point["weights"], str(training.replicate_folder / REWIND))
        if training.level == 0:
            # Level 0 trains from the beginning, also where later levels rewind to a later step.
            ticket = Start(self._first_mask(model), self._first_weights(model))
        else:
            masked = training if self.searches(training) else training.ticket(training.level)
            mask = self._mask(masked)
            check_mask(model, mask, str(masked.folder / MASK))
            ticket = Start(mask, point["weights"], point["step"])
        freezes = self._loop.pruned != "zero"
        trained: dict[str, Any] = {}
        if training.level > 0 and (training.is_ticket or freezes):
            parent = self._parent(training.ticket(training.level))
            trained = self._trained(parent)
            check_fits(model, trained["weights"], str(parent.folder / TRAINED))
        if not training.is_ticket:
            start = self._control_start(training, ticket)
        elif trained:
            rates = trained.get("learning_rates", [])
            start = checked_start(self._loop.retrain.start, ticket, trained["weights"], rates)
        else:
            start = ticket
        if freezes:
            # A ticket's at the rewind point's values, also where its survivors go on from others.
            initial = ticket.weights if training.is_ticket else start.weights
            final = trained.get("weights", point["weights"])
            start.pruned = frozen(self._loop.pruned, start.mask, initial, final, point["weights"])
        return start

    def searches(self, training: Training) -> bool:
        """Whether the arm finds masks of its own, by what it trains."""
        return training.is_ticket or self._loop.control_of(training).score is not None

    def _control_start(self, training: Training, ticket: Start) -> Start:
        control = self._loop.control_of(training)
        generator = torch.Generator().manual_seed(training.seed(self._seed, "control"))
        start = checked_start(control.start, ticket, self._fresh_weights(training), generator)
        state = self._loop.retrain.optimizer_state and start.step > 0
        return replace(start, steps=start.steps if control.steps is None else control.steps, optimizer_state=state)

    def _fresh_weights(self, training: Training) -> Weights:
        """What a control's training gets as newly initialized."""
        return snapshot(self.fresh(training.replicate, training.arm, training.trial, training.level))

    def _parent(self, training: Training) -> Training:
        """Whose trained weights decide the mask of `training`, of level 1 or more, in its own line."""
        level = self.schedule.parent(training.level)
        return replace(training, level=level) if level else training.ticket(0)

    def _trained(self, training: Training) -> dict[str, Any]:
        path = training.folder / TRAINED
        content = read_format(path, ("weights",))
        check_seed(content, self._seed, path)
        check_finite(content["weights"], self._prunable, path)
        return content

    @property
    def _prunable(self) -> list[str]:
        """Names of the weights that some pool holds."""
        return [name for pool in self.schedule.pools for name in pool.members]

    def _rewind_point(self, training: Training, model: LightningModule) -> dict[str, Any]:
        """rewind.pt; for k = 0 it is written before the first training, for k > 0 at step k of level 0."""
        path = training.replicate_folder / REWIND
        if path.exists() or training.level > 0 or finished(training.ticket(0)):
            return self._read_rewind_point(training)
        identity = {"seed": self._seed, "replicate": training.replicate}
        point = {"format": FORMAT, "weights": self._first_weights(model), "step": 0, **identity}
        if self._loop.rewind_step == 0 and is_rank_zero():
            write_pt(path, point)
        return point

    def _read_rewind_point(self, training: Training) -> dict[str, Any]:
        """The file's; raises UserError where it is missing, damaged or of another run."""
        path = training.replicate_folder / REWIND
        if not path.exists():
            raise UserError(
                f"{path} is missing, to which this replicate's networks go back: put it back, or remove {path.parent}, "
                "and --resume makes the replicate anew."
            )
        point = read_format(path, ("weights", "step", "seed"))
        check_seed(point, self._seed, path)
        if point["step"] != (step := self._loop.rewind_step):
            raise UserError(f"{path} belongs to another run: its step is {point['step']}, and this run's {step}.")
        check_finite(point["weights"], self._prunable, path)
        return point

    def interrupted_step(self, training: Training) -> int:
        """The step of the checkpoint that `training` goes on from.

        Raises UserError where it is damaged or another training's, or the rewind point of its past is missing.
        """
        path = training.folder / CHECKPOINT
        checkpoint = read_checkpoint(path)
        step = checkpoint.get("global_step")
        if type(step) is not int or step < 0:
            raise UserError(f"{path} is damaged: remove it, and --resume makes that training anew.")
        passed = training.is_ticket and training.level == 0 and 0 < self._loop.rewind_step <= step
        if passed and not (training.replicate_folder / REWIND).exists():
            raise UserError(
                f"{training.replicate_folder / REWIND} is missing, and {path} is of a later step: put it back, or "
                f"remove {path}, and --resume makes that training anew."
            )
        return step

    def checkpoint_at(self, start: Start, training: Training, trainer: Trainer, model: LightningModule) -> "Path":
        """For a start at step k > 0 a checkpoint that says so: loops and schedules of step k, weights of `model`."""
        # A file of its own for each rank: none waits for another's before the process group exists.
        rank = trainer.global_rank
        path = training.replicate_folder / f".start_{rank}.ckpt" if rank else training.folder / CHECKPOINT
        if start.step > 0:
            saved = read_format(training.replicate_folder / REWIND, ("trainer",))["trainer"]
            state = {key: value for key, value in saved.items() if key not in HYPERPARAMETERS}
            if not start.optimizer_state:
                fresh = [{**optimizer, "state": {}} for optimizer in state["optimizer_states"]]
                state = {**state, "optimizer_states": fresh}
            write_pt(path, {**state, TRAINING: training.identity, "state_dict": snapshot(model, "cpu")})
        return path

    def _first_weights(self, model: LightningModule) -> Weights:
        # An output layer that the ticket does not have is the network's own.
        return {**snapshot(model), **(self._ticket.weights if self._ticket else {})}

    def _first_mask(self, model: LightningModule) -> Mask:
        dense = self.schedule.dense_mask(model)
        return {**dense, **self._ticket.mask} if self._ticket else dense

    def _mask(self, training: Training) -> Mask:
        if (training.folder / MASK).exists():
            return self._read_mask(training)
        # A finished run that is extended: its last level was not pruned yet.
        return self.pruned(training)

    def _read_mask(self, training: Training) -> Mask:
        path = training.folder / MASK
        content = read_format(path, ("mask",))
        check_seed(content, self._seed, path)
        mask: Mask = content["mask"]
        left, due = self.remaining(mask), self.schedule.weights_remaining(training.level)
        if left != due:
            raise UserError(
                f"{path} belongs to another run: it keeps {left:,} weights, and level {training.level} has {due:,}."
            )
        return mask

    def pruned(self, training: Training) -> Mask:
        """The mask of a training of level >= 1, from its parent level's trained weights."""
        parent = self._parent(training)
        network = partial(self.fresh, training.replicate)
        point = self._read_rewind_point(training)["weights"]
        mask, final = self._read_mask(parent), self._trained(parent)["weights"]
        check_shapes(mask, final, parent.folder / TRAINED)
        check_shapes(mask, point, training.replicate_folder / REWIND)
        return self.schedule.prune(
            training.level,
            mask,
            final,
            point if parent.is_ticket else self._fresh_weights(parent),
            self._loop.score if training.is_ticket else self._loop.control_of(training).score,
            torch.Generator().manual_seed(training.seed(self._seed, "score")),
            network=network,
            samples=partial(self._samples, network),
            loss=self._loss,
        )

    def write_mask(self, training: Training, mask: Mask) -> None:
        """Write the training's mask.pt."""
        density = self.density(mask)
        identity = {**training.identity, "seed": self._seed}
        write_pt(training.folder / MASK, {"format": FORMAT, "mask": mask, "density": density, **identity})

    def remaining(self, mask: Mask) -> int:
        """Linear and Conv weights that survive, those outside all pools too."""
        masked = sum(part.numel() for part in mask.values())
        return self.schedule.total - masked + remaining(mask)

    def density(self, mask: Mask) -> float:
        """Weights remaining / all Linear and Conv weights."""
        return self.remaining(mask) / self.schedule.total


def fresh_model(make_model: "MakeModel", seed: int, replicate: int, *draw: int | str) -> LightningModule:
    """A module whose initial weights depend on the seed, the replicate and the `draw` alone."""
    seed_all(derive_seed(seed, replicate, "init", *draw))
    return make_model()
