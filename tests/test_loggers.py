"""Loggers of the user's own: every training is a run of its own in them, named by what it is."""

import csv
import importlib.util
import json
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
import yaml
from loop_helpers import StopAt, StoppedError, WithLoaders
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger, WandbLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lth_lightning.callbacks import PruningLoop, loggers
from lth_lightning.cli import main
from lth_lightning.report import command
from lth_lightning.results import session

TRAININGS = ("ticket/level_00", "ticket/level_01", "random_reinit_0/level_01")
WORDS = ("fit", "--config=quickstart", "--trainer.max_steps=20", "--pruning.levels=1", "--pruning.evaluate_every=10")
CONTROL = ("--replicates=1", "--experiment=mine")


def fit(folder: Path, logger: str, *words: str) -> int:
    return main([*WORDS, *CONTROL, f"--logs={folder / 'logs'}", f"--trainer.logger={logger}", *words])


def run_python(
    folder: Path, logger: Any, callbacks: Any = (), run: Path | None = None, model: Any = WithLoaders
) -> Path:
    """Ordinary modules, with one logger object or a maker of them."""
    loop = PruningLoop(levels=1, rates={"conv": 0.2, "linear": 0.2}, evaluate_every=6, checkpoint_every=6)
    loop.run(
        lambda training: pl.Trainer(
            accelerator="cpu", max_steps=24, logger=logger, callbacks=list(callbacks), log_every_n_steps=1
        ),
        model,
        logs=folder / "logs",
        folder=run,
    )
    assert loop.folder is not None
    return loop.folder


class LogsEachStep(WithLoaders):
    """Logs its training loss at each batch; with `own_steps` it says itself at which step."""

    own_steps = False

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        loss = super().training_step(batch, batch_idx)
        self.log("loss", loss)
        if self.own_steps:
            self.log("step", float(self.global_step + 1))
        return loss

    def on_validation_epoch_end(self) -> None:
        if self.own_steps:
            self.log("step", float(self.global_step))


class SaysItsSteps(LogsEachStep):
    own_steps = True


class TwoOptimizers(LogsEachStep):
    """Two steps a batch: loggers count batches."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        loss = super().training_step(batch, batch_idx)
        for optimizer in self.optimizers():
            optimizer.zero_grad()
        self.manual_backward(loss)
        for optimizer in self.optimizers():
            optimizer.step()
        return loss

    def configure_optimizers(self) -> Any:
        return [torch.optim.SGD(part.parameters(), lr=0.05) for part in (self.block, self.head)]


def points(folder: Path) -> dict[tuple[str, str], list[tuple[int, float]]]:
    """By training's folder and tag, the points of TensorBoard's events in the order in which they are shown."""
    found = {}
    for path in {path.parent for path in folder.rglob("events.out*") if ".hparams" not in path.name}:
        events = EventAccumulator(str(path)).Reload()
        for tag in events.Tags()["scalars"]:
            if tag in ("loss", "val_loss", "val_acc"):
                name = path.relative_to(folder).as_posix()
                found[name, tag] = [(event.step, event.value) for event in events.Scalars(tag)]
    return found


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_each_training_has_a_csv_of_its_own_named_by_run_arm_and_level(tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    assert fit(tmp_path, "CSVLogger", f"--trainer.logger.save_dir={theirs}") == 0
    top = theirs / "mine/version_0/csv/replicate_0"
    assert {path.parent.relative_to(top).as_posix() for path in theirs.rglob("metrics.csv")} == set(TRAININGS)
    for name in TRAININGS:
        values = yaml.safe_load((top / name / "hparams.yaml").read_text())
        assert (values["run"], values["arm"] in name, values["level"]) == ("mine/version_0", True, int(name[-1]))
        assert values["trainer"]["max_steps"] == 20
        assert [row["step"] for row in table(top / name / "metrics.csv") if row["val_loss"]] == ["10", "20"]


@pytest.mark.parametrize("name", ["lightning_logs", ""])
def test_a_logger_in_the_folder_of_the_runs_leaves_their_own_files(
    tmp_path: Path, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    logs = tmp_path / "logs"
    assert fit(tmp_path, "CSVLogger", f"--trainer.logger.save_dir={logs}", f"--trainer.logger.name={name}") == 0
    run = logs / "mine/version_0"
    assert [path.name for path in logs.iterdir()] == ["mine"]
    for training in TRAININGS:
        assert len(table(run / "replicate_0" / training / "metrics.csv")) == 2
        assert len(table(run / "csv/replicate_0" / training / "metrics.csv")) > 2  # Lightning's, of a row a log call
    assert capfd.readouterr().out.replace("\n", "").count(f"CSVLogger: {run / 'csv'}") == 1
    assert main(["fit", f"--resume={run}", "--pruning.levels=2"]) == 0
    assert len(list((run / "csv").rglob("metrics.csv"))) == len(list((run / "replicate_0").rglob("metrics.csv"))) == 5
    if not name:
        return  # the files are the same
    capfd.readouterr()
    shutil.copytree(run, tmp_path / "copy")
    for words in (["ls", str(logs)], ["diff", str(run), str(tmp_path / "copy")]):
        assert command.main(words) == 0, words
        assert "csv" not in "".join(capfd.readouterr()).replace("results.csv", ""), words


def test_a_run_that_an_older_version_began_keeps_the_logger_in_its_old_place(tmp_path: Path) -> None:
    with pytest.raises(StoppedError):
        run_python(tmp_path, CSVLogger(tmp_path / "theirs"), [StopAt(20)])
    run, new = tmp_path / "logs/run/version_0", tmp_path / "theirs/run/version_0"
    assert loggers.told_of_places([CSVLogger(tmp_path / "theirs")], run) == [f"CSVLogger: {new / 'csv'}"]
    content = json.loads((run / "run.json").read_text())
    del content["sessions"][0]["experiment"]
    (run / "run.json").write_text(json.dumps(content))
    old = tmp_path / "theirs/lightning_logs/run/version_0"
    old.parent.mkdir(parents=True)
    (new / "csv").rename(old)
    run_python(tmp_path, CSVLogger(tmp_path / "theirs"), run=run)
    found = [path.relative_to(old).as_posix() for path in (tmp_path / "theirs").rglob("metrics.csv")]
    assert sorted(found) == [f"replicate_0/ticket/level_0{level}/metrics.csv" for level in (0, 1)]
    assert [row["step"] for row in table(old / found[0]) if row["val_loss"]]


def test_cells_of_a_sweep_are_told_apart_and_have_one_group(tmp_path: Path) -> None:
    def cell(sweep: str) -> Path:
        run = tmp_path / sweep / "lr=1/version_0"
        run.mkdir(parents=True)
        (tmp_path / sweep / "sweep.yaml").touch()
        sessions = [session.describe(torch.device("cpu"), 1, 1, f"{sweep}/lr=1")]
        content = {"format": 1, "replicates": 1, "arms": {"ticket": [0]}, "sessions": sessions}
        (run / "run.json").write_text(json.dumps(content))
        return run

    names = [loggers._Names.of(cell(sweep)) for sweep in "ab"]
    assert [(each.group, each.run) for each in names] == [("a", "a/lr=1/version_0"), ("b", "b/lr=1/version_0")]
    (tmp_path / "a").rename(tmp_path / "c")
    assert loggers._Names.of(tmp_path / "c/lr=1/version_0").run == "c/lr=1/version_0"


def test_one_object_serves_all_trainings_and_is_as_it_was_afterwards(tmp_path: Path) -> None:
    logger = CSVLogger(tmp_path / "theirs", name="n")
    before = dict(vars(logger))
    run_python(tmp_path, logger)
    assert vars(logger) == before
    found = sorted(path.parent for path in (tmp_path / "theirs").rglob("metrics.csv"))
    assert [path.name for path in found] == ["level_00", "level_01"]


def test_a_version_of_the_users_stays_and_a_second_training_overwrites_nothing(tmp_path: Path) -> None:
    run_python(tmp_path, CSVLogger(tmp_path / "theirs", name="n", version="v"))
    found = sorted(path.relative_to(tmp_path / "theirs/n") for path in (tmp_path / "theirs").rglob("metrics.csv"))
    assert found == [Path("v/metrics.csv"), Path("v/run/version_0/replicate_0/ticket/level_01/metrics.csv")]


@pytest.mark.parametrize("model", [LogsEachStep, SaysItsSteps, TwoOptimizers])
@pytest.mark.parametrize("kind", ["csv", "tensorboard"])
def test_a_resumed_training_goes_on_in_its_own_curve_with_each_point_once(
    tmp_path: Path, kind: str, model: type[LogsEachStep]
) -> None:
    def logger(folder: Path) -> Any:
        if kind == "csv":
            return CSVLogger(folder / "theirs", flush_logs_every_n_steps=1)
        return TensorBoardLogger(folder / "theirs", flush_secs=1)

    def curves(folder: Path) -> Any:
        own = points(folder / "logs")  # the run's own TensorBoard is cut in the same way
        if kind == "tensorboard":
            return own, points(folder / "theirs")
        files = sorted((folder / "theirs").rglob("metrics.csv"))
        return own, {
            path.relative_to(folder).as_posix(): [{**row, "epoch": ""} for row in table(path)] for path in files
        }

    whole = run_python(tmp_path / "whole", logger(tmp_path / "whole"), model=model)
    with pytest.raises(StoppedError):
        run_python(tmp_path / "part", logger(tmp_path / "part"), [StopAt(20)], model=model)
    time.sleep(1.1)  # TensorBoard reads files in the order of the seconds in their names
    run = tmp_path / "part/logs/run/version_0"
    assert run_python(tmp_path / "part", logger(tmp_path / "part"), run=run, model=model) == run
    expected = curves(tmp_path / "whole")
    assert all(len(part) >= 2 for part in expected)
    assert curves(tmp_path / "part") == expected
    assert whole.name == run.name


@pytest.mark.parametrize("name", ["version"])
def test_a_logger_of_one_run_is_refused(tmp_path: Path, name: str, capfd: pytest.CaptureFixture[str]) -> None:
    words = (f"--trainer.logger.save_dir={tmp_path}", f"--trainer.logger.{name}=x")
    assert fit(tmp_path, "CSVLogger", *words) == 2
    assert f"drop {name}" in capfd.readouterr().err
    assert not (tmp_path / "logs").exists()


@pytest.mark.parametrize(
    ("logger", "package"), [("WandbLogger", "wandb"), ("MLFlowLogger", "mlflow"), ("CometLogger", "comet-ml")]
)
def test_a_logger_whose_package_is_missing_is_one_line(
    tmp_path: Path, logger: str, package: str, capfd: pytest.CaptureFixture[str]
) -> None:
    if importlib.util.find_spec(package.replace("-", "_")):
        pytest.skip(f"{package} is there")
    assert fit(tmp_path, logger) == 2
    error = capfd.readouterr().err.strip()
    assert len(error.splitlines()) == 1, error
    assert package in error
    assert not (tmp_path / "logs").exists()


def test_wandb_has_a_run_each_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    begun, ended = [], []
    init, finish = wandb.init, wandb.Run.finish

    def beginning(**settings: Any) -> Any:
        assert wandb.run is None
        run = init(**settings)
        begun.append((settings, run))
        return run

    monkeypatch.setattr(wandb, "init", beginning)
    monkeypatch.setattr(wandb.Run, "finish", lambda run, *a, **k: (ended.append(run), finish(run, *a, **k))[1])
    assert fit(tmp_path, "WandbLogger", f"--trainer.logger.save_dir={tmp_path}", "--trainer.logger.offline=true") == 0
    assert [settings["name"] for settings, _ in begun] == [
        "mine/version_0 replicate 0 ticket level 0",
        "mine/version_0 replicate 0 ticket level 1",
        "mine/version_0 replicate 0 random_reinit_0 level 1",
    ]
    assert {settings["group"] for settings, _ in begun} == {"mine/version_0"}
    assert {settings["project"] for settings, _ in begun} == {"mine"}
    assert [settings["job_type"] for settings, _ in begun] == ["ticket", "ticket", "random_reinit_0"]
    assert len({settings["id"] for settings, _ in begun}) == 3
    assert [dict(run.config)["level"] for _, run in begun] == [0, 1, 1]
    assert ended == [run for _, run in begun]
    assert wandb.run is None


def test_a_resumed_training_goes_on_in_its_run_of_wandb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    begun, init = [], wandb.init
    monkeypatch.setattr(wandb, "init", lambda **settings: (begun.append(settings), init(**settings))[1])
    with pytest.raises(StoppedError):
        run_python(tmp_path, WandbLogger(save_dir=tmp_path, offline=True), [StopAt(20)])
    run_python(tmp_path, WandbLogger(save_dir=tmp_path, offline=True), run=tmp_path / "logs/run/version_0")
    first, again, following = ((settings["name"], settings["id"], settings["resume"]) for settings in begun)
    assert first == again
    assert first[2] == "allow"
    assert following[1] != first[1]
    # `wandb sync` puts what both sessions have written into the one run of their id.
    folders = [path.name for path in (tmp_path / "wandb").glob("offline-run-*")]
    assert [sum(f"-{key}" in name for name in folders) for key in (first[1], following[1])] == [2, 1]


def test_mlflow_has_a_run_each_training_and_a_resumed_one_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    from pytorch_lightning.loggers import MLFlowLogger

    uri = f"file:{tmp_path / 'store'}"
    with pytest.raises(StoppedError):
        run_python(tmp_path, MLFlowLogger("theirs", tracking_uri=uri), [StopAt(20)])
    run_python(tmp_path, MLFlowLogger("theirs", tracking_uri=uri), run=tmp_path / "logs/run/version_0")
    client = mlflow.MlflowClient(uri)
    found = client.search_runs([client.get_experiment_by_name("theirs").experiment_id], order_by=["tags.level"])
    names = [f"run/version_0 replicate 0 ticket level {level}" for level in (0, 1)]
    assert [run.info.run_name for run in found] == names
    assert [run.info.status for run in found] == ["FINISHED"] * 2
    assert [run.data.params["level"] for run in found] == ["0", "1"]
    assert found[0].data.tags["arm"] == "ticket"
    assert found[0].data.tags["experiment"] == "run"


def test_mlflow_names_the_experiment_as_the_run_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    assert fit(tmp_path, "MLFlowLogger", f"--trainer.logger.save_dir={tmp_path / 'store'}") == 0
    client = mlflow.MlflowClient(f"file:{tmp_path / 'store'}")
    assert client.get_experiment_by_name("lightning_logs") is None
    found = client.search_runs([client.get_experiment_by_name("mine").experiment_id])
    assert [run.data.tags["experiment"] for run in found] == ["mine"] * 3
    assert [run.data.params["experiment"] for run in found] == ["mine"] * 3
