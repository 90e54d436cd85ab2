"""The networks have the paper's layers, weight counts and initialization."""

import math

import pytest
import torch
from torch import nn

from lth_lightning.errors import UserError
from lth_lightning.models import VGG19, Classifier, Conv2, Conv4, Conv6, LeNet300, ResNet20, glorot_normal_

NETWORKS = [LeNet300, Conv2, Conv4, Conv6, ResNet20, VGG19]


@pytest.fixture(scope="module")
def networks() -> dict[type[Classifier], Classifier]:
    torch.manual_seed(7)
    return {network: network() for network in NETWORKS}


def layers_of(model: nn.Module, *kinds: type[nn.Module]) -> dict[str, nn.Module]:
    return {name: module for name, module in model.named_modules() if isinstance(module, kinds)}


def weights_of(model: nn.Module, *kinds: type[nn.Module]) -> int:
    return sum(layer.weight.numel() for layer in layers_of(model, *kinds).values())


@pytest.mark.parametrize(
    ("network", "total", "conv"),
    [
        (LeNet300, 266_200, 0),
        (Conv2, 4_300_992, 38_592),
        (Conv4, 2_425_024, 259_776),
        (Conv6, 2_261_184, 1_144_512),
        (ResNet20, 270_896, 270_256),
        (VGG19, 20_024_000, 20_018_880),
    ],
)
def test_weight_counts_are_the_papers(networks, network, total, conv):
    assert weights_of(networks[network], nn.Conv2d, nn.Linear) == total
    assert weights_of(networks[network], nn.Conv2d) == conv


def test_resnet_leaves_267696_weights_without_shortcuts_and_output(networks):
    weights = {
        name: layer.weight.numel() for name, layer in layers_of(networks[ResNet20], nn.Conv2d, nn.Linear).items()
    }
    assert sum(n for name, n in weights.items() if "shortcut" in name) == 2_560
    assert sum(n for name, n in weights.items() if "output" in name) == 640
    assert sum(n for name, n in weights.items() if "shortcut" not in name and "output" not in name) == 267_696
    assert len(weights) == 19 + 2 + 1


def test_vgg_output_has_5120_weights_and_there_are_16_conv_layers(networks):
    linear = layers_of(networks[VGG19], nn.Linear)
    assert [(name, layer.weight.numel()) for name, layer in linear.items()] == [("net.output", 5_120)]
    widths = [layer.out_channels for layer in layers_of(networks[VGG19], nn.Conv2d).values()]
    assert widths == [64] * 2 + [128] * 2 + [256] * 4 + [512] * 8
    assert len(layers_of(networks[VGG19], nn.MaxPool2d)) == 4


@pytest.mark.parametrize(
    ("network", "names"),
    [
        (LeNet300, ["fc1", "fc2", "output"]),
        (Conv2, ["conv1", "conv2", "fc1", "fc2", "output"]),
        (Conv4, ["conv1", "conv2", "conv3", "conv4", "fc1", "fc2", "output"]),
        (Conv6, ["conv1", "conv2", "conv3", "conv4", "conv5", "conv6", "fc1", "fc2", "output"]),
    ],
)
def test_state_dict_names_are_those_of_the_layers(networks, network, names):
    expected = [f"net.{name}.{kind}" for name in names for kind in ("weight", "bias")]
    assert list(networks[network].state_dict()) == expected


@pytest.mark.parametrize("network", NETWORKS)
def test_weights_have_glorots_spread_and_biases_are_zero(networks, network):
    for name, layer in layers_of(networks[network], nn.Conv2d, nn.Linear).items():
        shape = layer.weight.shape
        field = math.prod(shape[2:])
        sd = math.sqrt(2.0 / (shape[1] * field + shape[0] * field))
        n = layer.weight.numel()
        # Five standard errors of a sample's standard deviation and mean.
        assert layer.weight.std().item() == pytest.approx(sd, rel=5 / math.sqrt(2 * n)), name
        assert abs(layer.weight.mean().item()) < 5 * sd / math.sqrt(n), name
        # Gaussian, not uniform: a uniform of this spread ends at 1.73 sd.
        if n > 10_000:
            assert layer.weight.abs().max() > 3 * sd, name
        assert layer.bias is None or not layer.bias.any(), name


@pytest.mark.parametrize("network", NETWORKS)
def test_conv_layers_have_biases_exactly_where_no_batch_norm_follows(networks, network):
    normed = bool(layers_of(networks[network], nn.BatchNorm2d))
    assert normed == (network in (ResNet20, VGG19))
    for layer in layers_of(networks[network], nn.Conv2d).values():
        assert (layer.bias is None) == normed
    for norm in layers_of(networks[network], nn.BatchNorm2d).values():
        assert (norm.weight == 1).all()
        assert not norm.bias.any()


@pytest.mark.parametrize("sd", [0.05, 0.4])
def test_lenet_takes_one_standard_deviation_for_all_layers(sd):
    torch.manual_seed(3)
    model = LeNet300(init_sd=sd)
    for name, layer in layers_of(model, nn.Linear).items():
        n = layer.weight.numel()
        assert layer.weight.std().item() == pytest.approx(sd, rel=5 / math.sqrt(2 * n)), name
        assert abs(layer.weight.mean().item()) < 5 * sd / math.sqrt(n), name
        assert not layer.bias.any(), name
    assert model.net.fc1.weight.abs().max() > 3 * sd


def test_initialization_replaces_what_was_there():
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(2, 2))
    for parameter in net.parameters():
        nn.init.constant_(parameter, 5.0)
    assert glorot_normal_(net) is net
    assert not any((parameter == 5.0).any() for parameter in net.parameters())


@pytest.mark.parametrize("network", NETWORKS)
def test_equal_seeds_give_bit_identical_networks_and_others_differ(network):
    def build(seed: int) -> dict[str, torch.Tensor]:
        torch.manual_seed(seed)
        model = network(width=0.125) if network is VGG19 else network()
        return model.state_dict()

    first, same, other = build(1), build(1), build(2)
    assert all(torch.equal(first[name], same[name]) for name in first)
    drawn = [name for name in first if name.endswith("weight") and "norm" not in name]
    assert drawn
    assert not any(torch.equal(first[name], other[name]) for name in drawn)


@pytest.mark.parametrize("network", NETWORKS)
def test_forward_gives_a_logit_a_class(networks, network):
    shape = (1, 28, 28) if network is LeNet300 else (3, 32, 32)
    assert networks[network](torch.randn(2, *shape)).shape == (2, 10)
    small = {"width": 0.125} if network is VGG19 else {}
    other = network(shape=(2, 16, 24), num_classes=7, **small)
    assert other(torch.randn(3, 2, 16, 24)).shape == (3, 7)


def test_lenet_computes_two_relu_layers_and_a_linear_one(networks):
    model = networks[LeNet300]
    images = torch.randn(4, 1, 28, 28)
    hidden = images.reshape(4, 784)
    for layer in (model.net.fc1, model.net.fc2):
        hidden = (hidden @ layer.weight.T + layer.bias).clamp(min=0)
    torch.testing.assert_close(model(images), hidden @ model.net.output.weight.T + model.net.output.bias)


def test_resnet_halves_its_images_twice():
    model = ResNet20().eval()
    sizes = []
    for name in ("stage1", "stage2", "stage3"):
        stage = getattr(model.net, name)
        stage.register_forward_hook(lambda _module, _inputs, output: sizes.append(tuple(output.shape[1:])))
    model(torch.randn(1, 3, 32, 32))
    assert sizes == [(16, 32, 32), (32, 16, 16), (64, 8, 8)]


def test_a_resnet_block_adds_its_input():
    block = ResNet20().net.stage1[0].eval()
    nn.init.zeros_(block.conv2.weight)
    features = torch.randn(1, 16, 4, 4)
    torch.testing.assert_close(block(features), features.clamp(min=0))


def test_lenet_takes_other_hidden_layers():
    model = LeNet300(hidden=[20, 15, 10])
    assert [p.shape[0] for n, p in model.named_parameters() if n.endswith("weight")] == [20, 15, 10, 10]


def test_vgg_width_scales_every_layer_but_the_images_and_the_classes():
    widths = [layer.out_channels for layer in layers_of(VGG19(width=0.25), nn.Conv2d).values()]
    assert widths == [16] * 2 + [32] * 2 + [64] * 4 + [128] * 8


@pytest.mark.parametrize(("activation", "layer"), [("relu", nn.ReLU), ("sigmoid", nn.Sigmoid), ("tanh", nn.Tanh)])
@pytest.mark.parametrize("network", NETWORKS)
def test_activation_replaces_every_one(network, activation, layer):
    small = {"width": 0.125} if network is VGG19 else {}
    model = network(activation=activation, **small)
    found = {type(m) for m in layers_of(model, nn.ReLU, nn.Sigmoid, nn.Tanh).values()}
    assert found == {layer}


@pytest.mark.parametrize("network", [LeNet300, Conv2, Conv4, Conv6])
def test_dropout_follows_the_two_hidden_fully_connected_layers(network):
    assert not layers_of(network(), nn.Dropout)
    dropouts = layers_of(network(dropout=0.5), nn.Dropout)
    assert list(dropouts) == ["net.fc1_dropout", "net.fc2_dropout"]
    assert {layer.p for layer in dropouts.values()} == {0.5}


@pytest.mark.parametrize(("network", "pools"), [(Conv2, 1), (Conv4, 2), (Conv6, 3), (VGG19, 4)])
def test_images_too_small_for_the_pools_are_a_users_mistake(network, pools):
    small = {"width": 0.125} if network is VGG19 else {}
    with pytest.raises(UserError, match=f"at least {2**pools}x{2**pools}") as error:
        network(shape=(3, 40, 2**pools - 1), **small)
    assert "\n" not in str(error.value)
    network(shape=(3, 2**pools, 2**pools), **small)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LeNet300(dropout=1.0), "dropout is 1.0"),
        (lambda: Conv2(dropout=-0.1), "dropout is -0.1"),
        (lambda: LeNet300(hidden=[300, 0]), "at least 1"),
        (lambda: LeNet300(init_sd=0.0), "init_sd is 0.0"),
        (lambda: LeNet300(activation="swish"), "activation 'swish' is unknown"),
        (lambda: VGG19(width=0.0), "width is 0.0"),
    ],
)
def test_arguments_out_of_range_are_a_users_mistake(make, message):
    with pytest.raises(UserError, match=message):
        make()


@pytest.mark.parametrize(
    ("network", "kind", "settings"),
    [
        (LeNet300, torch.optim.Adam, {"lr": 1.2e-3}),
        (Conv2, torch.optim.Adam, {"lr": 2e-4}),
        (Conv4, torch.optim.Adam, {"lr": 3e-4}),
        (Conv6, torch.optim.Adam, {"lr": 3e-4}),
        (ResNet20, torch.optim.SGD, {"lr": 0.03, "momentum": 0.9, "weight_decay": 1e-4}),
        (VGG19, torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "weight_decay": 1e-4}),
    ],
)
def test_optimizers_are_the_papers(networks, network, kind, settings):
    optimizer = networks[network].configure_optimizers()["optimizer"]
    assert type(optimizer) is kind
    (group,) = optimizer.param_groups
    assert {name: group[name] for name in settings} == settings
    assert group["fused"] is True
    assert len(group["params"]) == len(list(networks[network].parameters()))
