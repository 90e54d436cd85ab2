"""A compact network trains to what the masked one does, and its state is the whole network's at any time."""

import copy
import io
import pickle
from collections.abc import Iterator
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from lth_lightning.errors import UserError
from lth_lightning.models import Conv2, LeNet300, ResNet20
from lth_lightning.pruning import Mask, MaskKeeper, Schedule, rewind, snapshot
from lth_lightning.pruning.compact import CompactLinear, compact_

SIZES = (24, 18, 12, 4)
NAMES = ["1.weight", "3.weight", "5.weight"]


def network(seed: int = 0, activation: type[nn.Module] = nn.Sigmoid) -> nn.Sequential:
    """24-18-12-4 in float64 on images of 2x3x4, with biases that are not zero."""
    torch.manual_seed(seed)
    first, second, last = (nn.Linear(*pair) for pair in pairwise(SIZES))
    return nn.Sequential(nn.Flatten(), first, activation(), second, activation(), last).double()


def random_mask(density: float, seed: int) -> Mask:
    generator = torch.Generator().manual_seed(seed)
    shapes = [(rows, columns) for columns, rows in pairwise(SIZES)]
    return {name: torch.rand(shape, generator=generator) < density for name, shape in zip(NAMES, shapes, strict=True)}


def paths(mask: Mask) -> list[Tensor]:
    """For the inputs and each layer's units: how many paths of surviving weights lead to the outputs."""
    counts = [torch.ones(SIZES[-1], dtype=torch.int64)]
    for name in reversed(NAMES):
        counts.insert(0, counts[0] @ mask[name].long())
    return counts


def dead_entries(mask: Mask) -> dict[str, Tensor]:
    """By parameter name: True where a weight or bias does not lie on a way to an output, whether it survives or not."""
    counts = paths(mask)
    dead = {}
    for name, inputs, units in zip(NAMES, counts, counts[1:], strict=False):
        dead[name] = (units == 0)[:, None] | (inputs == 0)
        dead[name.replace("weight", "bias")] = units == 0
    return dead


def batches(steps: int, shape: tuple[int, ...] = (2, 3, 4), classes: int = 4) -> Iterator[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(5)
    for _ in range(steps):
        images = torch.randn(16, *shape, generator=generator, dtype=torch.float64)
        yield images, torch.randint(classes, (16,), generator=generator)


def multiply(net: nn.Module, mask: Mask) -> None:
    with torch.no_grad():
        for name, part in mask.items():
            net.get_parameter(name).mul_(part)


def train_masked(net: nn.Module, mask: Mask, steps: int = 50, **data: object) -> None:
    """The reference: whole matrices, their pruned weights set to zero by hand after each step."""
    multiply(net, mask)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    for images, labels in batches(steps, **data):  # type: ignore[arg-type]
        optimizer.zero_grad()
        cross_entropy(net(images), labels).backward()
        optimizer.step()
        multiply(net, mask)


def train_compact(net: nn.Module, mask: Mask, steps: int = 50, **data: object) -> Mask:
    live = compact_(net, mask)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2, fused=True)
    MaskKeeper(net, live).attach([optimizer])
    for images, labels in batches(steps, **data):  # type: ignore[arg-type]
        optimizer.zero_grad()
        cross_entropy(net(images), labels).backward()
        optimizer.step()
        assert all((net.get_parameter(name)[~part] == 0.0).all() for name, part in live.items())
    return live


CASES = [(density, seed) for density in (1.0, 0.5, 0.2, 0.1, 0.05, 0.02) for seed in range(4)]


@pytest.mark.parametrize(("density", "seed"), CASES)
@pytest.mark.parametrize("activation", [nn.Sigmoid, nn.ReLU, nn.Tanh])
def test_it_trains_to_what_the_masked_network_trains_to(density, seed, activation):
    masked, small, mask = network(seed, activation), network(seed, activation), random_mask(density, seed)
    multiply(small, mask)
    start = snapshot(small)
    train_masked(masked, mask)
    train_compact(small, mask)
    dead, after = dead_entries(mask), small.state_dict()
    for name, value in masked.state_dict().items():
        torch.testing.assert_close(after[name], value, rtol=1e-8, atol=1e-9, msg=name)
        assert torch.equal(after[name][dead[name]], start[name][dead[name]]), f"{name}: a dead entry has moved"
        assert torch.equal(value[dead[name]], start[name][dead[name]]), f"{name}: it is not dead"
    images, _ = next(batches(1))
    torch.testing.assert_close(small(images), masked(images), rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize(("density", "seed"), CASES)
def test_what_stays_is_what_a_path_of_survivors_leads_on_from(density, seed):
    net, mask = network(seed), random_mask(density, seed)
    before = {name: part.clone() for name, part in mask.items()}
    live = compact_(net, mask)
    counts = [int((count > 0).sum()) for count in paths(mask)]
    layers = [net[index] for index in (1, 3, 5)]
    assert [layer.out_features for layer in layers] == counts[1:]
    assert [layer.in_features for layer in layers] == counts[:-1]
    assert {name: part.shape for name, part in live.items()} == {n: net.get_parameter(n).shape for n in NAMES}
    assert all(torch.equal(mask[name], before[name]) for name in mask), "the mask itself is not changed"
    # Nothing alive is lost: what survives and is connected is there still.
    dead = dead_entries(mask)
    assert [int(live[name].sum()) for name in NAMES] == [int((mask[name] & ~dead[name]).sum()) for name in NAMES]
    if density <= 0.1:
        assert counts[1] < SIZES[1]
        assert counts[0] < SIZES[0]


def test_a_unit_with_a_bias_alone_stays_and_its_bias_trains():
    mask = {name: torch.ones_like(part) for name, part in random_mask(1.0, 0).items()}
    mask["1.weight"][3] = False  # nothing comes in
    mask["3.weight"][:, 7] = False  # nothing goes out
    net = network()
    start = snapshot(net)
    train_compact(net, mask)
    assert net[1].weight.shape == (17, 24)
    after = net.state_dict()
    assert after["1.bias"][3] != start["1.bias"][3]
    assert after["1.bias"][7] == start["1.bias"][7]
    assert not after["1.weight"][3].any()
    assert torch.equal(after["1.weight"][7], start["1.weight"][7])


def test_death_goes_back_through_the_layers():
    mask = {name: torch.ones_like(part) for name, part in random_mask(1.0, 0).items()}
    mask["5.weight"][:, 2:] = False  # two units of the second layer are read
    mask["3.weight"][:2, 5:] = False  # and read five units of the first; the others' weights survive in vain
    mask["1.weight"][:5, 20:] = False
    net = network()
    live = compact_(net, mask)
    assert [tuple(net.get_parameter(name).shape) for name in NAMES] == [(5, 20), (2, 5), (4, 2)]
    assert all(part.all() for part in live.values())


def test_a_network_without_a_live_unit_trains_its_output_biases():
    mask = {name: torch.zeros_like(part) for name, part in random_mask(1.0, 0).items()}
    masked, net = network(), network()
    train_masked(masked, mask)
    multiply(net, mask)
    train_compact(net, mask)
    assert [tuple(net.get_parameter(name).shape) for name in NAMES] == [(0, 0), (0, 0), (4, 0)]
    for name, value in masked.state_dict().items():
        torch.testing.assert_close(net.state_dict()[name], value, rtol=1e-8, atol=1e-9, msg=name)


def test_momentum_trains_alike_too():
    mask, nets = random_mask(0.1, 3), [network(), network()]
    for net in nets:
        multiply(net, mask)
    live = compact_(nets[1], mask)
    for net, part in zip(nets, (mask, live), strict=True):
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, nesterov=True)
        MaskKeeper(net, part).attach([optimizer])
        for images, labels in batches(50):
            optimizer.zero_grad()
            cross_entropy(net(images), labels).backward()
            optimizer.step()
    whole, small = (net.state_dict() for net in nets)
    for name in whole:
        torch.testing.assert_close(small[name], whole[name], rtol=1e-10, atol=1e-12, msg=name)


@pytest.mark.parametrize("seed", range(5))
def test_the_next_level_is_pruned_alike(seed):
    masked, small = network(seed), network(seed)
    start, mask = snapshot(masked), random_mask(0.15, seed)
    train_masked(masked, mask)
    rewind(small, start, mask)
    train_compact(small, mask)
    schedule = Schedule.of(masked, 1, start=mask)
    new = schedule.prune(1, mask, masked.state_dict(), start)
    same = schedule.prune(1, mask, small.state_dict(), start)
    assert all(torch.equal(new[name], same[name]) for name in NAMES)
    assert sum(int(part.sum()) for part in new.values()) < sum(int(part.sum()) for part in mask.values())


# The whole state, always.


def compacted(seed: int = 1, density: float = 0.1) -> tuple[nn.Sequential, dict[str, Tensor]]:
    net = network(seed)
    whole = snapshot(net)
    compact_(net, random_mask(density, seed))
    assert any(isinstance(layer, CompactLinear) for layer in net)
    return net, whole


def same_bits(state: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return list(state) == list(other) and all(torch.equal(state[name], other[name]) for name in other)


@pytest.mark.parametrize("seed", range(5))
def test_its_state_dict_is_the_whole_networks_bit_for_bit(seed):
    net, whole = compacted(seed)
    assert same_bits(net.state_dict(), whole)
    assert same_bits(snapshot(net), whole)
    wrapped = nn.ModuleDict({"net": net}).state_dict(prefix="model.")
    assert same_bits({name.removeprefix("model.net."): value for name, value in wrapped.items()}, whole)


@pytest.mark.parametrize("assign", [False, True])
def test_a_whole_state_is_loaded_dead_entries_too(assign):
    net, _ = compacted()
    other = network(seed=9)
    result = net.load_state_dict(other.state_dict(), assign=assign)
    assert (result.missing_keys, result.unexpected_keys) == ([], [])
    assert same_bits(net.state_dict(), other.state_dict())
    file = io.BytesIO()
    torch.save(net.state_dict(), file)
    file.seek(0)
    plain = network(seed=3)
    plain.load_state_dict(torch.load(file, weights_only=True))
    assert same_bits(plain.state_dict(), other.state_dict())


def test_states_share_no_memory_with_the_network_or_with_what_was_loaded():
    net = network(1)
    whole, live_tensors = snapshot(net), net.state_dict()
    compact_(net, random_mask(0.1, 1))
    given = network(seed=9).state_dict()
    kept = {name: value.clone() for name, value in given.items()}
    net.load_state_dict(given)
    assert same_bits(live_tensors, whole), "what the layers held before is not written to"
    for value in given.values():
        value.fill_(7)
    early = net.state_dict()
    assert same_bits(early, kept)
    assert not any(value.requires_grad for value in early.values())
    for parameter in net.parameters():
        parameter.data.fill_(8)
    later, dead = net.state_dict(), dead_entries(random_mask(0.1, 1))
    assert same_bits(early, kept)
    assert all((later[name][dead[name]] == kept[name][dead[name]]).all() for name in kept)
    assert all((later[name][~dead[name]] == 8).all() for name in kept)


def test_it_can_be_rewound_and_trained_again():
    net, mask = network(2), random_mask(0.1, 2)
    multiply(net, mask)
    start = snapshot(net)
    train_compact(net, mask)
    once = snapshot(net)
    assert not same_bits(once, start)
    net.load_state_dict(start)
    assert same_bits(net.state_dict(), start)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))])
def test_a_copy_has_a_state_of_its_own(copied):
    net, whole = compacted()
    twin = copied(net)
    twin.load_state_dict(network(seed=9).state_dict())
    assert same_bits(net.state_dict(), whole)
    assert same_bits(twin.state_dict(), network(seed=9).state_dict())


def test_a_state_that_does_not_fit_is_refused_with_the_entrys_name():
    net, whole = compacted()
    with pytest.raises(RuntimeError, match=r"size mismatch for 1\.weight"):
        net.load_state_dict({**whole, "1.weight": net[1].weight.detach()})
    with pytest.raises(RuntimeError, match=r"Missing key.*3\.bias"):
        net.load_state_dict({name: value for name, value in whole.items() if name != "3.bias"})
    assert same_bits(net.state_dict(), whole)
    result = net.load_state_dict({}, strict=False)
    assert len(result.missing_keys) == 6
    assert same_bits(net.state_dict(), whole)


def test_the_whole_state_follows_the_precision():
    net, whole = compacted()
    net.float()
    assert same_bits(net.state_dict(), {name: value.float() for name, value in whole.items()})


def test_nothing_is_drawn_and_modes_and_frozen_weights_stay():
    net = network().eval()
    net[1].weight.requires_grad_(False)
    before = torch.get_rng_state()
    compact_(net, random_mask(0.1, 0))
    assert torch.equal(torch.get_rng_state(), before)
    assert not any(module.training for module in net.modules())
    assert [p.requires_grad for p in net.parameters()] == [False, True, True, True, True, True]


# Which networks.


def test_a_network_without_dead_parts_is_left_as_it_is():
    net = network()
    before = list(net.modules())
    mask = random_mask(0.9, 0)
    live = compact_(net, mask)
    assert all(a is b for a, b in zip(net.modules(), before, strict=True))
    assert all(torch.equal(live[name], mask[name]) for name in NAMES)


def test_a_layer_without_a_mask_is_dense():
    net = network()
    live = compact_(net, {"5.weight": torch.arange(12).expand(4, 12) < 6})
    assert [tuple(net.get_parameter(name).shape) for name in NAMES] == [(18, 24), (6, 18), (4, 6)]
    assert list(live) == ["5.weight"]


def test_layers_without_biases_are_compact_too():
    net = nn.Sequential(nn.Linear(5, 4, bias=False), nn.ReLU(), nn.Linear(4, 2, bias=False))
    whole = snapshot(net)
    compact_(net, {"2.weight": torch.tensor([[True, False, True, False]] * 2)})
    assert [tuple(p.shape) for p in net.parameters()] == [(2, 5), (2, 2)]
    assert same_bits(net.state_dict(), whole)
    net.load_state_dict(whole)
    expected = whole["0.weight"][[0, 2]].sum(1).relu() @ whole["2.weight"][:, [0, 2]].T
    torch.testing.assert_close(net(torch.ones(1, 5))[0], expected)


def test_lenet_is_compact_under_its_own_names():
    torch.manual_seed(0)
    model = LeNet300()
    schedule = Schedule.of(model, 1)
    mask = schedule.dense_mask(model)
    generator = torch.Generator().manual_seed(1)
    mask = {name: torch.rand(part.shape, generator=generator) < 0.01 for name, part in mask.items()}
    whole = snapshot(model)
    images = torch.randn(3, 1, 28, 28)
    rewind(model, whole, mask)
    expected = model(images)
    live = compact_(model, mask)
    assert list(live) == ["net.fc1.weight", "net.fc2.weight", "net.output.weight"]
    assert sum(p.numel() for p in model.parameters()) < 266_200 / 4
    torch.testing.assert_close(model(images), expected)
    assert {name: value.shape for name, value in model.state_dict().items()} == {n: v.shape for n, v in whole.items()}


def test_layers_in_front_and_behind_stay_as_they_are():
    torch.manual_seed(0)
    masked = nn.Sequential(
        nn.Conv2d(1, 3, 3, bias=False), nn.BatchNorm2d(3), nn.ReLU(), nn.Dropout(0.0), nn.Flatten(),
        nn.Linear(48, 20), nn.Tanh(), nn.Linear(20, 4), nn.LayerNorm(4),
    ).double()  # fmt: skip
    small = copy.deepcopy(masked)
    generator = torch.Generator().manual_seed(2)
    shapes = {"0.weight": (3, 1, 3, 3), "5.weight": (20, 48), "7.weight": (4, 20)}
    mask = {name: torch.rand(shape, generator=generator) < 0.1 for name, shape in shapes.items()}
    mask["0.weight"] |= torch.rand(3, 1, 3, 3, generator=generator) < 0.5
    multiply(small, mask)
    train_masked(masked, mask, shape=(1, 6, 6))
    train_compact(small, mask, shape=(1, 6, 6))
    assert isinstance(small[5], CompactLinear)
    assert type(small[0]) is nn.Conv2d
    for name, value in masked.state_dict().items():
        torch.testing.assert_close(small.state_dict()[name], value, rtol=1e-8, atol=1e-9, msg=name)


def test_the_fully_connected_part_of_a_conv_net_is_compact():
    model = Conv2((1, 4, 4))
    names = [f"net.{layer}.weight" for layer in ("fc1", "fc2", "output")]
    mask = {name: torch.zeros(model.get_parameter(name).shape, dtype=torch.bool) for name in names}
    for part in mask.values():
        part[:, :5] = True
    compact_(model, mask)
    assert [tuple(model.get_parameter(name).shape) for name in names] == [(5, 5), (5, 5), (10, 5)]


class Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Sequential(nn.Linear(4, 4)), nn.Sequential(nn.Linear(4, 4))

    def forward(self, x: Tensor) -> Tensor:
        return self.first(x) + self.second(x)


class Skipping(nn.Sequential):
    def forward(self, x: Tensor) -> Tensor:
        return x + super().forward(x)


def tied() -> nn.Module:
    net = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    net[2].weight = net[0].weight
    return net


def twice() -> nn.Module:
    layer = nn.Linear(4, 4)
    return nn.Sequential(layer, nn.ReLU(), layer)


def normed() -> nn.Module:
    return nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(4, 4)), nn.ReLU(), nn.Linear(4, 4))


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (Branching, "one nn.Sequential"),
        (lambda: Skipping(nn.Linear(4, 4)), "one nn.Sequential"),
        (lambda: nn.Linear(4, 4), "one nn.Sequential"),
        (lambda: nn.Sequential(nn.Conv2d(1, 1, 1)), "one nn.Sequential"),
        (lambda: nn.TransformerEncoderLayer(4, 2), "one nn.Sequential"),
        (tied, "shared or computed"),
        (twice, "shared or computed"),
        (normed, "shared or computed"),
        (lambda: LeNet300(dropout=0.5), "it has a Dropout"),
        (lambda: nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 4)), "it has a BatchNorm1d"),
        (lambda: nn.Sequential(nn.Linear(4, 4), nn.Softmax(-1), nn.Linear(4, 4)), "it has a Softmax"),
        (lambda: nn.Sequential(nn.Linear(4, 4), nn.Flatten(), nn.Linear(8, 4)), "unit by unit"),
    ],
)
def test_a_network_that_it_does_not_understand_is_refused_in_one_line(make, why):
    model = make()
    before, modules = snapshot(model), list(model.modules())
    mask = {name: torch.zeros(p.shape, dtype=torch.bool) for name, p in model.named_parameters() if p.dim() == 2}
    with pytest.raises(UserError, match=why) as error:
        compact_(model, mask)
    assert "\n" not in str(error.value)
    assert same_bits(snapshot(model), before)
    assert all(a is b for a, b in zip(model.modules(), modules, strict=True))


def test_an_output_layer_alone_is_compact_and_a_dense_one_is_left():
    model = ResNet20()
    before = list(model.modules())
    compact_(model, {})
    assert all(a is b for a, b in zip(model.modules(), before, strict=True))
