"""What can be pruned: the weights of Linear and Conv layers, and nothing else."""

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune

from lth_lightning.errors import UserError
from lth_lightning.models import Conv2, LeNet300, ResNet20
from lth_lightning.pruning import Layer, Schedule, weight_layers
from lth_lightning.pruning.layers import match, others


class Nested(nn.Module):
    """Layers of every kind, some of them deep inside."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(3))
        self.stem = nn.Sequential(nn.Conv1d(3, 4, 5), nn.BatchNorm1d(4))
        self.inner = nn.ModuleDict({"a": nn.ModuleList([nn.Conv2d(2, 3, 3, groups=1), nn.LayerNorm(7)])})
        self.up = nn.ConvTranspose2d(2, 4, 2)
        self.embedding = nn.Embedding(10, 6)
        self.head = nn.ModuleDict({"norm": nn.GroupNorm(2, 4), "out": nn.Linear(4, 2)})


def test_nested_layers_are_found_in_order_and_biases_norms_and_others_are_not():
    assert weight_layers(Nested()) == [
        Layer("stem.0.weight", "conv", 4 * 3 * 5),
        Layer("inner.a.0.weight", "conv", 3 * 2 * 9),
        Layer("up.weight", "conv", 2 * 4 * 4),
        Layer("head.out.weight", "output", 8),
    ]


@pytest.mark.parametrize(
    ("model", "kinds"),
    [
        (LeNet300, ["linear", "linear", "output"]),
        (Conv2, ["conv", "conv", "linear", "linear", "output"]),
        (ResNet20, ["conv"] * 21 + ["output"]),
    ],
)
def test_the_last_layer_is_the_output(model, kinds):
    layers = weight_layers(model())
    assert [layer.kind for layer in layers] == kinds
    assert layers[-1].name == "net.output.weight"


def test_the_last_layer_is_the_output_though_it_is_a_convolution():
    layers = weight_layers(nn.Sequential(nn.Linear(2, 3), nn.Conv2d(1, 2, 1), nn.ReLU()))
    assert [(layer.name, layer.kind) for layer in layers] == [("0.weight", "linear"), ("1.weight", "output")]


def test_no_layer_of_a_network_is_a_bias_or_a_norm():
    for model in (Conv2(), ResNet20(), Nested()):
        found = {layer.name for layer in weight_layers(model)}
        forbidden = {
            f"{name}.{kind}" if name else kind
            for name, module in model.named_modules()
            for kind, _ in module.named_parameters(recurse=False)
            if kind == "bias" or not isinstance(module, (nn.Linear, nn.Conv1d, nn.Conv2d, nn.ConvTranspose2d))
        }
        assert forbidden
        assert not found & forbidden
        assert len(found) + len(forbidden) == len(dict(model.named_parameters()))


def test_a_shared_module_and_a_shared_weight_count_once():
    shared = nn.Linear(4, 4)
    tied = nn.Linear(4, 4)
    tied.weight = shared.weight
    model = nn.Sequential(shared, nn.ReLU(), shared, tied, nn.Linear(4, 2))
    assert weight_layers(model) == [Layer("0.weight", "linear", 16), Layer("4.weight", "output", 8)]


class TiedHead(nn.Module):
    """A language model's: the head's weight is the embedding's, which stands first."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(10, 6)
        self.attention = nn.MultiheadAttention(6, 2)
        self.hidden = nn.Linear(6, 6)
        self.position = nn.Parameter(torch.zeros(1, 5, 6))
        self.norm = nn.LayerNorm((5, 6))
        self.recurrent = nn.LSTM(6, 6)
        self.head = nn.Linear(6, 10)
        self.head.weight = self.embedding.weight


def test_a_head_that_is_tied_to_an_embedding_is_the_output():
    assert weight_layers(TiedHead()) == [
        Layer("embedding.weight", "output", 60),
        Layer("attention.out_proj.weight", "linear", 36),
        Layer("hidden.weight", "linear", 36),
    ]


def test_weights_of_other_layers_are_named():
    names = ["position", "attention.in_proj_weight", "recurrent.weight_ih_l0", "recurrent.weight_hh_l0"]
    assert list(others(TiedHead())) == names
    assert list(others(Nested())) == ["embedding.weight"]
    assert list(others(ResNet20())) == []


WRAPPED = {
    "weight_norm of old": torch.nn.utils.weight_norm,
    "spectral_norm of old": torch.nn.utils.spectral_norm,
    "weight_norm": parametrizations.weight_norm,
    "spectral_norm": parametrizations.spectral_norm,
    "orthogonal": parametrizations.orthogonal,
    "prune": lambda layer: prune.random_unstructured(layer, "weight", 0.5),
    "a buffer": lambda layer: as_buffer(layer),
}


def as_buffer(layer: nn.Module) -> nn.Module:
    weight = layer.weight.detach()
    del layer.weight
    layer.register_buffer("weight", weight)
    return layer


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("wrap", WRAPPED.values(), ids=list(WRAPPED))
def test_a_weight_that_is_no_parameter_counts_but_is_not_pruned(wrap):
    model = nn.Sequential(nn.Linear(4, 8), wrap(nn.Linear(8, 8)), wrap(nn.Conv2d(4, 6, 3, groups=2)), nn.Linear(8, 2))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert [(layer.name, layer.size) for layer in weight_layers(model)] == [
        ("0.weight", 32),
        ("1.weight", 64),
        ("2.weight", 6 * 2 * 9),
        ("3.weight", 16),
    ]
    with pytest.raises(UserError, match=r"'1\.weight' cannot be pruned: it is no parameter") as error:
        Schedule.of(model, 1)
    assert "\n" not in str(error.value)
    schedule = Schedule.of(model, 1, exclude=["1.*", "2.*"])
    assert schedule.total == 32 + 64 + 108 + 16
    assert schedule.weights_remaining(1) == 26 + 64 + 108 + 14
    assert list(others(model)) == []
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items()), "looking changed it"


@pytest.mark.parametrize("lazy", [nn.LazyLinear(3), nn.LazyConv2d(3, 3), nn.LazyBatchNorm1d(affine=False)])
def test_a_lazy_layer_is_refused_until_it_has_seen_a_batch(lazy):
    model = nn.ModuleDict({"inner": nn.Sequential(lazy), "out": nn.Linear(3, 2)})
    with pytest.raises(UserError, match=r"'inner\.0' is lazy \(Lazy") as error:
        Schedule.of(model, 1)
    assert "\n" not in str(error.value)
    model["inner"](torch.rand(2, 3, 8, 8) if isinstance(lazy, nn.LazyConv2d) else torch.rand(2, 3))
    assert weight_layers(model)[-1] == Layer("out.weight", "output", 6)


def test_a_network_without_layers_has_none():
    assert weight_layers(nn.Sequential(nn.BatchNorm1d(3), nn.ReLU())) == []


LAYERS = [
    Layer("net.conv1.weight", "conv", 1),
    Layer("net.fc1.weight", "linear", 1),
    Layer("net.Fc2.weight", "output", 1),
]


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("*", ["net.conv1.weight", "net.fc1.weight", "net.Fc2.weight"]),
        ("*fc*", ["net.fc1.weight"]),
        ("net.[cf]*1.weight", ["net.conv1.weight", "net.fc1.weight"]),
        ("net.fc1.weight", ["net.fc1.weight"]),
    ],
)
def test_a_pattern_is_a_shells_and_minds_case(pattern, names):
    assert match(pattern, LAYERS) == names


@pytest.mark.parametrize("pattern", ["fc1", "*.fc3.*", "NET.*", ""])
def test_a_pattern_that_matches_nothing_is_a_mistake_that_lists_the_names(pattern):
    with pytest.raises(UserError) as error:
        match(pattern, LAYERS)
    assert f"'{pattern}'" in str(error.value)
    assert "net.conv1.weight, net.fc1.weight, net.Fc2.weight" in str(error.value)
    assert "\n" not in str(error.value)
