"""A network of CSR layers trains to what the masked one does, and its state is the masked network's at any time."""

import copy
import io
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import Optimizer

from lth_lightning.errors import UserError
from lth_lightning.models import LeNet300
from lth_lightning.pruning import Mask, MaskKeeper, Schedule, Weights, csr, rewind, snapshot
from lth_lightning.pruning.csr import CSRLinear, Product, csr_

pytestmark = pytest.mark.skipif(not torch.backends.mkl.is_available(), reason="CSR kernels are MKL's")


@pytest.fixture(autouse=True)
def small_layers_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csr, "OVERHEAD", 0)
    monkeypatch.setattr(csr, "DENSEST", 0.5)


class Net(nn.Module):
    """Not one chain: two branches on 12 inputs, a skip, a layer without biases, and 4 outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(12, 20), nn.ModuleDict({"in": nn.Linear(12, 20, bias=False)})
        self.deep = nn.Sequential(nn.Linear(20, 20), nn.Tanh())
        self.norm = nn.LayerNorm(20)
        self.output = nn.Linear(20, 4)

    def forward(self, x: Tensor) -> Tensor:
        both = self.left(x).tanh() * self.right["in"](x)
        return self.output(self.norm(both + self.deep(both)))


NAMES = ["left.weight", "right.in.weight", "deep.0.weight", "output.weight"]


def network(seed: int = 0, dtype: torch.dtype = torch.float64) -> Net:
    torch.manual_seed(seed)
    return Net().to(dtype)


def random_mask(density: float, seed: int, output: float | None = None) -> Mask:
    """Of each layer `density` at random, and `output` of the last."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {name: network().get_parameter(name).shape for name in NAMES}
    mask = {name: torch.rand(shape, generator=generator) < density for name, shape in shapes.items()}
    if output is not None:
        mask["output.weight"] = torch.rand(4, 20, generator=generator) < output
    return mask


def sparse(density: float = 0.1, seed: int = 1, dtype: torch.dtype = torch.float64) -> tuple[Net, Weights, Mask]:
    """A network of CSR layers, the masked network's state, and the mask."""
    net, mask = network(seed, dtype), random_mask(density, seed)
    multiply(net, mask)
    state = snapshot(net)
    assert csr_(net, mask) == {}
    return net, state, mask


def batches(steps: int, dtype: torch.dtype = torch.float64) -> Iterator[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(5)
    for _ in range(steps):
        images = torch.randn(16, 12, generator=generator, dtype=torch.float64).to(dtype)
        yield images, torch.randint(4, (16,), generator=generator)


def multiply(net: nn.Module, mask: Mask) -> None:
    with torch.no_grad():
        for name, part in mask.items():
            net.get_parameter(name).mul_(part)


def same_bits(state: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return list(state) == list(other) and all(torch.equal(state[name], other[name]) for name in other)


OPTIMIZERS: dict[str, Callable[[Iterator[nn.Parameter]], Optimizer]] = {
    "Adam": lambda p: torch.optim.Adam(p, lr=1e-2),
    "fused Adam": lambda p: torch.optim.Adam(p, lr=1e-2, fused=True),
    "AdamW": lambda p: torch.optim.AdamW(p, lr=1e-2, weight_decay=0.3),
    "SGD": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
    "SGD with decay": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.01),
}


CLOSE = {"rtol": 1e-8, "atol": 1e-10}


def trained_alike(masked: nn.Module, net: nn.Module, mask: Mask, make: str, **tolerance: float) -> Mask:
    """Train whole matrices whose pruned weights are set to zero by hand, and `net` with CSR layers; compare them."""
    multiply(masked, mask)
    multiply(net, mask)
    left = csr_(net, mask)
    go_on_alike(masked, net, mask, left, make, **(tolerance or CLOSE))
    return left


def go_on_alike(masked: nn.Module, net: nn.Module, mask: Mask, left: Mask, make: str, **tolerance: float) -> None:
    reference, optimizer = OPTIMIZERS[make](masked.parameters()), OPTIMIZERS[make](net.parameters())
    MaskKeeper(net, left).attach([optimizer])
    start = snapshot(net)
    for number, (images, labels) in enumerate(batches(50, masked.output.bias.dtype)):
        for model, own in ((masked, reference), (net, optimizer)):
            own.zero_grad()
            cross_entropy(model(images), labels).backward()
            own.step()
        multiply(masked, mask)
        assert all((net.state_dict()[name][~part] == 0.0).all() for name, part in mask.items())
        if number % 10 == 0:
            with torch.no_grad():
                torch.testing.assert_close(net.eval()(images), masked.eval()(images), **tolerance)
            net.train()
            masked.train()
    after = net.state_dict()
    for name, value in masked.state_dict().items():
        torch.testing.assert_close(after[name], value, msg=name, **tolerance)
    assert (after["output.bias"] != start["output.bias"]).all()


@pytest.mark.parametrize("make", OPTIMIZERS)
@pytest.mark.parametrize(("density", "seed"), [(d, seed) for d in (0.3, 0.1, 0.05, 0.02) for seed in range(3)])
def test_it_trains_to_what_the_masked_network_trains_to(make, density, seed):
    mask = random_mask(density, seed)
    assert trained_alike(network(seed), network(seed), mask, make) == {}


@pytest.mark.parametrize("make", OPTIMIZERS)
def test_a_denser_output_layer_stays_and_is_trained_under_its_mask(make):
    mask, net = random_mask(0.1, 3, output=0.6), network(3)
    output = net.output
    left = trained_alike(network(3), net, mask, make)
    assert list(left) == ["output.weight"]
    assert left["output.weight"] is mask["output.weight"]
    assert net.output is output
    assert [name for name, layer in net.named_modules() if type(layer) is CSRLinear] == ["left", "right.in", "deep.0"]


@pytest.mark.parametrize("seed", range(3))
def test_in_single_precision_it_trains_alike_up_to_rounding(seed):
    nets = [network(seed, torch.float32) for _ in range(2)]
    trained_alike(*nets, random_mask(0.1, seed), "SGD", rtol=1e-3, atol=1e-4)


def test_a_training_repeats_itself_bit_for_bit():
    states = []
    for _ in range(2):
        net, mask = network(1), random_mask(0.1, 1)
        trained_alike(network(1), net, mask, "fused Adam")
        states.append(net.state_dict())
    assert same_bits(*states)


@pytest.mark.parametrize("seed", range(3))
def test_the_next_level_is_pruned_alike(seed):
    masked, net, mask = network(seed), network(seed), random_mask(0.1, seed)
    start = snapshot(masked)
    trained_alike(masked, net, mask, "Adam")
    schedule = Schedule.of(masked, 1, start=mask)
    new, same = (schedule.prune(1, mask, model.state_dict(), start) for model in (masked, net))
    assert all(torch.equal(new[name], same[name]) for name in NAMES)


# One layer.

MASKS = {
    "some": lambda rows, columns: torch.rand(rows, columns) < 0.3,
    "all": lambda rows, columns: torch.ones(rows, columns, dtype=torch.bool),
    "one": lambda rows, columns: torch.arange(rows * columns).view(rows, columns) == rows * columns // 2,
    "none": lambda rows, columns: torch.zeros(rows, columns, dtype=torch.bool),
    "empty ends": lambda rows, columns: nn.functional.pad(torch.ones(rows - 2, columns - 2).bool(), (1, 1, 1, 1)),
}


def layer_and_twin(rows: int, columns: int, survive: str, bias: bool) -> tuple[nn.Linear, CSRLinear, Tensor]:
    torch.manual_seed(3)
    mask, layer = MASKS[survive](rows, columns), nn.Linear(columns, rows, bias=bias).double()
    with torch.no_grad():
        layer.weight.mul_(mask)
    return layer, CSRLinear(layer, mask), mask


@pytest.mark.parametrize("survive", MASKS)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(4,), (1,), (0,), (), (2, 3), (2, 1, 3), (2, 0, 3)])
@pytest.mark.parametrize("size", [(6, 8), (2, 9), (9, 2)])
def test_outputs_and_gradients_are_a_linear_layers(size, shape, bias, survive):
    layer, twin, mask = layer_and_twin(*size, survive, bias)
    features = torch.randn(*shape, size[1], dtype=torch.float64)
    inputs = [features.clone().requires_grad_() for _ in range(2)]
    outputs = [layer(inputs[0]), twin(inputs[1])]
    torch.testing.assert_close(*outputs)
    gradient = torch.randn_like(outputs[0])
    for output in outputs:
        output.backward(gradient)
    torch.testing.assert_close(inputs[1].grad, inputs[0].grad)
    torch.testing.assert_close(twin.weight.grad, layer.weight.grad[mask])
    if bias:
        torch.testing.assert_close(twin.bias.grad, layer.bias.grad)
    assert [name for name, _ in twin.named_parameters()] == ["weight", "bias"][: 1 + bias]
    assert twin.weight.shape == (int(mask.sum()),)


@pytest.mark.parametrize("bias", [True, False])
def test_its_gradients_are_its_slopes(bias):
    _, layer, _ = layer_and_twin(5, 7, "some", bias)
    features = torch.randn(7, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(Product.apply, (features, layer.weight, layer.bias, layer))


@pytest.mark.parametrize("frozen", ["weight", "bias", "features"])
def test_what_is_frozen_gets_no_gradient_and_the_rest_its_own(frozen):
    layer, twin, mask = layer_and_twin(5, 7, "some", True)
    leaves = []
    for model in (layer, twin):
        leaf = torch.ones(3, 7, dtype=torch.float64, requires_grad=True)
        leaves.append({**dict(model.named_parameters()), "features": leaf})
        leaves[-1][frozen].requires_grad_(False)
        model(leaf).pow(2).sum().backward()
    expected, found = ({name: leaf.grad for name, leaf in pair.items() if name != frozen} for pair in leaves)
    if frozen != "weight":
        expected["weight"] = expected["weight"][mask]
    torch.testing.assert_close(found, expected)
    assert leaves[1][frozen].grad is None


def test_a_second_derivative_and_a_late_backward_are_refused():
    _, layer, _ = layer_and_twin(5, 7, "some", True)
    features = torch.randn(3, 7, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(layer(features).pow(2).sum(), features, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        slope.sum().backward()
    loss = layer(features).sum()
    with torch.no_grad():
        layer.weight.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.parametrize("features", [(4, 16), (4, 7), (2, 4), (9,)])
def test_features_of_another_number_are_refused(features):
    _, layer, _ = layer_and_twin(6, 8, "some", True)
    with pytest.raises(RuntimeError, match="shapes"):
        layer(torch.randn(*features, dtype=torch.float64))


def test_what_it_returns_can_be_viewed_as_a_linear_layers_can():
    _, layer, _ = layer_and_twin(6, 8, "some", True)
    features = torch.randn(2, 5, 8, dtype=torch.float64)
    assert layer(features).view(2, 30).shape == (2, 30)
    assert layer(features[0]).view(5, 3, 2).shape == (5, 3, 2)


def test_it_infers():
    net, state, _ = sparse()
    masked = network()
    masked.load_state_dict(state)
    images, _ = next(batches(1))
    with torch.inference_mode():
        torch.testing.assert_close(net.eval()(images), masked.eval()(images))


# The whole state, always.


@pytest.mark.parametrize("seed", range(3))
def test_its_state_dict_is_the_masked_networks_bit_for_bit(seed):
    net, state, _ = sparse(seed=seed)
    assert same_bits(net.state_dict(), state)
    assert same_bits(snapshot(net), state)
    assert not any(value.requires_grad for value in net.state_dict().values())
    wrapped = nn.ModuleDict({"net": net}).state_dict(prefix="model.")
    assert same_bits({name.removeprefix("model.net."): value for name, value in wrapped.items()}, state)


def test_weights_that_were_not_yet_zero_are_dropped():
    net, mask = network(), random_mask(0.1, 1)
    whole = snapshot(net)
    csr_(net, mask)
    expected = {name: value * mask[name] if name in mask else value for name, value in whole.items()}
    assert same_bits(net.state_dict(), expected)


@pytest.mark.parametrize("assign", [False, True])
def test_of_a_state_that_is_loaded_survivors_are_taken_and_the_others_are_zero(assign):
    net, _, mask = sparse()
    other = network(seed=9)
    result = net.load_state_dict(other.state_dict(), assign=assign)
    assert (result.missing_keys, result.unexpected_keys) == ([], [])
    multiply(other, mask)
    assert same_bits(net.state_dict(), other.state_dict())
    images, _ = next(batches(1))
    torch.testing.assert_close(net(images), other(images))
    file = io.BytesIO()
    torch.save(net.state_dict(), file)
    file.seek(0)
    plain = network(seed=3)
    plain.load_state_dict(torch.load(file, weights_only=True))
    assert same_bits(plain.state_dict(), net.state_dict())


def test_states_share_no_memory_with_the_network_or_with_what_was_loaded():
    net, mask = network(), random_mask(0.1, 1)
    whole, held_before = snapshot(net), net.state_dict()
    csr_(net, mask)
    given = network(seed=9).state_dict()
    net.load_state_dict(given)
    early, kept = net.state_dict(), snapshot(net)
    names = [*NAMES, "left.bias", "deep.0.bias", "output.bias"]
    for name in names:
        given[name].fill_(7)
        net.get_parameter(name).data.fill_(8)
    assert all(torch.equal(held_before[name], whole[name]) for name in names)
    assert all(torch.equal(early[name], kept[name]) for name in names)
    assert all(torch.equal(net.state_dict()[name], 8.0 * mask[name]) for name in NAMES)


def test_it_can_be_rewound_and_trained_again():
    net, mask = network(2), random_mask(0.1, 2)
    whole = snapshot(net)
    trained_alike(network(2), net, mask, "Adam")
    rewind(net, whole, {})
    masked = network(2)
    rewind(masked, whole, mask)
    assert same_bits(net.state_dict(), masked.state_dict())


def test_a_state_that_does_not_fit_is_refused_with_the_entrys_name():
    net, state, _ = sparse()
    with pytest.raises(RuntimeError, match=r"size mismatch for deep\.0\.weight"):
        net.load_state_dict({**state, "deep.0.weight": net.deep[0].weight.detach()})
    with pytest.raises(RuntimeError, match=r"Missing key.*left\.bias"):
        net.load_state_dict({name: value for name, value in state.items() if name != "left.bias"})
    with pytest.raises(RuntimeError, match=r"Unexpected key.*right\.in\.bias"):
        net.load_state_dict({**state, "right.in.bias": torch.zeros(20)})
    assert same_bits(net.state_dict(), state)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))])
def test_a_copy_trains_by_itself(copied):
    net, state, mask = sparse()
    twin = copied(net)
    masked = network(4)
    twin.load_state_dict(masked.state_dict())
    multiply(masked, mask)
    go_on_alike(masked, twin, mask, {}, "Adam", **CLOSE)
    assert same_bits(net.state_dict(), state)


def test_it_follows_the_precision_and_trains_in_it():
    net, state, _ = sparse()
    net.float()
    assert same_bits(net.state_dict(), {name: value.float() for name, value in state.items()})
    images, labels = next(batches(1, torch.float32))
    cross_entropy(net(images), labels).backward()
    expected = network()
    expected.load_state_dict(state)
    torch.testing.assert_close(net(images), expected.float()(images))
    assert net.left.weight.grad.dtype == torch.float32


def test_nothing_is_drawn_and_modes_and_frozen_weights_stay():
    net, mask = network().eval(), random_mask(0.1, 1)
    net.left.weight.requires_grad_(False)
    before, kept = torch.get_rng_state(), {name: part.clone() for name, part in mask.items()}
    csr_(net, mask)
    assert torch.equal(torch.get_rng_state(), before)
    assert not any(module.training for module in net.modules())
    assert [name for name, p in net.named_parameters() if not p.requires_grad] == ["left.weight"]
    assert same_bits(mask, kept)


# Which layers.


def test_lenets_layers_are_replaced_as_soon_as_they_gain(monkeypatch):
    monkeypatch.undo()
    generator = torch.Generator().manual_seed(0)
    replaced = {}
    for percent in (40, 15, 13, 8, 7, 1):
        model = LeNet300()
        names = [f"net.{name}.weight" for name in ("fc1", "fc2", "output")]
        mask = {}
        for name in names:
            shape = model.get_parameter(name).shape
            order = torch.randperm(shape.numel(), generator=generator)
            mask[name] = (order < shape.numel() * percent // 100).view(shape)
        left = csr_(model, mask)
        replaced[percent] = [name for name in names if model.get_parameter(name).dim() == 1]
        assert list(left) == [name for name in names if name not in replaced[percent]]
        assert all(left[name] is mask[name] for name in left)
    first, second = "net.fc1.weight", "net.fc2.weight"
    assert replaced == {40: [], 15: [], 13: [first], 8: [first], 7: [first, second], 1: [first, second]}


class Own(nn.Linear):
    """Somebody's own layer."""


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.once = nn.Linear(16, 16), nn.Linear(16, 16), nn.Linear(16, 16)
        self.second.weight = self.first.weight
        self.again = self.once

    def forward(self, x: Tensor) -> Tensor:
        return self.again(self.once(self.second(self.first(x))))


@pytest.mark.parametrize(
    "make",
    [
        Twice,
        lambda: nn.Linear(16, 16),
        lambda: nn.Sequential(Own(16, 16)),
        lambda: nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(16, 16))),
        lambda: nn.Sequential(nn.Bilinear(16, 16, 16), nn.Conv1d(16, 16, 1)),
        lambda: nn.TransformerEncoderLayer(16, 2, 32, batch_first=True),
    ],
)
def test_layers_that_cannot_be_replaced_are_left_under_their_masks(make):
    model = make()
    mask = {name: torch.zeros(p.shape).bool() for name, p in model.named_parameters() if p.dim() > 1}
    modules, before = list(model.modules()), snapshot(model)
    left = csr_(model, mask)
    assert all(a is b for a, b in zip(model.modules(), modules, strict=True))
    assert same_bits(snapshot(model), before)
    assert left == mask
    assert left is not mask


def test_a_transformers_other_layers_are_replaced_and_it_infers():
    torch.manual_seed(0)
    masked = nn.Sequential(
        nn.Linear(6, 16), nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, dropout=0.0), nn.Linear(16, 3)
    )
    names = [name for name, parameter in masked.named_parameters() if parameter.dim() == 2]
    mask = {name: torch.rand(masked.get_parameter(name).shape) < 0.15 for name in names}
    multiply(masked, mask)
    net, features = copy.deepcopy(masked), torch.randn(5, 7, 6)
    left = csr_(net, mask)
    assert set(names) - set(left) == {"0.weight", "2.weight"}
    torch.testing.assert_close(net(features), masked(features))
    with torch.no_grad():
        torch.testing.assert_close(net.eval()(features), masked.eval()(features))


# Refusals.


def refuses(model: nn.Module, why: str) -> None:
    modules = list(model.modules())
    with pytest.raises(UserError, match=why) as error:
        csr_(model, random_mask(0.1, 1))
    assert "\n" not in str(error.value)
    assert "masked" in str(error.value)
    assert all(a is b for a, b in zip(model.modules(), modules, strict=True))


def test_a_torch_without_the_kernels_is_refused(monkeypatch):
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: False)
    refuses(network(), "no CSR kernels")


def test_another_device_and_half_precision_are_refused_whatever_the_density():
    refuses(network().to("meta"), "not float64 on meta")
    refuses(network().bfloat16(), "not bfloat16 on cpu")
    net = network()
    net.output.half()
    refuses(net, "not float16 on cpu")
    with pytest.raises(UserError):
        csr_(network().to("meta"), random_mask(2.0, 1))


def test_a_network_that_is_moved_off_the_cpu_or_trained_in_mixed_precision_says_so():
    net, _, _ = sparse(dtype=torch.float32)
    images = torch.randn(3, 12)
    with pytest.raises(UserError, match="no mixed precision"), torch.autocast("cpu", torch.bfloat16):
        net(images)
    net(images)
    net.to("meta")
    with pytest.raises(UserError, match="on a CPU, not on meta"):
        net(images.to("meta"))


def test_torchs_words_about_beta_support_are_kept_from_the_user():
    program = (
        "import torch; from lth_lightning.pruning import csr; csr.OVERHEAD = 0; net = torch.nn.Sequential(torch.nn."
        "Linear(9, 9)); csr.csr_(net, {'0.weight': torch.eye(9).bool()}); net(torch.ones(2, 9)).sum().backward()"
    )
    done = subprocess.run([sys.executable, "-W", "error::UserWarning", "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
