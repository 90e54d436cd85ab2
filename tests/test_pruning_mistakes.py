"""A schedule that cannot be is refused before any training, in one line that says what to do."""

import pytest
import torch
from torch import nn

from lth_lightning.errors import UserError
from lth_lightning.models import LeNet300
from lth_lightning.pruning import Schedule


def small() -> nn.Module:
    """Pools of 40, 12 and 6 weights."""
    return nn.Sequential(nn.Linear(10, 4), nn.Linear(4, 3), nn.Linear(3, 2))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"rates": {"linear": 0.0}}, ["'linear'", "0.0", "above 0 and below 1"]),
        ({"rates": {"linear": 1.0}}, ["'linear'", "1.0"]),
        ({"rates": {"linear": 0.2, "output": -0.1}}, ["'output'", "-0.1"]),
        ({"rates": {"*.weight": 1.5}}, ["'*.weight'", "1.5"]),
        ({"rates": {"conv": 20, "linear": 0.2}}, ["'conv'", "20"]),
        ({"rates": {"linear": float("nan")}}, ["'linear'", "nan"]),
        ({"rates": {"liner": 0.2}}, ["'liner'", "0.weight, 1.weight, 2.weight"]),
        ({"rates": {"linear": 0.2, "fc1.*": 0.1}}, ["'fc1.*'"]),
        ({"exclude": ["*.bias"]}, ["'*.bias'"]),
        ({"rates": {"conv": 0.2}}, ["Nothing is left to prune"]),
        ({"rates": {}}, ["Nothing is left to prune"]),
        ({"exclude": ["*"]}, ["Nothing is left to prune"]),
        ({"scope": "global"}, ["0.1, 0.2", "scope: layer"]),
        ({"levels": -1}, ["-1", "0 or more"]),
        ({"levels": None}, ["None", "or a density"]),
        ({"until_density": 0.0}, ["0.0", "fraction of 1"]),
        ({"until_density": 3.6}, ["3.6", "fraction of 1"]),
        ({"grid": [0.5]}, ["one_shot"]),
        ({"grid": []}, ["one_shot"]),
        ({"grid": [0.5, 1.0], "one_shot": True}, ["1.0", "below 1"]),
        ({"grid": [0.0], "one_shot": True}, ["0.0", "above 0"]),
        ({"grid": [50], "one_shot": True}, ["50", "fractions of 1"]),
        ({"grid": [0.99, 0.5], "one_shot": True}, ["Level 1", "nothing", "'0.weight'", "40 weights", "grid"]),
        ({"grid": [0.8, 0.5, 0.7], "one_shot": True}, ["0.7 after 0.5", "falling"]),
        ({"grid": [0.5, 0.5], "one_shot": True}, ["0.5 after 0.5", "falling"]),
        ({"grid": [0.5, 0.01], "one_shot": True}, ["Level 2", "everything", "'0.weight'", "grid"]),
    ],
)
def test_a_mistake_is_named(options, said):
    with pytest.raises(UserError) as error:
        Schedule.of(small(), **{"levels": 1, **options})
    text = str(error.value)
    assert "\n" not in text
    assert [part for part in said if part not in text] == []


def test_a_network_without_linear_or_conv_layers_is_refused():
    with pytest.raises(UserError, match="no Linear or Conv layer"):
        Schedule.of(nn.Sequential(nn.BatchNorm1d(3), nn.Embedding(3, 3)))


def last_level(size: int, percent: int) -> int:
    """The last level at which a pool of `size` can still lose some and keep some; whole numbers."""
    level = 0
    while True:
        gone, rest = divmod(size * percent, 100)
        gone += 2 * rest > 100 or (2 * rest == 100 and gone % 2 == 1)
        if gone in (0, size):
            return level
        size -= gone
        level += 1


@pytest.mark.parametrize(
    ("rate", "what"),
    [(0.2, "nothing"), (0.9, "everything"), (0.99, "everything"), (0.03, "nothing")],
)
def test_a_level_that_takes_nothing_or_everything_names_the_pool_and_how_far_it_can_go(rate, what):
    model = nn.Sequential(nn.Linear(40, 1))
    can = last_level(40, round(100 * rate))
    schedule = Schedule.of(model, can, rates={"output": rate})
    assert 0 < schedule.kept[can][0] <= 40
    with pytest.raises(UserError) as error:
        Schedule.of(model, can + 1, rates={"output": rate})
    text = str(error.value)
    assert text.startswith(f"Level {can + 1} would take {what} from '0.weight' ({schedule.kept[can][0]} weights left")
    assert f"can go to level {can}: ask for fewer levels" in text
    assert "\n" not in text


def test_the_smallest_pool_is_what_ends_a_layer_wise_schedule():
    with pytest.raises(UserError, match=r"from '2\.weight' \(4 weights left"):
        # 6 loses 1 (.6), 5 loses none at a tenth: .5 goes to even. At a fifth it loses 1, then 4 lose 1.
        Schedule.of(small(), 9, rates={"linear": 0.2, "2.*": 0.12})
    # In a global pool it is one of many.
    assert len(Schedule.of(small(), 9, rates={"linear": 0.2, "output": 0.2}, scope="global").kept) == 10


def test_a_density_that_cannot_be_reached_says_so():
    with pytest.raises(UserError) as error:
        Schedule.of(LeNet300(), until_density=0.5, rates={"output": 0.1})
    text = str(error.value)
    assert "'net.output.weight'" in text
    assert "--until-density higher" in text
    assert "fewer levels" not in text


def test_a_start_mask_that_has_lost_nearly_all_is_refused_at_level_1():
    start = {"0.weight": torch.zeros(4, 10, dtype=torch.bool)}
    start["0.weight"][0, :2] = True
    with pytest.raises(UserError, match=r"Level 1 would take nothing from '0\.weight' \(2 weights left.*level 0"):
        Schedule.of(small(), 1, start=start)


def test_a_global_pool_names_itself():
    with pytest.raises(UserError, match="from 'global pool'"):
        Schedule.of(small(), 100, rates={"linear": 0.2, "output": 0.2}, scope="global")


@pytest.mark.parametrize("size", [1, 2])
def test_a_pool_too_small_to_prune_at_all_is_refused(size):
    with pytest.raises(UserError, match="level 0"):
        Schedule.of(nn.Sequential(nn.Linear(size, 1)), 1)
