"""A run that begins with a later replicate makes it as a run of all does."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from loop_helpers import assert_same, go

from lth_lightning.callbacks import PruningLoop, RandomMask, RandomReinit
from lth_lightning.cli import main
from lth_lightning.errors import UserError
from lth_lightning.results import session

LOOP: dict[str, Any] = {
    "levels": 2,
    "rates": {"linear": 0.2, "output": 0.1},
    "evaluate_every": 5,
    "rewind_step": 5,
    "controls": [RandomReinit(trials=2), RandomMask(levels=[1])],
}


def run(folder: Path, **options: Any) -> Path:
    go(folder, PruningLoop(**LOOP, **options))
    return folder / "run" / "version_0"


def test_later_replicates_have_the_bits_that_they_have_in_a_run_of_all(tmp_path: Path) -> None:
    whole, part = run(tmp_path / "whole", replicates=4), run(tmp_path / "part", replicates=2, first_replicate=2)
    assert sorted(path.name for path in part.glob("replicate_*")) == ["replicate_2", "replicate_3"]
    for name in ("replicate_0", "replicate_1"):
        shutil.rmtree(whole / name)
    assert_same(part, whole)
    assert len(list(part.glob("replicate_*/*/level_*/mask.pt"))) == 2 * (3 + 1 + 2 * 2)
    rows = [(folder / "results.csv").read_text().splitlines() for folder in (part, whole)]
    without_seconds = [{row.rpartition(",")[0] for row in of[1:]} for of in rows]
    assert without_seconds[0] == {row for row in without_seconds[1] if row.startswith(("2,", "3,"))}
    assert (session.read(part)["first_replicate"], session.read(part)["replicates"]) == (2, 2)


def test_it_can_be_extended_upwards_alone(tmp_path: Path) -> None:
    words = "fit --config quickstart --replicates 1 --pruning.levels 1 --trainer.max_steps 20 --pruning.controls []"
    assert main([*words.split(), "--first-replicate", "2", "--logs", str(tmp_path)]) == 0
    folder = tmp_path / "quickstart" / "version_0"
    assert main(["fit", "--resume", str(folder), "--replicates", "2"]) == 0
    assert sorted(path.name for path in folder.glob("replicate_*")) == ["replicate_2", "replicate_3"]
    assert sorted(path.name for path in folder.glob("summary/*")) == ["replicate_2", "replicate_3"]
    (line,) = folder.glob("summary/replicate_2/ticket/events.*")
    assert b"by: replicate_2/ticket" in line.read_bytes()
    assert main(["fit", "--resume", str(folder), "--first-replicate", "0"]) == 2


def test_there_is_none_below_0(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="The first replicate is -1: give 0 or more"):
        run(tmp_path, first_replicate=-1)
