"""How many weights survive each level: the paper's numbers, and numbers computed by hand with whole numbers."""

from collections.abc import Sequence

import pytest
import torch
from torch import nn

from lth_lightning.models import VGG19, Conv2, Conv4, Conv6, LeNet300, ResNet20
from lth_lightning.pruning import Schedule, remaining

CONV6_RATES = {"conv": 0.15, "linear": 0.2, "output": 0.1}
RESNET = {"scope": "global", "exclude": ["*shortcut*", "*output*"]}
CONV_ONLY = {"scope": "global", "rates": {"conv": 0.2}, "exclude": ["*shortcut*"]}
EVERYTHING = {"conv": 0.2, "linear": 0.2, "output": 0.2}


def after_round(left: int, percent: int) -> int:
    """Survivors once `percent` % of `left` have gone, rounded to the nearest and halves to even: no floats."""
    gone, rest = divmod(left * percent, 100)
    if 2 * rest > 100 or (2 * rest == 100 and gone % 2 == 1):
        gone += 1
    return left - gone


def by_hand(layers: Sequence[tuple[int, int]], levels: int) -> list[list[int]]:
    """Of (size, percent a round) layers, each rounded on its own: the survivors at each level."""
    kept = [[size for size, _ in layers]]
    for _ in range(levels):
        kept.append([after_round(n, percent) for n, (_, percent) in zip(kept[-1], layers, strict=True)])
    return kept


LENET = [(784 * 300, 20), (300 * 100, 20), (100 * 10, 10)]
CONV2 = [(3 * 64 * 9, 10), (64 * 64 * 9, 10), (64 * 16 * 16 * 256, 20), (256 * 256, 20), (2560, 10)]
CONV4 = [
    (1_728, 10),
    (36_864, 10),
    (64 * 128 * 9, 10),
    (128 * 128 * 9, 10),
    (128 * 8 * 8 * 256, 20),
    (65_536, 20),
    (2_560, 10),
]
CONV6 = [(n, 15) for n, _ in CONV4[:4]] + [
    (128 * 256 * 9, 15),
    (256 * 256 * 9, 15),
    (4096 * 256, 20),
    (65_536, 20),
    (2_560, 10),
]


@pytest.mark.parametrize(
    ("network", "layers", "levels", "options"),
    [
        (LeNet300, LENET, 28, {}),
        (Conv2, CONV2, 20, {}),
        (Conv4, CONV4, 20, {}),
        (Conv6, CONV6, 20, {"rates": CONV6_RATES}),
    ],
)
def test_each_layer_is_rounded_on_its_own(network, layers, levels, options):
    schedule = Schedule.of(network(), levels=levels, **options)
    expected = by_hand(layers, levels)
    assert [list(kept) for kept in schedule.kept] == expected
    assert [schedule.weights_remaining(level) for level in schedule.levels] == [sum(kept) for kept in expected]
    total = sum(size for size, _ in layers)
    assert [schedule.density(level) for level in schedule.levels] == [sum(kept) / total for kept in expected]
    assert schedule.unpruned == 0


def test_lenet_keeps_these_counts():
    schedule = Schedule.of(LeNet300(), levels=4)
    assert [schedule.weights_remaining(n) for n in schedule.levels] == [266_200, 213_060, 170_538, 136_511, 109_282]
    assert schedule.kept[:4] == (
        (235_200, 30_000, 1_000),
        (188_160, 24_000, 900),
        (150_528, 19_200, 810),
        (120_422, 15_360, 729),
    )


def test_halves_are_rounded_to_even():
    # The output layer's 185 weights at level 16 lose 18.5, that is 18; 5 lose 0.5, that is none of them.
    assert Schedule.of(LeNet300(), levels=17).kept[16:] == ((6_620, 845, 185), (5_296, 676, 167))
    kept = Schedule.of(nn.Sequential(nn.Linear(15, 1), nn.Linear(1, 25)), 1, rates={"*": 0.1}).kept
    assert kept == ((15, 25), (15 - 2, 25 - 2))


def test_conv4_keeps_these_counts():
    schedule = Schedule.of(Conv4(), levels=2)
    assert [schedule.weights_remaining(level) for level in schedule.levels] == [2_425_024, 1_966_253, 1_596_612]
    assert schedule.kept[1] == (1_555, 33_178, 66_355, 132_710, 1_677_722, 52_429, 2_304)


def test_the_notebooks_counts_are_those_of_a_global_pool():
    schedule = Schedule.of(LeNet300(), 5, rates={"linear": 0.2, "output": 0.2}, scope="global")
    counts = [schedule.weights_remaining(level) for level in schedule.levels]
    assert counts == [266_200, 212_960, 170_368, 136_294, 109_035, 87_228]


def test_layer_wise_at_20_percent_gives_one_more_at_level_4():
    schedule = Schedule.of(LeNet300(), 4, rates={"linear": 0.2, "output": 0.2})
    assert schedule.weights_remaining(4) == 109_036


# LTH section 2-4 and appendices: level: percent of weights remaining, as printed.
PAPER = {
    "lenet": {
        1: 80.0,
        2: 64.1,
        3: 51.3,
        4: 41.1,
        5: 32.9,
        6: 26.3,
        7: 21.1,
        8: 16.9,
        9: 13.5,
        10: 10.8,
        11: 8.7,
        12: 7.0,
        13: 5.6,
        14: 4.5,
        15: 3.6,
        16: 2.9,
        17: 2.3,
        18: 1.9,
        20: 1.2,
        24: 0.5,
        28: 0.2,
    },
    "conv2": {11: 8.8, 14: 4.6},
    "conv4": {11: 11.1, 12: 9.2},
    "conv6": {7: 26.6, 10: 15.3},
    "resnet": {4: 41.7, 6: 27.1, 7: 21.9, 10: 11.8},
    "vgg": {12: 6.9, 15: 3.5, 19: 1.5},
}


@pytest.mark.parametrize(
    ("name", "network", "options"),
    [
        ("lenet", LeNet300, {}),
        ("conv2", Conv2, {}),
        ("conv4", Conv4, {}),
        ("conv6", Conv6, {"rates": CONV6_RATES}),
        ("resnet", ResNet20, {"rates": EVERYTHING, **RESNET}),
        ("vgg", VGG19, {"scope": "global", "rates": {"conv": 0.2}}),
    ],
)
def test_densities_are_the_papers_to_its_printed_digits(name, network, options):
    with torch.device("meta"):
        model = network()
    schedule = Schedule.of(model, max(PAPER[name]), **options)
    assert {n: f"{100 * schedule.density(n):.1f}" for n in PAPER[name]} == {
        n: f"{p:.1f}" for n, p in PAPER[name].items()
    }


@pytest.mark.parametrize("options", [{"rates": EVERYTHING, **RESNET}, CONV_ONLY])
def test_resnet_prunes_267696_of_270896_and_counts_them_all(options):
    model = ResNet20()
    schedule = Schedule.of(model, 10, **options)
    (pool,) = schedule.pools
    assert (pool.size, schedule.unpruned, schedule.total) == (267_696, 3_200, 270_896)
    assert len(pool.members) == 19
    assert not [name for name in pool.members if "shortcut" in name or "output" in name]
    expected = [kept for (kept,) in by_hand([(267_696, 20)], 10)]
    assert [kept for (kept,) in schedule.kept] == expected
    assert expected[:3] == [267_696, 214_157, 171_326]
    assert [schedule.weights_remaining(n) for n in schedule.levels] == [kept + 3_200 for kept in expected]
    assert schedule.density(10) == (expected[10] + 3_200) / 270_896
    assert remaining(schedule.dense_mask(model)) == 267_696


def test_excluded_layers_are_not_pruned_and_do_not_make_others_lose_more():
    schedule = Schedule.of(LeNet300(), 3, exclude=["*.fc1.*"])
    assert [pool.members for pool in schedule.pools] == [("net.fc2.weight",), ("net.output.weight",)]
    assert schedule.unpruned == 235_200
    expected = by_hand(LENET[1:], 3)
    assert [list(kept) for kept in schedule.kept] == expected
    assert [schedule.density(n) for n in schedule.levels] == [(235_200 + sum(kept)) / 266_200 for kept in expected]


def test_a_kind_without_a_rate_is_not_pruned():
    schedule = Schedule.of(Conv2(), 1, rates={"conv": 0.1})
    assert [pool.members for pool in schedule.pools] == [("net.conv1.weight",), ("net.conv2.weight",)]
    assert schedule.weights_remaining(1) == 4_300_992 - 173 - 3_686


def test_a_pattern_wins_over_a_kind_and_a_later_pattern_over_an_earlier():
    rates = {"*.fc*": 0.5, "linear": 0.2, "*.fc2.*": 0.25}
    schedule = Schedule.of(LeNet300(), 1, rates=rates)
    assert {pool.name: pool.rate for pool in schedule.pools} == {"net.fc1.weight": 0.5, "net.fc2.weight": 0.25}
    assert schedule.kept[1] == (117_600, 22_500)


def test_pools_stand_in_the_order_of_the_network():
    schedule = Schedule.of(Conv2(), 1, rates={"*.output.*": 0.1, "*.fc2.*": 0.2, "conv": 0.3})
    assert [pool.name.split(".")[1] for pool in schedule.pools] == ["conv1", "conv2", "fc2", "output"]


@pytest.mark.parametrize(
    ("target", "level"), [(0.036, 15), (0.0359, 15), (0.0358, 16), (1.0, 0), (0.8003, 2), (0.801, 1)]
)
def test_until_density_stops_at_the_first_level_at_or_below_it(target, level):
    # Level 15 has 9,537 of 266,200 weights, 3.5827 %; level 1 has 80.038 %.
    schedule = Schedule.of(LeNet300(), until_density=target)
    assert schedule.levels == range(level + 1)
    assert schedule.density(level) <= target
    assert level == 0 or schedule.density(level - 1) > target


def test_until_density_reached_exactly_is_reached():
    model = nn.Sequential(nn.Linear(10, 10))
    schedule = Schedule.of(model, rates={"output": 0.5}, until_density=0.25)
    assert schedule.kept == ((100,), (50,), (25,))


def test_until_density_counts_the_unpruned():
    model = nn.Sequential(nn.Linear(10, 10, bias=False), nn.Linear(10, 10))
    schedule = Schedule.of(model, rates={"linear": 0.5}, until_density=0.625)
    assert schedule.kept == ((100,), (50,), (25,))
    assert schedule.density(2) == 0.625


def test_iterative_levels_follow_from_the_one_before_and_one_shot_from_level_0():
    iterative = Schedule.of(LeNet300(), 3)
    one_shot = Schedule.of(LeNet300(), 3, one_shot=True)
    assert [iterative.parent(level) for level in (1, 2, 3)] == [0, 1, 2]
    assert [one_shot.parent(level) for level in (1, 2, 3)] == [0, 0, 0]
    assert one_shot.kept == iterative.kept


def test_on_a_grid_the_output_loses_half_the_fraction():
    # LTH app. G.4; at 97.5 % half the fraction of 1,000 is 12.5, which may go either way.
    schedule = Schedule.of(LeNet300(), one_shot=True, grid=[0.95, 0.5, 0.05])
    assert schedule.kept == (
        (235_200, 30_000, 1_000),
        (223_440, 28_500, 975),
        (117_600, 15_000, 750),
        (11_760, 1_500, 525),
    )
    assert [schedule.parent(level) for level in (1, 2, 3)] == [0, 0, 0]


def test_on_a_grid_each_layer_loses_in_proportion_to_its_rate():
    model = nn.Sequential(nn.Linear(20, 10), nn.Linear(10, 100), nn.Linear(100, 10))
    schedule = Schedule.of(model, one_shot=True, grid=[0.2], rates={"0.*": 0.1, "1.*": 0.4, "2.*": 0.2})
    assert schedule.kept[1] == (200 - 40, 1_000 - 800, 1_000 - 400)


def test_a_start_mask_gives_level_0_its_counts():
    model = LeNet300()
    start = Schedule.of(model, 1).dense_mask(model)
    start["net.fc1.weight"][0, :200] = False
    start["net.output.weight"][:, :50] = False
    schedule = Schedule.of(model, 2, start=start)
    expected = by_hand([(235_000, 20), (30_000, 20), (500, 10)], 2)
    assert [list(kept) for kept in schedule.kept] == expected
    assert schedule.weights_remaining(0) == 265_500
    assert schedule.density(2) == sum(expected[2]) / 266_200
    one_shot = Schedule.of(model, one_shot=True, grid=[0.5], start=start)
    assert one_shot.kept[1] == (117_500, 15_000, 375)


def test_a_start_mask_counts_in_layers_that_are_not_pruned_further():
    model = LeNet300()
    start = {"net.fc1.weight": torch.zeros(300, 784, dtype=torch.bool)}
    start["net.fc1.weight"].view(-1)[:1_000] = True
    schedule = Schedule.of(model, 1, exclude=["*.fc1.*"], start=start)
    assert schedule.unpruned == 1_000
    assert schedule.weights_remaining(0) == 1_000 + 30_000 + 1_000
    assert schedule.total == 266_200


def test_a_schedule_changes_nothing_in_the_network():
    model = LeNet300()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    schedule = Schedule.of(model, 5)
    mask = schedule.dense_mask(model)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    parameters = dict(model.named_parameters())
    assert {name: part.shape for name, part in mask.items()} == {name: parameters[name].shape for name in mask}
    assert all(part.dtype == torch.bool and part.all() for part in mask.values())
