"""Loggers: the run's own TensorBoard, and the user's, in which every training is a run of its own."""

import contextlib
import csv
import hashlib
import os
import platform
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pytorch_lightning import Trainer
from pytorch_lightning.loggers import CSVLogger, Logger, MLFlowLogger, TensorBoardLogger, WandbLogger
from pytorch_lightning.loggers.logger import DummyLogger

from lth_lightning.callbacks.checkpoint_io import read_checkpoint
from lth_lightning.errors import UserError
from lth_lightning.results import session
from lth_lightning.results.run_folder import CONFIG, SWEEP
from lth_lightning.results.training import Training


class MutedLogger(DummyLogger):
    """Stands for a logger where what is logged is no point of a curve: takes everything, writes nothing."""

    def __init__(self, logger: Logger) -> None:
        super().__init__()
        self._logger = logger

    @property
    def name(self) -> str:
        return str(self._logger.name)

    @property
    def version(self) -> Any:
        return self._logger.version

    @property
    def save_dir(self) -> str | None:
        return self._logger.save_dir

    @property
    def log_dir(self) -> str | None:
        return getattr(self._logger, "log_dir", None) or self.save_dir


LOGGED = "loggers_until"
"""Where a checkpoint of the run's callback says how far the curves of loggers go."""


def last_logged(trainer: Trainer) -> int:
    """The step of the last point that loggers have been given, when all is over that follows a batch.

    It is no optimizer step: Lightning counts batches from 0, unless the module logs a `step` of its own.
    """
    step = trainer.logged_metrics.get("step")
    return trainer.fit_loop.epoch_loop._batches_that_stepped - 1 if step is None else int(step)


def logged_until(checkpoint: Path, step: int) -> int:
    """What `last_logged` was at the checkpoint; `step`, its optimizer step, where an older version wrote it."""
    states = read_checkpoint(checkpoint).get("callbacks", {}).values()
    found = [state[LOGGED] for state in states if isinstance(state, dict) and type(state.get(LOGGED)) is int]
    return found[0] if found else step


def own(trainer: Trainer) -> list[Logger]:
    """The loggers that the user has given, besides the TensorBoard of the run."""
    return [logger for logger in trainer.loggers if not _is_default(logger, trainer)]


def logger_for(run: Path, version: str, purge_step: int | None) -> TensorBoardLogger:
    """A TensorBoard run of its own in the training's folder; events from `purge_step` on are withdrawn."""
    return TensorBoardLogger(
        save_dir=run,
        name="",
        version=version,
        default_hp_metric=False,
        purge_step=purge_step,
        flush_secs=10,
        max_queue=50,
    )


def refuse_one_run(config: Any) -> None:
    """Raise UserError where `config`, the Trainer's `logger`, puts all trainings of a run into one of the logger's."""
    for each in config if isinstance(config, list) else [config]:
        settings = getattr(each, "init_args", None) or {}
        for name in ("version", "id", "run_id", "experiment_key"):
            if settings.get(name) is not None:
                raise UserError(
                    f"trainer.logger: {name} names one run of the logger, but each training is a run of its own, named "
                    f"by arm and level: drop {name}."
                )


@contextlib.contextmanager
def runs_of(loggers: Sequence[Logger], training: Training, density: float, step: int | None) -> Iterator[None]:
    """Within it, each logger logs to a run of its own for `training`, named by it, with its hyperparameters.

    What the user has set stays, as the first part of a run's name. At its end the loggers are as they were, so that
    one object can serve all trainings.

    Args:
        loggers: the user's.
        training: whose fit and final measurements follow.
        density: of its mask.
        step: where the curves end at the checkpoint from which the training goes on, as `logged_until` says; None at
            its beginning.
    """
    before = [_copy(vars(logger)) for logger in loggers]
    try:
        for logger in loggers:
            _name(logger, training, step)
            logger.log_hyperparams(_hyperparameters(training, density))
        yield
    finally:
        for logger, state in zip(loggers, before, strict=True):
            _finish(logger)
            vars(logger).clear()
            vars(logger).update(state)


def told_of_places(loggers: Sequence[Logger], run: Path) -> list[str]:
    """A line for each of the user's loggers on where it puts the trainings of `run`, as far as it can be known."""
    names = _Names.of(run)
    lines = []
    for logger in loggers:
        if isinstance(logger, (CSVLogger, TensorBoardLogger)):
            where = logger.root_dir
            if _without_name(logger, names):
                where = str(Path(logger.save_dir, _folder(logger, names)))
        elif isinstance(logger, WandbLogger):
            where = f"project {_project(logger, names)}, group {logger._wandb_init.get('group') or names.run}"
        elif isinstance(logger, MLFlowLogger):
            where = f"experiment {_mlflow_experiment(logger, names)}"
            uri = str(logger._tracking_uri)
            if uri.startswith("file:"):  # another may hold a password
                where += f" in {uri.removeprefix('file:')}"
        else:
            continue
        lines.append(f"{type(logger).__name__}: {where}")
    return lines


@dataclass(frozen=True)
class _Names:
    """What a run is called in loggers."""

    experiment: str
    group: str
    """The experiment, or of a sweep's cell that of the whole sweep: what was typed."""
    run: str
    is_default: bool
    """Whether the experiment names what the user has given no name: an older version's run keeps Lightning's name."""

    @classmethod
    def of(cls, run: Path) -> "_Names":
        path = run.resolve()
        name = (session.read(path).get("sessions") or [{}])[0].get("experiment")
        if not isinstance(name, str):  # of an older version
            return cls(path.parent.name, path.parent.name, f"{path.parent.name}/{path.name}", False)
        # Its folders may have been renamed since, and another run may have its old name now.
        name = "/".join(path.parts[-1 - len(Path(name).parts) : -1])
        is_cell = "/" in name and (path.parents[1] / SWEEP).is_file()
        return cls(name, name.rpartition("/")[0] if is_cell else name, f"{name}/{path.name}", True)


_LIGHTNINGS = "lightning_logs"
"""The name that Lightning gives where the user gives none."""


def _without_name(logger: CSVLogger | TensorBoardLogger, names: _Names) -> bool:
    """Whether the run names the logger's folder: without a name of its own it could be a training's, in a run."""
    return names.is_default and logger._version is None and logger._name in (_LIGHTNINGS, "", None)


def _folder(logger: CSVLogger | TensorBoardLogger, names: _Names) -> str:
    """The run's in the logger's save_dir. The run itself may lie there: its own files are not in this part of it."""
    return f"{names.run}/{'csv' if isinstance(logger, CSVLogger) else 'tensorboard'}"


def _project(logger: WandbLogger, names: _Names) -> str:
    project = str(logger._wandb_init["project"])
    is_theirs = project != _LIGHTNINGS or "WANDB_PROJECT" in os.environ
    # Characters and a length that W&B takes.
    return project if is_theirs or not names.is_default else re.sub(r"[^\w.+=,-]", "-", names.group)[:128]


def _mlflow_experiment(logger: MLFlowLogger, names: _Names) -> str:
    return names.group if names.is_default and logger._experiment_name == _LIGHTNINGS else logger._experiment_name


def _name(logger: Logger, training: Training, step: int | None) -> None:
    names = _Names.of(training.run)
    run = names.run
    if isinstance(logger, (CSVLogger, TensorBoardLogger)):
        if _without_name(logger, names):
            logger._name, logger._version = "", f"{_folder(logger, names)}/{training.version}"
        else:
            folder = Path(logger.log_dir) if logger._version is not None else None
            if folder is None or (step is None and folder.is_dir() and any(folder.iterdir())):
                first = folder.name if folder else None
                logger._version = "/".join(filter(None, (first, run, training.version)))
        if step is not None:
            _go_on(logger, step)
    elif isinstance(logger, WandbLogger):
        settings = logger._wandb_init
        settings["project"] = logger._project = _project(logger, names)
        settings["name"] = " ".join(filter(None, (settings.get("name"), run, str(training))))
        settings["group"] = settings.get("group") or run
        settings["job_type"] = settings.get("job_type") or training.label
        settings["id"] = settings.get("id") or _id(training)
        logger._name, logger._id = settings["name"], settings["id"]
    elif isinstance(logger, MLFlowLogger) and logger._run_id is None:
        logger._experiment_name = _mlflow_experiment(logger, names)
        logger._run_name = " ".join(filter(None, (logger._run_name, run, str(training))))
        tags = {"experiment": names.experiment, "run": run, **training.identity}
        known = {name: str(value) for name, value in tags.items()}
        logger.tags = {**known, **(logger.tags or {}), "lth_id": _id(training)}
        if step is not None:
            _find_run(logger)


def _id(training: Training) -> str:
    """A name for the training that no other has: neither in another run, nor on another machine."""
    run = training.run.resolve()
    sessions = session.read(run).get("sessions") or [{}]
    parts = (platform.node(), str(run), str(sessions[0].get("started")), training.version)
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _hyperparameters(training: Training, density: float) -> dict[str, Any]:
    """Which training it is, and the run's config but for the loggers' own settings."""
    with contextlib.suppress(OSError, ValueError, yaml.YAMLError):
        config = yaml.safe_load((training.run / CONFIG).read_text())
        if isinstance(config, dict):
            flags = config.get("trainer")
            kept = {key: value for key, value in flags.items() if key != "logger"} if isinstance(flags, dict) else flags
            identity = _identity(training, density)
            # The experiment as the config has it: MLflow takes no other value from a session of a newer version.
            return {**identity, **config, "trainer": kept, **{k: identity[k] for k in identity if k != "experiment"}}
    return _identity(training, density)


def _identity(training: Training, density: float) -> dict[str, Any]:
    names = _Names.of(training.run)
    return {"experiment": names.experiment, "run": names.run, **training.identity, "density": density}


def _go_on(logger: CSVLogger | TensorBoardLogger, step: int) -> None:
    """Keep what an interrupted training has logged up to `step`."""
    if isinstance(logger, TensorBoardLogger):
        logger._kwargs["purge_step"] = step + 1
        return
    path = Path(logger.log_dir) / "metrics.csv"
    if not path.is_file():
        return
    with path.open(newline="") as file:
        reader = csv.DictReader(file)
        # The last line may be half written.
        rows = [row for row in reader if (row.get("step") or "").isdigit() and int(row["step"]) <= step]
        keys = list(reader.fieldnames or [])
    writer = logger.experiment  # Lightning's removes the file
    with path.open("w", newline="") as file:
        table = csv.DictWriter(file, keys, extrasaction="ignore")
        table.writeheader()
        table.writerows(rows)
    writer.metrics_keys = keys


def _find_run(logger: MLFlowLogger) -> None:
    """Have `logger` go on with the run that it has begun for the same training."""
    client = logger._mlflow_client
    experiment = client.get_experiment_by_name(logger._experiment_name)
    if experiment is not None:
        query = f"tags.lth_id = '{(logger.tags or {})['lth_id']}'"
        found = client.search_runs([experiment.experiment_id], query, max_results=1)
        logger._run_id = found[0].info.run_id if found else None


def _finish(logger: Logger) -> None:
    """End the run of a logger that would use it for the next training, too."""
    experiment = getattr(logger, "_experiment", None)
    for name in ("finish", "end"):  # W&B's, Comet's
        if callable(end := getattr(experiment, name, None)):
            end()
            return


def _copy(state: dict[str, Any]) -> dict[str, Any]:
    return {name: dict(value) if type(value) is dict else value for name, value in state.items()}


def _is_default(logger: object, trainer: Trainer) -> bool:
    is_known = isinstance(logger, (TensorBoardLogger, CSVLogger))
    return is_known and logger.save_dir == trainer.default_root_dir and logger.name == "lightning_logs"  # type: ignore[attr-defined]
