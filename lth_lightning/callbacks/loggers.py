"""Loggers: the run's own TensorBoard, and the user's, in which every training is a run of its own."""

import contextlib
import csv
import hashlib
import platform
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from pytorch_lightning import Trainer
from pytorch_lightning.loggers import CSVLogger, Logger, MLFlowLogger, TensorBoardLogger, WandbLogger
from pytorch_lightning.loggers.logger import DummyLogger

from lth_lightning.callbacks.checkpoint_io import read_checkpoint
from lth_lightning.errors import UserError
from lth_lightning.results import session
from lth_lightning.results.run_folder import CONFIG
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


def _name(logger: Logger, training: Training, step: int | None) -> None:
    run = f"{training.run.resolve().parent.name}/{training.run.resolve().name}"
    if isinstance(logger, (CSVLogger, TensorBoardLogger)):
        folder = Path(logger.log_dir) if logger._version is not None else None
        if folder is None or (step is None and folder.is_dir() and any(folder.iterdir())):
            first = folder.name if folder else None
            logger._version = "/".join(filter(None, (first, run, training.version)))
        if step is not None:
            _go_on(logger, step)
    elif isinstance(logger, WandbLogger):
        settings = logger._wandb_init
        settings["name"] = " ".join(filter(None, (settings.get("name"), run, str(training))))
        settings["group"] = settings.get("group") or run
        settings["job_type"] = settings.get("job_type") or training.label
        settings["id"] = settings.get("id") or _id(training)
        logger._name, logger._id = settings["name"], settings["id"]
    elif isinstance(logger, MLFlowLogger) and logger._run_id is None:
        logger._run_name = " ".join(filter(None, (logger._run_name, run, str(training))))
        tags = {"run": run, "replicate": training.replicate, "arm": training.arm, "trial": training.trial}
        known = {name: str(value) for name, value in {**tags, "level": training.level}.items()}
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
            return {**config, "trainer": kept, **_identity(training, density)}
    return _identity(training, density)


def _identity(training: Training, density: float) -> dict[str, Any]:
    return {
        "run": f"{training.run.resolve().parent.name}/{training.run.resolve().name}",
        "replicate": training.replicate,
        "arm": training.arm,
        "trial": training.trial,
        "level": training.level,
        "density": density,
    }


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
