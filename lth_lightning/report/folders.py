"""Which folders are runs, and what each is called in a report."""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from lth_lightning.errors import UserError
from lth_lightning.files import unreadable
from lth_lightning.results.run_folder import CONFIG, SWEEP, TABLE


def find(paths: Sequence[Path], problems: list[str]) -> list[Path]:
    """The run folders in `paths`, each a run, an experiment or a sweep, in order and each once.

    Folders that may not be read are one line in `problems`. Raises UserError where one of the paths holds no run.
    """
    found: dict[Path, Path] = {}
    for path in paths:
        unseen: list[str] = []
        runs = runs_in(path, unseen)
        if not path.exists():
            raise UserError(f"There is no {path}: `lth ls` lists the runs in lightning_logs.")
        if not runs:
            told = "give a run's folder, such as lightning_logs/lenet/version_0, or an experiment's."
            raise UserError(unseen[0] if unseen else f"{path} holds no run: {told}")
        problems += unseen
        for run in runs:
            found.setdefault(run.resolve(), run)
    return list(found.values())


def runs_in(path: Path, problems: list[str]) -> list[Path]:
    """The run that `path` is, or those below it, in order; folders that may not be read are one line in `problems`."""
    if _is_run(path):
        return [path]
    shut: list[str] = []
    runs = sorted(_below(path, shut), key=_place)
    if shut:
        others = len(shut) - 1
        more = f" Nor can {others} other folder{'s' if others > 1 else ''}." if others else ""
        problems.append(f"{shut[0]}{more} Runs in there are left out: mend the permissions.")
    return runs


def _is_run(path: Path) -> bool:
    return (path / CONFIG).is_file() or (path / TABLE).is_file()


def _below(path: Path, shut: list[str]) -> Iterator[Path]:
    """Runs at any depth; within a run there is none. A folder that may not be read is a line in `shut`."""
    try:
        with os.scandir(path) as entries:
            names = sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
    except (FileNotFoundError, NotADirectoryError):  # removed meanwhile, or no folder
        return
    except OSError as error:
        shut.append(unreadable(path, error))
        return
    for child in (path / name for name in names):
        try:
            is_run = _is_run(child)
        except OSError as error:
            shut.append(unreadable(child, error))
            continue
        if is_run:
            yield child
        else:
            yield from _below(child, shut)


def _place(path: Path) -> tuple[Any, ...]:
    """Sorts by experiment, cells of a sweep in its own order, version."""
    path = path.absolute()  # of `version_0` alone no parents are known
    last = path.name.removeprefix("version_")
    cells = list(_cells(path))
    cell = cells.index(path.parent.name) if path.parent.name in cells else -1
    return path.parents[1], cell, path.parent, int(last) if last.isdigit() else -1, path.name


def names(folders: Sequence[Path]) -> list[str]:
    """What tells the runs apart: their paths without the folders that all of them share.

    A `version_0` that is the only version of its experiment is left out. Versions of one experiment keep its name.
    """
    parts = [folder.resolve().parts for folder in folders]
    if len(parts) == 1:
        return ["/".join(parts[0][-2:]) if parts[0][-1].startswith("version_") else parts[0][-1]]
    shared = 0
    while all(len(p) > shared + 1 and p[shared] == parts[0][shared] for p in parts):
        shared += 1
    if all(len(p) == shared + 1 and p[-1].startswith("version_") for p in parts):
        shared -= 1
    versions = Counter(p[:-1] for p in parts)
    short = ["/".join(p[shared:]).removesuffix("/version_0" if versions[p[:-1]] == 1 else "") for p in parts]
    return short if len(set(short)) == len(short) else ["/".join(p[shared:]) for p in parts]


def sweep_of(folder: Path) -> dict[str, Any] | None:
    """The values that make a run a cell of its sweep, from `sweep.yaml`; None for a run that is no cell."""
    return _cells(folder).get(folder.absolute().parent.name)


def _cells(folder: Path) -> dict[str, dict[str, Any]]:
    """By name the values of the cells of the sweep that a run may belong to, in its order."""
    try:
        cells = yaml.safe_load((folder.absolute().parents[1] / SWEEP).read_bytes().decode())["cells"]
        return {name: cell["values"] for name, cell in cells.items()}
    except (OSError, KeyError, TypeError, ValueError, AttributeError, IndexError, yaml.YAMLError):
        return {}
