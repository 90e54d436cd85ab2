"""Stacked trainings and captured steps on a CUDA device. Run with `pytest -m gpu`."""

import warnings
from collections.abc import Callable, Iterator
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import SGD, Adam, Optimizer

from lth_lightning.models import Classifier, Conv2, LeNet300, WarmupMultiStepLR
from lth_lightning.models.stack import Stack, StepRunner, stack_masks
from lth_lightning.pruning import Mask, MaskKeeper

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]

R, B, N, STEPS = 3, 20, 300, 40
NETWORKS = {
    "lenet": (partial(LeNet300, shape=(1, 10, 10), hidden=(32, 16)), (1, 10, 10)),
    "conv2": (partial(Conv2, shape=(3, 8, 8)), (3, 8, 8)),
}
# Rates that a float32 holds exactly: in a graph they are float32.
OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {
    "adam": partial(Adam, lr=2**-9, fused=True),
    "sgd": partial(SGD, lr=2**-5, momentum=0.9, weight_decay=1e-3, fused=True),
}
NETWORK = pytest.mark.parametrize(("make", "shape"), NETWORKS.values(), ids=NETWORKS)
OPTIMIZER = pytest.mark.parametrize("make_optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)


@pytest.fixture(autouse=True)
def _plain_float32() -> Iterator[None]:
    before = torch.backends.cudnn.allow_tf32, torch.backends.cudnn.deterministic
    torch.backends.cudnn.allow_tf32, torch.backends.cudnn.deterministic = False, True
    yield
    torch.backends.cudnn.allow_tf32, torch.backends.cudnn.deterministic = before


def make_nets(make: Callable[[], Classifier]) -> tuple[list[nn.Module], list[Mask]]:
    nets, masks = [], []
    for seed, density in enumerate((0.8, 0.3, 0.1)):
        torch.manual_seed(seed)
        nets.append(make().net.cuda())
        weights = {name: value for name, value in nets[-1].state_dict().items() if name.endswith("weight")}
        masks.append({name: torch.rand(value.shape).cuda() < density for name, value in weights.items()})
    return nets, masks


def make_data(shape: tuple[int, int, int]) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    images, labels = torch.randn(N, *shape, generator=generator), torch.randint(10, (N,), generator=generator)
    return images.cuda(), labels.cuda(), torch.randint(N, (STEPS, R, B), generator=generator).cuda()


def train_stack(make, shape, make_optimizer, graph: bool, warmup: int = 0) -> tuple[Stack, Tensor, dict[str, Tensor]]:
    nets, masks = make_nets(make)
    images, labels, index = make_data(shape)
    stack = Stack(nets)
    optimizer = make_optimizer(stack.parameters())
    mask = stack_masks(masks)
    MaskKeeper(stack, mask).attach([optimizer])
    scheduler = WarmupMultiStepLR(optimizer, warmup_steps=warmup, milestones=[30], gamma=0.5) if warmup else None
    runner = StepRunner(stack, optimizer, images, labels, B, scheduler=scheduler, graph=graph)
    assert runner.captures is graph
    losses = []
    for part in index.split((1, 1, 6, 20, 12)):  # the capture is within the third
        losses.append(runner.run(part))
        parameters = dict(stack.named_parameters())
        assert all((parameters[name][~part] == 0.0).all() for name, part in mask.items())
        assert all(not isinstance(group["lr"], Tensor) for group in optimizer.param_groups)
        assert not any(group.get("capturable") for group in optimizer.param_groups)
    return stack, torch.stack(losses), mask


@OPTIMIZER
@NETWORK
@pytest.mark.parametrize("graph", [False, True], ids=["eager", "graph"])
def test_members_train_side_by_side_as_each_does_alone(make, shape, make_optimizer, graph):
    stack, _, _ = train_stack(make, shape, make_optimizer, graph)
    nets, masks = make_nets(make)
    images, labels, index = make_data(shape)
    for member, (net, mask) in enumerate(zip(nets, masks, strict=True)):
        optimizer = make_optimizer(net.parameters())
        parameters = dict(net.named_parameters())
        for name, part in mask.items():
            parameters[name].data.mul_(part)
        for row in index[:, member]:
            optimizer.zero_grad()
            cross_entropy(net(images[row]), labels[row]).backward()
            optimizer.step()
            for name, part in mask.items():
                parameters[name].data.mul_(part)
        for name, value in stack.member(member).items():
            torch.testing.assert_close(value, net.state_dict()[name], rtol=2e-2, atol=2e-3)
        torch.testing.assert_close(stack.predict(images)[member], net(images).detach(), rtol=2e-2, atol=2e-2)


@OPTIMIZER
@NETWORK
def test_a_graph_does_what_the_eager_steps_do(make, shape, make_optimizer):
    eager, eager_losses, _ = train_stack(make, shape, make_optimizer, graph=False, warmup=16)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*(capturable|AccumulateGrad|lr_scheduler).*")
        captured, losses, _ = train_stack(make, shape, make_optimizer, graph=True, warmup=16)
    torch.testing.assert_close(losses, eager_losses, rtol=1e-5, atol=1e-6)
    for name, value in eager.state_dict().items():
        torch.testing.assert_close(captured.state_dict()[name], value, rtol=1e-4, atol=1e-6)


@OPTIMIZER
def test_a_captured_training_that_goes_on_from_its_state_ends_in_the_same_bits(make_optimizer):
    make, shape = NETWORKS["lenet"]
    images, labels, index = make_data(shape)

    def begin() -> tuple[Stack, Optimizer]:
        nets, masks = make_nets(make)
        stack = Stack(nets)
        optimizer = make_optimizer(stack.parameters())
        MaskKeeper(stack, stack_masks(masks)).attach([optimizer])
        return stack, optimizer

    whole, optimizer = begin()
    StepRunner(whole, optimizer, images, labels, B, graph=True).run(index)
    first, optimizer = begin()
    StepRunner(first, optimizer, images, labels, B, graph=True).run(index[:17])
    second, other = begin()
    second.load_state_dict(first.state_dict())
    other.load_state_dict(optimizer.state_dict())
    StepRunner(second, other, images, labels, B, graph=True).run(index[17:])
    for name, value in whole.state_dict().items():
        assert torch.equal(second.state_dict()[name], value)


@pytest.mark.parametrize("graph", [False, True], ids=["eager", "graph"])
def test_steps_do_not_wait_for_the_device(graph):
    make, shape = NETWORKS["conv2"]
    nets, masks = make_nets(make)
    images, labels, index = make_data(shape)
    stack = Stack(nets)
    optimizer = Adam(stack.parameters(), fused=True)
    MaskKeeper(stack, stack_masks(masks)).attach([optimizer])
    runner = StepRunner(stack, optimizer, images, labels, B, graph=graph)
    runner.run(index[:6])
    torch.cuda.set_sync_debug_mode("error")
    try:
        runner.run(index[6:])
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_a_graphs_memory_is_free_again_when_its_runner_is_gone():
    make, shape = NETWORKS["lenet"]
    images, labels, index = make_data(shape)
    sizes = []
    for _ in range(4):
        stack = Stack(make_nets(make)[0])
        optimizer = Adam(stack.parameters(), fused=True)
        StepRunner(stack, optimizer, images, labels, B, graph=True).run(index)
        del stack, optimizer
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        sizes.append(torch.cuda.memory_reserved())
    assert sizes[-1] <= sizes[0]
