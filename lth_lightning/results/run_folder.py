"""The folder of a run: where it is, what it holds, and that one process at a time owns its making."""

import contextlib
import fcntl
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

from lth_lightning.errors import UserError
from lth_lightning.place import place_of
from lth_lightning.results.training import Training

CONFIG = "config.yaml"
FROM_PYTHON = "# started from Python, so there is no config\n"
"""The config.yaml of such a run."""
RESULT = "result.json"
MASK = "mask.pt"
TRAINED = "trained.pt"
CHECKPOINT = "last.ckpt"
REWIND = "rewind.pt"
METRICS = "metrics.csv"
SESSIONS = "run.json"
TABLE = "results.csv"
SWEEP = "sweep.yaml"
"""Beside the runs of a sweep: which they are."""


def claim(experiment: str, root: Path = Path("lightning_logs")) -> Path:
    """Make `root/<experiment>/version_N`, N counting up, by an exclusive mkdir, and return it.

    Two runs that are started at once get two folders. Of the processes of one run, one claims for all.

    Raises:
        UserError: the folder cannot be written, or `experiment` is neither a plain name nor several, parted by '/'.
    """
    # The whole name, before it is joined to the root: the last part alone would let `../other` and `/other` out of it.
    first, *parts = experiment.split("/")
    fits = all(re.fullmatch(r"[\w.+=,-]+", part) and part not in (".", "..") for part in (first, *parts))
    if not fits or any(re.fullmatch(r"version_\d+", part) for part in parts):
        raise UserError(
            f"'{experiment}' cannot name an experiment: use letters, digits, '.', '_', '+', '=', ',' and '-'."
        )
    named = Path(root) / experiment
    new = [path for path in (named, *named.parents) if not os.path.exists(path)]
    try:
        named.mkdir(parents=True, exist_ok=True)
        versions = [int(m[1]) for p in named.iterdir() if (m := re.fullmatch(r"version_(\d+)", p.name))]
        number = max(versions, default=-1) + 1
        while True:
            folder = named / f"version_{number}"
            with contextlib.suppress(FileExistsError):
                folder.mkdir()
                return folder
            number += 1
    except OSError as error:
        for path in new:
            with contextlib.suppress(OSError):
                path.rmdir()
        raise UserError(
            f"The results folder {named} cannot be written ({error.strerror}): "
            "choose another with --logs, or mend its permissions."
        ) from None


def check_run(folder: Path) -> Path:
    """`folder` if it is a run; raises UserError where it is not."""
    if not (folder / CONFIG).is_file():
        raise UserError(
            f"{folder} is no run: it has no {CONFIG}. Give a folder such as lightning_logs/lenet/version_0."
        )
    return folder


def is_from_python(run: Path) -> bool:
    """Whether the run was started from Python, so that no config tells of its model, data and options."""
    try:
        return (run / CONFIG).read_text(errors="replace") == FROM_PYTHON
    except OSError:
        return False


def run_of(level: Path) -> Path:
    """The run that a level's folder belongs to; raises UserError where it is no level's folder."""
    level = level.resolve()
    parents = level.parents
    is_level = level.name.startswith("level_") and len(parents) > 2 and parents[1].name.startswith("replicate_")
    if is_level and not (parents[2] / CONFIG).is_file():
        raise UserError(f"{level} is no level of a run: {parents[2] / CONFIG} is missing, or no file.")
    if not is_level:
        raise UserError(f"{level} is no level of a run: give a folder such as …/version_0/replicate_0/ticket/level_03.")
    return parents[2]


def training_folders(run: Path, unreadable: list[str] | None = None) -> list[Path]:
    """The folders of a run's trainings that are there, whatever they hold; a copy that is put aside is none.

    A folder that may not be read is a line in `unreadable`, or raises OSError without.
    """
    replicates = [folder for folder in _children(run, unreadable) if place_of(folder)]
    arms = [folder for replicate in replicates for folder in _children(replicate, unreadable)]
    return [folder for arm in arms for folder in _children(arm, unreadable) if place_of(folder)]


def _children(folder: Path, unreadable: list[str] | None) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except (NotADirectoryError, FileNotFoundError):  # a file beside the folders, or one that is removed meanwhile
        return []
    except OSError as error:
        if unreadable is None:
            raise
        unreadable.append(f"{folder} cannot be read ({error.strerror}): what is in it is left out.")
        return []


def finished(training: Training) -> bool:
    """A training is done when its result.json, written last, exists."""
    return (training.folder / RESULT).exists()


@contextlib.contextmanager
def owned(run: Path) -> Iterator[None]:
    """Within it no other process can own the run; the system lets go of it when this one ends, however it ends.

    Raises UserError where another owns it, or where the folder is renamed or removed meanwhile.
    """
    descriptor = os.open(run, os.O_RDONLY)
    try:
        for patience in (0.05, 0.05, 0.0):
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not patience:
                    raise UserError(f"Another process is at work on {run}: wait for it, or stop it first.") from None
                time.sleep(patience)  # it may be `is_owned`, which is gone in a moment
            except OSError:
                break  # a file system without locks
        try:
            yield
        except OSError:
            if not _is_still(run, descriptor):
                raise UserError(
                    f"{run} was renamed or removed while the run went on: put it back, and go on with --resume."
                ) from None
            raise
    finally:
        # Closing is not enough: processes that forked workers started have inherited it, and may live a while yet.
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_UN)
        os.close(descriptor)


def _is_still(run: Path, descriptor: int) -> bool:
    """Whether the folder that was opened is the one that has this name now."""
    with contextlib.suppress(OSError):
        return os.path.samestat(os.stat(run), os.fstat(descriptor))
    return False


def is_owned(run: Path) -> bool:
    """Whether a process owns the run now; False also where the file system cannot tell."""
    try:
        descriptor = os.open(run, os.O_RDONLY)
    except OSError:
        return False
    try:
        # Shared, so that two who ask at once do not take each other for an owner.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return False


def tidy(run: Path) -> None:
    """Remove what killed processes left in a run that has ended: half files, and finished trainings' checkpoints."""
    for pattern in (".*.tmp", ".rewind.ckpt", ".start_*.ckpt"):
        for path in run.rglob(pattern):
            path.unlink(missing_ok=True)
    for path in run.rglob(RESULT):
        path.with_name(CHECKPOINT).unlink(missing_ok=True)
