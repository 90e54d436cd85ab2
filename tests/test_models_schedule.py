"""The warmup and drops are the closed formula at every step, in torch alone."""

import io

import pytest
import torch

from lth_lightning.errors import UserError
from lth_lightning.models import WarmupMultiStepLR


def make_optimizer(*rates: float) -> torch.optim.Optimizer:
    return torch.optim.SGD([{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": rate} for rate in rates])


def rates_by_hand(base: float, steps: int, warmup: int, milestones: tuple[int, ...], gamma: float) -> list[float]:
    rates = []
    for t in range(steps):
        rate = base * t / warmup if t < warmup else base
        for milestone in milestones:
            if t >= milestone:
                rate *= gamma
        rates.append(rate)
    return rates


def run(optimizer: torch.optim.Optimizer, scheduler: WarmupMultiStepLR, steps: int) -> list[float]:
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


@pytest.mark.parametrize(
    ("warmup", "milestones", "gamma"),
    [(0, (), 0.1), (10, (), 0.1), (0, (7, 20), 0.1), (10, (12, 25), 0.5), (10, (5, 25), 0.1), (1, (1,), 0.2)],
)
def test_rate_at_every_step_is_the_closed_formula(warmup, milestones, gamma):
    optimizer = make_optimizer(0.03)
    scheduler = WarmupMultiStepLR(optimizer, warmup, milestones, gamma)
    expected = rates_by_hand(0.03, 30, warmup, milestones, gamma)
    assert run(optimizer, scheduler, 30) == pytest.approx(expected, rel=1e-12, abs=0.0)


def test_rates_at_the_edges_of_warmup_and_milestones():
    optimizer = make_optimizer(0.5)
    rates = run(optimizer, WarmupMultiStepLR(optimizer, warmup_steps=4, milestones=[6]), 8)
    assert rates == pytest.approx([0.0, 0.125, 0.25, 0.375, 0.5, 0.5, 0.05, 0.05])


def test_every_parameter_group_keeps_its_own_base_rate():
    optimizer = make_optimizer(0.1, 0.4)
    scheduler = WarmupMultiStepLR(optimizer, warmup_steps=2)
    optimizer.step()
    scheduler.step()
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.05, 0.2])


@pytest.mark.parametrize("stop", [0, 3, 5, 12, 29])
def test_resumed_schedule_goes_on_bit_for_bit_from_a_weights_only_file(stop):
    arguments = {"warmup_steps": 5, "milestones": (12, 20)}
    optimizer = make_optimizer(0.03)
    whole = run(optimizer, WarmupMultiStepLR(optimizer, **arguments), 30)

    optimizer = make_optimizer(0.03)
    scheduler = WarmupMultiStepLR(optimizer, **arguments)
    before = run(optimizer, scheduler, stop)
    file = io.BytesIO()
    torch.save({"optimizer": optimizer.state_dict(), "scheduler": scheduler.state_dict()}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    optimizer = make_optimizer(0.03)
    scheduler = WarmupMultiStepLR(optimizer, **arguments)
    optimizer.load_state_dict(saved["optimizer"])
    scheduler.load_state_dict(saved["scheduler"])
    assert before + run(optimizer, scheduler, 30 - stop) == whole


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"warmup_steps": -1}, "warmup_steps is -1"), ({"milestones": [0, 5]}, r"milestones are \[0, 5\]")],
)
def test_steps_out_of_range_are_a_users_mistake(arguments, message):
    with pytest.raises(UserError, match=message):
        WarmupMultiStepLR(make_optimizer(0.1), **arguments)
