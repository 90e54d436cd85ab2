"""Masks: per prunable parameter a boolean tensor, True survives. Never read off zeros in the weights."""

from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

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

    def attach(self, optimizers: Iterable[Optimizer]) -> Callable[[], None]:
        """Mask the weights now and after every step of `optimizers`; returns a function that detaches again."""
        self.mask_weights()
        handles: list[RemovableHandle] = [
            optimizer.register_step_post_hook(lambda *_: self.mask_weights()) for optimizer in optimizers
        ]

        def detach() -> None:
            for handle in handles:
                handle.remove()

        return detach
