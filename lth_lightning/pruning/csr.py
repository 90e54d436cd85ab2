"""Linear layers that compute with their surviving weights alone, by torch's CSR kernels (MKL's) on a CPU."""

import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from lth_lightning.errors import UserError
from lth_lightning.pruning.mask import Mask
from lth_lightning.pruning.partial import PLAIN, PartialLinear

DENSEST, OVERHEAD = 0.15, 15_000
"""A layer of n weights computes by CSR kernels where at most `DENSEST * (n - OVERHEAD)` of them survive.

Measured with one thread of an AMD processor, beside `lth_lightning.kernels`, forward, backward and Adam: large layers
(784x300, 512x512, 3136x256) are as fast either way at a density of 0.17 in batches of 60 and of 0.14 in batches of 256,
and 1.4 times as fast by CSR at 0.1. A call costs some 60 microseconds more than a dense layer's: in batches of 60,
300x100 is as fast either way at 0.14, and layers of 100x100 and less are slower at any density. That is torch 2.15; by
2.6 the large layers gain below 0.07 in batches of 60, and in batches of 256 as by 2.15.
"""


class Product(torch.autograd.Function):
    """A layer's weights [units, inputs] by features [inputs, samples], plus biases [units] -> [units, samples].

    The gradient of the weights is computed where they survive and nowhere else; torch's own differentiation of a CSR
    product computes the whole matrix first.
    """

    @staticmethod
    def forward(ctx: Any, features: Tensor, values: Tensor, bias: Tensor | None, layer: "CSRLinear") -> Tensor:
        ctx.save_for_backward(features, values)
        ctx.layer = layer
        matrix = layer.matrix(values)
        return matrix @ features if bias is None else torch.addmm(bias[:, None], matrix, features)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        (features, values), layer = ctx.saved_tensors, ctx.layer
        gradient = gradient.contiguous()  # once, rather than by each kernel
        of_features = of_values = of_bias = None
        if ctx.needs_input_grad[0]:
            of_features = layer.transposed(values) @ gradient
        if ctx.needs_input_grad[1]:
            of_values = torch.sparse.sampled_addmm(layer.matrix(values), gradient, features.t(), beta=0.0).values()
        if ctx.needs_input_grad[2]:
            of_bias = gradient.sum(1)
        return of_features, of_values, of_bias, None


class CSRLinear(PartialLinear):
    """A Linear layer whose `weight` is the vector of its surviving weights, row by row.

    Pruned weights are 0.0 in its state dict, also after a load that brings other values for them.

    Args:
        whole: the layer that it stands for.
        mask: bool, of its weight's shape.
    """

    places: Tensor
    starts: Tensor
    columns: Tensor
    order: Tensor
    transposed_starts: Tensor
    transposed_columns: Tensor

    def __init__(self, whole: nn.Linear, mask: Tensor) -> None:
        rows, columns = mask.nonzero().t()
        order = torch.argsort(columns, stable=True)
        places = {
            "places": mask.flatten().nonzero().squeeze(1),
            # MKL takes int32 indices without a copy.
            "starts": _starts(rows, mask.shape[0]),
            "columns": columns.int(),
            "order": order,
            "transposed_starts": _starts(columns[order], mask.shape[1]),
            "transposed_columns": rows[order].int(),
        }
        super().__init__(whole, places)
        with warnings.catch_warnings(action="ignore", category=UserWarning):
            self.matrix(self.weight.detach())  # torch says once, at the first one, that its CSR support is in beta

    def part(self, whole: Tensor) -> Tensor:
        return whole.flatten()[self.places.to(whole.device)] if whole.dim() == 2 else whole.clone()

    def whole(self, name: str) -> Tensor:
        part: Tensor = getattr(self, name).detach()
        if name == "bias":
            return part.clone()
        shape = self.shapes[name]
        return part.new_zeros(shape.numel()).index_copy_(0, self.places, part).view(shape)

    def matrix(self, values: Tensor) -> Tensor:
        """Surviving weights as a CSR matrix [units, inputs], which shares their memory."""
        return _csr(self.starts, self.columns, values, (self.out_features, self.in_features))

    def transposed(self, values: Tensor) -> Tensor:
        """The same as a CSR matrix [inputs, units] of copies."""
        values = values.index_select(0, self.order)
        return _csr(self.transposed_starts, self.transposed_columns, values, (self.in_features, self.out_features))

    def forward(self, features: Tensor) -> Tensor:
        """[..., inputs] -> [..., units]; of [B, inputs] the samples lie innermost, as the next such layer wants them.

        Raises:
            UserError: the layer has been moved to another device than a CPU, or computes in mixed precision.
        """
        if self.weight.device.type != "cpu":
            raise UserError(f"CSR kernels train on a CPU, not on {self.weight.device}: set pruning.kernels to masked.")
        if torch.is_autocast_enabled("cpu"):
            raise UserError("CSR kernels have no mixed precision: set pruning.kernels to masked.")
        samples = features.reshape(-1, features.shape[-1])
        product: Tensor = Product.apply(samples.t().contiguous(), self.weight, self.bias, self)
        units = product.t()
        # A network may `view` more dimensions as fewer.
        return units if features.dim() == 2 else units.reshape(*features.shape[:-1], self.out_features).contiguous()


def csr_(model: nn.Module, mask: Mapping[str, Tensor]) -> Mask:
    """Replace the Linear layers of `model` that `mask` prunes enough by CSRLinear ones, in place.

    Afterwards the model computes, and trains to, what it would under the mask, up to rounding, with every optimizer
    that moves each weight by its own gradients and decay. Call it when the weights are in place and before the
    optimizer is made; train with a `MaskKeeper` of the mask that it returns. `state_dict()` and `load_state_dict()` go
    on in full shapes, with 0.0 for pruned weights.

    Left as they are: layers that would gain nothing (`DENSEST`), shared and computed weights, subclasses of Linear, and
    the Linear layers of a TransformerEncoderLayer, which reads their weights itself. Other networks that read the
    `weight` of a Linear layer are none for this.

    Args:
        model: any network on a CPU.
        mask: bool tensors by parameter name. It is not changed.

    Returns:
        `mask` without the replaced layers.

    Raises:
        UserError: torch lacks the kernels, or the network is on another device or in half precision; nothing has been
            changed then.
    """
    if not torch.backends.mkl.is_available():
        raise UserError("This build of torch has no CSR kernels (MKL's, on x86 CPUs): set pruning.kernels to masked.")
    modules = dict(model.named_modules())
    linears = {f"{path}.weight": m for path, m in modules.items() if isinstance(m, nn.Linear) and type(m) in PLAIN}
    owned = [id(parameter) for _, parameter in model.named_parameters(remove_duplicate=False)]
    chosen: dict[str, tuple[nn.Module, str]] = {}
    for name in [name for name in mask if name in linears]:
        weight, part = linears[name].weight, mask[name]
        if weight.device.type != "cpu" or weight.dtype not in (torch.float32, torch.float64):
            kind = f"{weight.dtype} on {weight.device}".removeprefix("torch.")
            raise UserError(f"CSR kernels take float32 or float64 on a CPU, not {kind}: set pruning.kernels to masked.")
        parent, _, own = name.removesuffix(".weight").rpartition(".")
        reads_it = isinstance(modules[parent], nn.TransformerEncoderLayer)
        gains = int(part.sum()) <= DENSEST * (part.numel() - OVERHEAD)
        if gains and not reads_it and owned.count(id(weight)) == 1:
            chosen[name] = modules[parent], own
    for name, (module, own) in chosen.items():
        setattr(module, own, CSRLinear(linears[name], mask[name].cpu()))
    return {name: part for name, part in mask.items() if name not in chosen}


def _starts(rows: Tensor, count: int) -> Tensor:
    """Where each of `count` rows begins among entries sorted by `rows`, and where the last one ends: int32."""
    return torch.searchsorted(rows, torch.arange(count + 1)).int()


def _csr(starts: Tensor, columns: Tensor, values: Tensor, shape: tuple[int, int]) -> Tensor:
    return torch.sparse_csr_tensor(starts, columns, values, shape, check_invariants=False)
