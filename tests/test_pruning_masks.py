"""Which weights go: the same as torch.nn.utils.prune's, exactly as many as asked, and never read off the values."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import prune

from lth_lightning.errors import UserError
from lth_lightning.models import LeNet300
from lth_lightning.pruning import Magnitude, Mask, Random, Schedule, Score, remaining, same_counts_shuffled


def network() -> nn.Sequential:
    torch.manual_seed(3)
    return nn.Sequential(nn.Conv2d(2, 8, 3), nn.Conv2d(8, 6, 3), nn.Flatten(), nn.Linear(54, 40), nn.Linear(40, 7))


def shuffle_magnitudes(model: nn.Module, seed: int) -> None:
    """Set all weights to values whose magnitudes are all different, of random signs and places: no ties."""
    generator = torch.Generator().manual_seed(seed)
    parameters = list(model.parameters())
    sizes = [p.numel() for p in parameters]
    values = (torch.randperm(sum(sizes), generator=generator) + 1) / 4096
    values *= torch.randint(0, 2, values.shape, generator=generator) * 2 - 1
    assert values.abs().unique().numel() == values.numel()
    with torch.no_grad():
        for parameter, part in zip(parameters, values.split(sizes), strict=True):
            parameter.copy_(part.view_as(parameter))


@pytest.mark.parametrize("scope", ["layer", "global"])
def test_masks_equal_torch_prunes_over_rounds_of_training(scope):
    rates = (
        {"conv": 0.15, "linear": 0.2, "output": 0.1}
        if scope == "layer"
        else dict.fromkeys(("conv", "linear", "output"), 0.2)
    )
    ours, theirs = network(), network()
    schedule = Schedule.of(ours, 6, rates=rates, scope=scope)
    mask = schedule.dense_mask(ours)
    layers = {
        f"{i}.weight": (theirs[i], rate)
        for i, rate in zip((0, 1, 3, 4), [rates[k] for k in ("conv", "conv", "linear", "output")], strict=True)
    }
    for level in schedule.levels[1:]:
        # "Trained" weights, new each round; those already pruned are not zero here: neither may look at them.
        shuffle_magnitudes(ours, seed=level)
        final = {name: value.clone() for name, value in ours.state_dict().items()}
        mask = schedule.prune(level, mask, final, final)
        if scope == "layer":
            for name, (module, rate) in layers.items():
                prune.l1_unstructured(module, "weight", amount=rate, importance_scores=final[name])
        else:
            scores = {(module, "weight"): final[name] for name, (module, _) in layers.items()}
            prune.global_unstructured(
                list(scores), pruning_method=prune.L1Unstructured, importance_scores=scores, amount=0.2
            )
        for name, (module, _) in layers.items():
            assert torch.equal(mask[name], module.weight_mask.bool()), (level, name)
        assert remaining(mask) == schedule.weights_remaining(level)
    assert remaining(mask) < 0.5 * schedule.total


def one_layer(
    weights: Tensor, rate: float, levels: int = 1, scores: Score | None = None
) -> tuple[Schedule, list[Mask]]:
    """The masks of all levels of a network of one layer whose trained weights are always `weights`, a row."""
    model = nn.Sequential(nn.Linear(weights.numel(), 1, bias=False))
    schedule = Schedule.of(model, levels, rates={"output": rate})
    masks = [schedule.dense_mask(model)]
    final = {"0.weight": weights.view(1, -1)}
    for level in schedule.levels[1:]:
        masks.append(schedule.prune(level, masks[-1], final, final, scores))
    return schedule, masks


def pruned_places(mask: Mask) -> list[int]:
    return (~mask["0.weight"]).flatten().nonzero().flatten().tolist()


class Signed(Score):
    """Prunes the most negative first: scores below zero."""

    def __call__(self, final: Tensor, initial: Tensor, generator: torch.Generator) -> Tensor:
        return final.clone()


class Moved(Score):
    """|w_T| - |w_0|: needs both."""

    def __call__(self, final: Tensor, initial: Tensor, generator: torch.Generator) -> Tensor:
        return final.abs() - initial.abs()


def test_a_mass_of_equal_scores_loses_exactly_as_many_as_asked_the_first_first():
    # Dead pixels: 80 of 100 weights have the same magnitude, and only 20 may go.
    weights = torch.full((100,), 0.5)
    weights[10:90:4] = 2.0
    weights[1::2] *= -1
    ties = [n for n in range(100) if not (10 <= n < 90 and (n - 10) % 4 == 0)]
    _, masks = one_layer(weights, 0.2, levels=3)
    assert pruned_places(masks[1]) == ties[:20]
    assert pruned_places(masks[2]) == ties[:36]
    assert pruned_places(masks[3]) == ties[: 36 + 13]


def test_ties_at_the_edge_lose_the_first_after_all_lower_ones():
    weights = torch.tensor([3.0, 1.0, 2.0, 2.0, 1.0, 2.0, 2.0, 4.0, 5.0, 6.0])
    _, masks = one_layer(weights, 0.4)
    assert pruned_places(masks[1]) == [1, 2, 3, 4]


@pytest.mark.parametrize("value", [0.0, -1.5, 1e-45])
def test_scores_that_are_all_equal_are_refused_by_the_criterions_name(value):
    with pytest.raises(UserError, match=r"Magnitude gives all 1000 weights of '0\.weight' the same score") as error:
        one_layer(torch.full((1_000,), value), 0.2)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_scores_that_are_not_finite_are_refused_by_the_criterions_name(value):
    weights = torch.rand(100)
    weights[3] = value
    with pytest.raises(UserError, match=r"Magnitude gives scores for '0\.weight' that are not finite"):
        one_layer(weights, 0.2)


@pytest.mark.parametrize("value", [0.0, -1.5, 1e-45])
def test_a_tensor_that_is_all_equal_but_for_one_weight_loses_exactly_as_many_as_asked(value):
    weights = torch.full((1_000,), value)
    weights[999] = 2.0
    schedule, masks = one_layer(weights, 0.2, levels=5)
    for level, mask in enumerate(masks):
        gone = 1_000 - schedule.kept[level][0]
        assert pruned_places(mask) == list(range(gone))


def test_what_is_pruned_already_may_have_any_score():
    weights = torch.rand(100)
    schedule, masks = one_layer(weights, 0.2)
    final = {"0.weight": weights.masked_fill(~masks[1]["0.weight"].flatten(), float("nan")).view(1, 100)}
    assert int(schedule.prune(1, masks[1], final, final)["0.weight"].sum()) == 80


def test_ties_in_a_global_pool_go_in_the_order_of_the_network():
    model = nn.Sequential(nn.Linear(5, 2), nn.Linear(2, 5))
    schedule = Schedule.of(model, 1, rates={"linear": 0.6, "output": 0.6}, scope="global")
    final = {name: torch.ones_like(value) for name, value in model.state_dict().items()}
    final["1.weight"][4, 1] = 2.0
    mask = schedule.prune(1, schedule.dense_mask(model), final, final)
    assert [int(mask[name].sum()) for name in ("0.weight", "1.weight")] == [0, 8]
    assert (~mask["1.weight"]).flatten().nonzero().flatten().tolist() == [0, 1]


def test_dead_pixels_of_a_lenet_do_not_over_prune():
    # Inputs that are always black: under Adam their weights never move, here all are zero.
    model = LeNet300()
    final = {name: value.clone() for name, value in model.state_dict().items()}
    final["net.fc1.weight"][:, :300] = 0
    schedule = Schedule.of(model, 1)
    mask = schedule.prune(1, schedule.dense_mask(model), final, final)
    assert int(mask["net.fc1.weight"].sum()) == 188_160
    # 47,040 of the 90,000 zeros went, and nothing else.
    gone = (~mask["net.fc1.weight"]).flatten().nonzero().flatten()
    dead = (final["net.fc1.weight"] == 0).flatten().nonzero().flatten()
    assert torch.equal(gone, dead[:47_040])


def test_scores_below_zero_are_as_good_as_any():
    weights = torch.tensor([0.1, -3.0, 0.0, -1.0, 2.0, -2.0, -0.5, 1.0, 0.3, -4.0])
    _, masks = one_layer(weights, 0.4, levels=2, scores=Signed())
    assert pruned_places(masks[1]) == [1, 3, 5, 9]
    assert pruned_places(masks[2]) == [1, 2, 3, 5, 6, 9]


def test_a_score_can_compare_with_the_weights_at_the_rewind_point():
    model = nn.Sequential(nn.Linear(4, 1))
    schedule = Schedule.of(model, 1, rates={"output": 0.5})
    final = {"0.weight": torch.tensor([[1.0, -2.0, 3.0, 4.0]])}
    initial = {"0.weight": torch.tensor([[0.0, 1.9, -9.0, 4.0]])}
    mask = schedule.prune(1, schedule.dense_mask(model), final, initial, Moved())
    assert mask["0.weight"].tolist() == [[True, True, False, False]]


def test_a_live_weight_that_is_zero_or_negative_stays_alive_if_its_score_says_so():
    weights = torch.tensor([-5.0, 0.0, -0.0, 3.0, -4.0, 2.0])
    _, masks = one_layer(weights, 1 / 6)
    assert masks[1]["0.weight"].tolist() == [[True, False, True, True, True, True]]


def test_a_pruned_weight_stays_pruned_whatever_its_value_and_score():
    model = nn.Sequential(nn.Linear(6, 1))
    schedule = Schedule.of(model, 2, rates={"output": 0.3})
    first = {"0.weight": torch.tensor([[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]])}
    mask = schedule.prune(1, schedule.dense_mask(model), first, first)
    assert mask["0.weight"].tolist() == [[False, False, True, True, True, True]]
    # The pruned would now be the largest, and a survivor is exactly zero.
    second = {"0.weight": torch.tensor([[9.0, 9.0, 0.0, 4.0, 5.0, 6.0]])}
    mask = schedule.prune(2, mask, second, second)
    assert mask["0.weight"].tolist() == [[False, False, False, True, True, True]]


@pytest.mark.parametrize("scope", ["layer", "global"])
def test_masks_are_nested_and_the_given_one_is_not_changed(scope):
    model = network()
    rates = dict.fromkeys(("conv", "linear", "output"), 0.3)
    schedule = Schedule.of(model, 5, rates=rates, scope=scope)
    mask = schedule.dense_mask(model)
    for level in schedule.levels[1:]:
        shuffle_magnitudes(model, seed=level)
        before = {name: part.clone() for name, part in mask.items()}
        new = schedule.prune(level, mask, model.state_dict(), model.state_dict())
        assert all(torch.equal(mask[name], before[name]) for name in mask)
        assert all(not (new[name] & ~mask[name]).any() for name in mask)
        assert all(new[name].dtype == torch.bool and new[name].shape == mask[name].shape for name in mask)
        mask = new


def test_one_shot_levels_are_each_cut_from_level_0():
    weights = torch.tensor([5.0, 1.0, 4.0, 2.0, 3.0, 6.0, 7.0, 8.0, 9.0, 10.0])
    model = nn.Sequential(nn.Linear(10, 1))
    schedule = Schedule.of(model, one_shot=True, grid=[0.8, 0.7, 0.5], rates={"output": 0.2})
    final = {"0.weight": weights.view(1, -1)}
    dense = schedule.dense_mask(model)
    masks = [schedule.prune(level, dense, final, final) for level in (1, 2, 3)]
    assert [pruned_places(mask) for mask in masks] == [[1, 3], [1, 3, 4], [0, 1, 2, 3, 4]]


def test_a_start_mask_is_pruned_further_and_its_other_layers_stay():
    model = network()
    dense = Schedule.of(model, 1).dense_mask(model)
    start = {
        name: torch.rand(part.shape, generator=torch.Generator().manual_seed(1)) < 0.5 for name, part in dense.items()
    }
    schedule = Schedule.of(model, 1, start=start, exclude=["0.*"])
    mask = schedule.prune(1, start, model.state_dict(), model.state_dict())
    assert torch.equal(mask["0.weight"], start["0.weight"])
    assert mask["0.weight"].data_ptr() != start["0.weight"].data_ptr()
    for pool, keep in zip(schedule.pools, schedule.kept[1], strict=True):
        (name,) = pool.members
        left = int(start[name].sum())
        assert keep == left - round(pool.rate * left) == int(mask[name].sum())
        assert not (mask[name] & ~start[name]).any()
    assert remaining(mask) == schedule.weights_remaining(1)


def test_biases_and_norms_are_never_in_a_mask():
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.LayerNorm(16), nn.Linear(16, 3))
    schedule = Schedule.of(model, 2)
    mask = schedule.prune(1, schedule.dense_mask(model), model.state_dict(), model.state_dict())
    assert list(mask) == ["0.weight", "4.weight"]


@pytest.mark.thorough
def test_more_than_16_million_weights_are_pruned():
    # torch.quantile stops at 2**24 elements, and float32 counts no further.
    size = 2**24 + 10
    model = nn.Sequential(nn.Linear(size, 1, bias=False, device="meta"))
    schedule = Schedule.of(model, 1, rates={"output": 0.2})
    generator = torch.Generator().manual_seed(0)
    weights = torch.randint(-1_000, 1_000, (1, size), generator=generator).float()
    mask = schedule.prune(1, schedule.dense_mask(model), {"0.weight": weights}, {"0.weight": weights})
    assert remaining(mask) == size - 3_355_445 == schedule.weights_remaining(1)
    gone = ~mask["0.weight"]
    edge = weights[gone].abs().max()
    assert weights[mask["0.weight"]].abs().min() >= edge
    # Of those at the edge, the first went.
    at_edge = gone[weights.abs() == edge]
    assert at_edge[: int(at_edge.sum())].all()


def test_half_precision_weights_are_pruned_as_their_values_say():
    _, masks = one_layer(torch.tensor([3.0, -1.0, 2.0, 4.0], dtype=torch.bfloat16), 0.5)
    assert pruned_places(masks[1]) == [1, 2]


def test_magnitude_is_the_default_criterion():
    final = torch.tensor([-2.0, 1.0, 0.0])
    assert Magnitude()(final, torch.zeros(3), torch.Generator()).tolist() == [2.0, 1.0, 0.0]


def test_random_scores_take_the_same_counts_and_follow_the_generator():
    model = LeNet300()
    schedule = Schedule.of(model, 1)
    weights = model.state_dict()

    def cut(seed: int) -> Mask:
        generator = torch.Generator().manual_seed(seed)
        return schedule.prune(1, schedule.dense_mask(model), weights, weights, Random(), generator)

    one, same, other = cut(1), cut(1), cut(2)
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not any(torch.equal(one[name], other[name]) for name in one)
    assert [int(part.sum()) for part in one.values()] == [188_160, 24_000, 900]
    # Random, so no other than by chance: of the smaller half of the weights about 80 % survive too.
    fc1 = weights["net.fc1.weight"].abs()
    small = one["net.fc1.weight"][fc1 < fc1.median()]
    assert small.float().mean().item() == pytest.approx(0.8, abs=0.01)


def test_a_drawn_score_without_a_generator_is_the_same_each_time():
    model = network()
    schedule = Schedule.of(model, 1)
    one, same = (
        schedule.prune(1, schedule.dense_mask(model), model.state_dict(), {**model.state_dict()}, Random())
        for _ in range(2)
    )
    assert all(torch.equal(one[name], same[name]) for name in one)


def test_a_shuffled_mask_has_each_layers_count_at_other_places():
    generator = torch.Generator().manual_seed(5)
    mask = {"a": torch.rand(30, 40, generator=generator) < 0.2, "b": torch.rand(7, 5, 3, 3, generator=generator) < 0.7}
    before = {name: part.clone() for name, part in mask.items()}
    shuffled = same_counts_shuffled(mask, torch.Generator().manual_seed(0))
    again = same_counts_shuffled(mask, torch.Generator().manual_seed(0))
    for name, part in mask.items():
        assert torch.equal(part, before[name])
        assert int(shuffled[name].sum()) == int(part.sum())
        assert shuffled[name].shape == part.shape
        assert shuffled[name].dtype == torch.bool
        assert not torch.equal(shuffled[name], part)
        assert torch.equal(shuffled[name], again[name])


def test_remaining_counts_every_survivor():
    assert remaining({}) == 0
    assert remaining({"a": torch.tensor([[True, False], [True, True]]), "b": torch.zeros(3, dtype=torch.bool)}) == 3
