"""SNIP: how much the loss feels each connection, before training."""

import torch

from lth_lightning.pruning.criteria.base import Criterion, Evidence, Scores
from lth_lightning.pruning.criteria.gradients import check_samples, gradients, trainable, training_loss


class SNIP(Criterion):
    """|w dL/dw|, the connection sensitivity (arXiv 1810.02340, section 4); w is taken at the rewind point.

    So a one-shot run prunes at the initialization where its rewind step is 0, and else at that step. L is the cross
    entropy on one batch of training samples, with batch norm as in training and without dropout. A module of your own
    is asked for its loss by its `training_step`.

    Args:
        samples: in the batch, drawn at random; the paper's are 128 of CIFAR10, 100 of MNIST.

    Raises:
        UserError: fewer than 1 sample, or just 1 where there is batch norm.
    """

    def __init__(self, samples: int = 128) -> None:
        self.samples = check_samples(samples)

    @torch.enable_grad()
    def scores(self, evidence: Evidence) -> Scores:
        network = evidence.network()
        weights = trainable(network, [layer.name for layer in evidence.layers])
        slopes = gradients(training_loss(network, evidence, self.samples), weights)
        return {name: (weight.detach() * slopes[name]).abs() for name, weight in weights.items()}
