"""Foreign modules and data by the command: what is tested later is what the run tested."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from loop_helpers import load, rows
from torch.nn.functional import cross_entropy
from zoo_base import VAL, Plain

from lth_lightning.cli import main

WORDS = [
    "fit",
    "--trainer.max_steps",
    "12",
    "--pruning.levels",
    "1",
    "--pruning.evaluate_every",
    "4",
    "--experiment",
    "zoo",
    "--replicates",
    "2",
    "--trainer.accelerator",
    "cpu",
    "--workers",
    "1",
]


def made(folder: Path, model: str, data: str) -> list[dict[str, str]]:
    assert main([*WORDS, "--model", model, "--data", data, "--logs", str(folder)]) == 0
    return [
        {name: value for name, value in row.items() if name != "seconds"}
        for row in rows(folder / "zoo" / "version_0" / "results.csv")
    ]


@pytest.mark.parametrize("model", ["zoo_base.Plain", "hooks_kinds.HeadInEverySetup"])
@pytest.mark.parametrize("data", ["hooks_kinds.SplitsInSetup", "hooks_kinds.SplitsWhenMade"])
def test_a_level_is_tested_on_the_runs_own_test_set(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, model: str, data: str
) -> None:
    monkeypatch.chdir(tmp_path)
    table = made(tmp_path / "logs", model, data)
    assert made(tmp_path / "again", model, data) == table
    for row in (table[1], table[-1]):
        capsys.readouterr()
        level = tmp_path / f"logs/zoo/version_0/replicate_{row['replicate']}/ticket/level_{int(row['level']):02d}"
        assert main(["test", "--ckpt_path", str(level)]) == 0
        found = re.search(r"test_loss\W+([\d.]+)", capsys.readouterr().out)
        assert found is not None
        assert float(found[1]) == pytest.approx(float(row["final_test_loss"]), abs=1e-5)
    assert not (tmp_path / "lightning_logs").exists()


@pytest.mark.thorough
def test_two_ranks_evaluate_the_statistics_that_are_kept(tmp_path: Path) -> None:
    # Each rank's norm layer has statistics of its own; an evaluation that one rank left out kept the other waiting.
    here = Path(__file__).parent
    paths = [str(here.parents[1]), str(here.parent), str(here)]
    ranks = ("--trainer.devices", "2", "--trainer.strategy", "ddp", "--logs", str(tmp_path), "--data", "zoo_base.Data")
    done = subprocess.run(
        [sys.executable, "-m", "lth_lightning", *WORDS, "--model", "zoo_base.Plain", "--replicates", "1", *ranks],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        cwd=tmp_path,
        timeout=300,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    run = tmp_path / "zoo" / "version_0"
    for row in rows(run / "results.csv"):
        model = Plain().eval()
        model.load_state_dict(load(run / f"replicate_0/ticket/level_{int(row['level']):02d}/trained.pt")["weights"])
        with torch.no_grad():
            found = cross_entropy(model(VAL.tensors[0]), VAL.tensors[1])
        assert float(row["final_val_loss"]) == pytest.approx(float(found), abs=1e-5)
