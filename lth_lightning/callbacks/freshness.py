"""Whether a module comes out as a run needs it: new each time, the same under one seed, another under another."""

from typing import TYPE_CHECKING

import torch
from pytorch_lightning import LightningModule
from torch import Tensor

from lth_lightning.callbacks.controls import Control
from lth_lightning.callbacks.origin import fresh_model
from lth_lightning.callbacks.start import Start, checked_start
from lth_lightning.errors import UserError
from lth_lightning.pruning import Mask, Schedule, Weights, snapshot
from lth_lightning.pruning.rewind import same_values

if TYPE_CHECKING:
    from lth_lightning.callbacks.pruning_loop import MakeModel, PruningLoop


def check_freshness(
    loop: "PruningLoop", make_model: "MakeModel", seed: int, model: LightningModule, schedule: Schedule
) -> list[str]:
    """Compare `model`, which is replicate 0's, with one made by the same seed and one made by another.

    Returns lines on what a run can do without.

    Raises:
        UserError: the three are one, or share weights; or a control would start from the ticket's own weights.
    """
    twin = fresh_model(make_model, seed, 0)
    after = torch.get_rng_state()
    other = fresh_model(make_model, seed, 1)
    seeds_itself = torch.equal(after, torch.get_rng_state())
    _refuse_shared(model, twin)
    told = _told_of_draws(snapshot(model, "cpu"), snapshot(twin, "cpu"))
    ours, theirs = dict(model.named_parameters()), dict(other.named_parameters())
    # A constant is a choice of an initialization, such as zeros in a last layer.
    names = [layer.name for layer in schedule.layers if not is_constant(ours[layer.name])]
    alike = [name for name in names if name in theirs and same_values(ours[name], theirs[name])]
    if not alike:
        return told
    if seeds_itself:
        why = "the module sets the random seed itself, which a run does for it: drop that"
    else:
        why = "they are the same whatever the seed: loaded, or drawn from a generator of the module's own"
    taking = [control.arm for control in loop.controls if _takes_fresh(control, schedule.dense_mask(model), model)]
    if taking and len(alike) == len(names):
        raise UserError(
            f"{taking[0]} would start from the ticket's own weights instead of fresh ones, since {why}. "
            "Initialize the module anew each time it is made, or drop that control."
        )
    has_several = loop.replicates > 1 or loop.first_replicate > 0  # a later one is part of a study of several
    if has_several and not loop.ticket and seeds_itself:
        raise UserError(f"All replicates would start from the same weights, since {why}.")
    arms = [*(["replicates"] if has_several and not loop.ticket else []), *taking]
    if arms:
        which = "all weights" if len(alike) == len(names) else f"the weights of {', '.join(alike)}"
        told.append(f"Not fresh in {', '.join(arms)}: {which} that can be pruned; {why}.")
    return told


def _refuse_shared(model: LightningModule, twin: LightningModule) -> None:
    if twin is model:
        raise UserError("make_model gives the same object each time: have it make a new module.")
    ours = {id(parameter) for parameter in model.parameters()}
    for name, parameter in twin.named_parameters():
        if id(parameter) in ours:
            raise UserError(
                f"Two modules that are made one after the other share '{name}', so that a training would change the "
                "next one's start: make that part anew in the module's __init__."
            )


def _told_of_draws(ours: Weights, theirs: Weights) -> list[str]:
    """A line where one seed gives two modules."""
    for name, value in ours.items():
        if isinstance(value, Tensor) and not (name in theirs and same_values(value, theirs[name])):
            return [
                f"A module that is made twice under one seed comes out otherwise the second time ('{name}'): a run "
                "that is resumed or repeated will not be the same. Draw from torch's, NumPy's or Python's global "
                "generator, which the run seeds."
            ]
    return []


def _takes_fresh(control: Control, mask: Mask, model: LightningModule) -> bool:
    """Whether what it starts from depends on the weights that are drawn anew for it."""
    weights = snapshot(model, "cpu")
    others = {name: value + 1 if name in mask else value for name, value in weights.items()}
    starts = [
        checked_start(control.start, Start(mask, weights), fresh, torch.Generator().manual_seed(0)).weights
        for fresh in (weights, others)
    ]
    return any(not same_values(starts[0][name], starts[1][name]) for name in mask)


def is_constant(weight: Tensor) -> bool:
    """Whether all its values are one."""
    return weight.numel() < 2 or bool((weight == weight.flatten()[0]).all())
