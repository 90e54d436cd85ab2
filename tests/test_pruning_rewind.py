"""Rewinding goes back to the snapshot bit for bit, as often as asked, buffers too."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from lth_lightning.pruning import Mask, Schedule, rewind, snapshot


def network() -> nn.Sequential:
    torch.manual_seed(21)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(64, 12),
        nn.BatchNorm1d(12),
        nn.Linear(12, 3),
    )


def train(model: nn.Module, steps: int, seed: int) -> None:
    """Steps that move every parameter and every buffer."""
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    model.train()
    for _ in range(steps):
        images = torch.randn(8, 1, 6, 6, generator=generator) + 1
        labels = torch.randint(0, 3, (8,), generator=generator)
        optimizer.zero_grad()
        cross_entropy(model(images), labels).backward()
        optimizer.step()


def some_mask(model: nn.Module, seed: int) -> Mask:
    generator = torch.Generator().manual_seed(seed)
    dense = Schedule.of(model, 1).dense_mask(model)
    return {name: torch.rand(part.shape, generator=generator) < 0.5 for name, part in dense.items()}


def bits(value: Tensor) -> bytes:
    return value.detach().contiguous().numpy().tobytes()


def test_first_second_and_third_rewind_are_bit_identical():
    model = network()
    train(model, 2, seed=0)  # a rewind point past step 0, whose buffers are not those of a new network
    start = snapshot(model)
    kept = {name: bits(value) for name, value in start.items()}
    assert int(start["1.num_batches_tracked"]) == 2
    for round_ in range(3):
        train(model, 3, seed=10 + round_)
        assert all(bits(value) != kept[name] for name, value in model.state_dict().items()), "training moves everything"
        mask = some_mask(model, seed=round_)
        rewind(model, start, mask)
        assert {name: bits(value) for name, value in start.items()} == kept, "the snapshot itself has not moved"
        for name, value in model.state_dict().items():
            if name in mask:
                assert bits(value[mask[name]]) == bits(start[name][mask[name]]), name
                assert (value[~mask[name]] == 0.0).all(), name
            else:
                assert bits(value) == kept[name], name
        assert int(model[1].num_batches_tracked) == int(model[5].num_batches_tracked) == 2


def test_a_weight_that_one_level_prunes_comes_back_where_another_keeps_it():
    model = network()
    start = snapshot(model)
    rewind(model, start, {"4.weight": torch.zeros(12, 64, dtype=torch.bool)})
    assert not model[4].weight.any()
    rewind(model, start, {"4.weight": torch.ones(12, 64, dtype=torch.bool)})
    assert all(bits(value) == bits(start[name]) for name, value in model.state_dict().items())


def storages(values: dict[str, Tensor]) -> set[int]:
    return {value.untyped_storage().data_ptr() for value in values.values()}


@pytest.mark.parametrize("device", [None, "cpu", torch.device("cpu")])
def test_a_snapshot_shares_no_memory_with_the_model(device):
    model = network()
    start = snapshot(model, device)
    assert list(start) == list(model.state_dict())
    assert not storages(start) & storages(model.state_dict())
    assert not any(value.requires_grad for value in start.values())
    before = {name: bits(value) for name, value in start.items()}
    with torch.no_grad():
        for value in model.state_dict().values():
            value.zero_()
    assert {name: bits(value) for name, value in start.items()} == before


def test_after_a_rewind_model_and_snapshot_share_no_memory():
    model = network()
    start = snapshot(model)
    own = storages(model.state_dict())
    rewind(model, start, {})
    assert storages(model.state_dict()) == own, "copied into the model's own tensors: an optimizer still holds them"
    assert not storages(start) & own
    for value in start.values():
        value.fill_(7)
    assert not any((value == 7).any() for value in model.state_dict().values())


def test_a_rewind_keeps_the_parameters_that_an_optimizer_holds():
    model = network()
    before = [id(p) for p in model.parameters()]
    rewind(model, snapshot(model), some_mask(model, 0))
    assert [id(p) for p in model.parameters()] == before
    assert all(p.requires_grad for p in model.parameters())


def test_a_rewind_leaves_the_modes_of_the_model_alone():
    model = network().eval()
    rewind(model, snapshot(model), {})
    assert not any(module.training for module in model.modules())


class WithState(nn.Linear):
    """A module with state that is no tensor."""

    def __init__(self) -> None:
        super().__init__(2, 2)
        self.seen: list[int] = [1]

    def get_extra_state(self) -> Any:
        return {"seen": self.seen}

    def set_extra_state(self, state: Any) -> None:
        self.seen = list(state["seen"])


def test_state_that_is_no_tensor_is_copied_too():
    model = WithState()
    start = snapshot(model)
    model.seen.append(2)
    rewind(model, start, {})
    assert model.seen == [1]


def test_a_snapshot_survives_a_deep_copy_of_its_model():
    model = network()
    start = snapshot(model)
    twin = copy.deepcopy(model)
    train(twin, 1, seed=1)
    rewind(twin, start, {})
    assert all(bits(value) == bits(model.state_dict()[name]) for name, value in twin.state_dict().items())
