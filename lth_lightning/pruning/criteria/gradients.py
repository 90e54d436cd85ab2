"""What the criteria that differentiate the network have in common."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.modules.batchnorm import _NormBase

from lth_lightning.errors import UserError
from lth_lightning.pruning.criteria.base import Evidence


def trainable(network: nn.Module, names: Iterable[str]) -> dict[str, Tensor]:
    """The parameters of these names; a frozen one is made to require a gradient."""
    parameters = dict(network.named_parameters())
    return {name: parameters[name].requires_grad_() for name in names}


def gradients(value: Tensor, weights: dict[str, Tensor], create_graph: bool = False) -> dict[str, Tensor]:
    """d value / d weights, by name; 0 where a weight is not used."""
    found = torch.autograd.grad(
        value, list(weights.values()), create_graph=create_graph, allow_unused=True, materialize_grads=True
    )
    # Zeros of an unused weight require a gradient in some versions of torch.
    return {name: part if create_graph else part.detach() for name, part in zip(weights, found, strict=True)}


def training_loss(network: nn.Module, evidence: Evidence, samples: int, temperature: float = 1.0) -> Tensor:
    """The loss on so many training samples; changes `network`'s norms.

    It is the mean cross entropy of the logits / temperature, or `evidence.loss`, which has no temperature. Batch norm
    takes its statistics from the samples, as it will when training starts: its running ones say nothing yet at the
    initialization. Dropout stays off.

    Raises:
        UserError: a single sample, where there is batch norm.
    """
    batch = evidence.samples(samples, evidence.generator)
    for module in network.modules():
        if isinstance(module, _NormBase):
            if samples == 1:
                raise UserError("Batch norm has no statistics of 1 sample: give the criterion more samples.")
            # Without running statistics it takes the batch's, in evaluation mode too, and has none to update.
            module.running_mean = module.running_var = None
            module.track_running_stats = False
    if evidence.loss:
        return evidence.loss(network, batch, evidence.generator)
    inputs, targets = pair(batch)
    return cross_entropy(network(inputs) / temperature, targets)


def pair(batch: Any) -> tuple[Tensor, Tensor]:
    """Inputs [n, ...] and targets [n] of a batch; raises UserError where it is something else."""
    if not isinstance(batch, (tuple, list)) or len(batch) != 2 or not all(isinstance(part, Tensor) for part in batch):
        raise UserError("This criterion needs batches of two tensors, inputs and targets: use another.")
    return batch[0], batch[1]


def check_samples(samples: int) -> int:
    """The number itself; raises UserError where it is below 1."""
    if samples < 1:
        raise UserError(f"samples is {samples}: the criterion needs at least 1 training sample, such as 128.")
    return samples
