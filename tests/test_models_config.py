"""Every network is configured from YAML and flags as it is from Python."""

import pytest
import torch
import yaml
from pytorch_lightning.cli import LightningArgumentParser

from lth_lightning.models import VGG19, Classifier, Conv2, Conv4, Conv6, LeNet300, ResNet20, WarmupMultiStepLR

NETWORKS = [LeNet300, Conv2, Conv4, Conv6, ResNet20, VGG19]


def parser_for(network: type[Classifier]) -> LightningArgumentParser:
    parser = LightningArgumentParser()
    parser.add_lightning_class_args(network, "model")
    parser.add_argument("--config", action="config")
    return parser


@pytest.mark.parametrize("network", NETWORKS)
def test_default_config_prints_the_optimizer_and_reads_back(network, tmp_path):
    parser = parser_for(network)
    printed = parser.dump(parser.get_defaults())
    optimizer = yaml.safe_load(printed)["model"]["optimizer"]
    by_hand = network().configure_optimizers()["optimizer"]
    assert optimizer["class_path"] == f"torch.optim.{type(by_hand).__name__}"
    for name in ("lr", "weight_decay", "fused"):
        assert optimizer["init_args"][name] == by_hand.param_groups[0][name]
    file = tmp_path / "config.yaml"
    file.write_text(printed)
    assert parser.dump(parser.parse_args(["--config", str(file)])) == printed


@pytest.mark.parametrize("network", NETWORKS)
def test_yaml_chooses_the_optimizer_the_schedule_and_the_data(network, tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text("""
model:
  shape: [1, 16, 16]
  num_classes: 5
  activation: tanh
  optimizer: {class_path: torch.optim.Adam, init_args: {lr: 0.0012, fused: true}}
  lr_scheduler:
    class_path: lth_lightning.models.WarmupMultiStepLR
    init_args: {warmup_steps: 10, milestones: [20, 30]}
""")
    parser = parser_for(network)
    arguments = parser.parse_args(["--config", str(file), "--model.lr_scheduler.init_args.gamma=0.5"])
    model = parser.instantiate_classes(arguments).model
    assert type(model) is network
    made = model.configure_optimizers()
    assert type(made["optimizer"]) is torch.optim.Adam
    assert made["optimizer"].param_groups[0]["initial_lr"] == 0.0012
    assert made["optimizer"].param_groups[0]["fused"] is True
    scheduler = made["lr_scheduler"]["scheduler"]
    assert type(scheduler) is WarmupMultiStepLR
    assert (scheduler.warmup_steps, list(scheduler.milestones), scheduler.gamma) == (10, [20, 30], 0.5)
    assert made["lr_scheduler"]["interval"] == "step"
    assert model(torch.randn(2, 1, 16, 16)).shape == (2, 5)


def test_an_unknown_activation_is_refused_by_the_parser(capsys):
    with pytest.raises(SystemExit):
        parser_for(LeNet300).parse_args(["--model.activation=swish"])
    assert "swish" in capsys.readouterr().err
