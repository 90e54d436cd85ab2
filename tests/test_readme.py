"""What the README says is so: its commands, its code, its table of configs."""

import re
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from lth_lightning.cli import main
from lth_lightning.shipped import config_folder

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_ci_runs_the_readmes_test_command_word_for_word() -> None:
    command = next(block.strip() for block in blocks("bash") if "pytest" in block)
    assert command in (ROOT / ".ci" / "run").read_text().splitlines()


def test_the_first_command_installs_and_runs_quickstart() -> None:
    assert blocks("bash")[0].strip().endswith(".venv/bin/pip install -e . && .venv/bin/lth fit --config quickstart")


def test_the_table_lists_every_config() -> None:
    rows = [line for line in README.partition("**Sweeps.**")[0].splitlines() if line.startswith("| `")]
    table = set(re.findall(r"`(\w+)`", "\n".join(rows)))
    assert table == {path.stem for path in config_folder().glob("*.yaml")}


def test_the_table_counts_quickstarts_trainings(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "--config", "quickstart", "--dry-run"]) == 0
    count = re.search(r"(\d+) trainings of 1,000 steps", capsys.readouterr().out)
    assert count is not None
    assert f"| `quickstart` | LeNet-300-100, Digits | {count[1]} of 1,000 steps |" in README


def test_files_that_the_readme_links_to_exist() -> None:
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        path = ROOT / target
        assert path.exists() or (ROOT / "lth_lightning" / target).exists(), target


def test_the_criterion_of_ones_own_runs_from_the_readme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    code = next(block for block in blocks("python") if "class Growth" in block)
    (tmp_path / "mine.py").write_text(code)
    command = next(block.strip() for block in blocks("bash") if "mine.Growth" in block)
    words = command.removeprefix("lth ").split()
    assert (
        main([*words, "--trainer.max_steps=40", "--pruning.levels=1", "--replicates=1", "--pruning.controls=[]"]) == 0
    )
    run = tmp_path / "lightning_logs" / "quickstart" / "version_0" / "replicate_0"
    mask = torch.load(run / "ticket" / "level_01" / "mask.pt")["mask"]["net.fc1.weight"]
    final = torch.load(run / "ticket" / "level_00" / "trained.pt")["weights"]["net.fc1.weight"]
    initial = torch.load(run / "rewind.pt")["weights"]["net.fc1.weight"]
    grown = final.abs() / initial.abs().clamp_min(1e-8)
    assert grown[mask].min() >= grown[~mask].max()


def test_the_control_of_ones_own_runs_from_the_readme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    code = next(block for block in blocks("python") if "class Halved" in block)
    (tmp_path / "halved.py").write_text(code)
    words = ["--trainer.max_steps=40", "--pruning.levels=1", "--replicates=1", "--pruning.controls=[halved.Halved]"]
    assert main(["fit", "--config", "quickstart", *words]) == 0
    assert (tmp_path / "lightning_logs/quickstart/version_0/replicate_0/halved_0/level_01/result.json").exists()


def test_the_loop_in_plain_pytorch_runs_as_printed() -> None:
    code = next(block for block in blocks("python") if "MaskKeeper(model, mask)" in block)
    model = nn.Sequential(nn.Linear(20, 50), nn.ReLU(), nn.Linear(50, 10))
    seen = []

    def train(model, keeper):
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        keeper.attach([optimizer])
        for _ in range(3):
            optimizer.zero_grad()
            model(torch.randn(8, 20)).square().mean().backward()
            optimizer.step()
        seen.append(int((model[0].weight == 0).sum()))

    exec(code.replace("levels=15", "levels=3"), {"model": model, "train": train})
    assert seen == [0, 200, 360]


def test_the_loop_with_lightning_runs_as_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lth_lightning.data import Digits
    from lth_lightning.models import LeNet300

    monkeypatch.chdir(tmp_path)
    code = next(block for block in blocks("python") if "loop.run" in block)
    names = {"MyModel": lambda: LeNet300(shape=Digits.shape), "MyData": Digits}
    exec(code.replace("levels=10", "levels=1").replace("2000", "20"), names)
    assert [record.arm for record in names["records"]] == ["random_reinit", "ticket", "ticket"]
