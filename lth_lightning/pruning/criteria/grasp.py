"""GraSP: what each connection does for the flow of gradients, before training."""

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from lth_lightning.errors import UserError
from lth_lightning.pruning.criteria.base import Criterion, Evidence, Scores
from lth_lightning.pruning.criteria.gradients import check_samples, gradients, trainable, training_loss
from lth_lightning.pruning.layers import weight_layers


class GraSP(Criterion):
    """w (H g), the lowest pruned (arXiv 2002.07376, section 4: -w (H g), the highest pruned).

    To first order removing w changes the flow g'g by -2 w (H g): what goes is what holds it back most. g and H are the
    gradient and the Hessian of the loss in all Linear and Conv weights that survive, at the rewind point: a one-shot
    run prunes at the initialization where its rewind step is 0, and else at that step. The loss is the cross entropy
    on one batch of training samples, with batch norm as in training and without dropout. A module of your own is asked
    for its loss by its `training_step`.

    Args:
        samples: in the batch, drawn at random; the paper takes 10 of each class.
        temperature: divides the logits; the published code's is 200. A module of your own has none.

    Raises:
        UserError: fewer than 1 sample, just 1 where there is batch norm, or a temperature of 0 or below.
    """

    def __init__(self, samples: int = 100, temperature: float = 200.0) -> None:
        if not temperature > 0:
            raise UserError(f"temperature is {temperature}: give a positive divisor of the logits, such as 200.")
        self.samples = check_samples(samples)
        self.temperature = temperature

    @torch.enable_grad()
    def scores(self, evidence: Evidence) -> Scores:
        network = evidence.network()
        # Layers that are never pruned have a share in the flow too.
        weights = trainable(network, [layer.name for layer in weight_layers(network) if layer.sources is None])
        # torch's faster kernels of attention cannot be differentiated twice.
        with sdpa_kernel(SDPBackend.MATH):
            loss = training_loss(network, evidence, self.samples, self.temperature)
        slopes = gradients(loss, weights, create_graph=True)
        # H g is the gradient of g . constant(g). A pruned weight does not train: its gradient is no part of the flow.
        flow = torch.zeros(())
        for name, slope in slopes.items():
            constant = slope.detach()
            if name in evidence.mask:
                constant = constant * evidence.mask[name].cpu()
            flow = flow + (constant * slope).sum()
        pulls = gradients(flow, weights)
        return {layer.name: weights[layer.name].detach() * pulls[layer.name] for layer in evidence.layers}
