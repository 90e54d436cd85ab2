"""Going on with a run: what may differ from its config, and the line that tells how."""

import shlex
from pathlib import Path
from typing import Any

import yaml

from lth_lightning.errors import UserError
from lth_lightning.results import session
from lth_lightning.results.run_folder import CHECKPOINT, CONFIG, RESULT, is_from_python

EXTENDABLE = (
    "pruning.levels",
    "pruning.until_density",
    "pruning.replicates",
    "pruning.controls",
    "data.init_args.root",
    "threads",
)
"""What may change: how far the run goes, what is trained beside the tickets, where the same data lie, and what the
machine has cores for (which changes the last bits)."""


ADDED = {
    "pruning.together": False,
    "pruning.compile": False,
    "pruning.kernels": "masked",
    "pruning.retrain.class_path": "lth_lightning.callbacks.Rewind",
    "pruning.retrain.init_args.optimizer_state": False,
    "pruning.pruned": "zero",
    "pruning.first_replicate": 0,
}
"""Options that the config.yaml of an older run does not have, and what it did."""


NEEDED = ("pruning.levels", "pruning.until_density", "pruning.replicates")
"""What says how far a run goes, and may change: a file that lost it would change it in silence."""


def check(folder: Path, config: str) -> None:
    """Raise UserError naming the first setting in which `config` differs from the run's, other than to extend it."""
    old, new = (ADDED | flat(yaml.safe_load(text)) for text in (session.read_config(folder), config))
    if lost := [key for key in NEEDED if key not in old]:
        raise UserError(
            f"{folder / CONFIG} is damaged: it lacks {lost[0]}, which every run has. Put it back as it was."
        )
    for key in [*old, *(key for key in new if key not in old)]:
        if old.get(key) != new.get(key) and key not in EXTENDABLE:
            raise UserError(
                f"--resume: '{key}' is {new.get(key)!r} but {old.get(key)!r} in {folder / CONFIG}. A run goes on as it "
                "began, with more levels, replicates or controls at most: drop the option, or start a new run."
            )
    kept, asked = (_controls(each.get("pruning.controls")) for each in (old, new))
    for name, settings in kept:
        same = [other for key, other in asked if key == name]
        if same and settings not in same:
            raise UserError(
                f"--resume: the control {name} differs from the run's in more than its levels and trials: "
                "start a new run."
            )


def _controls(controls: Any) -> list[tuple[str, dict[str, Any]]]:
    """By class and name, each control's settings but for how often it is trained, and but for those left alone."""
    found = []
    for control in controls or []:
        settings = dict(control.get("init_args") or {})
        name = " ".join(filter(None, (control["class_path"], settings.pop("name", None))))
        dropped = ("levels", "trials")
        kept = {k: v for k, v in settings.items() if k not in dropped and v is not None and v is not False}
        found.append((name, kept))
    return found


def flat(content: Any, prefix: str = "") -> dict[str, Any]:
    """`{data: {root: x}}` as `{data.root: x}`; a list is one value."""
    if not isinstance(content, dict):
        return {prefix[:-1]: content}
    return {key: value for name, part in content.items() for key, value in flat(part, f"{prefix}{name}.").items()}


_begun: list[Path] = []


def begin() -> None:
    """A command begins, which has begun no run yet."""
    _begun.clear()


def remember(folder: Path) -> None:
    """A run began in `folder`."""
    _begun.append(folder)


def advice(folder: Path | None = None) -> str:
    """The line that resumes the run in `folder`, or the one that this command began last."""
    folder = folder or (_begun[-1] if _begun else None)
    if folder is None:
        return "Nothing was begun."
    path = str(folder)
    if is_from_python(folder):
        return f"{_kept(folder)} with: PruningLoop.run(…, folder={path!r})"
    word = shlex.quote(f"./{path}" if path.startswith("-") else path)
    return f"{_kept(folder)} with: lth fit --resume {word}"


def _kept(folder: Path) -> str:
    """What there is to go on with, in the run or the sweep in `folder`."""
    try:
        if any(folder.rglob(RESULT)):
            return "What is finished is kept; go on"
        if any(folder.rglob(CHECKPOINT)):
            return "Nothing is finished yet; the training goes on from its last checkpoint"
        return "Nothing is finished yet, and no checkpoint is there; begin again"
    except OSError:  # another process may be at work in it
        return "What is finished is kept; go on"


def nothing_left(folder: Path, trainings: int = 0, cells: int = 0) -> str:
    """The line that says that so many of the run or the sweep in `folder` are finished, and how to extend it."""
    done = f"{cells} of {cells} cells are" if cells else f"{trainings} training{'s are' if trainings > 1 else ' is'}"
    how = "To extend it: --pruning.levels, --until-density or --replicates."
    if is_from_python(folder):
        how = "A PruningLoop with more levels, replicates or controls extends it."
    return f"Nothing is left to train: {done} finished. {how}"
