"""Which folders are runs, and what each is called in a report."""

import contextlib
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from lth_lightning.errors import UserError
from lth_lightning.results.run_folder import CONFIG, METRICS, SWEEP, TABLE


def find(paths: Sequence[Path]) -> list[Path]:
    """The run folders in `paths`, each a run, an experiment or a sweep, in order and each once.

    Raises UserError where one of them holds no run.
    """
    found: dict[Path, Path] = {}
    for path in paths:
        runs = [path] if _is_run(path) else sorted(_below(path), key=_place)
        if not path.exists():
            raise UserError(f"There is no {path}: `lth ls` lists the runs in lightning_logs.")
        if not runs:
            raise UserError(
                f"{path} holds no run: give a run's folder, such as lightning_logs/lenet/version_0, or an experiment's."
            )
        for run in runs:
            found.setdefault(run.resolve(), run)
    return list(found.values())


def _is_run(path: Path) -> bool:
    return (path / CONFIG).is_file() or (path / TABLE).is_file()


def _below(path: Path) -> Iterator[Path]:
    """Runs at any depth; within a run there is none."""
    with contextlib.suppress(OSError):
        for child in sorted(path.iterdir()):
            if child.is_dir() and not child.is_symlink():
                if _is_run(child):
                    yield child
                else:
                    yield from _below(child)


def _place(path: Path) -> tuple[Any, ...]:
    """Sorts by experiment, cells of a sweep in its own order, version."""
    path = path.absolute()  # of `version_0` alone no parents are known
    last = path.name.removeprefix("version_")
    cells = list(_cells(path))
    cell = cells.index(path.parent.name) if path.parent.name in cells else -1
    return path.parents[1], cell, path.parent, int(last) if last.isdigit() else -1, path.name


def names(folders: Sequence[Path]) -> list[str]:
    """What tells the runs apart: their paths without the folders that all of them share, without a `version_0`.

    Versions of one experiment keep its name.
    """
    parts = [folder.resolve().parts for folder in folders]
    if len(parts) == 1:
        return ["/".join(parts[0][-2:]) if parts[0][-1].startswith("version_") else parts[0][-1]]
    shared = 0
    while all(len(p) > shared + 1 and p[shared] == parts[0][shared] for p in parts):
        shared += 1
    if all(len(p) == shared + 1 and p[-1].startswith("version_") for p in parts):
        shared -= 1
    short = ["/".join(p[shared:]) for p in parts]
    versions = Counter(name.rpartition("/")[0] for name in short)
    return [name.removesuffix("/version_0") if versions[name.rpartition("/")[0]] == 1 else name for name in short]


def trainings(folder: Path, holding: str = METRICS) -> list[Path]:
    """The folders of a run's trainings that hold a file: those that have begun, or, by RESULT, that are finished."""
    found = (path.parent for path in folder.glob(f"replicate_*/*/level_*/{holding}"))
    # Not a copy that someone has put aside, such as `level_03_old`.
    return sorted(path for path in found if _OWN.fullmatch("/".join(path.parts[-3:])))


_OWN = re.compile(r"replicate_\d+/[^/]+/level_\d+")


def sweep_of(folder: Path) -> dict[str, Any] | None:
    """The values that make a run a cell of its sweep, from `sweep.yaml`; None for a run that is no cell."""
    return _cells(folder).get(folder.absolute().parent.name)


def _cells(folder: Path) -> dict[str, dict[str, Any]]:
    """By name the values of the cells of the sweep that a run may belong to, in its order."""
    try:
        cells = yaml.safe_load((folder.absolute().parents[1] / SWEEP).read_text())["cells"]
        return {name: cell["values"] for name, cell in cells.items()}
    except (OSError, KeyError, TypeError, AttributeError, IndexError, yaml.YAMLError):
        return {}
