"""SNIP, GraSP and SynFlow: their scores by other means than ours, what they leave alone, and what stays connected."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lth_lightning.errors import UserError
from lth_lightning.models import VGG19, ResNet20
from lth_lightning.pruning import (
    SNIP,
    Criterion,
    Evidence,
    GraSP,
    Magnitude,
    Mask,
    Schedule,
    SynFlow,
    Weights,
    remaining,
    snapshot,
    weight_layers,
)

HALF = dict.fromkeys(("conv", "linear", "output"), 0.5)


def batch(shape: tuple[int, ...], classes: int, dtype: torch.dtype = torch.float64) -> Callable:
    def samples(number: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        drawn = torch.randn(number, *shape, generator=generator, dtype=dtype)
        return drawn, torch.randint(classes, (number,), generator=generator)

    return samples


def evidence(model: nn.Module, samples: Callable, mask: Mask | None = None, seed: int = 0) -> Evidence:
    layers = tuple(weight_layers(model))
    start = snapshot(model)
    dense = {layer.name: torch.ones_like(start[layer.name], dtype=torch.bool) for layer in layers}
    return Evidence(
        layers,
        mask or dense,
        # These criteria look at the rewind point's weights alone.
        {name: value * float("nan") for name, value in start.items()},
        start,
        torch.Generator().manual_seed(seed),
        lambda: copy.deepcopy(model).eval(),
        samples,
    )


def set_weights(*pairs: tuple[Tensor, list]) -> None:
    with torch.no_grad():
        for parameter, values in pairs:
            parameter.copy_(torch.tensor(values))


# --- SNIP: against finite differences


def felt(loss: Callable[[], Tensor], weight: Tensor, step: float = 1e-5) -> Tensor:
    """SNIP's definition, by central differences: |d loss / d c| at c = 1, where c multiplies one weight at a time."""
    found = torch.zeros_like(weight)
    with torch.no_grad():
        flat = weight.view(-1)
        for place in range(flat.numel()):
            value = flat[place].item()
            flat[place] = value * (1 + step)
            above = loss().item()
            flat[place] = value * (1 - step)
            below = loss().item()
            flat[place] = value
            found.view(-1)[place] = abs(above - below) / (2 * step)
    return found


def test_snip_at_a_single_weight_by_hand():
    # Logits w x = (w1, w2) for x = 1: p = softmax, dL/dw = p - onehot. At w = (ln 3, 0): p = (3/4, 1/4).
    model = nn.Sequential(nn.Linear(1, 2, bias=False)).double()
    log3 = torch.tensor(3.0, dtype=torch.float64).log().item()
    set_weights((model[0].weight, [[log3], [0.0]]))

    def samples(number: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        assert number == 3
        return torch.ones(number, 1, dtype=torch.float64), torch.ones(number, dtype=torch.long)

    found = SNIP(samples=3).scores(evidence(model, samples))
    assert found["0.weight"].flatten().tolist() == pytest.approx([0.75 * log3, 0.0])


def test_snip_equals_finite_differences_with_the_batchs_statistics_and_without_dropout():
    torch.manual_seed(1)
    conv, norm, linear = nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Linear(12, 4)
    model = nn.Sequential(conv, norm, nn.Tanh(), nn.Dropout(0.5), nn.Flatten(), linear).double()
    with torch.no_grad():
        norm.weight.uniform_(0.5, 2)
        norm.bias.normal_()
    # Far from the batch's: what runs must not matter.
    norm.running_mean.fill_(7.0)
    norm.running_var.fill_(30.0)
    samples = batch((2, 4, 4), classes=4)
    inputs, targets = samples(6, torch.Generator().manual_seed(0))

    def loss() -> Tensor:
        hidden = F.conv2d(inputs, conv.weight, conv.bias)
        mean = hidden.mean(dim=(0, 2, 3), keepdim=True)
        variance = ((hidden - mean) ** 2).mean(dim=(0, 2, 3), keepdim=True)
        hidden = (hidden - mean) / (variance + norm.eps).sqrt()
        hidden = torch.tanh(hidden * norm.weight.view(1, -1, 1, 1) + norm.bias.view(1, -1, 1, 1))
        logits = hidden.flatten(1) @ linear.weight.t() + linear.bias
        return (logits.logsumexp(1) - logits[range(6), targets]).mean()

    found = SNIP(samples=6).scores(evidence(model, samples))
    assert list(found) == ["0.weight", "5.weight"]
    assert torch.allclose(found["0.weight"], felt(loss, conv.weight), rtol=1e-5, atol=1e-9)
    assert torch.allclose(found["5.weight"], felt(loss, linear.weight), rtol=1e-5, atol=1e-9)
    assert found["0.weight"].min() > 1e-6


# --- GraSP: against a Hessian written out


def tiny() -> nn.Sequential:
    torch.manual_seed(2)
    return nn.Sequential(nn.Linear(3, 2), nn.Tanh(), nn.Linear(2, 2, bias=False), nn.Tanh(), nn.Linear(2, 3)).double()


def grasp_by_hessian(
    model: nn.Sequential, inputs: Tensor, targets: Tensor, temperature: float, alive: Tensor | None = None
) -> Tensor:
    """w (H g) of all three weights in one flat tensor, with the Hessian as a matrix."""
    shapes = [(2, 3), (2, 2), (3, 2)]

    def loss(flat: Tensor) -> Tensor:
        first, second, third = (part.view(shape) for part, shape in zip(flat.split([6, 4, 6]), shapes, strict=True))
        hidden = torch.tanh(torch.tanh(inputs @ first.t() + model[0].bias.detach()) @ second.t())
        logits = (hidden @ third.t() + model[4].bias.detach()) / temperature
        return (logits.logsumexp(1) - logits[range(len(targets)), targets]).mean()

    flat = torch.cat([model[place].weight.detach().flatten() for place in (0, 2, 4)])
    if alive is not None:
        flat = flat * alive
    hessian = torch.autograd.functional.hessian(loss, flat)
    gradient = torch.autograd.functional.jacobian(loss, flat)
    if alive is not None:
        gradient = gradient * alive
    return flat * (hessian @ gradient)


def test_grasp_at_two_weights_by_hand():
    # Logits (w1, w2) for x = 1 and target 1: g = (p, -p) and H = p (1 - p) [[1, -1], [-1, 1]] with p = softmax_1,
    # so H g = 2 p^2 (1 - p) (1, -1). At w = (ln 3, -1) less a common shift: p = 3 / 4 for w = (ln 3 - 1, -1).
    model = nn.Sequential(nn.Linear(1, 2, bias=False)).double()
    log3 = torch.tensor(3.0, dtype=torch.float64).log().item()
    weights = [log3 - 1, -1.0]
    set_weights((model[0].weight, [[weights[0]], [weights[1]]]))

    def samples(number: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        return torch.ones(number, 1, dtype=torch.float64), torch.ones(number, dtype=torch.long)

    found = GraSP(samples=2, temperature=1.0).scores(evidence(model, samples))
    pull = 2 * 0.75**2 * 0.25
    assert found["0.weight"].flatten().tolist() == pytest.approx([weights[0] * pull, -weights[1] * pull], rel=1e-6)


@pytest.mark.parametrize("temperature", [1.0, 200.0])
def test_grasp_equals_the_hessian_written_out(temperature):
    model = tiny()
    samples = batch((3,), classes=3)
    expected = grasp_by_hessian(model, *samples(20, torch.Generator().manual_seed(0)), temperature)
    found = GraSP(samples=20, temperature=temperature).scores(evidence(model, samples))
    ours = torch.cat([found[f"{place}.weight"].flatten() for place in (0, 2, 4)])
    assert torch.allclose(ours, expected, rtol=1e-9, atol=expected.abs().max().item() * 1e-9)
    # Both signs: the order matters, not the size.
    assert ours.min() < 0 < ours.max()


def test_grasps_flow_is_that_of_the_survivors():
    model = tiny()
    samples = batch((3,), classes=3)
    alive = torch.rand(16, generator=torch.Generator().manual_seed(4)) < 0.6
    names = ("0.weight", "2.weight", "4.weight")
    parts = zip(names, alive.split([6, 4, 6]), strict=True)
    mask = {name: part.view(model.get_parameter(name).shape) for name, part in parts}
    expected = grasp_by_hessian(model, *samples(20, torch.Generator().manual_seed(0)), 1.0, alive)
    with torch.no_grad():
        for name, part in mask.items():
            model.get_parameter(name).mul_(part)
    found = GraSP(samples=20, temperature=1.0).scores(evidence(model, samples, mask))
    ours = torch.cat([found[name].flatten() for name in names])
    assert torch.allclose(ours[alive], expected[alive], rtol=1e-9, atol=1e-12)


def test_a_layer_that_is_never_pruned_has_its_share_in_grasps_flow():
    model = tiny()
    samples = batch((3,), classes=3)
    expected = grasp_by_hessian(model, *samples(20, torch.Generator().manual_seed(0)), 1.0)
    seen = evidence(model, samples)
    seen.layers = seen.layers[:2]
    seen.mask = {layer.name: seen.mask[layer.name] for layer in seen.layers}
    found = GraSP(samples=20, temperature=1.0).scores(seen)
    assert list(found) == ["0.weight", "2.weight"]
    ours = torch.cat([part.flatten() for part in found.values()])
    assert torch.allclose(ours, expected[:10], rtol=1e-9, atol=1e-12)


def test_what_grasp_prunes_first_raises_the_gradients_norm_most():
    # The paper's own meaning of the score, with the network's loss: a small step of one weight towards 0.
    model = tiny()
    samples = batch((3,), classes=3)
    inputs, targets = samples(20, torch.Generator().manual_seed(0))
    weights = [model[place].weight for place in (0, 2, 4)]

    def flow() -> float:
        slopes = torch.autograd.grad(F.cross_entropy(model(inputs), targets), weights)
        return sum(float((slope**2).sum()) for slope in slopes)

    found = GraSP(samples=20, temperature=1.0).scores(evidence(model, samples))
    before, changes, step = flow(), [], 1e-5
    for weight in weights:
        for place in range(weight.numel()):
            with torch.no_grad():
                value = weight.view(-1)[place].item()
                weight.view(-1)[place] = value * (1 - step)
            changes.append((flow() - before) / step)
            with torch.no_grad():
                weight.view(-1)[place] = value
    ours = torch.cat([part.flatten() for part in found.values()])
    assert torch.allclose(-2 * ours, torch.tensor(changes, dtype=torch.float64), rtol=1e-3, atol=1e-7)


# --- SynFlow: against the product written out


def test_synflow_of_two_layers_by_hand():
    # Neither biases nor the sigmoid nor the input's values take part.
    model = nn.Sequential(nn.Linear(2, 2), nn.Sigmoid(), nn.Dropout(0.5), nn.Linear(2, 3))
    set_weights(
        (model[0].weight, [[1.0, -2.0], [0.5, 0.0]]),
        (model[0].bias, [100.0, -100.0]),
        (model[3].weight, [[3.0, -1.0], [-2.0, 4.0], [0.0, 1.0]]),
    )
    found = SynFlow().scores(evidence(model, batch((2,), 3, torch.float32)))
    # |W1| 1 = (3, 0.5); 1' |W2| = (5, 6).
    assert found["0.weight"].tolist() == [[5.0, 10.0], [3.0, 0.0]]
    assert found["3.weight"].tolist() == [[9.0, 0.5], [6.0, 2.0], [0.0, 0.5]]
    assert found["0.weight"].dtype == torch.float64


@pytest.mark.parametrize("norm", [nn.BatchNorm1d(2), nn.GroupNorm(2, 2), nn.LayerNorm(2), nn.RMSNorm(2)])
def test_of_a_norm_synflow_sees_the_weight_alone(norm):
    model = nn.Sequential(nn.Linear(2, 2), norm, nn.ReLU(), nn.Linear(2, 1))
    set_weights((model[0].weight, [[1.0, -2.0], [0.5, 0.25]]), (model[3].weight, [[-3.0, 1.0]]))
    set_weights((norm.weight, [-2.0, 4.0]))
    if isinstance(norm, nn.BatchNorm1d):
        set_weights((norm.running_mean, [5.0, 6.0]), (norm.running_var, [9.0, 0.0]), (norm.bias, [-50.0, -50.0]))
    found = SynFlow().scores(evidence(model, batch((2,), 1, torch.float32)))
    # The hidden units' flow in is (3, 0.75), times (2, 4); the flow out (3, 1).
    assert found["0.weight"].tolist() == [[6.0, 12.0], [2.0, 1.0]]
    assert found["3.weight"].tolist() == [[18.0, 3.0]]


def test_synflow_of_convolutions_counts_every_place():
    model = nn.Sequential(nn.Conv2d(1, 2, 2), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(8, 1))
    set_weights((model[0].weight, [[[[1.0, -1.0], [2.0, 0.0]]], [[[0.5, 0.5], [0.0, 1.0]]]]))
    set_weights((model[4].weight, [[1.0, -1.0, 2.0, 0.0, 3.0, 1.0, 1.0, -1.0]]))
    found = SynFlow().scores(evidence(model, batch((1, 3, 3), 1, torch.float32)))
    # Each of a channel's four places takes in the sum of its kernel, 4 and 2; they pass on 4 and 6 in all.
    assert found["4.weight"].tolist() == [[4.0, 4.0, 8.0, 0.0, 6.0, 2.0, 2.0, 2.0]]
    assert found["0.weight"].flatten().tolist() == [4.0, 4.0, 8.0, 0.0, 3.0, 3.0, 0.0, 6.0]


def test_synflow_is_conserved_from_layer_to_layer():
    # arXiv 2006.05467, theorem 2: each cut through the network carries all of R; a VGG's layers are such cuts.
    model = VGG19(width=0.1)
    found = SynFlow().scores(evidence(model, batch((3, 32, 32), 10, torch.float32)))
    sums = torch.stack([part.sum() for part in found.values()])
    assert len(sums) == 17
    assert torch.allclose(sums, sums[0].expand(17), rtol=1e-9)
    assert sums[0] > 0


def test_synflow_takes_a_network_with_shortcuts_and_one_whose_product_overflows_float32():
    model = ResNet20()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(100)
    found = SynFlow().scores(evidence(model, batch((3, 32, 32), 10, torch.float32)))
    assert list(found) == [layer.name for layer in weight_layers(model)]
    assert all(part.isfinite().all() and part.min() >= 0 for part in found.values())
    assert found["net.output.weight"].max() > torch.finfo(torch.float32).max


# --- what stays connected


def cut(
    schedule: Schedule,
    model: nn.Module,
    start: Weights,
    criterion: Criterion,
    samples: Callable,
    level: int = 1,
    mask: Mask | None = None,
    final: Weights | None = None,
) -> Mask:
    """The mask of `level`, from the dense one by default, with copies of `model` for the criterion to look at."""
    mask = mask or schedule.dense_mask(model)
    return schedule.prune(
        level, mask, final or start, start, criterion, network=lambda: copy.deepcopy(model), samples=samples
    )


def cut_vgg(width: float, criterion: Criterion, density: float) -> tuple[VGG19, Schedule, Mask]:
    torch.manual_seed(0)
    model = VGG19(width=width)
    schedule = Schedule.of(model, one_shot=True, grid=[density], rates=HALF, scope="global")
    return model, schedule, cut(schedule, model, snapshot(model), criterion, batch((3, 32, 32), 10, torch.float32))


def is_connected(model: VGG19, mask: Mask) -> bool:
    """Whether some path of survivors leads from a pixel to a logit: followed step by step, without any weights."""
    reached = torch.ones(1, 3, 32, 32)
    for name, module in model.net.named_children():
        if isinstance(module, nn.Conv2d):
            reached = (F.conv2d(reached, mask[f"net.{name}.weight"].float(), padding=1) > 0).float()
        elif isinstance(module, nn.MaxPool2d):
            reached = F.max_pool2d(reached, 2)
    reached = (reached.amax(dim=(2, 3)) > 0).float()
    return bool((reached @ mask["net.output.weight"].float().t()).any())


@pytest.mark.thorough
@pytest.mark.parametrize("width", [0.25, pytest.param(1.0, marks=pytest.mark.slow)])
def test_synflow_in_100_rounds_keeps_a_vgg_connected_at_a_thousandth(width):
    model, schedule, mask = cut_vgg(width, SynFlow(), 0.001)
    assert remaining(mask) == schedule.weights_remaining(1)
    assert remaining(mask) == pytest.approx(0.001 * schedule.total, abs=1)
    assert all(part.any() for part in mask.values())
    assert is_connected(model, mask)


@pytest.mark.parametrize("criterion", [SynFlow(rounds=1), SNIP(), GraSP(), Magnitude()])
def test_others_and_a_single_round_cut_it_there(criterion):
    model, schedule, mask = cut_vgg(0.25, criterion, 0.001)
    assert remaining(mask) == schedule.weights_remaining(1)
    assert not all(part.any() for part in mask.values())
    assert not is_connected(model, mask)


@pytest.mark.parametrize("rounds", [1, 2, 7, 100])
@pytest.mark.parametrize("scope", ["layer", "global"])
def test_any_number_of_rounds_leaves_exactly_the_schedules_counts(rounds, scope):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(13, 11), nn.ReLU(), nn.Linear(11, 7))
    schedule = Schedule.of(model, 3, rates=HALF, scope=scope)
    start, mask = snapshot(model), schedule.dense_mask(model)
    for level in schedule.levels[1:]:
        new = cut(schedule, model, start, SynFlow(rounds), batch((13,), 7, torch.float32), level, mask)
        kept = [sum(int(new[name].sum()) for name in pool.members) for pool in schedule.pools]
        assert kept == list(schedule.kept[level])
        assert all(not (new[name] & ~mask[name]).any() for name in new)
        mask = new


@pytest.mark.parametrize(("rounds", "first", "second"), [(1, [], [0, 1]), (3, [6], [1])])
def test_each_round_is_scored_at_what_survives_of_the_last(rounds, first, second):
    # Two hidden units, of four and of three inputs, all weights 1: those going out score 4 and 3, those coming in 1.
    # In one round the two going out stay, and nothing leads to them. In three, 6 weights stay, then 3, then 2: the
    # first four to go leave the first unit one input, the next three leave it none, so what goes out of it scores 0.
    model = nn.Sequential(nn.Linear(4, 2, bias=False), nn.Linear(2, 1, bias=False))
    set_weights((model[0].weight, [[1.0, 1.0, 1.0, 1.0], [-1.0, 1.0, 1.0, 0.0]]), (model[1].weight, [[1.0, -1.0]]))
    schedule = Schedule.of(model, one_shot=True, grid=[0.2], rates=HALF, scope="global")
    mask = cut(schedule, model, snapshot(model), SynFlow(rounds), batch((4,), 1, torch.float32))
    assert mask["0.weight"].flatten().nonzero().flatten().tolist() == first
    assert mask["1.weight"].flatten().nonzero().flatten().tolist() == second


# --- where they look, and what they leave alone


@pytest.mark.parametrize("criterion", [SNIP(8), GraSP(8), SynFlow(3)])
def test_nothing_that_is_read_is_changed(criterion):
    torch.manual_seed(5)
    model = nn.Sequential(
        *(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.3), nn.Flatten(), nn.Linear(16, 3))
    )
    model[0].weight.requires_grad_(False)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.randn_like(parameter)
    model.train()
    schedule = Schedule.of(model, 1, rates=HALF)
    # The live tensors: a write would show.
    start, mask = model.state_dict(), schedule.dense_mask(model)
    before, slopes = copy.deepcopy(model), [p.grad.clone() if p.requires_grad else None for p in model.parameters()]
    seed, state = torch.initial_seed(), torch.get_rng_state()
    made = []

    def network() -> nn.Module:
        made.append(copy.deepcopy(model))
        return made[-1]

    new = schedule.prune(1, mask, start, start, criterion, network=network, samples=batch((1, 4, 4), 3, torch.float32))
    assert remaining(new) == schedule.weights_remaining(1)
    assert len(made) == 1  # however many rounds there are
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.initial_seed() == seed
    assert all(part.all() for part in mask.values())
    assert model.training
    assert all(torch.equal(value, before.state_dict()[name]) for name, value in model.state_dict().items())
    for one, other, slope in zip(model.parameters(), before.parameters(), slopes, strict=True):
        assert one.requires_grad == other.requires_grad
        assert one.grad is None if slope is None else torch.equal(one.grad, slope)


@pytest.mark.parametrize("criterion", [SNIP(8), GraSP(8), SynFlow(3)])
def test_the_rewind_points_weights_decide_and_the_trained_ones_do_not(criterion):
    torch.manual_seed(6)
    model = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3))
    schedule = Schedule.of(model, one_shot=True, grid=[0.4], rates=HALF, scope="global")
    starts = [snapshot(nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3))) for _ in range(2)]
    trained = [{name: torch.randn_like(value) for name, value in starts[0].items()} for _ in range(2)]

    def survivors(final: Weights, initial: Weights) -> Tensor:
        mask = cut(schedule, model, initial, criterion, batch((6,), 3, torch.float32), final=final)
        return torch.cat([part.flatten() for part in mask.values()])

    one = survivors(trained[0], starts[0])
    assert torch.equal(one, survivors(trained[1], starts[0]))
    assert not torch.equal(one, survivors(trained[0], starts[1]))


@pytest.mark.parametrize("criterion", [SNIP(8), GraSP(8), SynFlow(3)])
def test_they_score_where_gradients_are_switched_off_and_layers_frozen_or_unused(criterion):
    torch.manual_seed(7)

    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.unused, self.two = nn.Linear(4, 3), nn.Linear(4, 4), nn.Linear(3, 2)
            self.requires_grad_(False)

        def forward(self, inputs: Tensor) -> Tensor:
            return self.two(torch.relu(self.one(inputs)))

    with torch.no_grad():
        found = criterion.scores(evidence(Odd(), batch((4,), 2, torch.float32)))
    assert not found["unused.weight"].any()
    assert found["one.weight"].any()
    assert found["two.weight"].any()
    assert not any(part.requires_grad for part in found.values())


@pytest.mark.parametrize(("make", "seeds_matter"), [(SNIP, True), (GraSP, True), (SynFlow, False)])
def test_the_samples_drawn_follow_the_generator(make, seeds_matter):
    model = tiny()
    first, same, other = (make().scores(evidence(model, batch((3,), 3), seed=seed)) for seed in (1, 1, 2))
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert all(torch.equal(first[name], other[name]) != seeds_matter for name in first)


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: SNIP(samples=0), "samples is 0"),
        (lambda: GraSP(samples=-1), "samples is -1"),
        (lambda: GraSP(temperature=0.0), "temperature is 0.0"),
        (lambda: GraSP(temperature=float("nan")), "temperature is nan"),
        (lambda: SynFlow(rounds=0), "rounds is 0"),
    ],
)
def test_numbers_out_of_range_are_refused_in_one_line(make, told):
    with pytest.raises(UserError, match=told) as error:
        make()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("make", [SNIP, GraSP])
def test_batch_norm_on_one_sample_is_refused(make):
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2), nn.Linear(2, 2)).double()
    with pytest.raises(UserError, match="1 sample"):
        make(samples=1).scores(evidence(model, batch((3,), 2)))
