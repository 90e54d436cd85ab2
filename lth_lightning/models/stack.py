"""Several networks of one architecture, each with its own weights and batches, computed as one.

Linear layers become one batched matrix product, convolutions one grouped convolution, whatever the number of members.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from operator import itemgetter

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, cross_entropy
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from lth_lightning.kernels import Linear
from lth_lightning.models.graph import CapturedStep, can_capture
from lth_lightning.models.layers import GlobalAveragePool

Pick = Callable[[Tensor], Tensor]
"""Takes from stacked parameters those of the members that are computed."""
Rule = Callable[[nn.Module, Tensor, Pick], Tensor]
"""A layer whose parameters are stacked, on values [R, B, ...], as every member would compute its [B, ...]."""

# About what evaluating 5,000 images of CIFAR10 takes with one member.
_VALUES_AT_ONCE = 2**24


def _channels(values: Tensor) -> Tensor:
    """[R, B, C, H, W] -> [B, R * C, H, W]: the members as groups of channels. A view of what `_members` returns."""
    return values.transpose(0, 1).flatten(1, 2)


def _members(values: Tensor, count: int) -> Tensor:
    """[B, R * C, H, W] -> [R, B, C, H, W], a view."""
    return values.unflatten(1, (count, -1)).transpose(0, 1)


def _linear(layer: nn.Module, values: Tensor, pick: Pick) -> Tensor:
    assert isinstance(layer, nn.Linear)
    # The weights come first: the other way round their gradients would be transposed, and copied at every step.
    weight, columns = pick(layer.weight), values.flatten(1, -2).mT
    if layer.bias is None:
        columns = torch.bmm(weight, columns)
    else:
        columns = torch.baddbmm(pick(layer.bias)[:, :, None], weight, columns)
    return columns.mT.unflatten(1, values.shape[1:-1])


def _conv(layer: nn.Module, values: Tensor, pick: Pick) -> Tensor:
    assert isinstance(layer, nn.Conv2d)
    count = len(values)
    weight = pick(layer.weight).flatten(0, 1)
    bias = None if layer.bias is None else pick(layer.bias).flatten()
    groups = count * layer.groups
    together = conv2d(_channels(values), weight, bias, layer.stride, layer.padding, layer.dilation, groups)
    return _members(together, count)


def _pool(layer: nn.Module, values: Tensor, pick: Pick) -> Tensor:
    return _members(layer(_channels(values)), len(values))


def _average(layer: nn.Module, values: Tensor, pick: Pick) -> Tensor:
    return values.mean(dim=(3, 4))


def _flatten(layer: nn.Module, values: Tensor, pick: Pick) -> Tensor:
    return values.flatten(2)


def _elementwise(layer: nn.Module, values: Tensor, pick: Pick) -> Tensor:
    return layer(values)


def _sequential(layer: nn.Module, values: Tensor, pick: Pick) -> Tensor:
    # Not `children()`, which leaves out a layer's second place.
    for child in layer._modules.values():
        assert child is not None
        values = _RULES[type(child)](child, values, pick)
    return values


_RULES: dict[type[nn.Module], Rule] = {
    nn.Sequential: _sequential,
    nn.Linear: _linear,
    Linear: _linear,
    nn.Conv2d: _conv,
    nn.MaxPool2d: _pool,
    nn.AvgPool2d: _pool,
    GlobalAveragePool: _average,
    nn.Flatten: _flatten,
    **dict.fromkeys((nn.Identity, nn.ReLU, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Sigmoid, nn.Tanh), _elementwise),
}


def can_stack(net: nn.Module) -> str | None:
    """None where every member's results would be those of training it alone, otherwise one phrase why not.

    Layers are known by their exact type: a subclass may compute something else. Batch norm and dropout are not among
    them: the one has running statistics, the other would draw other numbers than alone.
    """
    if type(net) is not nn.Sequential:
        return f"the network is a {type(net).__name__}, not an nn.Sequential"
    for name, layer in net.named_modules():
        kind = type(layer).__name__
        if type(layer) not in _RULES:
            return f"'{name}' is a {kind}"
        if layer._forward_pre_hooks or layer._forward_hooks or layer._backward_pre_hooks or layer._backward_hooks:
            return f"'{name}' has hooks"
        if isinstance(layer, nn.Conv2d) and layer.padding_mode != "zeros":
            return f"'{name}' pads with {layer.padding_mode}"
        if isinstance(layer, nn.Flatten) and (layer.start_dim, layer.end_dim) != (1, -1):
            return f"'{name}' does not flatten whole images"
        if isinstance(layer, nn.MaxPool2d) and layer.return_indices:
            return f"'{name}' returns indices"
        if any(True for _ in layer.buffers(recurse=False)):
            return f"'{name}' has buffers"
    if len(list(net.named_parameters())) < len(list(net.named_parameters(remove_duplicate=False))):
        return "layers share a parameter"
    return None


class Stack(nn.Module):
    """R networks as one module: the same parameter names, each parameter [R, ...] with its member as first index.

    So optimizers, MaskKeeper, `snapshot` and `rewind` take it as they take one network, masks and state dicts [R, ...]
    given. An elementwise optimizer (SGD, Adam) moves each member as it would alone; one that takes norms would not.

    Args:
        nets: the networks, `Classifier.net`; what they hold is copied.

    Raises:
        ValueError: no nets, different ones, or ones that `can_stack` does not take.
    """

    def __init__(self, nets: Sequence[nn.Module]) -> None:
        super().__init__()
        if not nets:
            raise ValueError("a stack of no networks")
        if reason := can_stack(nets[0]):
            raise ValueError(f"not to be stacked: {reason}")
        if any(str(net) != str(nets[0]) for net in nets):
            raise ValueError("not to be stacked: the networks differ")
        for name, layer in copy.deepcopy(nets[0])._modules.items():
            self.add_module(name, layer)
        parameters = [dict(net.named_parameters()) for net in nets]
        for name, own in list(self.named_parameters()):
            owner, _, leaf = name.rpartition(".")
            together = torch.stack([member[name].detach() for member in parameters])
            setattr(self.get_submodule(owner), leaf, nn.Parameter(together, requires_grad=own.requires_grad))
        self.members = len(nets)

    def forward(self, images: Tensor) -> Tensor:
        """A batch for each member: images [R, B, C, H, W] -> logits [R, B, classes]."""
        return _sequential(self, images, _all)

    @torch.no_grad()
    def predict(self, images: Tensor, at_once: int | None = None) -> Tensor:
        """The same batch for every member, without gradients: images [B, C, H, W] -> logits [R, B, classes].

        `at_once` members are computed at once, which takes as many times the memory of one. By default as many as
        have 16 million values of images between them, and at least one: 4 of a LeNet's on 5,000 images of MNIST.
        """
        at_once = at_once or max(1, _VALUES_AT_ONCE // images.numel())
        logits = []
        for first in range(0, self.members, at_once):
            count = min(at_once, self.members - first)
            shared = images.expand(count, *images.shape)
            logits.append(_sequential(self, shared, itemgetter(slice(first, first + count))))
        return torch.cat(logits)

    def member(self, index: int) -> dict[str, Tensor]:
        """The state dict of one network, under its own names, as copies."""
        return {name: parameter.detach()[index].clone() for name, parameter in self.named_parameters()}

    @torch.no_grad()
    def load_member(self, index: int, state: Mapping[str, Tensor]) -> None:
        """Copy a network's state dict into its place, bit for bit. Raises ValueError where names or shapes differ."""
        parameters = dict(self.named_parameters())
        if {k: v.shape for k, v in state.items()} != {k: v.shape[1:] for k, v in parameters.items()}:
            raise ValueError("the state dict is not of a member of this stack")
        for name, parameter in parameters.items():
            parameter[index].copy_(state[name])


def _all(parameter: Tensor) -> Tensor:
    return parameter


def stack_masks(masks: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The members' masks, in their order, as one of the stack: parameter name to bool [R, ...]."""
    return {name: torch.stack([mask[name] for mask in masks]) for name in masks[0]}


def member_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """Each member's mean cross entropy [R]: logits [R, B, classes], labels [R, B], or [B] for all of them."""
    labels = labels.expand(logits.shape[:2])
    losses = cross_entropy(logits.flatten(0, 1), labels.reshape(-1), reduction="none")
    return losses.view(labels.shape).mean(1)


def _step(stack: Stack, optimizer: Optimizer, images: Tensor, labels: Tensor, rows: Tensor, total: Tensor) -> None:
    """One optimizer step of every member on its samples `rows` [R, B]; their losses are added to `total` [R]."""
    # Gathered sample by sample and not member by member, a batch is already what a grouped convolution takes.
    batch = images.index_select(0, rows.t().flatten()).unflatten(0, rows.shape[::-1]).transpose(0, 1)
    optimizer.zero_grad()
    losses = member_losses(stack(batch), labels.index_select(0, rows.flatten()).view_as(rows))
    # The sum's gradient with respect to one member's weights is that of its own loss.
    losses.sum().backward()
    optimizer.step()
    total += losses.detach()


class StepRunner:
    """Runs optimizer steps of all members on images that lie on their device; nothing in it waits for the device.

    Pruned weights are held at zero by a MaskKeeper attached to the optimizer, as in any other training.

    Args:
        stack: the networks.
        optimizer: of the stack's parameters.
        images: float [n, C, H, W], every member's training images.
        labels: int64 [n].
        batch_size: B, samples of one member's step.
        scheduler: stepped after every optimizer step.
        graph: on a CUDA device, with an optimizer that `can_capture` takes, replay steps as a CUDA graph. Elsewhere
            it changes nothing. Make a new runner after another mask was attached or an optimizer's state loaded.
    """

    def __init__(
        self,
        stack: Stack,
        optimizer: Optimizer,
        images: Tensor,
        labels: Tensor,
        batch_size: int,
        *,
        scheduler: LRScheduler | None = None,
        graph: bool = False,
    ) -> None:
        self.scheduler = scheduler
        self._rows = torch.zeros(stack.members, batch_size, dtype=torch.int64, device=images.device)
        self._total = torch.zeros(stack.members, dtype=images.dtype, device=images.device)
        # No method of its own: a cycle of references would keep a graph's memory until the garbage is collected.
        self._step: Callable[[], None] = partial(_step, stack, optimizer, images, labels, self._rows, self._total)
        self.captures = graph and images.is_cuda and can_capture(optimizer) is None
        """Whether steps are replayed as a CUDA graph."""
        if self.captures:
            self._step = CapturedStep(self._step, optimizer)

    def run(self, index: Tensor) -> Tensor:
        """k steps on the samples `index`, int64 [k, R, B]: the mean training loss of each member [R].

        Raises:
            ValueError: an index of another shape.
        """
        if index.shape[1:] != self._rows.shape or len(index) == 0:
            raise ValueError(f"an index [k, R, B] of {list(index.shape)}, with [R, B] = {list(self._rows.shape)}")
        self._total.zero_()
        for rows in index.to(self._rows.device, non_blocking=True):
            self._rows.copy_(rows)
            self._step()
            if self.scheduler is not None:
                self.scheduler.step()
        return self._total / len(index)
