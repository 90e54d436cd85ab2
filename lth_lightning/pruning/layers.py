"""Which parameters of a network can be pruned, and of what kind each is."""

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase

from torch import nn
from torch.nn.modules.conv import _ConvNd

from lth_lightning.errors import UserError

KINDS = ("conv", "linear", "output")


@dataclass(frozen=True)
class Layer:
    """The weight of one Linear or Conv layer. Biases and norm parameters are never pruned."""

    name: str
    """The parameter's name in `named_parameters`, such as `net.fc1.weight`."""
    kind: str
    """`conv`, `linear`, or `output`: the last Linear or Conv layer of the network, in the order of its modules."""
    size: int
    """Number of weights."""


def weight_layers(model: nn.Module) -> list[Layer]:
    """All Linear and Conv weights of `model`, in the order of its parameters; a shared weight counts once.

    They are what a density is relative to (LTH section 2: P_m, "percent of weights remaining"), the excluded ones
    counted too.
    """
    owner: dict[int, nn.Module] = {}
    for module in model.modules():
        if isinstance(module, (nn.Linear, _ConvNd)):
            owner.setdefault(id(module.weight), module)
    found = [
        (name, parameter, owner[id(parameter)])
        for name, parameter in model.named_parameters()
        if id(parameter) in owner
    ]
    layers = []
    for name, parameter, module in found:
        kind = "conv" if isinstance(module, _ConvNd) else "linear"
        if name == found[-1][0]:
            kind = "output"
        layers.append(Layer(name, kind, parameter.numel()))
    return layers


def match(pattern: str, layers: Iterable[Layer]) -> list[str]:
    """Names that a shell-style pattern (`*.fc1.weight`) matches.

    Raises UserError where it matches nothing: a misspelt pattern must not pass in silence.
    """
    layers = list(layers)
    names = [layer.name for layer in layers if fnmatchcase(layer.name, pattern)]
    if not names:
        known = ", ".join(layer.name for layer in layers)
        raise UserError(f"The pattern '{pattern}' matches no weight of this network. Its weights are: {known}.")
    return names
