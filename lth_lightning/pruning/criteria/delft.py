"""The random pruning of the TU Delft reproduction (2022)."""

import torch

from lth_lightning.pruning.criteria.base import Criterion, Evidence, Scores


class RandomButOutput(Criterion):
    """Random scores, but |w_T| in the output layer, which that reproduction goes on to prune by magnitude.

    For layer-wise pools: in a global one the two kinds of scores do not compare.
    """

    def scores(self, evidence: Evidence) -> Scores:
        found = {}
        for layer in evidence.layers:
            final = evidence.final[layer.name].cpu()
            is_output = layer.kind == "output"
            found[layer.name] = final.abs() if is_output else torch.rand(final.shape, generator=evidence.generator)
        return found
