"""Checkpoints hold what a training needs to go on, whatever a user's module keeps beside it; and folders that move."""

import enum
import io
import shutil
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

import numpy
import pytest
import pytorch_lightning as pl
import torch
from loop_helpers import SMALL_REWOUND as SETTINGS
from loop_helpers import OwnModule, SmallData, StopAt, StoppedError, assert_same, go, level, load

from lth_lightning.callbacks.checkpoint_io import read_checkpoint
from lth_lightning.cli import main
from lth_lightning.errors import UserError
from lth_lightning.results.curve import MetricsFile


class Colour(enum.Enum):
    RED = 1


class Saving(OwnModule):
    """Hyperparameters of kinds that people have."""

    def __init__(self, place: Any = Path("/data"), colour: Any = Colour.RED, kind: Any = torch.optim.Adam) -> None:
        super().__init__()
        self.number = numpy.float64(0.1)
        self.save_hyperparameters()
        self.save_hyperparameters({"number": self.number, "array": numpy.ones(2), "nested": {"at": [Path("/x")]}})


class Remembering(OwnModule):
    """Puts into checkpoints what cannot be read back safely."""

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["where"] = Path("/data")


def interrupted(logs: Path, model: Any, settings: dict[str, Any]) -> Path:
    def stop(training: Any) -> list[pl.Callback]:
        return [StopAt(10)] if training.level == 1 else []

    with pytest.raises(StoppedError):
        go(logs, dict(settings), model=model, data=SmallData(), callbacks=stop)
    return logs / "run" / "version_0"


def test_hyperparameters_of_any_kind_are_no_hindrance(tmp_path: Path) -> None:
    go(tmp_path / "whole", dict(SETTINGS), model=Saving, data=SmallData())
    run = interrupted(tmp_path, Saving, SETTINGS)
    checkpoint = load(level(run, 1) / "last.ckpt")
    assert not [key for key in checkpoint if "hyper" in key or "hparams" in key]
    assert "where" not in load(run / "replicate_0" / "rewind.pt")["trainer"]
    go(tmp_path, dict(SETTINGS), model=Saving, data=SmallData(), folder=run)
    assert_same(run, tmp_path / "whole" / "run" / "version_0")


def test_what_cannot_be_read_back_is_not_kept_and_the_training_begins_anew(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = {**SETTINGS, "rewind_step": 0}
    go(tmp_path / "whole", dict(settings), model=Remembering, data=SmallData())
    run = interrupted(tmp_path, Remembering, settings)
    assert not (level(run, 1) / "last.ckpt").exists()
    go(tmp_path, dict(settings), model=Remembering, data=SmallData(), folder=run)
    assert_same(run, tmp_path / "whole" / "run" / "version_0")
    with pytest.raises(UserError, match=r"rewind\.pt would hold pathlib\S*PosixPath"):
        go(tmp_path, dict(SETTINGS), model=Remembering, data=SmallData())


def foreign(path: Path, **more: Any) -> Path:
    """A checkpoint as Lightning writes it."""
    trainer = pl.Trainer(
        max_steps=1, accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
        enable_checkpointing=False, limit_val_batches=0,
    )  # fmt: skip
    trainer.fit(Saving(), SmallData())
    trainer.save_checkpoint(path)
    if more:
        torch.save({**torch.load(path, weights_only=False), **more}, path)
    return path


WORDS = ["--model", "test_checkpoints.Saving", "--data", "loop_helpers.SmallData", "--trainer.accelerator", "cpu"]


@pytest.mark.parametrize("command", ["test", "validate"])
def test_a_checkpoint_of_lightnings_own_is_evaluated_and_none_of_it_is_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    monkeypatch.chdir(tmp_path)
    path = foreign(tmp_path / "x.ckpt", callbacks={"Own": {"best": numpy.float64(1.0), "place": Path("/x")}})
    kept = read_checkpoint(path, for_weights=True)
    assert torch.equal(
        kept["state_dict"]["head.weight"], torch.load(path, weights_only=False)["state_dict"]["head.weight"]
    )
    assert "callbacks" not in kept
    assert main([command, *WORDS, "--ckpt_path", "x.ckpt"]) == 0
    assert f"{'test' if command == 'test' else 'val'}_loss" in capsys.readouterr().out
    assert [one.name for one in tmp_path.iterdir()] == ["x.ckpt"]
    with pytest.raises(UserError, match="holds more than tensors, numbers and text under 'callbacks'"):
        read_checkpoint(path)


@pytest.mark.parametrize("damage", ["cut", "flipped", "text", "no checkpoint", "another network"])
def test_a_broken_checkpoint_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], damage: str
) -> None:
    monkeypatch.chdir(tmp_path)
    path = foreign(tmp_path / "broken.ckpt")
    content = bytearray(path.read_bytes())
    if damage == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "flipped":
        place = content.index(torch.load(path, weights_only=False)["state_dict"]["head.weight"].numpy().tobytes())
        content[place + 7] ^= 1
        path.write_bytes(content)
    elif damage == "text":
        path.write_text("no checkpoint\n")
    else:
        weights = {"a": torch.ones(1)}
        torch.save({"weights": weights} if damage == "no checkpoint" else {"state_dict": weights, "global_step": 1,
                   "pytorch-lightning_version": pl.__version__}, path)  # fmt: skip
    assert main(["test", *WORDS, "--ckpt_path", "broken.ckpt"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("lth: broken.ckpt ")
    assert error.count("\n") == 1
    assert "weights_only" not in error


@pytest.mark.parametrize("how", ["renamed", "removed", "replaced"])
def test_a_folder_that_goes_away_under_a_run_is_one_line_and_is_not_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    append = MetricsFile.append
    run = tmp_path / "logs" / "quickstart" / "version_0"

    def move(self: MetricsFile, row: dict[str, Any]) -> None:
        append(self, row)
        if "level_01" in str(self.path) and row["step"] == 10:
            run.rename(tmp_path / "elsewhere")
            if how == "removed":
                shutil.rmtree(tmp_path / "elsewhere")
            if how == "replaced":
                run.mkdir()

    monkeypatch.setattr(MetricsFile, "append", move)
    words = ["fit", "--config", "quickstart", "--trainer.max_steps", "20", "--pruning.evaluate_every", "5"]
    words += ["--pruning.levels", "2", "--pruning.controls", "[]", "--replicates", "1", "--workers", "1"]
    with redirect_stderr(io.StringIO()) as errors:
        assert main([*words, "--logs", str(tmp_path / "logs")]) == 2
    error = errors.getvalue()
    assert error.startswith(f"lth: {run} was renamed or removed while the run went on")
    assert error.count("\n") == 1
    assert list(run.glob("**/*.*")) == []
