"""Which weights an evaluation is of: compared bit for bit, buffers apart from parameters."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from loop_helpers import OwnModule, SmallData, go, level, rows
from torch import nn

from lth_lightning.callbacks.evaluated import Evaluated


class Network(nn.Module):
    """Parameters and buffers of every kind of number, a layer that is shared, one that has no bias."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 3, bias=False)
        self.again = self.first
        self.short_ = nn.Parameter(torch.randn(2, 3).half())
        self.long_ = nn.Parameter(torch.randn(3, 2, dtype=torch.float64).t())
        self.pair = nn.Parameter(torch.randn(2, dtype=torch.complex64))
        self.wide = nn.Parameter(torch.randn(2, dtype=torch.complex128).conj())
        self.none = nn.Parameter(torch.empty(0))
        self.norm = nn.BatchNorm1d(3)
        self.register_buffer("flags", torch.tensor([True, False]))
        self.register_buffer("small", torch.tensor([255, 1], dtype=torch.uint8))
        self.register_buffer("transient", torch.tensor(1.5), persistent=False)
        self.register_buffer("nothing", None)


def nothing(_: Network) -> None:
    pass


def data(name: str, change: Callable[[torch.Tensor], Any]) -> Callable[[Network], Any]:
    return lambda network: change(network.get_parameter(name).data)


PARAMETERS = [
    data("first.weight", lambda x: x[0, 0].add_(1e-3)),
    data("short_", lambda x: x.neg_()),
    data("long_", lambda x: x[1, 1].mul_(1 + 1e-15)),
    data("pair", lambda x: torch.view_as_real(x)[0, 1].add_(1e-3)),
    data("wide", lambda x: x.mul_(2)),
    data("norm.weight", lambda x: x.add_(1)),
    lambda network: setattr(network.norm, "bias", nn.Parameter(torch.ones(3))),
]
BUFFERS = [
    lambda network: network.norm.num_batches_tracked.add_(1),
    lambda network: network.norm.running_mean.add_(1e-6),
    lambda network: network.flags.logical_not_()[0].fill_(True),
    lambda network: network.small.sub_(1),
    lambda network: network.transient.add_(1),
]


@pytest.mark.parametrize("change", [nothing, *PARAMETERS, *BUFFERS])
def test_any_change_of_a_bit_is_seen(change: Callable[[Network], Any]) -> None:
    torch.manual_seed(0)
    network, evaluated = Network(), Evaluated()
    evaluated.first_batch(network)
    change(network)
    assert evaluated.are_parameters_of(network) == (change not in PARAMETERS)
    assert evaluated.is_of(network) == (change is nothing)


def test_an_evaluation_without_a_batch_says_nothing_of_the_one_before() -> None:
    network, evaluated = Network(), Evaluated()
    assert evaluated.is_of(network)
    evaluated.first_batch(network)
    PARAMETERS[0](network)
    assert not evaluated.is_of(network)
    evaluated.begin()
    assert evaluated.are_parameters_of(network)
    assert evaluated.is_of(network)


def test_evaluations_with_and_without_batches_may_alternate(tmp_path: Path) -> None:
    class Sometimes(SmallData):
        def val_dataloader(self) -> Any:
            loader, turn = super().val_dataloader(), iter(range(10**6))

            class Loader:
                def __iter__(self) -> Any:
                    return iter(loader) if next(turn) % 2 == 0 else iter(())

            return Loader()

    options = {"levels": 1, "rates": {"conv": 0.2, "output": 0.1}, "evaluate_every": 5}
    go(tmp_path, options, steps=20, model=OwnModule, data=Sometimes())
    found = rows(level(tmp_path / "run/version_0", 0) / "metrics.csv")
    assert sorted(bool(row["val_loss"]) for row in found) == [False, False, True, True]
