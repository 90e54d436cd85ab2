"""A ticket without its dead parts: units that nothing reads, and inputs that only dead units read.

What goes is exactly what cannot matter. Going from the output backwards, a unit none of whose outgoing weights
survives gets no gradient and reaches no output: it and its incoming weights are left out, and then the same holds for
what only it has read. A unit without incoming weights stays, for its bias trains. Dead parts keep their values, as they
do under a mask with every optimizer that moves each weight by its own gradients alone. Weight decay moves them there.

Channels of convolutions are left in: at the densities of interest too many weights lead on from each. A Conv-2 of which
3.5% is left has some 120 weights from each channel of its first layer, and over 2,000 from each of its second.
"""

from collections.abc import Mapping
from itertools import pairwise

import torch
from torch import Tensor, nn

from lth_lightning.errors import UserError
from lth_lightning.pruning.mask import Mask
from lth_lightning.pruning.partial import PLAIN, PartialLinear

_UNIT_BY_UNIT = (nn.ReLU, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Sigmoid, nn.Tanh, nn.Identity)
"""Activations that treat each unit alone. Not Dropout: it would draw for fewer units, and so other numbers."""


class CompactLinear(PartialLinear):
    """The live rows and columns of a Linear layer: `weight` is [live units, live inputs].

    In the state dict the dead entries have the values that they had or that were loaded since.

    Args:
        whole: the layer that it stands for.
        units: int64 indices of its live rows, ascending.
        inputs: int64 indices of its live columns, ascending.
        selects: whether `forward` gets all inputs and selects the live ones, or gets the live ones.
    """

    units: Tensor
    inputs: Tensor

    def __init__(self, whole: nn.Linear, units: Tensor, inputs: Tensor, selects: bool) -> None:
        super().__init__(whole, {"units": units, "inputs": inputs})
        self.out_features, self.in_features = len(units), len(inputs)
        self.selects = selects
        for name in self.shapes:
            self.register_buffer(f"whole_{name}", whole.get_parameter(name).detach().clone(), persistent=False)

    def part(self, whole: Tensor) -> Tensor:
        """The live part of a weight, of a bias or of a mask that has the whole layer's shape; a copy."""
        rows = whole.index_select(0, self.units.to(whole.device))
        return rows if whole.dim() == 1 else rows.index_select(1, self.inputs.to(whole.device))

    def whole(self, name: str) -> Tensor:
        whole: Tensor = getattr(self, f"whole_{name}").clone()
        live: Tensor = getattr(self, name).detach()
        whole[self.units if name == "bias" else (self.units[:, None], self.inputs)] = live
        return whole

    def loaded(self, name: str, whole: Tensor) -> None:
        getattr(self, f"whole_{name}").copy_(whole)

    def forward(self, features: Tensor) -> Tensor:
        """[..., all inputs if it selects, else live inputs] -> [..., live units]."""
        if self.selects:
            features = features.index_select(-1, self.inputs)
        return super().forward(features)


def compact_(model: nn.Module, mask: Mapping[str, Tensor]) -> Mask:
    """Replace the Linear layers of `model` by smaller ones without the dead parts of `mask`, in place.

    Afterwards the model computes, and trains to, what it would under the mask, up to rounding. Call it when the weights
    are in place and before the optimizer is made; train with a `MaskKeeper` of the mask that it returns.
    `state_dict()` and `load_state_dict()` go on in full names and shapes.

    Args:
        model: all its Linear layers stand in one nn.Sequential, which it runs from front to back, with nothing but
            Flatten and activations between the first and the last of them. What comes before and after stays as it is.
        mask: bool tensors by parameter name; a layer without one is dense. It is not changed.

    Returns:
        `mask` cut to the live parts: for each of its names a tensor of that parameter's new shape.

    Raises:
        UserError: the network is none of these; nothing has been changed then.
    """
    net, prefix = _sequential(model)
    layers = {f"{prefix}{name}.weight": layer for name, layer in net.named_children() if isinstance(layer, nn.Linear)}
    compacted = dict(mask)
    is_live = torch.ones(next(reversed(layers.values())).out_features, dtype=torch.bool)
    places: dict[str, tuple[Tensor, Tensor]] = {}
    for name, layer in reversed(layers.items()):
        part = mask[name].cpu() if name in mask else torch.ones(layer.weight.shape, dtype=torch.bool)
        is_read = part[is_live].any(dim=0)
        places[name] = is_live.nonzero().squeeze(1), is_read.nonzero().squeeze(1)
        is_live = is_read
    first = next(iter(layers))
    for name, layer in layers.items():
        units, inputs = places[name]
        if (len(units), len(inputs)) == layer.weight.shape:
            continue
        small = CompactLinear(layer, units, inputs, selects=name == first and len(inputs) < layer.in_features)
        setattr(net, name.removeprefix(prefix).removesuffix(".weight"), small)
        if name in mask:
            compacted[name] = small.part(mask[name])
    return compacted


def _sequential(model: nn.Module) -> tuple[nn.Sequential, str]:
    """The one Sequential with all Linear layers of `model`, and what its parameters' names begin with."""
    modules = dict(model.named_modules(remove_duplicate=False))
    linears = [name for name, module in modules.items() if isinstance(module, nn.Linear)]
    parents = {name.rpartition(".")[0] for name in linears}
    net = modules[parents.pop()] if len(parents) == 1 else None
    if type(net) is not nn.Sequential:
        raise _unfit("its Linear layers are not all in one nn.Sequential")
    chain = list(net)
    where = [index for index, child in enumerate(chain) if isinstance(child, nn.Linear)]
    owned = [id(parameter) for _, parameter in model.named_parameters(remove_duplicate=False)]
    if any(owned.count(id(chain[index].weight)) != 1 for index in where):
        raise _unfit("a weight of its Linear layers is shared or computed")
    for child in chain[where[0] : where[-1] + 1]:
        if type(child) not in (*PLAIN, nn.Flatten, *_UNIT_BY_UNIT):
            raise _unfit(f"it has a {type(child).__name__} between its Linear layers")
    for before, after in pairwise(where):
        if chain[before].out_features != chain[after].in_features:
            raise _unfit("a Linear layer gets its inputs not unit by unit from the one before")
    path = linears[0].rpartition(".")[0]
    return net, f"{path}." if path else ""


def _unfit(why: str) -> UserError:
    return UserError(f"This network cannot be made compact, for {why}: train it with its mask alone.")
