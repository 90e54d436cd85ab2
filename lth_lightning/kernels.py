"""The linear layer's arithmetic, by the faster of two libraries that torch brings.

torch computes float32 matrix products on a CPU with MKL, which takes a slow path on AMD's: there oneDNN is twice as
fast or more. Both round as they like, so results depend on the library as they do on the processor, in the last bits.
"""

import functools
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn import functional

SMALL = 2**22
"""Multiplications for which calling the other library from Python costs more than it saves."""


def linear(features: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """features [..., in] @ weight [out, in] transposed + bias [out] -> [..., out]."""
    plain = (
        torch.compiler.is_compiling()  # a compiler chooses for itself
        or torch.jit.is_tracing()
        or torch._C._are_functorch_transforms_active()  # torch.func differentiates by rules that _Linear has not
        or forward_ad._current_level >= 0
        or not is_onednn_faster()
        or features.dim() != 2
        or bias is None
        or (*features.shape[1:], *bias.shape) != tuple(reversed(weight.shape))  # torch says what does not fit
        or len(features) * weight.numel() < SMALL
        or any(t.dtype is not torch.float32 or t.device.type != "cpu" for t in (features, weight, bias))
        or torch.is_autocast_enabled("cpu")
    )
    if plain:
        return functional.linear(features, weight, bias)
    result: Tensor = _Linear.apply(features, weight, bias)  # type: ignore[no-untyped-call]
    return result


class Linear(nn.Linear):
    """`nn.Linear`, with that arithmetic."""

    def forward(self, features: Tensor) -> Tensor:
        """[..., in_features] -> [..., out_features]."""
        if torch.jit.is_scripting():
            return functional.linear(features, self.weight, self.bias)
        return linear(features, self.weight, self.bias)


@functools.cache
def is_onednn_faster() -> bool:
    """Whether this is a CPU of AMD's, and torch has both libraries."""
    if not (torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()):
        return False
    if not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return False
    try:
        return "AuthenticAMD" in Path("/proc/cpuinfo").read_text()
    except OSError:
        return False


def _product(left: Tensor, right: Tensor, bias: Tensor | None = None) -> Tensor:
    """left [n, k] @ right [m, k] transposed + bias [m] -> [n, m], by oneDNN."""
    result: Tensor = torch.ops.mkldnn._linear_pointwise(left, right, bias, "none", [], "")
    return result


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(features, weight)
        return _product(features, weight, bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor, Tensor]:  # type: ignore[override]
        features, weight = ctx.saved_tensors
        # Where somebody differentiates twice, by operations that can be.
        product = (lambda a, b: a @ b.t()) if torch.is_grad_enabled() else _product
        to_features = product(gradient, weight.t()) if ctx.needs_input_grad[0] else None
        return to_features, product(gradient.t(), features.t()), gradient.sum(0)
