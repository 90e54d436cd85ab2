"""Every shipped config parses, builds the network it says, and runs at a tiny scale."""

import csv
from pathlib import Path

import pytest
import torch
import yaml

from lth_lightning.cli import main
from lth_lightning.data import CIFAR10, MNIST, Digits, FashionMNIST, Split
from lth_lightning.shipped import config_folder

CONFIGS = sorted(path.stem for path in config_folder().glob("*.yaml"))
TINY = [
    "--trainer.max_steps=4",
    "--trainer.accelerator=cpu",
    "--pruning.evaluate_every=2",
    "--pruning.levels=2",
    "--pruning.replicates=1",
    "--pruning.controls=[{class_path: RandomReinit, init_args: {levels: [1]}}]",
    "--data.batch_size=8",
    "--data.validation_size=20",
]


def test_the_configs_are_those_that_are_promised() -> None:
    promised = "conv2 conv4 conv6 lenet lenet_fashion quickstart resnet20 resnet20_warmup vgg19 vgg19_warmup"
    assert promised.split() == CONFIGS


@pytest.fixture
def _small_data(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in (MNIST, FashionMNIST, CIFAR10):

        def load(self: MNIST) -> tuple[Split, Split]:
            generator = torch.Generator().manual_seed(0)

            def split(n: int) -> Split:
                images = torch.randint(256, (n, *self.shape), dtype=torch.uint8, generator=generator)
                return Split(images, torch.arange(n) % 10)

            return split(60), split(20)

        monkeypatch.setattr(kind, "pool_size", 60)
        monkeypatch.setattr(kind, "_load", load)
        monkeypatch.setattr(kind, "prepare_data", lambda self: None)


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.usefixtures("_small_data")
def test_a_config_runs_at_a_tiny_scale_and_its_resolved_config_repeats_it(name: str, tmp_path: Path) -> None:
    width = ["--model.width=0.25"] if name.startswith("vgg") else []
    assert main(["fit", "--config", name, *TINY, *width, "--logs", str(tmp_path / "a")]) == 0
    run = tmp_path / "a" / name / "version_0"
    with (run / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["arm"], row["level"]) for row in rows] == [
        ("random_reinit", "1"),
        ("ticket", "0"),
        ("ticket", "1"),
        ("ticket", "2"),
    ]
    assert all(row["status"] == "ok" and row["steps"] == "4" for row in rows)
    if name not in ("quickstart", "lenet"):
        return
    assert main(["fit", "--config", str(run / "config.yaml"), "--logs", str(tmp_path / "b")]) == 0
    again = tmp_path / "b" / name / "version_0" / "results.csv"
    with again.open() as file:
        repeated = list(csv.DictReader(file))
    for row, other in zip(rows, repeated, strict=True):
        del row["seconds"], other["seconds"]
        assert row == other


# Network, batch size, steps, optimizer, rate, warmup, pruning rates, scope: the paper's Fig. 2 and appendices.
PAPER = {
    "lenet": ("LeNet300", 60, 50_000, 1.2e-3, {"linear": 0.2, "output": 0.1}, "layer"),
    "conv2": ("Conv2", 60, 20_000, 2e-4, {"conv": 0.1, "linear": 0.2, "output": 0.1}, "layer"),
    "conv4": ("Conv4", 60, 25_000, 3e-4, {"conv": 0.1, "linear": 0.2, "output": 0.1}, "layer"),
    "conv6": ("Conv6", 60, 30_000, 3e-4, {"conv": 0.15, "linear": 0.2, "output": 0.1}, "layer"),
    "resnet20": ("ResNet20", 128, 30_000, 0.01, {"conv": 0.2}, "global"),
    "resnet20_warmup": ("ResNet20", 128, 30_000, 0.03, {"conv": 0.2}, "global"),
    "vgg19": ("VGG19", 64, 112_480, 0.01, {"conv": 0.2}, "global"),
    "vgg19_warmup": ("VGG19", 64, 112_480, 0.1, {"conv": 0.2}, "global"),
}


@pytest.mark.parametrize("name", PAPER)
def test_a_config_says_what_the_paper_says(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["fit", "--config", name, "--print_config"])
    assert stop.value.code == 0
    config = yaml.safe_load(capsys.readouterr().out)
    network, batch, steps, rate, rates, scope = PAPER[name]
    model, options = config["model"], config["pruning"]
    optimizer = model["init_args"]["optimizer"]["init_args"]
    assert model["class_path"].endswith(f".{network}")
    assert config["data"]["init_args"]["batch_size"] == batch
    assert config["trainer"]["max_steps"] == steps
    assert optimizer["lr"] == pytest.approx(rate)
    assert options["rates"] == rates
    assert options["scope"] == scope
    if scope == "global":
        schedule = model["init_args"]["lr_scheduler"]["init_args"]
        warmup = {"resnet20_warmup": 20_000, "vgg19_warmup": 10_000}.get(name, 0)
        assert schedule["warmup_steps"] == warmup
        assert schedule["milestones"] == ([20_000, 25_000] if network == "ResNet20" else [80 * 703, 120 * 703])
        assert schedule["gamma"] == pytest.approx(0.1)
        assert (optimizer["momentum"], optimizer["weight_decay"]) == (0.9, 1e-4)
        assert config["data"]["init_args"]["augmentation"] == "flip_crop"


def test_two_configs_merge_and_the_last_names_the_experiment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text("trainer: {max_steps: 20}\npruning: {levels: 0, replicates: 1, controls: []}\n")
    assert main(["fit", "--config", "quickstart", "--config", "mine.yaml"]) == 0
    config = yaml.safe_load((tmp_path / "lightning_logs" / "mine" / "version_0" / "config.yaml").read_text())
    assert config["trainer"]["max_steps"] == 20
    assert config["data"]["class_path"].endswith("Digits")


def test_without_a_config_quickstart_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["fit", "--trainer.max_steps=20", "--pruning.levels=0", "--replicates=1", "--pruning.controls=[]"]) == 0
    assert (tmp_path / "lightning_logs" / "quickstart" / "version_0" / "results.csv").exists()
    assert Digits.shape == (1, 8, 8)
