"""A run that was started from Python: what it can do, and what the command says of the rest."""

import io
from pathlib import Path

import pytest
import pytorch_lightning as pl
from loop_helpers import StopAt, StoppedError, assert_same, make_trainer, tiny
from rich.console import Console

from lth_lightning.callbacks import Display, PruningLoop
from lth_lightning.cli import main
from lth_lightning.data import Digits
from lth_lightning.errors import UserError
from lth_lightning.report.command import main as read

TINY = ("--model=LeNet300", "--model.hidden=[16,8]", "--data=Digits", "--trainer.accelerator=cpu")


def run(logs: Path, levels: int = 1, folder: Path | None = None, stop: int | None = None, seed: int = 0) -> Path:
    loop = PruningLoop(levels=levels, evaluate_every=5, checkpoint_every=5)
    loop.run(
        lambda training: make_trainer(callbacks=[StopAt(stop)] if stop and training.level else []),
        tiny,
        Digits(),
        logs=logs,
        folder=folder,
        seed=seed,
        display=Display(enabled=False),
    )
    assert loop.folder is not None
    return loop.folder


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(tmp_path_factory.mktemp("python"), levels=2)


def test_it_goes_on_from_python_and_is_extended_there(tmp_path: Path, finished: Path) -> None:
    with pytest.raises(StoppedError):
        run(tmp_path, stop=10)
    folder = tmp_path / "run/version_0"
    run(tmp_path, folder=folder)
    run(tmp_path, levels=2, folder=folder)
    assert_same(folder, finished)


def test_a_run_of_the_command_keeps_its_config_when_python_goes_on_with_it(tmp_path: Path, finished: Path) -> None:
    folder = run(tmp_path)
    (folder / "config.yaml").write_text("seed_everything: 0\n")
    run(tmp_path, folder=folder)
    assert (folder / "config.yaml").read_text() == "seed_everything: 0\n"


def test_another_seed_is_refused(finished: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="its seed is 0, and this run's 1"):
        run(tmp_path, levels=3, folder=finished, seed=1)


@pytest.mark.parametrize("name", ["missing", "empty"])
def test_a_folder_that_is_no_run_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no run"):
        run(tmp_path, folder=tmp_path / name)
    assert [path.name for path in tmp_path.rglob("*")] == ["empty"]


def one_line(capfd: pytest.CaptureFixture[str]) -> str:
    error = capfd.readouterr().err.strip()
    assert len(error.splitlines()) == 1, error
    return error


def test_the_command_says_where_to_go_on_with_it(finished: Path, capfd: pytest.CaptureFixture[str]) -> None:
    before = {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()}
    assert main(["fit", "--resume", str(finished), "--pruning.levels=3"]) == 2
    assert "PruningLoop.run(…, folder=" in one_line(capfd)
    assert {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("command", ["test", "validate"])
def test_a_level_is_evaluated_where_its_model_is_named(
    finished: Path, command: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    level = str(finished / "replicate_0/ticket/level_01")
    assert main([command, "--ckpt_path", level]) == 2
    assert "--model and --data" in one_line(capfd)
    assert main([command, "--ckpt_path", level, *TINY]) == 0


def test_the_reading_commands_read_it(finished: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert read(["ls", str(finished.parents[1])]) == 0
    assert read(["report", str(finished), "--out", str(tmp_path / "page")]) == 0
    said = capfd.readouterr()
    assert "Traceback" not in said.err
    assert "No claim of the paper is judged." in said.out
    html = (tmp_path / "page" / "report.html").read_text()
    assert "<li>It was started from Python, without a config, and the paper&#39;s claims are judged for runs of" in html
    assert "There is no config.yaml" not in html


def make_shared(callbacks: list[pl.Callback], one: pl.Trainer | None, tmp_path: Path) -> str:
    said = io.StringIO()
    PruningLoop(levels=1, evaluate_every=5).run(
        lambda _: one or make_trainer(10, callbacks), tiny, Digits(), logs=tmp_path, display=Display(Console(file=said))
    )
    return said.getvalue()


def test_one_trainer_for_all_trainings_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the same Trainer each time"):
        make_shared([], make_trainer(10), tmp_path)
    assert not list(tmp_path.rglob("result.json"))


def test_a_callback_that_all_trainings_share_is_told(tmp_path: Path) -> None:
    assert "gives each Trainer the same StopAt" in make_shared([StopAt(100)], None, tmp_path).replace("\n", " ")
    assert "gives each Trainer the same" not in make_shared([], None, tmp_path)
