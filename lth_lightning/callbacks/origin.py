"""What each training starts from: a mask, weights, and the step that they belong to."""

from typing import TYPE_CHECKING, Any

import torch
from pytorch_lightning import LightningModule, Trainer

from lth_lightning.callbacks.controls import Start
from lth_lightning.callbacks.trainer import is_rank_zero
from lth_lightning.files import write_pt
from lth_lightning.pruning import Mask, Schedule, Ticket, remaining, snapshot
from lth_lightning.pruning.ticket import FORMAT, read_format
from lth_lightning.results.run_folder import CHECKPOINT, MASK, REWIND, TRAINED
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
    """

    def __init__(
        self, loop: "PruningLoop", make_model: "MakeModel", seed: int, ticket: Ticket | None, schedule: Schedule
    ) -> None:
        self._loop, self._make_model, self._seed, self._ticket = loop, make_model, seed, ticket
        self.schedule = schedule

    def fresh(self, replicate: int, *draw: int | str) -> LightningModule:
        """A module with the replicate's own initial weights, or with those of a further `draw`."""
        return fresh_model(self._make_model, self._seed, replicate, *draw)

    def start(self, training: Training, model: LightningModule) -> Start:
        """What `training` starts from; `model` is the replicate's, freshly initialized."""
        point = self._rewind_point(training, model)
        if training.level == 0:
            # Level 0 trains from the beginning, also where later levels rewind to a later step.
            origin = self._ticket.weights if self._ticket else snapshot(model)
            ticket = Start(self._first_mask(model), origin)
        else:
            ticket = Start(self._mask(training.ticket(training.level)), point["weights"], point["step"])
        if training.is_ticket:
            return ticket
        control = next(control for control in self._loop.controls if control.arm == training.arm)
        fresh = self.fresh(training.replicate, training.arm, training.trial, training.level)
        generator = torch.Generator().manual_seed(training.seed(self._seed, "control"))
        return control.start(ticket, snapshot(fresh), generator)

    def _rewind_point(self, training: Training, model: LightningModule) -> dict[str, Any]:
        """rewind.pt; for k = 0 it is written before the first training, for k > 0 at step k of level 0."""
        path = training.replicate_folder / REWIND
        if path.exists():
            return read_format(path, ("weights", "step", "seed"))
        weights = self._ticket.weights if self._ticket else snapshot(model)
        point = {"format": FORMAT, "weights": weights, "step": 0, "seed": self._seed}
        if self._loop.rewind_step == 0 and is_rank_zero():
            write_pt(path, point)
        return point

    def checkpoint_at(self, start: Start, training: Training, trainer: Trainer) -> "Path":
        """For a start at step k > 0 a checkpoint that says so: loops and schedules of step k, a fresh optimizer."""
        # A file of its own for each rank: none waits for another's before the process group exists.
        rank = trainer.global_rank
        path = training.replicate_folder / f".start_{rank}.ckpt" if rank else training.folder / CHECKPOINT
        if start.step > 0:
            point = read_format(training.replicate_folder / REWIND, ("trainer",))
            masked = {n: w * start.mask[n] if n in start.mask else w for n, w in start.weights.items()}
            write_pt(path, {**point["trainer"], "state_dict": masked})
        return path

    def _first_mask(self, model: LightningModule) -> Mask:
        dense = self.schedule.dense_mask(model)
        return {**dense, **self._ticket.mask} if self._ticket else dense

    def _mask(self, training: Training) -> Mask:
        path = training.folder / MASK
        if path.exists():
            mask: Mask = read_format(path, ("mask",))["mask"]
            return mask
        # A finished run that is extended: its last level was not pruned yet.
        return self.pruned(training)

    def pruned(self, training: Training) -> Mask:
        """The mask of a ticket's level >= 1, from its parent level's trained weights."""
        parent = training.ticket(self.schedule.parent(training.level))
        generator = torch.Generator().manual_seed(training.seed(self._seed, "score"))
        return self.schedule.prune(
            training.level,
            read_format(parent.folder / MASK, ("mask",))["mask"],
            read_format(parent.folder / TRAINED, ("weights",))["weights"],
            read_format(training.replicate_folder / REWIND, ("weights",))["weights"],
            self._loop.score,
            generator,
        )

    def write_mask(self, training: Training, mask: Mask) -> None:
        """Write the training's mask.pt."""
        density = self.density(mask)
        identity = {"level": training.level, "density": density, "replicate": training.replicate}
        content = {"format": FORMAT, "mask": mask, **identity, "arm": training.arm, "trial": training.trial}
        write_pt(training.folder / MASK, content)

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
