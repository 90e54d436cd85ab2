"""Masks: per prunable parameter a boolean tensor, True survives. Never read off zeros in the weights."""

import contextlib
from collections.abc import Callable, Iterable, Mapping
from functools import partial

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from lth_lightning.errors import UserError

ELEMENTWISE = ("SGD", "Adam", "AdamW", "NAdam", "RAdam", "Adamax", "Adagrad", "Adadelta", "RMSprop", "ASGD", "Rprop")
"""torch's optimizers that move each weight by itself, whatever the gradients of the others."""

Mask = dict[str, Tensor]
"""Parameter name to a bool tensor of the parameter's shape."""


def remaining(mask: Mapping[str, Tensor]) -> int:
    """Number of True entries."""
    return sum(int(part.sum()) for part in mask.values())


def same_counts_shuffled(mask: Mapping[str, Tensor], generator: torch.Generator) -> Mask:
    """A mask with as many survivors in each layer, at random places."""
    shuffled = {}
    for name, part in mask.items():
        order = torch.randperm(part.numel(), generator=generator)
        shuffled[name] = part.flatten()[order].view_as(part)
    return shuffled


def check_pruned(
    weights: Mapping[str, Tensor], mask: Mapping[str, Tensor], pruned: Mapping[str, Tensor], source: str
) -> None:
    """Raise UserError naming the first of `weights` whose pruned entries are not 0, or what `pruned` says of them."""
    for name, part in mask.items():
        if name not in weights:
            continue
        value = weights[name]
        wanted = pruned[name].to(value) if name in pruned else torch.zeros((), dtype=value.dtype, device=value.device)
        if bool(((value != wanted) & ~part.to(value.device)).any()):
            raise UserError(
                f"{source}: pruned weights of '{name}' have been moved, by an optimizer, a callback or a hook, so its "
                "results would not be of its mask. Nothing is recorded."
            )


class MaskKeeper:
    """Holds a model's pruned weights at exactly 0.0, or at given values, while an optimizer moves them.

    The multiplication stands in a hook after each optimizer step rather than in `forward`: whatever the optimizer,
    momentum or weight decay, a pruned weight is zero in every checkpoint and for every reader, and state-dict names
    stay plain.
    """

    def __init__(
        self, model: nn.Module, mask: Mapping[str, Tensor], pruned: Mapping[str, Tensor] | None = None
    ) -> None:
        """
        Args:
            model: its parameters are changed in place.
            mask: bool tensors by parameter name.
            pruned: values for the pruned weights, 0 where one survives, by parameter name; 0 for those not named.
        """
        parameters = dict(model.named_parameters())
        # A layer that has lost nothing needs no multiplication.
        names = [name for name, part in mask.items() if not bool(part.all())]
        self._weights: list[Tensor] = [parameters[name] for name in names]
        self._masks = [
            mask[name].to(weight.device, weight.dtype) for name, weight in zip(names, self._weights, strict=True)
        ]
        frozen = [name for name in names if name in (pruned or {})]
        self._frozen: list[Tensor] = [parameters[name] for name in frozen]
        self._values: list[Tensor] = [pruned[name].to(parameters[name]) for name in frozen] if pruned else []

    @torch.no_grad()
    def mask_weights(self) -> None:
        """Set the pruned weights to zero, or to what they are frozen at, in place."""
        if self._weights:
            torch._foreach_mul_(self._weights, self._masks)
        if self._frozen:
            torch._foreach_add_(self._frozen, self._values)

    @torch.no_grad()
    def mask_gradients(self) -> None:
        """Zero the pruned weights' gradients: a clip by norm must count those of the survivors alone."""
        pairs = [(w.grad, m) for w, m in zip(self._weights, self._masks, strict=True) if w.grad is not None]
        if pairs:
            grads, masks = zip(*pairs, strict=True)
            torch._foreach_mul_(list(grads), list(masks))

    def attach(self, optimizers: Iterable[Optimizer], gradients: bool = False) -> Callable[[], None]:
        """Mask the weights now and after every step of `optimizers`; returns a function that detaches again.

        An optimizer that moves each weight by itself needs no more. Of others, those of torch look at the gradients of
        a whole layer (Adafactor, Muon), or evaluate the network between the moves of one step (LBFGS); the rest may
        have no hooks, or further methods that move weights. With these the gradients of pruned weights are zero as
        soon as they are there, so that nothing that follows gradients moves a weight by them.

        Args:
            optimizers: of the model.
            gradients: do that in any case, since somebody's own code may look at the gradients, as a clip by norm does.
        """
        self.mask_weights()
        optimizers = list(optimizers)
        handles: list[RemovableHandle] = []
        if gradients or not all(is_elementwise(optimizer) for optimizer in optimizers):
            handles += self._mask_gradients_at_once()
        for optimizer in optimizers:
            # One that was made without `Optimizer.__init__`, or is no Optimizer at all, has none.
            with contextlib.suppress(AttributeError):
                handles.append(optimizer.register_step_post_hook(lambda *_: self.mask_weights()))

        def detach() -> None:
            for handle in handles:
                handle.remove()

        return detach

    def _mask_gradients_at_once(self) -> list[RemovableHandle]:
        """Have pruned weights' gradients be zero as soon as they are accumulated."""
        handles: list[RemovableHandle] = []
        for weight, mask in zip(self._weights, self._masks, strict=True):
            requires_grad = weight.requires_grad
            weight.requires_grad_(True)  # a layer that is frozen now may be thawed later
            handles.append(weight.register_post_accumulate_grad_hook(partial(_mask_gradient, mask)))
            weight.requires_grad_(requires_grad)
        return handles


def is_elementwise(optimizer: object) -> bool:
    """Whether it is one of torch's that move each weight by itself."""
    return type(optimizer) in [getattr(torch.optim, name) for name in ELEMENTWISE]


def _mask_gradient(mask: Tensor, weight: Tensor) -> None:
    if weight.grad is not None:
        weight.grad.mul_(mask)
