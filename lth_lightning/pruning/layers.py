"""Which parameters of a network can be pruned, and of what kind each is."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from math import prod

from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd
from torch.nn.parameter import is_lazy

from lth_lightning.errors import UserError

_NORMS = (_NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)

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
    sources: tuple[str, ...] | None = None
    """Where the weight is no parameter, as under weight_norm: the parameters that it is computed from. It counts in a
    density, but cannot be pruned: zeros in its sources need not be zeros in the weight."""


def weight_layers(model: nn.Module) -> list[Layer]:
    """All Linear and Conv weights of `model`, in the order of its modules; a shared weight counts once.

    They are what a density is relative to (LTH section 2: P_m, "percent of weights remaining"), the excluded ones
    counted too. A weight that a layer shares with an embedding goes by the name that comes first in
    `named_parameters`, and is the layer's all the same.

    Raises:
        UserError: a lazy layer, whose size is not known yet.
    """
    _refuse_lazy(model)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    places: dict[str, float] = {name: place for place, name in enumerate(names.values())}
    found: dict[str, Layer] = {}
    output, place = "", -1.0
    for path, module in model.named_modules():
        if not isinstance(module, (nn.Linear, _ConvNd)):
            continue
        kind, weight = "conv" if isinstance(module, _ConvNd) else "linear", module._parameters.get("weight")
        if weight is not None:
            output = names[id(weight)]
            place = places[output]
            found.setdefault(output, Layer(output, kind, weight.numel()))
        else:
            output = _join(path, "weight")
            own = [_join(path, key) for key, _ in module.named_parameters() if "bias" not in key.split(".")]
            place = places[output] = min((places[key] for key in own if key in places), default=place + 0.5)
            found[output] = Layer(output, kind, _size(module), tuple(own))
    if found:
        found[output] = replace(found[output], kind="output")
    return sorted(found.values(), key=lambda layer: places[layer.name])


def others(model: nn.Module) -> dict[str, nn.Parameter]:
    """Weights that are no Linear or Conv layer's, by name: they are neither pruned nor counted in a density.

    Embeddings, recurrent layers, attention's fused projections. Biases, norm layers' and vectors are not among them.
    """
    counted = {name for layer in weight_layers(model) for name in (layer.name, *(layer.sources or ()))}
    norms = {id(part) for module in model.modules() if isinstance(module, _NORMS) for part in module.parameters(False)}
    return {
        name: parameter
        for name, parameter in model.named_parameters()
        if parameter.dim() > 1
        and name not in counted
        and id(parameter) not in norms
        and "bias" not in name.rpartition(".")[2]
    }


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _size(module: nn.Linear | _ConvNd) -> int:
    """The number of its weights. Not from the weight itself: to compute it may draw, or change a buffer."""
    if isinstance(module, nn.Linear):
        return module.in_features * module.out_features
    return module.in_channels * module.out_channels // module.groups * prod(module.kernel_size)


def _refuse_lazy(model: nn.Module) -> None:
    for path, module in model.named_modules():
        for part in (*module.parameters(recurse=False), *module.buffers(recurse=False)):
            if is_lazy(part):
                raise UserError(
                    f"The layer '{path}' is lazy ({type(module).__name__}): its size is known once data have gone "
                    "through it. Give its size, or run one batch through the network at the end of your module's "
                    "__init__."
                )


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
