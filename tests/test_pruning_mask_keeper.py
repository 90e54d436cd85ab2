"""A pruned weight is exactly 0.0 after every optimizer step, and the survivors train as if it had never been there."""

import copy
from collections.abc import Callable, Iterable
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.utils import clip_grad_norm_, prune
from torch.optim import SGD, Adam, AdamW, Optimizer

from lth_lightning.pruning import Mask, MaskKeeper

Make = Callable[[Iterable[nn.Parameter]], Optimizer]

OPTIMIZERS: dict[str, Make] = {
    "adam": partial(Adam, lr=1e-2),
    "adam with decay": partial(Adam, lr=1e-2, weight_decay=0.1, amsgrad=True),
    "adamw": partial(AdamW, lr=1e-2, weight_decay=0.1),
    "sgd": partial(SGD, lr=0.1),
    "momentum": partial(SGD, lr=0.1, momentum=0.9, weight_decay=1e-2),
    "nesterov": partial(SGD, lr=0.1, momentum=0.9, weight_decay=1e-2, nesterov=True),
}
KINDS = [pytest.param(partial(make, **kind), id=f"{name}-{next(iter(kind))}") for name, make in OPTIMIZERS.items()
         for kind in ({"fused": True}, {"foreach": True}, {"foreach": False})]  # fmt: skip


def network() -> nn.Sequential:
    torch.manual_seed(11)
    return nn.Sequential(
        nn.Conv2d(1, 6, 3, bias=False),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(96, 20),
        nn.ReLU(),
        nn.Linear(20, 4),
    )


def some_mask(density: float = 0.4) -> Mask:
    generator = torch.Generator().manual_seed(2)
    shapes = {"0.weight": (6, 1, 3, 3), "4.weight": (20, 96), "6.weight": (4, 20)}
    return {name: torch.rand(shape, generator=generator) < density for name, shape in shapes.items()}


def batches(steps: int) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(4)
    return [
        (torch.randn(16, 1, 6, 6, generator=generator), torch.randint(0, 4, (16,), generator=generator))
        for _ in range(steps)
    ]


def gradients(model: nn.Module, batch: tuple[Tensor, Tensor]) -> None:
    model.zero_grad()
    cross_entropy(model(batch[0]), batch[1]).backward()


def pruned(model: nn.Module, mask: Mask) -> Tensor:
    parameters = dict(model.named_parameters())
    return torch.cat([parameters[name].detach()[~part] for name, part in mask.items()])


@pytest.mark.parametrize("make", KINDS)
def test_pruned_weights_are_exactly_zero_after_every_step(make):
    model, mask = network(), some_mask()
    optimizer = make(model.parameters())
    data = batches(12)
    for batch in data[:3]:  # dense steps: momentum and moments are there when the mask comes
        gradients(model, batch)
        optimizer.step()
    detach = MaskKeeper(model, mask).attach([optimizer])
    assert (pruned(model, mask) == 0.0).all()
    for batch in data[3:11]:
        gradients(model, batch)
        optimizer.step()
        assert (pruned(model, mask) == 0.0).all()
        assert all((value[~mask[name]] == 0.0).all() for name, value in model.state_dict().items() if name in mask)
    # The keeper was what held them: without it this optimizer moves them.
    detach()
    gradients(model, data[11])
    optimizer.step()
    assert (pruned(model, mask) != 0.0).any()


def test_survivors_biases_and_norms_do_train():
    model, mask = network(), some_mask()
    before = copy.deepcopy(model.state_dict())
    optimizer = SGD(model.parameters(), lr=0.1)
    MaskKeeper(model, mask).attach([optimizer])
    gradients(model, batches(1)[0])
    optimizer.step()
    after = model.state_dict()
    for name in ("1.weight", "1.bias", "4.bias", "6.bias"):
        assert not torch.equal(before[name], after[name]), name
    for name, part in mask.items():
        moved = before[name] != after[name]
        assert moved[part].any(), name


def test_each_of_several_optimizers_is_followed():
    model, mask = network(), some_mask()
    optimizers = [SGD(model[:4].parameters(), lr=0.1), Adam(model[4:].parameters(), lr=0.1)]
    MaskKeeper(model, mask).attach(optimizers)
    for n, batch in enumerate(batches(6)):
        gradients(model, batch)
        optimizers[n % 2].step()
        assert (pruned(model, mask) == 0.0).all()


@pytest.mark.parametrize("name", ["Adafactor", "Muon"])
def test_survivors_do_not_move_by_gradients_of_pruned_weights_of_their_layer(name):
    # These optimizers look at a whole layer: what comes of its gradients must not depend on those of pruned weights.
    if not hasattr(torch.optim, name):
        pytest.skip(f"This torch has no {name}.")
    mask = {"weight": torch.arange(12).view(3, 4) % 3 > 0}
    moved = []
    for pruned_inputs in (0.0, 5.0):
        torch.manual_seed(4)
        layer = nn.Linear(4, 3, bias=False)
        optimizer = getattr(torch.optim, name)(layer.parameters(), lr=0.1)
        MaskKeeper(layer, mask).attach([optimizer])
        weighting = torch.where(mask["weight"], 1.0, pruned_inputs)
        for _ in range(3):
            optimizer.zero_grad()
            (layer.weight * weighting).square().sum().backward()
            (layer.weight * weighting).sum().backward()
            optimizer.step()
        moved.append(layer.weight.detach().clone())
    assert torch.equal(*moved)
    assert (moved[0] == 0).sum() == 4


def test_gradients_are_masked_as_they_come_where_that_is_asked_for_also_of_a_layer_that_is_frozen_at_first():
    model, mask = network(), some_mask()
    model[4].weight.requires_grad_(False)
    detach = MaskKeeper(model, mask).attach([SGD(model.parameters(), lr=0.1)], gradients=True)
    assert not model[4].weight.requires_grad
    model[4].weight.requires_grad_(True)
    gradients(model, batches(1)[0])
    for name, part in mask.items():
        gradient = model.get_parameter(name).grad
        assert not gradient[~part].any(), name
        assert gradient[part].any(), name
    detach()
    gradients(model, batches(1)[0])
    assert model[4].weight.grad[~mask["4.weight"]].any()


def test_detaching_one_keeper_leaves_the_next_ones_mask():
    # Level after level on one model: the earlier mask must not be applied any more.
    model = network()
    optimizer = SGD(model.parameters(), lr=0.1)
    narrow, wide = some_mask(0.2), some_mask(0.6)
    MaskKeeper(model, narrow).attach([optimizer])()
    model.load_state_dict(network().state_dict())
    MaskKeeper(model, wide).attach([optimizer])
    gradients(model, batches(1)[0])
    optimizer.step()
    assert (pruned(model, wide) == 0.0).all()
    assert (pruned(model, narrow) != 0.0).any()


def test_a_live_weight_of_zero_or_below_is_not_frozen():
    model = nn.Sequential(nn.Linear(4, 1, bias=False))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[0.0, -0.5, 0.5, 0.0]]))
    optimizer = SGD(model.parameters(), lr=0.5)
    MaskKeeper(model, {"0.weight": torch.tensor([[True, True, True, False]])}).attach([optimizer])
    for expected in ([-0.5, -1.0, 0.0, 0.0], [-1.0, -1.5, -0.5, 0.0]):
        model.zero_grad()
        model(torch.ones(1, 4)).sum().backward()
        optimizer.step()
        assert model[0].weight.tolist() == [expected]


def test_the_mask_is_a_copy_that_later_changes_do_not_reach():
    model, mask = network(), some_mask()
    keeper = MaskKeeper(model, mask)
    before = {name: part.clone() for name, part in mask.items()}
    for part in mask.values():
        part.fill_(False)
    keeper.mask_weights()
    assert (pruned(model, before) == 0.0).all()
    assert model[4].weight.any()


def test_a_dense_mask_and_layers_without_a_mask_change_nothing():
    model = network()
    before = copy.deepcopy(model.state_dict())
    keeper = MaskKeeper(model, {"4.weight": torch.ones(20, 96, dtype=torch.bool)})
    gradients(model, batches(1)[0])
    model.load_state_dict(before)
    grads = [p.grad.clone() for p in model.parameters()]
    keeper.mask_weights()
    keeper.mask_gradients()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(torch.equal(p.grad, grad) for p, grad in zip(model.parameters(), grads, strict=True))


def test_a_clip_by_norm_counts_survivors_only_after_the_gradients_are_masked():
    model, mask = network(), some_mask(0.2)
    keeper = MaskKeeper(model, mask)
    keeper.mask_weights()
    gradients(model, batches(1)[0])
    squares = 0.0
    for name, parameter in model.named_parameters():
        grad = parameter.grad.double()
        squares += (grad[mask[name]] if name in mask else grad).square().sum().item()
    everything = clip_grad_norm_(model.parameters(), max_norm=float("inf")).item()
    assert everything > 1.05 * squares**0.5
    keeper.mask_gradients()
    assert clip_grad_norm_(model.parameters(), max_norm=0.01).item() == pytest.approx(squares**0.5, rel=1e-5)
    clipped = torch.cat([p.grad.flatten() for p in model.parameters()])
    assert clipped.double().norm().item() == pytest.approx(0.01, rel=1e-4)
    parameters = dict(model.named_parameters())
    assert all((parameters[name].grad[~part] == 0.0).all() for name, part in mask.items())


def test_parameters_without_a_gradient_are_left_out():
    model, mask = network(), some_mask()
    keeper = MaskKeeper(model, mask)
    keeper.mask_gradients()
    assert all(p.grad is None for p in model.parameters())
    model[0].weight.requires_grad_(False)
    gradients(model, batches(1)[0])
    keeper.mask_gradients()
    assert model[0].weight.grad is None
    assert (model[4].weight.grad[~mask["4.weight"]] == 0.0).all()


def test_weights_of_other_precisions_are_masked():
    model = nn.Linear(8, 3, dtype=torch.bfloat16)
    mask = {"weight": torch.arange(24).view(3, 8) % 2 == 0}
    MaskKeeper(model, mask).mask_weights()
    assert model.weight.dtype == torch.bfloat16
    assert torch.equal(model.weight != 0, mask["weight"])


@pytest.mark.parametrize(
    "make",
    [pytest.param(partial(OPTIMIZERS[name], fused=fused), id=f"{name}-{fused}")
     for name in ("adam", "sgd", "momentum", "nesterov") for fused in (True, False)],
)  # fmt: skip
def test_training_is_bit_identical_to_torch_prunes_mask_in_the_forward_pass(make):
    ours, theirs, mask = network(), network(), some_mask()
    for name, part in mask.items():
        prune.custom_from_mask(theirs[int(name[0])], "weight", part)
    optimizer = make(ours.parameters())
    other = make(theirs.parameters())
    MaskKeeper(ours, mask).attach([optimizer])
    for step, batch in enumerate(batches(20)):
        gradients(ours, batch)
        optimizer.step()
        gradients(theirs, batch)
        other.step()
        for name, part in mask.items():
            module = theirs[int(name[0])]
            assert torch.equal(ours.state_dict()[name], module.weight_orig * part), (step, name)
        plain = [name for name in ours.state_dict() if name not in mask]
        assert len(plain) == 7
        assert all(torch.equal(ours.state_dict()[name], theirs.state_dict()[name]) for name in plain), step


def test_training_from_an_l1_mask_is_bit_identical_to_torch_prune():
    ours, theirs = network(), network()
    for n in (0, 4, 6):
        prune.l1_unstructured(theirs[n], "weight", amount=0.5)
    mask = {f"{n}.weight": theirs[n].weight_mask.bool() for n in (0, 4, 6)}
    optimizer, other = Adam(ours.parameters(), lr=1e-2), Adam(theirs.parameters(), lr=1e-2)
    MaskKeeper(ours, mask).attach([optimizer])
    for batch in batches(20):
        for model, each in ((ours, optimizer), (theirs, other)):
            gradients(model, batch)
            each.step()
    for n in (0, 4, 6):
        prune.remove(theirs[n], "weight")
        assert torch.equal(ours[n].weight, theirs[n].weight * mask[f"{n}.weight"])
