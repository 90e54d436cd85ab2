"""How many weights each layer has left: counted from masks, shown at the end, and told where a layer is nearly gone."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from loop_helpers import OwnModule, SmallData, go, level, load, tiny
from rich.console import Console

from lth_lightning.callbacks import Display, RandomPruning
from lth_lightning.cli import main
from lth_lightning.errors import UserError
from lth_lightning.files import write_pt
from lth_lightning.results import LayerCount, layer_counts, layers_table, read_records


def test_counts_are_those_of_the_mask(tmp_path: Path) -> None:
    mask = {"a.weight": torch.zeros(4, 3, dtype=torch.bool), "b.weight": torch.ones(2, 4, 3, 3, dtype=torch.bool)}
    mask["a.weight"][0, 2] = True
    write_pt(tmp_path / "mask.pt", {"format": 1, "mask": mask, "level": 1, "density": 0.5})
    assert layer_counts(tmp_path) == [LayerCount("a.weight", 1, 12, 4), LayerCount("b.weight", 72, 72, 2)]
    (tmp_path / "mask.pt").write_bytes(b"")
    with pytest.raises(UserError, match=r"mask\.pt"):
        layer_counts(tmp_path)


@pytest.mark.parametrize(
    ("left", "size", "units", "gone"),
    [
        (0, 10, 1, True),
        (3, 36_864, 64, True),
        (63, 36_864, 64, True),
        (64, 36_864, 64, False),
        (4, 512, 1, True),
        (5, 512, 1, False),
        (4, 20, 4, False),
        (12, 12, 3, False),
    ],
)
def test_a_layer_is_nearly_gone_where_its_units_outnumber_its_weights(
    left: int, size: int, units: int, gone: bool
) -> None:
    assert LayerCount("a", left, size, units).is_nearly_gone == gone


def test_a_layer_that_global_pruning_takes_nearly_whole_is_told(tmp_path: Path) -> None:
    def small_head() -> Any:
        model = tiny()
        with torch.no_grad():
            model.net.fc2.weight.mul_(0.4)
        return model

    settings = {"rates": {"linear": 0.5, "output": 0.5}, "scope": "global", "levels": 5, "evaluate_every": 5}
    settings["controls"] = [RandomPruning()]
    console = Console(record=True, width=300)
    with console.capture() as shown:
        records = go(tmp_path, settings, steps=5, model=small_head, display=Display(console))
    run = tmp_path / "run" / "version_0"
    told = [line for line in shown.get().splitlines() if "nearly gone" in line]
    expected = []
    for folder in ("ticket", "random_pruning_0"):
        masks = {number: load(level(run, number, folder) / "mask.pt")["mask"] for number in range(1, 6)}
        for name, part in masks[1].items():
            left = {number: int(mask[name].sum()) for number, mask in masks.items()}
            thin = [number for number, count in left.items() if count < min(len(part), part.numel() / 10)]
            if thin:
                last = f", and {left[5]} at level 5" if left[5] < left[thin[0]] else ""
                expected.append(
                    f"Layer '{name}' is nearly gone from level {thin[0]} on (replicate 0 {folder}): {left[thin[0]]} of "
                    f"{part.numel()} weights are left, fewer than it has units{last}. --layers lists all densities."
                )
    assert told == expected
    assert any("'net.fc2.weight' is nearly gone from level 3 on (replicate 0 ticket)" in line for line in told)
    # Its two kinds of scores do not compare in a global pool: the output layer goes first.
    assert any("'net.output.weight'" in line and "random_pruning_0" in line for line in told)
    console = Console(width=200)
    with console.capture() as shown:
        for table in layers_table(run, records, columns=3):
            console.print(table)
    lines = [line.split() for line in shown.get().splitlines()]
    assert ["layer", "weights", "0", "1", "2"] in lines
    assert ["layer", "weights", "3", "4", "5"] in lines
    counted = [int(load(level(run, number) / "mask.pt")["mask"]["net.fc2.weight"].sum()) for number in range(6)]
    shares = [cell for line in lines if line[0] == "net.fc2.weight" for cell in line[2:]]
    assert [float(share) for share in shares] == pytest.approx([100 * left / 128 for left in counted], rel=0.01)
    assert read_records(run) == records


def test_the_command_lists_layers_where_it_is_asked_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["--pruning.levels=1", "--trainer.max_steps=4", "--pruning.controls=[]", "--workers=1", "--replicates=1"]
    assert main(["fit", "--config", "quickstart", *words, "--layers"]) == 0
    assert "net.fc1.weight     19,200 100 80" in capsys.readouterr().out
    config = (tmp_path / "lightning_logs" / "quickstart" / "version_0" / "config.yaml").read_text()
    assert "layers" not in config
    assert main(["fit", "--config", "quickstart", *words]) == 0
    assert "Density of each layer" not in capsys.readouterr().out


def test_a_dry_run_lists_every_parameter(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--model=test_loop_checks.Attention", "--data=loop_helpers.SmallData", "--trainer.max_steps=6"]
    options = ["--pruning.levels=1", '--pruning.exclude=["*out_proj*"]', "--dry-run", f"--logs={tmp_path}"]
    assert main(["fit", *words, *options]) == 0
    shown = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "embedding.weight outside 8 x 12 96 -" in shown
    assert "attention.in_proj_weight outside 36 x 12 432 -" in shown
    assert "attention.in_proj_bias bias or norm 36 36 -" in shown
    assert "attention.out_proj.weight output 12 x 12 144 -" in shown
    assert "head.weight linear 3 x 12 36 0.2" in shown
    assert any(line.startswith("Neither pruned nor counted") for line in shown)
    assert not list(tmp_path.iterdir())


def test_the_module_is_imported_without_torch() -> None:
    code = "import sys; import lth_lightning.results.layers; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=180).returncode == 0


def test_an_ordinary_run_tells_nothing_of_layers(tmp_path: Path) -> None:
    console = Console(record=True, width=300)
    with console.capture() as shown:
        go(tmp_path, {"levels": 1}, steps=4, model=OwnModule, data=SmallData(), display=Display(console))
    assert "nearly gone" not in shown.get()
