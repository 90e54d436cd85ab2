"""What can be pruned: the weights of Linear and Conv layers, and nothing else."""

import pytest
import torch
from torch import nn

from lth_lightning.errors import UserError
from lth_lightning.models import Conv2, LeNet300, ResNet20
from lth_lightning.pruning import Layer, weight_layers
from lth_lightning.pruning.layers import match


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
