"""Each control's start, against its definition computed otherwise."""

from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor

from lth_lightning.callbacks import (
    Noise,
    RandomMask,
    RandomPruning,
    RandomReinit,
    Reshuffle,
    Rewound,
    SearchedAnew,
    ShuffledMask,
    SignedConstant,
    SignFlips,
    Start,
    SurvivorReinit,
)
from lth_lightning.callbacks.controls import Control
from lth_lightning.errors import UserError

STEP = 5


def example() -> tuple[Start, dict[str, Tensor]]:
    """A ticket of two masked layers, a bias, a layer outside all pools, and a buffer; and fresh weights for it."""
    generator = torch.Generator().manual_seed(7)

    def draw() -> dict[str, Tensor]:
        return {
            "a.weight": 0.3 * torch.randn(40, 50, generator=generator) + 0.1,
            "a.bias": torch.randn(40, generator=generator),
            "b.weight": 2.0 * torch.randn(7, 3, 2, 2, generator=generator),
            "outside.weight": torch.randn(4, 4, generator=generator),
            "norm.running_mean": torch.randn(7, generator=generator),
            "norm.num_batches_tracked": torch.tensor(STEP),
        }

    weights = draw()
    mask = {name: torch.rand(weights[name].shape, generator=generator) < 0.4 for name in ("a.weight", "b.weight")}
    return Start(mask, weights, STEP), draw()


def started(control: Control, seed: int = 0) -> tuple[Start, Start, dict[str, Tensor]]:
    """What it trains from, the ticket, and the fresh weights. Neither of these may have been changed in place."""
    ticket, fresh = example()
    again, fresh_again = example()
    start = control.start(ticket, fresh, torch.Generator().manual_seed(seed))
    for one, other in ((ticket.weights, again.weights), (fresh, fresh_again), (ticket.mask, again.mask)):
        assert list(one) == list(other)
        assert all(torch.equal(one[name], other[name]) for name in one)
    assert (ticket.step, ticket.pruned, ticket.steps) == (STEP, {}, None)
    return start, ticket, fresh


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return list(first) == list(second) and all(torch.equal(first[name], second[name]) for name in first)


CHANGED: dict[str, Any] = {
    "reshuffle": lambda: Reshuffle(),
    "reshuffle, signs kept": lambda: Reshuffle(keep_signs=True),
    "signed constant": lambda: SignedConstant(),
    "signed constant, signs kept": lambda: SignedConstant(keep_signs=True),
    "survivor reinit": lambda: SurvivorReinit(),
    "noise": lambda: Noise(0.5),
    "sign flips": lambda: SignFlips(0.25),
}


@pytest.mark.parametrize("make", CHANGED.values(), ids=CHANGED)
def test_the_tickets_mask_and_step_stay_and_whatever_is_not_a_survivor_too(make: Any) -> None:
    start, ticket, _ = started(make())
    assert same(start.mask, ticket.mask)
    assert (start.step, start.steps, start.optimizer_state, start.pruned) == (STEP, None, False, {})
    assert list(start.weights) == list(ticket.weights)
    for name, value in start.weights.items():
        if name not in ticket.mask:
            assert torch.equal(value, ticket.weights[name])
            continue
        part = ticket.mask[name]
        assert value.dtype == ticket.weights[name].dtype
        assert torch.equal(value[~part], ticket.weights[name][~part])
        assert not torch.equal(value[part], ticket.weights[name][part])


@pytest.mark.parametrize("make", CHANGED.values(), ids=CHANGED)
def test_the_same_seed_draws_the_same_and_another_otherwise(make: Any) -> None:
    first, again, other = (started(make(), seed)[0].weights for seed in (1, 1, 2))
    assert same(first, again)
    if not (isinstance(make(), SignedConstant) and make().keep_signs):  # it draws nothing
        assert not same(first, other)


def survivors(start: Start, ticket: Start) -> list[tuple[Tensor, Tensor]]:
    """Of each masked layer, the new and the initial values of the survivors."""
    return [(start.weights[n][part], ticket.weights[n][part]) for n, part in ticket.mask.items()]


def test_reshuffle_moves_the_survivors_values_within_their_layer() -> None:
    start, ticket, _ = started(Reshuffle())
    for new, old in survivors(start, ticket):
        assert Counter(new.tolist()) == Counter(old.tolist())
        assert (new == old).float().mean() < 0.15  # a random permutation has one fixed point, on average


def test_reshuffle_with_signs_moves_the_magnitudes_alone() -> None:
    start, ticket, _ = started(Reshuffle(keep_signs=True))
    for new, old in survivors(start, ticket):
        assert Counter(new.abs().tolist()) == Counter(old.abs().tolist())
        assert torch.equal(new > 0, old > 0)
        assert (new == old).float().mean() < 0.15


def layer_sd(weights: Tensor) -> float:
    values = weights.double().flatten().tolist()
    mean = sum(values) / len(values)
    return (sum((value - mean) ** 2 for value in values) / len(values)) ** 0.5


@pytest.mark.parametrize("keeps", [False, True])
def test_a_signed_constant_is_plus_or_minus_the_layers_standard_deviation(keeps: bool) -> None:
    start, ticket, _ = started(SignedConstant(keep_signs=keeps))
    for (new, old), name in zip(survivors(start, ticket), ticket.mask, strict=True):
        sd = layer_sd(ticket.weights[name])  # of all of the layer's weights, the pruned ones too
        assert len(set(new.abs().tolist())) == 1
        assert new.abs()[0].item() == pytest.approx(sd, rel=1e-5)
        agreement = ((new > 0) == (old > 0)).float().mean()
        assert agreement == 1 if keeps else 0.2 < agreement < 0.8
    new, old = survivors(start, ticket)[0]
    share = (new > 0).float().mean().item()
    expected = (old > 0).float().mean().item() if keeps else 0.5
    assert share == pytest.approx(expected, abs=0.06 if not keeps else 0)


def test_survivor_reinit_draws_with_replacement_among_the_survivors_of_the_layer() -> None:
    start, ticket, _ = started(SurvivorReinit())
    for new, old in survivors(start, ticket):
        assert set(new.tolist()) <= set(old.tolist())
        # With replacement a value is missed with probability 1/e.
        missed = 1 - len(set(new.tolist())) / len(old)
        assert missed == pytest.approx(0.368, abs=0.13)


@pytest.mark.parametrize("sd", [0.5, 3.0])
def test_noise_has_the_given_share_of_the_layers_standard_deviation(sd: float) -> None:
    start, ticket, _ = started(Noise(sd))
    for (new, old), name in zip(survivors(start, ticket), ticket.mask, strict=True):
        noise = (new - old).double() / (sd * layer_sd(ticket.weights[name]))
        count = len(noise)
        assert abs(noise.mean()) < 4 / count**0.5
        assert noise.std() == pytest.approx(1, abs=4 / (2 * count) ** 0.5)
        assert ((noise.abs() < 1).float().mean() - 0.683).abs() < 4 * (0.683 * 0.317 / count) ** 0.5


@pytest.mark.parametrize("fraction", [0.25, 0.5, 0.01, 1.0])
def test_sign_flips_turn_exactly_the_given_share(fraction: float) -> None:
    start, ticket, _ = started(SignFlips(fraction))
    for new, old in survivors(start, ticket):
        assert torch.equal(new.abs(), old.abs())
        assert int((new != old).sum()) == round(fraction * len(old))


def test_random_reinit_is_fresh_and_begins_at_step_0() -> None:
    start, ticket, fresh = started(RandomReinit())
    assert same(start.mask, ticket.mask)
    assert same(start.weights, fresh)
    assert start.step == 0


def test_random_reinit_may_keep_the_signs() -> None:
    start, ticket, fresh = started(RandomReinit(keep_signs=True))
    assert start.step == 0
    for name, value in start.weights.items():
        if name in ticket.mask:
            assert torch.equal(value.abs(), fresh[name].abs())
            assert torch.equal(value > 0, ticket.weights[name] > 0)
        else:
            assert torch.equal(value, fresh[name])


def test_rewound_is_the_ticket() -> None:
    start, ticket, _ = started(Rewound())
    assert same(start.mask, ticket.mask)
    assert same(start.weights, ticket.weights)
    assert (start.step, start.optimizer_state, start.learning_rates) == (STEP, False, None)


def test_a_shuffled_mask_has_the_counts_and_the_rewind_points_weights() -> None:
    start, ticket, _ = started(ShuffledMask())
    assert same(start.weights, ticket.weights)
    assert start.step == STEP
    for name, part in ticket.mask.items():
        assert start.mask[name].sum() == part.sum()
        assert start.mask[name].shape == part.shape
        both, share = (start.mask[name] & part).sum().item(), part.float().mean().item()
        assert both == pytest.approx(share * part.sum().item(), rel=0.35)


def test_a_random_mask_is_fresh_and_begins_at_step_0() -> None:
    start, ticket, fresh = started(RandomMask())
    assert same(start.weights, fresh)
    assert start.step == 0
    assert all(start.mask[name].sum() == part.sum() for name, part in ticket.mask.items())
    assert not same(start.mask, ticket.mask)


@pytest.mark.parametrize("kind", [SearchedAnew, RandomPruning])
def test_what_searches_masks_begins_at_step_0_with_fresh_weights(kind: type[Control]) -> None:
    start, ticket, fresh = started(kind())
    assert same(start.mask, ticket.mask)  # given as `ticket` is its own
    assert same(start.weights, fresh)
    assert start.step == 0


@pytest.mark.parametrize(
    ("control", "arm"),
    [
        (Rewound(), "rewound"),
        (Rewound(name="Supermask-0.2"), "Supermask-0.2"),
        (RandomReinit(), "random_reinit"),
        (RandomReinit(keep_signs=True), "random_reinit_same_signs"),
        (RandomReinit(keep_signs=True, name="mine"), "mine"),
        (Reshuffle(), "reshuffle"),
        (Reshuffle(keep_signs=True), "reshuffle_same_signs"),
        (SignedConstant(), "signed_constant"),
        (SignedConstant(keep_signs=True), "signed_constant_same_signs"),
        (SurvivorReinit(), "survivor_reinit"),
        (ShuffledMask(), "shuffled_mask"),
        (Noise(0.5), "noise_0.5"),
        (Noise(2), "noise_2"),
        (Noise(2, name="loud"), "loud"),
        (SignFlips(), "sign_flips_0.5"),
        (SignFlips(1), "sign_flips_1"),
        (SignFlips(1, name="all"), "all"),
        (SearchedAnew(), "searched_anew"),
        (RandomPruning(), "random_pruning"),
    ],
)
def test_an_arm_has_the_name_of_its_class_and_of_what_it_is_told(control: Control, arm: str) -> None:
    assert control.arm == arm


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: Noise(0), "sd=0"),
        (lambda: Noise(-0.5), "sd=-0.5"),
        (lambda: Noise(float("nan")), "sd=nan"),
        (lambda: Noise(float("inf")), "sd=inf"),
        (lambda: SignFlips(0), "fraction=0"),
        (lambda: SignFlips(1.01), "fraction=1.01"),
        (lambda: SignFlips(float("nan")), "fraction=nan"),
        (lambda: Rewound(steps=-1), "steps=-1"),
        (lambda: Noise(1, steps=-1), "steps=-1"),
        (lambda: Rewound(trials=0), "trials=0"),
        (lambda: Rewound(name=""), "''"),
        (lambda: Rewound(name="../up"), "../up"),
        (lambda: Rewound(name="a/b"), "a/b"),
        (lambda: Rewound(name="two words"), "two words"),
        (lambda: Rewound(name="0_first"), "0_first"),
        (lambda: Rewound(name="line\n"), "cannot name"),
        (lambda: SearchedAnew(levels=[2]).levels_of(3), "searched_anew"),
        (lambda: SearchedAnew(levels=[1, 3]).levels_of(3), "searched_anew"),
        (lambda: RandomPruning(levels="2-3").levels_of(3), "random_pruning"),
        (lambda: RandomPruning(levels="1-4").levels_of(3), "level 4"),
        (lambda: Noise(1, levels=[1, 7]).levels_of(3), "noise_1 asks for level 7"),
    ],
)
def test_a_control_that_cannot_be_is_refused_in_one_line(make: Any, told: str) -> None:
    with pytest.raises(UserError) as error:
        make()
    assert told in str(error.value)
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize(("levels", "found"), [("all", [1, 2, 3]), ("1-2", [1, 2]), ([2, 1], [1, 2]), ("0-1", [0, 1])])
def test_a_searching_control_takes_levels_without_gaps(levels: Any, found: list[int]) -> None:
    assert SearchedAnew(levels=levels).levels_of(3) == found
