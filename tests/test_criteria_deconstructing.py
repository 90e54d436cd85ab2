"""The criteria of Deconstructing Lottery Tickets, at four weights worked out by hand."""

import pytest
import torch
from torch import nn

from lth_lightning.errors import UserError
from lth_lightning.pruning import (
    Criterion,
    Evidence,
    LargeFinalSameSign,
    LargeInit,
    LargeInitLargeFinal,
    Magnitude,
    MagnitudeIncrease,
    Movement,
    Random,
    Schedule,
    SmallFinal,
    SmallInit,
    SmallInitSmallFinal,
)
from lth_lightning.pruning.layers import Layer

FINAL = [[3.0, -1.0], [-2.0, 0.5]]
INITIAL = [[-4.0, -0.5], [-0.25, 2.0]]


def scores(criterion: Criterion, final: list, initial: list, alive: list | None = None) -> list:
    weights, start = torch.tensor(final), torch.tensor(initial)
    mask = torch.ones_like(weights, dtype=torch.bool) if alive is None else torch.tensor(alive)
    before = weights.clone(), start.clone(), mask.clone()
    evidence = Evidence(
        (Layer("w", "linear", weights.numel()),), {"w": mask}, {"w": weights}, {"w": start}, torch.Generator()
    )
    found = criterion.scores(evidence)
    assert list(found) == ["w"]
    assert all(torch.equal(a, b) for a, b in zip((weights, start, mask), before, strict=True))
    return found["w"].tolist()


@pytest.mark.parametrize(
    ("criterion", "expected"),
    [
        (Magnitude(), [[3.0, 1.0], [2.0, 0.5]]),
        (SmallFinal(), [[-3.0, -1.0], [-2.0, -0.5]]),
        (LargeInit(), [[4.0, 0.5], [0.25, 2.0]]),
        (SmallInit(), [[-4.0, -0.5], [-0.25, -2.0]]),
        (LargeInitLargeFinal(scale=1.0), [[3.0, 0.5], [0.25, 0.5]]),
        (LargeInitLargeFinal(scale=2.0), [[4.0, 0.5], [0.25, 1.0]]),
        (SmallInitSmallFinal(scale=1.0), [[-4.0, -1.0], [-2.0, -2.0]]),
        (SmallInitSmallFinal(scale=0.5), [[-4.0, -0.5], [-1.0, -2.0]]),
        (MagnitudeIncrease(), [[-1.0, 0.5], [1.75, -1.5]]),
        (Movement(), [[7.0, 0.5], [1.75, 1.5]]),
        # Only the first crossed zero.
        (LargeFinalSameSign(), [[-3.0, 1.0], [2.0, 0.5]]),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Criterion) else "",
)
def test_each_criterion_gives_the_scores_worked_out_by_hand(criterion, expected):
    assert scores(criterion, FINAL, INITIAL) == expected


def test_without_a_scale_each_layers_survivors_are_brought_to_the_same_mean():
    # Of the three survivors mean |w_f| = (2 + 4 + 6) / 3 = 4 and mean |w_i| = (1 + 1 + 4) / 3 = 2: a = 0.5.
    # The fourth, pruned, would spoil both means.
    final, initial, alive = [[2.0, -4.0, 6.0, 0.0]], [[1.0, 1.0, -4.0, 90.0]], [[True, True, True, False]]
    assert scores(LargeInitLargeFinal(), final, initial, alive)[0][:3] == [1.0, 1.0, 3.0]
    assert scores(SmallInitSmallFinal(), final, initial, alive)[0][:3] == [-1.0, -2.0, -4.0]


def test_each_layer_has_a_scale_of_its_own():
    layers = (Layer("a", "linear", 2), Layer("b", "output", 2))
    final = {"a": torch.tensor([1.0, 3.0]), "b": torch.tensor([10.0, 30.0])}
    initial = {"a": torch.tensor([5.0, 3.0]), "b": torch.tensor([1.0, 3.0])}
    mask = {name: torch.ones(2, dtype=torch.bool) for name in final}
    found = LargeInitLargeFinal().scores(Evidence(layers, mask, final, initial, torch.Generator()))
    # a: mean |w_i| / mean |w_f| = 4 / 2, so min([2, 6], [5, 3]). b: 2 / 20, so min([1, 3], [1, 3]).
    assert found["a"].tolist() == [2.0, 3.0]
    assert found["b"].tolist() == pytest.approx([1.0, 3.0])


def test_a_layer_that_has_trained_to_zero_still_gets_numbers():
    assert scores(LargeInitLargeFinal(), [[0.0, 0.0]], [[1.0, -2.0]]) == [[0.0, 0.0]]
    assert scores(SmallInitSmallFinal(), [[0.0, 0.0]], [[1.0, -2.0]]) == [[-1.0, -2.0]]


def test_all_that_changed_their_sign_go_before_any_that_kept_it_the_furthest_first():
    final = [[0.1, 5.0, -0.2, 4.0, 3.0, -0.1]]
    initial = [[0.3, -1.0, -9.0, -1.0, 1.0, 0.2]]
    found = torch.tensor(scores(LargeFinalSameSign(), final, initial)[0])
    assert found.argsort().tolist() == [1, 3, 5, 0, 2, 4]


def test_the_nine_criteria_prune_what_they_say():
    model = nn.Sequential(nn.Linear(4, 1, bias=False))
    schedule = Schedule.of(model, 1, rates={"output": 0.5})
    final = {"0.weight": torch.tensor([[1.0, -2.0, 3.0, 4.0]])}
    initial = {"0.weight": torch.tensor([[-2.5, -1.5, -0.5, 4.5]])}
    kept = {}
    for criterion in (
        *(Magnitude(), SmallFinal(), LargeInit(), SmallInit(), LargeInitLargeFinal(1.0), SmallInitSmallFinal(1.0)),
        *(MagnitudeIncrease(), Movement(), LargeFinalSameSign(), Random()),
    ):
        mask = schedule.prune(1, schedule.dense_mask(model), final, initial, criterion)
        kept[type(criterion).__name__] = mask["0.weight"][0].nonzero().flatten().tolist()
    assert len(kept.pop("Random")) == 2
    assert kept == {
        "Magnitude": [2, 3],
        "SmallFinal": [0, 1],
        "LargeInit": [0, 3],
        "SmallInit": [1, 2],
        "LargeInitLargeFinal": [1, 3],  # min: 1, 1.5, 0.5, 4
        "SmallInitSmallFinal": [0, 1],  # max: 2.5, 2, 3, 4.5
        "MagnitudeIncrease": [1, 2],  # -1.5, 0.5, 2.5, -0.5
        "Movement": [0, 2],  # 3.5, 0.5, 3.5, 0.5
        "LargeFinalSameSign": [1, 3],
    }


@pytest.mark.parametrize("criterion", [LargeInitLargeFinal, SmallInitSmallFinal])
@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan")])
def test_a_scale_that_is_not_positive_is_refused(criterion, scale):
    with pytest.raises(UserError, match="scale is"):
        criterion(scale)
