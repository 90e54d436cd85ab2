"""Every shipped config runs: levels 0 and 1, a few steps, small synthetic data, its header's flags for less."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from config_helpers import NAMES, header

from lth_lightning.cli import main
from lth_lightning.data import CIFAR10, MNIST, FashionMNIST, Split
from lth_lightning.shipped import config_folder

TINY = [
    "--trainer.max_steps=2",
    "--trainer.accelerator=cpu",
    "--trainer.logger=false",
    "--pruning.evaluate_every=2",
    "--pruning.train_accuracy=false",
    "--pruning.replicates=1",
    "--pruning.until_density=null",
    "--data.batch_size=8",
    "--data.validation_size=20",
    "--workers=1",
]
FEW: dict[str, Any] = {
    "SynFlow": {"class_path": "SynFlow", "init_args": {"rounds": 2}},
    "FineTune": {"class_path": "FineTune", "init_args": {"steps": 1}},
}
"""Classes whose own length would not be tiny."""


def make_small(patch: pytest.MonkeyPatch) -> None:
    """Noise: 150 images to train and validate on, 20 to test; CIFAR10's of 16 x 16, which VGG-19 just takes."""

    def load(self: MNIST) -> tuple[Split, Split]:
        generator = torch.Generator().manual_seed(0)

        def split(n: int) -> Split:
            images = torch.randint(256, (n, *self.shape), dtype=torch.uint8, generator=generator)
            return Split(images, torch.arange(n) % 10)

        return split(150), split(20)

    for kind in (MNIST, FashionMNIST, CIFAR10):
        patch.setattr(kind, "pool_size", 150)
        patch.setattr(kind, "_load", load)
        patch.setattr(kind, "prepare_data", lambda self: None)
    patch.setattr(CIFAR10, "shape", (3, 16, 16))


@pytest.fixture(scope="module")
def ticket(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A ticket of LeNet, at level 1."""
    logs = tmp_path_factory.mktemp("ticket")
    (logs / "source.yaml").write_text("data: MNIST\nmodel: LeNet300\npruning: {levels: 1}\n")
    with pytest.MonkeyPatch.context() as patch:
        make_small(patch)
        assert main(["fit", "--config", str(logs / "source.yaml"), *TINY, "--logs", str(logs)]) == 0
    return str(logs / "source" / "version_0" / "replicate_0" / "ticket" / "level_01")


def tiny(config: dict[str, Any]) -> list[str]:
    """Flags that make the config's runs tiny, and few. Classes and their arguments stay, but for what is in FEW."""
    pruning = config["pruning"]
    words = [*TINY, f"--pruning.levels={min(1, pruning.get('levels', 1))}"]
    if "grid" in pruning:
        words.append("--pruning.grid=[0.5]")
    if "rewind_step" in pruning:
        words.append("--pruning.rewind_step=1")
    if "VGG19" in json.dumps(config["model"]):
        words.append("--model.width=0.05")
    controls = []
    for control in pruning.get("controls", []):
        arguments = {} if isinstance(control, str) else control["init_args"]
        fewer = {"trials": 1, **({"levels": [1]} if "levels" in arguments else {})}
        name = control if isinstance(control, str) else control["class_path"]
        controls.append({"class_path": name, "init_args": {**arguments, **fewer}})
    words.append(f"--pruning.controls={json.dumps(controls)}")
    for flag, values in config.get("sweep", {}).items():
        few = values if len(values) <= 2 else [values[0], values[-1]]
        if flag == "pruning.rewind_step":
            few = [0, 1]
        elif flag == "pruning.retrain":
            few = [FEW["FineTune"], *values[1:]]
        few = [FEW.get(value, value) if isinstance(value, str) else value for value in few]
        words.append(f"--sweep.{flag}={json.dumps(few)}")
    return words


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.thorough] if "/" in n else []) for n in NAMES])
def test_a_config_runs_at_a_tiny_scale(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    config = yaml.safe_load((config_folder() / f"{name}.yaml").read_text())
    smaller = header(name).smaller
    for flag, value in zip(smaller[::2], smaller[1::2], strict=True):
        if flag.startswith("--sweep."):
            config["sweep"][flag.removeprefix("--sweep.")] = yaml.safe_load(value)
    words = ["--config", name, *smaller, *tiny(config), "--logs", str(tmp_path)]
    needs_ticket = "--ticket" in header(name).what
    if needs_ticket:
        words += ["--ticket", request.getfixturevalue("ticket")]
    if not name.startswith("quickstart"):
        make_small(monkeypatch)
    assert main(["fit", *words]) == 0
    runs = sorted(tmp_path.rglob("results.csv"))
    cells = 1
    for values in config.get("sweep", {}).values():
        cells *= min(len(values), 3 if FEW["FineTune"]["class_path"] in json.dumps(values) else 2)
    assert len(runs) == cells
    controls = config["pruning"].get("controls", [])
    last = min(1, config["pruning"].get("levels", 1))
    for run in runs:
        with run.open() as file:
            rows = list(csv.DictReader(file))
        assert {row["status"] for row in rows} == {"ok"}
        assert [int(row["level"]) for row in rows if row["arm"] == "ticket"] == list(range(last + 1))
        assert len({row["arm"] for row in rows}) == 1 + len(controls)
        density = [float(row["density"]) for row in rows if row["arm"] == "ticket"]
        assert density == sorted(density, reverse=True)
        assert len(set(density)) == last + 1
        for row in rows:
            assert 0 <= int(row["steps"]) <= 2
