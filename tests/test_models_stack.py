"""Networks that are trained and evaluated as one stack get what each gets alone."""

import contextlib
import copy
from collections.abc import Callable, Iterator
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import SGD, Adam, Optimizer
from torch.utils._python_dispatch import TorchDispatchMode

from lth_lightning.models import (
    VGG19,
    Classifier,
    Conv2,
    Conv4,
    Conv6,
    LeNet300,
    ResNet20,
    WarmupMultiStepLR,
    glorot_normal_,
)
from lth_lightning.models import stack as stacking
from lth_lightning.models.graph import CapturedStep, can_capture
from lth_lightning.models.layers import GlobalAveragePool
from lth_lightning.models.stack import Stack, StepRunner, can_stack, member_losses, stack_masks
from lth_lightning.pruning import MaskKeeper, rewind, snapshot, weight_layers

R, B, N, CLASSES = 3, 5, 40, 4
STEPS = 36

LENET = partial(LeNet300, shape=(1, 6, 6), num_classes=CLASSES, hidden=(12, 8))
CONV2 = partial(Conv2, shape=(2, 4, 4), num_classes=CLASSES)
NETWORKS = {"lenet": (LENET, (1, 6, 6)), "conv2": (CONV2, (2, 4, 4))}
OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {
    "adam": partial(Adam, lr=3e-3, fused=True),
    "sgd": partial(SGD, lr=0.05, momentum=0.9, weight_decay=1e-2, nesterov=True, fused=True),
    "plain": partial(Adam, lr=3e-3, weight_decay=1e-2, foreach=False),
}


def make_nets(make: Callable[[], Classifier], count: int = R, dtype: torch.dtype = torch.float64) -> list[nn.Module]:
    nets = []
    for seed in range(count):
        torch.manual_seed(100 + seed)
        nets.append(make().net.to(dtype))
    return nets


def make_masks(nets: list[nn.Module]) -> list[dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(7)
    densities = [0.7, 0.3, 0.05, 1.0, 0.5]
    return [
        {
            name: torch.rand(value.shape, generator=generator) < density
            for name, value in net.state_dict().items()
            if name.endswith("weight")
        }
        for net, density in zip(nets, densities, strict=False)
    ]


def make_data(shape: tuple[int, int, int], dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(N, *shape, generator=generator, dtype=torch.float64).to(dtype)
    return images, torch.randint(CLASSES, (N,), generator=generator)


def make_index(members: int = R, steps: int = STEPS) -> Tensor:
    """Another order for every member."""
    generator = torch.Generator().manual_seed(2)
    return torch.randint(N, (steps, members, B), generator=generator)


def train_alone(
    net: nn.Module,
    mask: dict[str, Tensor],
    rows: Tensor,
    data: tuple[Tensor, Tensor],
    make_optimizer: Callable[..., Optimizer],
    warmup: int = 0,
) -> list[float]:
    """A plain loop over one network: the loss of every step."""
    images, labels = data
    optimizer = make_optimizer(net.parameters())
    base = optimizer.param_groups[0]["lr"]
    parameters = dict(net.named_parameters())
    losses = []
    for name, part in mask.items():
        parameters[name].data[~part] = 0.0
    for step, row in enumerate(rows):
        if warmup:
            optimizer.param_groups[0]["lr"] = base * min(1.0, step / warmup)
        optimizer.zero_grad()
        loss = cross_entropy(net(images[row]), labels[row])
        loss.backward()
        optimizer.step()
        for name, part in mask.items():
            parameters[name].data[~part] = 0.0
        losses.append(loss.item())
    return losses


def run_in_parts(runner: StepRunner, index: Tensor, lengths: tuple[int, ...] = (1, 10, 25)) -> list[Tensor]:
    assert sum(lengths) == len(index)
    return [runner.run(part) for part in index.split(lengths)]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("make_optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
@pytest.mark.parametrize(("make", "shape"), NETWORKS.values(), ids=NETWORKS)
def test_members_train_side_by_side_as_each_does_alone(make, shape, make_optimizer, dtype):
    tight = dtype == torch.float64
    tolerance = {"rtol": 1e-8, "atol": 1e-10} if tight else {"rtol": 2e-2, "atol": 2e-3}
    nets = make_nets(make, dtype=dtype)
    masks, data, index = make_masks(nets), make_data(shape, dtype), make_index()
    stack = Stack(nets)
    optimizer = make_optimizer(stack.parameters())
    stacked_masks = stack_masks(masks)
    MaskKeeper(stack, stacked_masks).attach([optimizer])
    checked = []

    def check_zeros(*_: object) -> None:
        parameters = dict(stack.named_parameters())
        checked.append(all((parameters[name][~part] == 0.0).all() for name, part in stacked_masks.items()))

    optimizer.register_step_post_hook(check_zeros)
    means = run_in_parts(StepRunner(stack, optimizer, *data, batch_size=B), index)
    assert len(checked) == STEPS
    assert all(checked)
    started = [net.state_dict() for net in make_nets(make, dtype=dtype)]
    for member, (net, mask) in enumerate(zip(nets, masks, strict=True)):
        losses = torch.tensor(train_alone(net, mask, index[:, member], data, make_optimizer), dtype=dtype)
        expected = torch.stack([part.mean() for part in losses.split((1, 10, 25))])
        torch.testing.assert_close(torch.stack([mean[member] for mean in means]), expected, **tolerance)
        state = stack.member(member)
        assert list(state) == list(net.state_dict())
        for name, value in net.state_dict().items():
            torch.testing.assert_close(state[name], value, **tolerance, msg=lambda text, name=name: f"{name}: {text}")
        # Training has gone far beyond the tolerance.
        moved = [(value - started[member][name]).abs().max() for name, value in net.state_dict().items()]
        assert max(moved) > 20 * tolerance["atol"]


def test_a_schedule_moves_on_with_every_step():
    nets = make_nets(LENET)
    data, index = make_data((1, 6, 6)), make_index()
    stack = Stack(nets)
    optimizer = Adam(stack.parameters(), lr=1e-2, fused=True)
    scheduler = WarmupMultiStepLR(optimizer, warmup_steps=20)
    run_in_parts(StepRunner(stack, optimizer, *data, batch_size=B, scheduler=scheduler), index)
    for member, net in enumerate(nets):
        train_alone(net, {}, index[:, member], data, partial(Adam, lr=1e-2, fused=True), warmup=20)
        for name, value in stack.member(member).items():
            torch.testing.assert_close(value, net.state_dict()[name], rtol=1e-8, atol=1e-10)


# Every kind of layer that is stacked; a layer that stands in two places; layers without bias; groups and dilation.
def every_layer() -> nn.Sequential:
    elu = nn.ELU()
    pair = nn.Sequential(nn.Conv2d(6, 8, 3, padding=2, dilation=2, groups=2, bias=False), elu, nn.AvgPool2d(2), elu)
    net = nn.Sequential(
        nn.Conv2d(2, 6, (3, 2), stride=(1, 2), padding=1), nn.ReLU(inplace=True), pair, nn.MaxPool2d(2, padding=1),
        nn.Conv2d(8, 7, 1, padding="same"), nn.SiLU(), nn.GELU(), nn.LeakyReLU(0.2), nn.Identity(),
        nn.Flatten(), nn.Linear(7 * 2 * 1, 9, bias=False), nn.Sigmoid(), nn.Linear(9, CLASSES), nn.Tanh(),
    )  # fmt: skip
    return glorot_normal_(net).double()


def average_pool_net() -> nn.Sequential:
    return glorot_normal_(nn.Sequential(nn.Conv2d(2, 6, 3), GlobalAveragePool(), nn.Linear(6, CLASSES))).double()


@pytest.mark.parametrize("make", [every_layer, average_pool_net])
def test_every_stackable_layer_has_its_own_outputs_and_gradients(make):
    torch.manual_seed(3)
    nets = [make() for _ in range(R)]
    assert can_stack(nets[0]) is None
    stack = Stack(nets)
    batches = torch.randn(R, B, 2, 5, 5, dtype=torch.float64)
    labels = torch.randint(CLASSES, (R, B))
    logits = stack(batches)
    member_losses(logits, labels).sum().backward()
    gradients = {name: parameter.grad for name, parameter in stack.named_parameters()}
    assert len(gradients) == len(dict(nets[0].named_parameters()))
    for member, net in enumerate(nets):
        alone = net(batches[member].clone())
        torch.testing.assert_close(logits[member], alone)
        cross_entropy(alone, labels[member]).backward()
        for name, parameter in net.named_parameters():
            torch.testing.assert_close(gradients[name][member], parameter.grad)
    shared = stack.predict(batches[0], at_once=2)
    torch.testing.assert_close(shared, torch.stack([net(batches[0].clone()) for net in nets]).detach())


@pytest.mark.parametrize("at_once", [None, 1, 2, 4, 5, 99])
@pytest.mark.parametrize(("make", "shape"), NETWORKS.values(), ids=NETWORKS)
def test_all_members_are_evaluated_on_shared_images(make, shape, at_once):
    nets = make_nets(make, count=5)
    images, labels = make_data(shape)
    before = images.clone()
    logits = Stack(nets).predict(images, at_once)
    assert logits.shape == (5, N, CLASSES)
    assert not logits.requires_grad
    assert torch.equal(images, before)
    losses = member_losses(logits, labels)
    for member, net in enumerate(nets):
        torch.testing.assert_close(logits[member], net(images).detach())
        torch.testing.assert_close(losses[member], cross_entropy(net(images), labels).detach())


def test_without_being_told_evaluation_takes_few_members_at_once(monkeypatch):
    monkeypatch.setattr(stacking, "_VALUES_AT_ONCE", 2 * N * 36 + 5)
    counts = []
    monkeypatch.setitem(
        stacking._RULES, nn.Flatten, lambda _, values, pick: counts.append(len(values)) or values.flatten(2)
    )
    stack = Stack(make_nets(LENET, count=5))
    stack.predict(make_data((1, 6, 6))[0])
    assert counts == [2, 2, 1]
    stack.predict(torch.zeros(1000, 1, 6, 6, dtype=torch.float64))
    assert counts[3:] == [1] * 5


def test_a_member_comes_out_and_goes_in_bit_for_bit():
    nets = make_nets(CONV2, dtype=torch.float32)
    stack = Stack(nets)
    for index, net in enumerate(nets):
        state = stack.member(index)
        assert list(state) == list(net.state_dict())
        assert all(torch.equal(value, net.state_dict()[name]) for name, value in state.items())
        net.load_state_dict(state)
    # What came out is a copy.
    stack.member(1)["conv1.weight"].zero_()
    assert torch.equal(stack.member(1)["conv1.weight"], nets[1].state_dict()["conv1.weight"])
    other = make_nets(CONV2, count=4, dtype=torch.float32)[3].state_dict()
    kept = copy.deepcopy(other)
    stack.load_member(1, other)
    for index, expected in enumerate([nets[0].state_dict(), kept, nets[2].state_dict()]):
        assert all(torch.equal(value, expected[name]) for name, value in stack.member(index).items())
    # And what went in was copied.
    with torch.no_grad():
        stack.conv1.weight.zero_()
    assert all(torch.equal(other[name], kept[name]) for name in kept)


def test_a_state_of_another_network_is_not_taken():
    stack = Stack(make_nets(LENET))
    before = snapshot(stack)
    state = stack.member(0)
    with pytest.raises(ValueError, match="state dict"):
        stack.load_member(0, {**state, "fc1.bias": state["fc1.bias"][:1]})
    with pytest.raises(ValueError, match="state dict"):
        stack.load_member(0, {name: value for name, value in state.items() if name != "fc1.bias"})
    assert all(torch.equal(value, before[name]) for name, value in stack.state_dict().items())


def test_a_stack_is_masked_and_rewound_under_the_names_of_one_network():
    models = [LENET() for _ in range(R)]
    masks = make_masks(models)  # named as in a Classifier: net.fc1.weight
    together = copy.deepcopy(models[0])
    together.net = Stack([model.net for model in models])
    one, many = dict(models[0].named_parameters()), dict(together.named_parameters())
    assert list(one) == list(many)
    assert all(many[name].shape == (R, *value.shape) for name, value in one.items())
    assert all(value.is_leaf and isinstance(value, nn.Parameter) for value in many.values())
    assert list(together.state_dict()) == list(models[0].state_dict())
    assert [layer.name for layer in weight_layers(together)] == [layer.name for layer in weight_layers(models[0])]
    start, mask = snapshot(together), stack_masks(masks)
    with torch.no_grad():
        for parameter in together.parameters():
            parameter.add_(1.0)
    rewind(together, start, mask)
    for member, model in enumerate(models):
        expected = model.state_dict()
        for name, value in together.net.member(member).items():
            part = masks[member].get(f"net.{name}", torch.ones((), dtype=torch.bool))
            assert torch.equal(value, expected[f"net.{name}"] * part)


def test_a_frozen_parameter_stays_frozen():
    nets = make_nets(LENET)
    for net in nets:
        net.fc1.bias.requires_grad_(False)
    stack = Stack(nets)
    assert [name for name, value in stack.named_parameters() if not value.requires_grad] == ["fc1.bias"]


def test_a_member_that_diverges_leaves_the_others_alone():
    def train(spoil: bool) -> Stack:
        nets = make_nets(CONV2, dtype=torch.float32)
        if spoil:
            nets[1].conv2.weight.data.fill_(torch.inf)
        stack = Stack(nets)
        optimizer = Adam(stack.parameters(), lr=1e-2, fused=True)
        MaskKeeper(stack, stack_masks(make_masks(nets))).attach([optimizer])
        losses = StepRunner(stack, optimizer, *make_data((2, 4, 4), torch.float32), batch_size=B).run(make_index())
        assert losses.isfinite().tolist() == [True, not spoil, True]
        return stack

    clean, spoiled = train(spoil=False), train(spoil=True)
    assert not spoiled.member(1)["conv2.weight"].isfinite().all()
    for member in (0, 2):
        expected = clean.member(member)
        assert all(torch.equal(value, expected[name]) for name, value in spoiled.member(member).items())


class Operations(TorchDispatchMode):
    """The names of everything that is computed."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(func._schema.name.removeprefix("aten::"))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(("make", "shape"), NETWORKS.values(), ids=NETWORKS)
def test_a_step_takes_as_many_operations_for_many_members_as_for_two(make, shape):
    def operations(members: int) -> list[str]:
        nets = make_nets(make, count=members, dtype=torch.float32)
        stack = Stack(nets)
        optimizer = Adam(stack.parameters(), lr=1e-3, fused=True)
        MaskKeeper(stack, stack_masks(make_masks(nets))).attach([optimizer])
        runner = StepRunner(stack, optimizer, *make_data(shape, torch.float32), batch_size=B)
        index = make_index(members, steps=3)
        runner.run(index[:2])
        with Operations() as seen:
            runner.run(index[2:])
        return seen.names

    names = operations(2)
    assert names == operations(5)
    convolutions = 2 if make is CONV2 else 0
    assert names.count("convolution") == names.count("convolution_backward") == convolutions
    assert names.count("baddbmm") == 3
    assert names.count("bmm") == 3 + 2 + (convolutions > 0)  # gradients: of all weights, and of all inputs but images
    assert names.count("_fused_adam_") == names.count("_foreach_mul_") == 1
    # Members lie in memory as a grouped convolution and a batched product want them: nothing is rearranged but the
    # indices of the samples and the logits.
    assert names.count("clone") == 2
    assert names.count("new_empty_strided") == 0  # a gradient that does not lie as its parameter is copied into one
    # Nothing waits for the device.
    waits = {"_local_scalar_dense", "nonzero", "masked_select", "_to_copy", "is_nonzero", "equal"}
    assert not waits & set(names)


def test_results_of_shapes_that_do_not_fit_are_not_made():
    stack = Stack(make_nets(LENET))
    runner = StepRunner(stack, Adam(stack.parameters()), *make_data((1, 6, 6)), batch_size=B)
    for index in (make_index()[:, :1], make_index()[:, :, :1], make_index()[:0]):
        with pytest.raises(ValueError, match="an index"):
            runner.run(index)


@pytest.mark.parametrize("network", [LeNet300, Conv2, Conv4, Conv6])
def test_networks_without_norm_and_dropout_are_stacked(network):
    assert can_stack(network().net) is None


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (ResNet20, "BatchNorm2d"),
        (VGG19, "BatchNorm2d"),
        (partial(LeNet300, dropout=0.5), "'fc1_dropout' is a Dropout"),
        (partial(Conv2, dropout=0.5), "'fc1_dropout' is a Dropout"),
        (partial(Conv6, dropout=0.1), "'fc1_dropout' is a Dropout"),
    ],
)
def test_networks_with_norm_or_dropout_are_not_stacked(make, reason):
    net = make().net
    assert reason in can_stack(net)
    with pytest.raises(ValueError, match="not to be stacked"):
        Stack([net])


class MyLinear(nn.Linear):
    def forward(self, values: Tensor) -> Tensor:
        return super().forward(values) * 2


def with_hook() -> nn.Sequential:
    net = nn.Sequential(nn.Linear(2, 2))
    net[0].register_forward_hook(lambda module, args, output: output * 2)
    return net


def tied() -> nn.Sequential:
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    net[1].weight = net[0].weight
    return net


@pytest.mark.parametrize(
    ("net", "reason"),
    [
        (nn.Linear(2, 2), "not an nn.Sequential"),
        (nn.Sequential(MyLinear(2, 2)), "MyLinear"),
        (nn.Sequential(nn.BatchNorm1d(2)), "BatchNorm1d"),
        (nn.Sequential(nn.PReLU()), "PReLU"),
        (nn.Sequential(nn.Conv2d(1, 1, 3, padding=1, padding_mode="circular")), "circular"),
        (nn.Sequential(nn.Flatten(0)), "whole images"),
        (nn.Sequential(nn.MaxPool2d(2, return_indices=True)), "indices"),
        (nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(2, 2))), "Parametrized"),
        (with_hook(), "hooks"),
        (tied(), "share"),
        (nn.Sequential(nn.LazyLinear(2)), "LazyLinear"),
    ],
)
def test_what_is_not_known_to_be_the_same_is_not_stacked(net, reason):
    assert reason in can_stack(net)


def test_different_networks_and_none_make_no_stack():
    with pytest.raises(ValueError, match="differ"):
        Stack([nn.Sequential(nn.Linear(2, 2)), nn.Sequential(nn.Linear(2, 3))])
    with pytest.raises(ValueError, match="differ"):
        Stack([nn.Sequential(nn.Linear(2, 2), nn.ReLU()), nn.Sequential(nn.Linear(2, 2), nn.Tanh())])
    with pytest.raises(ValueError, match="no networks"):
        Stack([])


def test_off_cuda_a_graph_is_not_asked_for():
    stack = Stack(make_nets(LENET))
    optimizer = Adam(stack.parameters(), fused=True)
    assert can_capture(optimizer) is None
    runner = StepRunner(stack, optimizer, *make_data((1, 6, 6)), batch_size=B, graph=True)
    assert not runner.captures
    assert runner.run(make_index()).isfinite().all()


@pytest.mark.parametrize(
    ("optimizer", "reason"),
    [
        (partial(Adam, foreach=True), "not fused"),
        (SGD, "not fused"),
        (torch.optim.RMSprop, "RMSprop"),
        (partial(Adam, lr=torch.tensor(1e-3), fused=True), "tensor"),
    ],
)
def test_only_optimizers_that_stay_on_the_device_are_captured(optimizer, reason):
    assert reason in can_capture(optimizer([nn.Parameter(torch.zeros(2))]))


class FakeCuda:
    """Stands in for torch.cuda: what is run under `graph` is recorded, and done again at every replay."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = "eager"
        self.log: list[str] = []
        self.recorded: list[Callable[[], None]] = []
        fake = self

        class Stream:
            device = torch.device("cpu")

            def __init__(self, device: object = None) -> None:
                pass

            def wait_stream(self, other: object) -> None:
                pass

        class Graph:
            def replay(self) -> None:
                fake.log.append("replay")
                for work in fake.recorded:
                    work()

        @contextlib.contextmanager
        def stream(stream: object) -> Iterator[None]:
            yield

        @contextlib.contextmanager
        def graph(graph: object, stream: object) -> Iterator[None]:
            fake.now, fake.recorded = "capture", []
            yield
            fake.now = "eager"

        for name, value in {"Stream": Stream, "CUDAGraph": Graph, "stream": stream, "graph": graph}.items():
            monkeypatch.setattr(torch.cuda, name, value)
        monkeypatch.setattr(torch.cuda, "current_stream", Stream)

    def do(self, work: Callable[[], None]) -> None:
        self.log.append(self.now)
        self.recorded.append(work) if self.now == "capture" else work()


def test_a_captured_step_is_done_once_a_call_at_the_rate_of_that_call(monkeypatch):
    cuda = FakeCuda(monkeypatch)
    weight = nn.Parameter(torch.zeros(()))
    optimizer = Adam([weight], lr=1.0, fused=True)
    group = optimizer.param_groups[0]
    seen = []

    def step() -> None:
        rate = group["lr"]  # bound when captured, as a kernel's pointer is
        seen.append((cuda.now, group["capturable"]))
        assert isinstance(rate, Tensor)
        cuda.do(lambda: weight.data.add_(rate))

    captured = CapturedStep(step, optimizer)
    rates = [1.0, 2.0, 2.0, 4.0, 8.0, 8.0, 0.0]
    for rate in rates:
        group["lr"] = rate
        captured()
        assert group["lr"] is rate
        assert group["capturable"] is False
    assert cuda.log == ["eager"] * 3 + ["capture"] + ["replay"] * 4
    assert seen == [("eager", False)] * 3 + [("capture", True)]
    assert weight.item() == sum(rates)
    # What the graph holds as a constant has changed: done, not replayed, until it is as before.
    group["betas"] = (0.5, 0.9)
    captured()
    assert cuda.log[8:] == ["eager"]
    group["betas"] = (0.9, 0.999)
    captured()
    assert cuda.log[9:] == ["replay"]


def test_a_fused_optimizer_takes_the_rate_as_a_tensor_and_does_the_same(monkeypatch):
    FakeCuda(monkeypatch)
    for make in (partial(Adam, lr=0.25, fused=True), partial(SGD, lr=0.25, momentum=0.9, fused=True)):
        values = []
        for captured in (False, True):
            weight = nn.Parameter(torch.tensor([1.0, -2.0]))
            optimizer = make([weight])

            def step(weight=weight, optimizer=optimizer) -> None:
                optimizer.zero_grad()
                (weight**2).sum().backward()
                optimizer.step()

            call = CapturedStep(step, optimizer) if captured else step
            for _ in range(3):
                call()
            values.append(weight.detach())
        assert torch.equal(*values)
