"""Every shipped config builds, is what its header and the table say, and has the paper's settings and densities."""

import csv
import json
import re
from pathlib import Path

import pytest
import yaml
from config_helpers import NAMES, cost_of, header, runs_of

from lth_lightning.cli import main
from lth_lightning.data import Digits
from lth_lightning.shipped import config_folder

TOP = {"conv2", "conv4", "conv6", "lenet", "lenet_fashion", "quickstart"}
TOP |= {"resnet20", "resnet20_warmup", "vgg19", "vgg19_warmup"}

# The figures that paper.md's list of figures names.
FIGURES = {1, *range(3, 12), 14, 15, 16, *range(19, 32), 35, 37, 38, 39, *range(42, 46)}

# What Sections 2 to 4 and the appendices claim, by the experiment's kind.
CLAIMS = {f"L{i}" for i in range(1, 11)} | {f"C{i}" for i in range(1, 7)} | {"V1", "V2", "V3", "V5", "R1", "R2", "R3"}
CLAIMS |= set("BEFGHI")


def test_the_configs_are_those_that_are_promised() -> None:
    assert {name for name in NAMES if "/" not in name} == TOP
    assert {name.partition("/")[0] for name in NAMES if "/" in name} == {"paper", "seeds", "followups"}
    figures = [part for name in NAMES if name.startswith("paper/figure") for part in name[12:].split("_")]
    assert {int(part) for part in figures if part.isdigit()} >= FIGURES


def test_every_claim_has_a_config_and_no_other_is_claimed() -> None:
    claimed = {claim for name in NAMES for claim in header(name).claims.split(", ")}
    assert claimed == CLAIMS | {"none"}


def table() -> dict[str, list[str]]:
    """The rows of configs/README.md: by name what, claims, steps, where."""
    rows = (line.strip("| ").split("|") for line in (config_folder() / "README.md").read_text().splitlines()
            if line.startswith("| `"))  # fmt: skip
    return {row[0].strip(" `"): [cell.strip() for cell in row[1:]] for row in rows}


def test_the_table_lists_every_config_with_its_headers_claims_and_steps() -> None:
    rows = table()
    assert sorted(rows) == NAMES
    for name, (what, claims, steps, where) in rows.items():
        assert claims == header(name).claims.replace("none", ""), name
        assert steps == f"{header(name).cost.total:,}", name
        assert what
        assert where.startswith(("GPU", "laptop")), name


def test_the_tables_figures_are_those_of_the_names() -> None:
    for name, (what, *_) in table().items():
        if name.startswith("paper/"):
            told = {int(n) for n in re.findall(r"\d+", re.split(r", [A-Z]|:", what)[0])}
            assert {int(part) for part in name[12:].split("_") if part.isdigit()} <= told, name


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.thorough] if "/" in n else []) for n in NAMES])
def test_a_config_builds_and_costs_what_its_header_says(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    said = header(name).cost
    controls: list[str] = []
    if "--ticket" in header(name).what:
        # With a ticket, level 0 has lost weights already, so the controls train there.
        asked = yaml.safe_load((config_folder() / f"{name}.yaml").read_text())["pruning"]["controls"]
        given = [{"class_path": control, "init_args": {"levels": [0]}} for control in asked]
        controls = [f"--pruning.controls={json.dumps(given)}"]
    assert cost_of(runs_of(name, controls, monkeypatch)) == said


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
    "paper/figure4": ("LeNet300", 60, 50_000, 1.2e-3, {"linear": 0.2, "output": 0.1}, "layer"),
    "paper/figure5_conv2": ("Conv2", 60, 20_000, 2e-4, {"conv": 0.1, "linear": 0.2, "output": 0.1}, "layer"),
    "paper/figure5_conv4": ("Conv4", 60, 25_000, 3e-4, {"conv": 0.1, "linear": 0.2, "output": 0.1}, "layer"),
    "paper/figure5_conv6": ("Conv6", 60, 30_000, 3e-4, {"conv": 0.15, "linear": 0.2, "output": 0.1}, "layer"),
    "paper/figure7_high": ("VGG19", 64, 112_480, 0.1, {"conv": 0.2}, "global"),
    "paper/figure7_low": ("VGG19", 64, 112_480, 0.01, {"conv": 0.2}, "global"),
    "paper/figure7_warmup": ("VGG19", 64, 112_480, 0.1, {"conv": 0.2}, "global"),
    "paper/figure8_high": ("ResNet20", 128, 30_000, 0.1, {"conv": 0.2}, "global"),
    "paper/figure8_low": ("ResNet20", 128, 30_000, 0.01, {"conv": 0.2}, "global"),
    "paper/figure8_warmup": ("ResNet20", 128, 30_000, 0.03, {"conv": 0.2}, "global"),
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
        warmup = (20_000 if network == "ResNet20" else 10_000) if name.endswith("warmup") else 0
        assert schedule["warmup_steps"] == warmup
        assert schedule["milestones"] == ([20_000, 25_000] if network == "ResNet20" else [80 * 703, 120 * 703])
        assert schedule["gamma"] == pytest.approx(0.1)
        assert (optimizer["momentum"], optimizer["weight_decay"]) == (0.9, 1e-4)
        assert config["data"]["init_args"]["augmentation"] == "flip_crop"


# Percent of the weights that are left, by level (the paper's Fig. 3-8 and its text).
LENET = {1: 80.0, 2: 64.1, 3: 51.3, 4: 41.1, 5: 32.9, 6: 26.3, 7: 21.1, 8: 16.9, 9: 13.5, 10: 10.8, 11: 8.7, 12: 7.0,
         13: 5.6, 14: 4.5, 15: 3.6, 16: 2.9, 17: 2.3, 18: 1.9, 20: 1.2, 24: 0.5, 28: 0.2}  # fmt: skip
DENSITIES = {
    "paper/figure4": LENET,
    "paper/figure3_11": {level: LENET[level] for level in (3, 7, 12, 15, 18)},
    "paper/figure5_conv2": {11: 8.8, 14: 4.6},
    "paper/figure5_conv4": {11: 11.1, 12: 9.2},
    "paper/figure5_conv6": {7: 26.6, 10: 15.3},
    "paper/figure7_warmup": {12: 6.9, 15: 3.5, 19: 1.5},
    "paper/figure8_warmup": {4: 41.7, 6: 27.1, 7: 21.9, 10: 11.8},
    # L9's 67.5, 17.6 and 5.17 are hidden layers' 67.5, 17.5 and 5%, the output layer's 1,000 weights at half the rate.
    "paper/figure4_oneshot": {1: 97.5, 13: 67.6, 33: 17.65, 38: 5.18, 39: 2.7},
}


@pytest.mark.parametrize("name", DENSITIES)
def test_the_levels_have_the_papers_densities(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (run,) = runs_of(name, [], monkeypatch)
    schedule = run.driver.schedule
    for level, percent in DENSITIES[name].items():
        assert 100 * schedule.density(level) == pytest.approx(percent, abs=0.06), level
    if name.startswith("paper/figure5"):
        assert schedule.density(schedule.levels[-1]) < 0.02  # C3 and C4 end there


def test_the_notebooks_weights_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "--config", "seeds/notebook", "--dry-run"]) == 0
    counts = re.findall(r"^ *\d +[\d.]+% +([\d,]+) ", capsys.readouterr().out, re.MULTILINE)
    assert counts == ["266,200", "212,960", "170,368", "136,294", "109,035", "87,228"]


@pytest.mark.parametrize("network", ["conv2", "conv4", "conv6"])
def test_dropout_has_its_own_rate_and_three_times_the_steps(network: str) -> None:
    plain, config = (yaml.safe_load((config_folder() / f"paper/figure{n}_{network}.yaml").read_text()) for n in (5, 6))
    assert config["trainer"]["max_steps"] == 3 * plain["trainer"]["max_steps"]
    assert config["model"]["init_args"]["dropout"] == 0.5
    rate = config["model"]["init_args"]["optimizer"]["init_args"]["lr"]
    assert rate == {"conv2": 3e-4, "conv4": 2e-4, "conv6": 2e-4}[network]


def test_a_resolved_config_repeats_the_run(tmp_path: Path) -> None:
    words = ["--trainer.max_steps=4", "--pruning.evaluate_every=2", "--pruning.levels=2", "--pruning.replicates=1"]
    tables = []
    for config in ("quickstart", tmp_path / "0" / "quickstart" / "version_0" / "config.yaml"):
        logs = tmp_path / str(len(tables))
        assert main(["fit", "--config", str(config), *words, "--logs", str(logs)]) == 0
        with (logs / "quickstart" / "version_0" / "results.csv").open() as file:
            tables.append([{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)])
        words = []
    assert tables[0] == tables[1]
    assert [(row["arm"], row["level"]) for row in tables[0]] == [
        ("random_reinit", "1"),
        ("random_reinit", "2"),
        ("ticket", "0"),
        ("ticket", "1"),
        ("ticket", "2"),
    ]


def test_two_configs_merge_and_the_first_names_the_experiment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text("trainer: {max_steps: 20}\npruning: {levels: 0, replicates: 1, controls: []}\n")
    assert main(["fit", "--config", "quickstart", "--config", "mine.yaml"]) == 0
    config = yaml.safe_load((tmp_path / "lightning_logs" / "quickstart" / "version_0" / "config.yaml").read_text())
    assert config["trainer"]["max_steps"] == 20
    assert config["data"]["class_path"].endswith("Digits")


def test_without_a_config_quickstart_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["fit", "--trainer.max_steps=20", "--pruning.levels=0", "--replicates=1", "--pruning.controls=[]"]) == 0
    assert (tmp_path / "lightning_logs" / "quickstart" / "version_0" / "results.csv").exists()
    assert Digits.shape == (1, 8, 8)
