"""What a training starts from."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from lth_lightning.errors import UserError
from lth_lightning.pruning import Mask, Weights
from lth_lightning.signatures import a_kind, named


@dataclass
class Start:
    """What a training starts from, and how long it is. The tensors are shared: do not change them in place."""

    mask: Mask
    weights: Weights
    """The whole state dict; what it says of pruned weights does not matter."""
    step: int = 0
    """The optimizer step that it begins at: the learning-rate schedule and the data order go on from there."""
    optimizer_state: bool = False
    """Go on with the optimizer's state of that step, which is the rewind step then; otherwise it starts fresh."""
    steps: int | None = None
    """A length of its own, in optimizer steps; 0 evaluates the weights as they are."""
    learning_rates: list[float] | None = None
    """Constant rates, one a parameter group, instead of the schedule."""
    pruned: Mapping[str, Tensor] = field(default_factory=dict)
    """Values that the pruned weights are frozen at, by parameter name; 0 without."""


def checked_start(make: Callable[..., Start], ticket: Start, *arguments: object) -> Start:
    """What `make`, the `start` of a control or a retraining, makes of `ticket`.

    Raises UserError that names `make` where that is no Start of the same network.
    """
    start = make(ticket, *arguments)
    if wrong := _wrong(start, ticket):
        raise UserError(f"{named(make)} returned {wrong}.")
    return start


def _wrong(start: object, ticket: Start) -> str | None:
    if not isinstance(start, Start):
        return f"{a_kind(start)}, not a Start"
    for what in ("mask", "weights"):
        given, wanted = getattr(start, what), getattr(ticket, what)
        if not isinstance(given, Mapping):
            return f"a Start whose {what} is {a_kind(given)}, not a dictionary"
        for name, value in wanted.items():
            if not isinstance(value, Tensor):
                continue
            if not isinstance(given.get(name), Tensor):
                return f"a Start without a tensor '{name}' in its {what}"
            if given[name].shape != value.shape:
                return f"a Start with '{name}' of shape {(*given[name].shape,)} in its {what}, not of {(*value.shape,)}"
    if other := next((name for name in ticket.mask if start.mask[name].dtype != torch.bool), None):
        return f"a Start with '{other}' of {start.mask[other].dtype} in its mask, not of torch.bool"
    for what, number in (("step", start.step), ("steps", 0 if start.steps is None else start.steps)):
        if type(number) is not int or number < 0:
            return f"a Start whose {what} is {number!r}, not a whole number of 0 or more"
    return None
