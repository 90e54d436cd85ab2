"""Foreign modules and data by the command: what is tested later is what the run tested."""

import re
from pathlib import Path

import pytest
from loop_helpers import rows

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
