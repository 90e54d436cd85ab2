"""Supermasks: the weights stay as they were drawn, and what is learned is which of them to use (arXiv 1905.01067)."""

import math
from collections.abc import Callable
from typing import Literal

import torch
from pytorch_lightning.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn
from torch.func import functional_call

from lth_lightning.errors import UserError
from lth_lightning.models.classifier import Classifier
from lth_lightning.pruning.layers import weight_layers
from lth_lightning.pruning.mask import Mask
from lth_lightning.seeding import derive_seed

NetworkCallable = Callable[[tuple[int, int, int], int], Classifier]
"""Makes a network from the images' shape and the number of classes, as the classes of the networks do."""
Evaluation = Literal["sample", "threshold"]

# Nobody's own seed: with that, the draws would be correlated with the weights.
_EVALUATION_SEED = derive_seed("supermask", "evaluation")


class Supermask(Classifier):
    """A network whose parameters are never trained; learned is one score for each Linear and Conv weight.

    A weight is there with probability p = sigmoid(score). Each forward pass of training draws a mask from these
    probabilities; the gradient with respect to the mask goes straight through to p (arXiv 1905.01067, section 5).
    The paper reports 95.3% on MNIST and 65.4% on CIFAR10, with signed constants and rescaling.

    Evaluations use one mask, so that the same scores always give the same numbers: `mask()`, which a ticket can carry.
    `sample`, the default, draws it from p, always from the same seed; the paper reports the mean over ten such draws.
    `threshold` takes the most probable mask, p > 0.5. That is another network than those that were trained as long
    as many weights are undecided, and a much worse one: only a training that is long enough decides them.

    Parameters keep the names that the network gives them, `net.fc1.weight`; the scores are `scores.0`, `scores.1`, …
    in the order of the weights. Logs `mask_density` with every validation: the fraction of ones in `mask()`. Train it
    without pruning (`pruning.levels` 0): the density in a run's table counts what pruning has left.

    Args:
        network: makes the network; its own optimizer and lr_scheduler have no effect.
        shape: of an image: channels, height, width.
        num_classes: the number of logits.
        signed_constant: make each weight plus or minus the standard deviation of its layer's initial weights,
            whichever sign it has.
        rescale: multiply a layer's weights by their number over the number of ones in the mask ("dynamic weight
            rescaling"). The gradient counts that factor in.
        initial_probability: p of every weight at the start.
        evaluation: the mask of evaluations, `sample` or `threshold`.
        optimizer: makes the optimizer from the parameters, of which the scores alone get gradients. The rate of 100 is
            the authors': a score's gradient is tiny, and p must get from 0.5 to near 0 or 1. With `rescale`, networks
            of a few thousand weights need less, such as 30.
        lr_scheduler: makes a scheduler, in optimizer steps, from the optimizer.

    Raises:
        UserError: a network that is no `Classifier`, computes more than its `net`, or has no Linear or Conv weight; a
            probability outside (0, 1); an unknown evaluation.
    """

    def __init__(
        self,
        network: NetworkCallable,
        shape: tuple[int, int, int] = (1, 28, 28),
        num_classes: int = 10,
        signed_constant: bool = False,
        rescale: bool = False,
        initial_probability: float = 0.5,
        evaluation: Evaluation = "sample",
        optimizer: OptimizerCallable = lambda p: torch.optim.SGD(p, lr=100.0, momentum=0.9, fused=True),
        lr_scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        if not 0.0 < initial_probability < 1.0:
            raise UserError(f"initial_probability is {initial_probability}: give a number between 0 and 1")
        if evaluation not in ("sample", "threshold"):
            raise UserError(f"evaluation '{evaluation}' is unknown: use sample or threshold")
        if not callable(network):  # another Supermask calls this class with an image's shape
            raise UserError("Supermask cannot mask a Supermask: give a network of this package, such as LeNet300")
        made = network(shape, num_classes)
        if not isinstance(made, Classifier) or type(made).forward is not Classifier.forward:
            raise UserError(
                f"Supermask cannot mask a {type(made).__name__}: give a network of this package, such as LeNet300"
            )
        super().__init__(made.net, num_classes, optimizer, lr_scheduler)
        self.rescale = rescale
        self.evaluation = evaluation
        # What a density counts, too. Without "net.", the names within it.
        self._names = [layer.name.removeprefix("net.") for layer in weight_layers(self)]
        if not self._names:
            raise UserError(f"Supermask cannot mask a {type(made).__name__}: it has no Linear or Conv weight")
        self.net.requires_grad_(False)
        if signed_constant:
            for weight in self._weights():
                # In place: so are they in state dicts and in tickets.
                weight.copy_(weight.sign() * weight.std(correction=0))
        score = math.log(initial_probability / (1.0 - initial_probability))
        self.scores = nn.ParameterList(torch.full_like(weight, score) for weight in self._weights())

    def _weights(self) -> list[Tensor]:
        return [self.net.get_parameter(name) for name in self._names]

    def on_fit_start(self) -> None:
        super().on_fit_start()
        if any(weight.shape != score.shape for weight, score in zip(self._weights(), self.scores, strict=True)):
            raise UserError("A Supermask has a score for every weight, and pruning.kernels left some out: use masked.")

    def forward(self, images: Tensor) -> Tensor:
        """Images [B, C, H, W] -> logits [B, num_classes], under a mask that is drawn anew in training mode."""
        masks = self._drawn() if self.training else self.mask().values()
        masked = {}
        for name, weight, mask in zip(self._names, self._weights(), masks, strict=True):
            masked[name] = weight * mask
            if self.rescale:
                masked[name] = masked[name] * (mask.numel() / mask.sum().clamp(min=1))
        logits: Tensor = functional_call(self.net, masked, (images,))
        return logits

    def _drawn(self) -> list[Tensor]:
        """Masks of ones with probability p, whose gradients with respect to p are taken to be 1."""
        masks = []
        for score in self.scores:
            p = torch.sigmoid(score)
            # From the global generator, which a run seeds by its step: a resumed one draws the same masks. Not by
            # torch.bernoulli, which takes four times as long on a CPU.
            drawn = torch.rand_like(p).lt_(p.detach())
            masks.append(drawn + (p - p.detach()))  # plus 0.0, exactly
        return masks

    @torch.no_grad()
    def mask(self) -> Mask:
        """The mask of evaluations: for each Linear and Conv weight, by its parameter's name, True where it is used.

        It fits the network itself, whose weights are in this module's state dict under the same names. With `rescale`
        that network computes the same only once its layers' weights are multiplied, too.
        """
        generator = torch.Generator().manual_seed(_EVALUATION_SEED)
        found = {}
        for name, score in zip(self._names, self.scores, strict=True):
            least: Tensor | float = 0.5
            if self.evaluation == "sample":
                # On the CPU, so that all devices get the same.
                least = torch.rand(score.shape, generator=generator).to(score.device)
            found[f"net.{name}"] = torch.sigmoid(score) > least
        return found

    def on_validation_epoch_end(self) -> None:
        masks = list(self.mask().values())
        ones = torch.stack([mask.sum() for mask in masks]).sum()
        self.log("mask_density", ones / sum(mask.numel() for mask in masks))
