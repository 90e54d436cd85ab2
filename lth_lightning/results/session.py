"""run.json: which trainings a run consists of, and the sessions that made them: when, with what, on what machine."""

import json
import platform
import zlib
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lth_lightning.errors import UserError
from lth_lightning.files import read_text, unreadable, write_text
from lth_lightning.results.run_folder import CONFIG, SESSIONS
from lth_lightning.results.training import Training
from lth_lightning.versions import versions

if TYPE_CHECKING:
    import torch

FORMAT = 2
"""Counted up when a reader of an older one would misread it: one of 1 takes the first replicate for 0."""


def describe(device: "torch.device", threads: int, workers: int, experiment: str) -> dict[str, Any]:
    """A session that begins now in this process.

    Args:
        device: where it trains.
        threads: on a CPU for each training.
        workers: trainings side by side.
        experiment: the name that the run was asked for by, by which loggers name it, too.
    """
    import torch  # late: reading needs none

    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {**versions(), "pytorch_lightning": metadata.version("pytorch-lightning")},
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "platform": platform.platform(),
        "threads": threads,
        "workers": workers,
        "denormals": "zero",
        "experiment": experiment,
    }


def write(
    run: Path,
    trainings: Sequence[Training],
    session: dict[str, Any] | None,
    config: str | None = None,
    trains_on: bool = False,
) -> None:
    """Put down the run's plan, finished trainings too, and `session` behind those before it; None adds none.

    A damaged file is replaced.

    Args:
        run: its folder.
        trainings: all of them.
        session: of `describe`.
        config: what config.yaml shall hold from now on.
        trains_on: the tickets go on from trained weights, which a run started from Python says nowhere else.
    """
    is_new = not (run / CONFIG).exists()
    if config is not None and is_new:
        write_text(run / CONFIG, config, make_folder=False)
    try:
        before = read(run)
    except UserError:
        before = {}
    sessions = before.get("sessions", [])
    configs = before.get("configs", [])
    if config is not None:
        # The former one's too: a kill may come before the new one is there.
        configs = list(dict.fromkeys([*configs[-1:], _checksum(config)]))
    arms: dict[str, list[int]] = {}
    first = trainings[0].replicate
    for training in trainings:
        if training.replicate == first:  # the others are planned alike
            arms.setdefault(training.label, []).append(training.level)
    content = {
        "format": FORMAT if first else 1,
        "first_replicate": first,
        "replicates": len({training.replicate for training in trainings}),
        "arms": {label: sorted(levels) for label, levels in arms.items()},
        "trains_on": trains_on,
        "configs": configs,
        "sessions": sessions + ([session] if session else []),
    }
    write_text(run / SESSIONS, json.dumps(content) + "\n", make_folder=False)
    if config is not None and not is_new:
        write_text(run / CONFIG, config, make_folder=False)


def has_denormals(run: Path) -> bool:
    """Whether a session was one of a version that did not take denormal numbers for zero."""
    try:
        return any("denormals" not in session for session in read(run).get("sessions", []))
    except UserError:  # it is told elsewhere, and written anew
        return False


def _checksum(config: str) -> int:
    return zlib.crc32(config.encode())


def read_config(run: Path) -> str:
    """The run's config.yaml; raises UserError where it is missing, no text, or not what the run was made with."""
    config = read_text(run / CONFIG)
    try:
        known = read(run).get("configs", [])
    except UserError:
        known = []  # what is wrong with run.json is told by its own readers
    if known and _checksum(config) not in known:
        raise UserError(
            f"{run / CONFIG} is damaged: it is not what the run was made with. Put it back as it was; what a run may "
            f"be extended by is given in flags. (To believe it all the same, remove {run / SESSIONS}.)"
        )
    return config


def read(run: Path) -> dict[str, Any]:
    """`first_replicate`, `replicates`, how many, `arms` {`Training.label`: levels}, `trains_on`, `configs`, `sessions`.

    Of an older version's run empty, or without `configs`.

    Raises UserError where the file is damaged, or of a newer version.
    """
    path = run / SESSIONS
    try:
        content: Any = json.loads(path.read_bytes().decode())
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise UserError(unreadable(path, error)) from None
    except (ValueError, RecursionError):
        content = None
    if isinstance(content, dict) and isinstance(content.get("format"), int) and content["format"] > FORMAT:
        raise UserError(
            f"{path} has format {content['format']}, this version reads format {FORMAT}: update lth_lightning."
        )
    if not _is_whole(content):
        raise UserError(f"{path} is damaged: what the run planned is not known. `lth fit --resume` writes it anew.")
    found: dict[str, Any] = {key: content[key] for key in ("replicates", "arms", "sessions")}
    found["first_replicate"] = content.get("first_replicate", 0)
    return {**found, "trains_on": bool(content.get("trains_on", False)), "configs": content.get("configs", [])}


def _is_whole(content: Any) -> bool:
    if not isinstance(content, dict) or not isinstance(content.get("replicates"), int):
        return False
    if not isinstance(content.get("first_replicate", 0), int):
        return False
    arms, sessions, configs = content.get("arms"), content.get("sessions"), content.get("configs", [])
    return (
        isinstance(arms, dict)
        and all(isinstance(of, list) and of and all(isinstance(level, int) for level in of) for of in arms.values())
        and isinstance(configs, list)
        and isinstance(sessions, list)
        and all(isinstance(session, dict) for session in sessions)
    )
