"""SynFlow: pruning before training and without data, which never cuts a network in two."""

import torch
from torch import Tensor, nn
from torch.nn.modules import activation
from torch.nn.modules.batchnorm import _NormBase

from lth_lightning.errors import UserError
from lth_lightning.pruning.criteria.base import Criterion, Evidence, Scores
from lth_lightning.pruning.criteria.gradients import gradients, pair, trainable

_NORMS = (_NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)


class SynFlow(Criterion):
    """|w dR/dw| with R = 1' |W_L| ... |W_1| 1, in rounds (arXiv 2006.05467, equations 1 and 2, section 5).

    R is the sum of the outputs for an input of ones, of the network made linear and positive: |W| for each weight, no
    biases, activations the identity, of a norm layer |weight| alone. w is taken at the rewind point: a one-shot run
    prunes at the initialization where its rewind step is 0, and else at that step. An activation that is no module of
    torch.nn but a call in `forward` stays, which for ReLU is the same.

    Args:
        rounds: in which the weights of a level go; the paper's 100 keep every layer connected, 1 does not.

    Raises:
        UserError: fewer than 1 round.
    """

    samples = 1  # for the shape of an input

    def __init__(self, rounds: int = 100) -> None:
        if rounds < 1:
            raise UserError(f"rounds is {rounds}: the weights go in at least 1 round, in the paper in 100.")
        self.rounds = rounds

    @torch.enable_grad()
    def scores(self, evidence: Evidence) -> Scores:
        # The product of many layers overflows float32.
        network = _linear(evidence.network()).double()
        inputs, _ = pair(evidence.samples(1, evidence.generator))
        weights = trainable(network, [layer.name for layer in evidence.layers])
        flow = network(torch.ones(inputs.shape, dtype=torch.float64)).sum()
        slopes = gradients(flow, weights)
        return {name: (weight.detach() * slopes[name]).abs() for name, weight in weights.items()}


class _Scale(nn.Module):
    """What a norm layer is at mean 0 and variance 1, without its shift."""

    weight: Tensor | None

    def __init__(self, weight: Tensor | None, is_by_channel: bool) -> None:
        super().__init__()
        self.weight = weight
        self.is_by_channel = is_by_channel

    def forward(self, features: Tensor) -> Tensor:
        """[B, C, ...], times a weight [C] by channel, or else one of the shape of the last dimensions."""
        weight = self.weight
        if weight is None:
            return features
        return features * (weight.view(-1, *[1] * (features.dim() - 2)) if self.is_by_channel else weight)


@torch.no_grad()
def _linear(network: nn.Module) -> nn.Module:
    """`network` itself, with its parameters positive, its biases 0, and neither activations nor statistics."""
    for path, module in list(network.named_modules(remove_duplicate=False)):
        if path and isinstance(module, _NORMS):
            is_by_channel = not isinstance(module, (nn.LayerNorm, nn.RMSNorm))
            network.set_submodule(path, _Scale(module.weight, is_by_channel))
        elif path and _is_activation(module):
            network.set_submodule(path, nn.Identity())
    for name, parameter in network.named_parameters():
        if "bias" in name.rpartition(".")[2]:
            parameter.zero_()
        else:
            parameter.abs_()
    return network


def _is_activation(module: nn.Module) -> bool:
    """Whether it is an activation of torch's that keeps the shape; attention and GLU, at home there too, do not."""
    if isinstance(module, (nn.MultiheadAttention, nn.GLU)):
        return False
    return any(kind.__module__ == activation.__name__ for kind in type(module).__mro__)
