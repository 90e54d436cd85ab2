"""A Linear layer that computes with a part of a whole one, which is what state dicts go on to show."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lth_lightning.kernels import Linear

PLAIN = (nn.Linear, Linear)
"""The types of layers that a part can stand for: a subclass may compute anything."""


class PartialLinear(Linear):
    """Its parameters are parts of a Linear layer's; its state dict has the whole one's names and shapes.

    `weight` and `bias` are the parts, so an optimizer sees nothing else. `state_dict` returns copies. Hooks that were
    registered on the whole layer are lost.

    Args:
        whole: the layer that it stands for.
        places: by name, indices that say which part it is; they become attributes and move with the layer.
    """

    def __init__(self, whole: nn.Linear, places: Mapping[str, Tensor]) -> None:
        nn.Module.__init__(self)  # nn.Linear's own would draw weights from the global generator
        self.out_features, self.in_features = whole.weight.shape
        self.shapes: dict[str, torch.Size] = {}
        for name, indices in places.items():
            self.register_buffer(name, indices.to(whole.weight.device), persistent=False)
        for name in ("weight", "bias"):
            value: nn.Parameter | None = getattr(whole, name)
            self.register_parameter(name, None)
            if value is not None:
                self.shapes[name] = value.shape
                setattr(self, name, nn.Parameter(self.part(value.detach()), value.requires_grad))
        self.train(whole.training)
        self.register_state_dict_post_hook(_give_whole)  # type: ignore[no-untyped-call]
        self.register_load_state_dict_pre_hook(_take_part)  # type: ignore[no-untyped-call]

    def part(self, whole: Tensor) -> Tensor:
        """What it holds of a weight or a bias that has the whole layer's shape; a copy."""
        raise NotImplementedError

    def whole(self, name: str) -> Tensor:
        """The whole `weight` or `bias` with the present part in its place; a copy without a gradient."""
        raise NotImplementedError

    def loaded(self, name: str, whole: Tensor) -> None:
        """Called with each whole tensor that a load brings, to keep what it wants besides its part."""


def _give_whole(layer: nn.Module, state: dict[str, Any], prefix: str, _metadata: dict[str, Any]) -> None:
    """After `state_dict`: whole tensors in place of the parts."""
    assert isinstance(layer, PartialLinear)
    for name in layer.shapes:
        state[prefix + name] = layer.whole(name)


def _take_part(layer: nn.Module, state: dict[str, Any], prefix: str, *rest: Any) -> None:
    """Before `load_state_dict`: parts in place of the whole tensors."""
    assert isinstance(layer, PartialLinear)
    errors: list[str] = rest[-1]
    for name, shape in layer.shapes.items():
        key = prefix + name
        if key not in state:
            continue
        given: Tensor = state[key].detach()
        if given.shape == shape:
            layer.loaded(name, given)
            state[key] = layer.part(given)
        else:
            errors.append(f"size mismatch for {key}: {tuple(given.shape)} given, {tuple(shape)} needed.")
            state[key] = getattr(layer, name)
