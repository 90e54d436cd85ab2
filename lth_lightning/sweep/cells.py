"""The cells of a sweep: which they are, what they are called, and where they are."""

import hashlib
import itertools
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from lth_lightning import arguments
from lth_lightning.errors import UserError
from lth_lightning.files import write_text
from lth_lightning.results import Training
from lth_lightning.results.run_folder import CONFIG, SWEEP, check_run, claim
from lth_lightning.words import yaml_error

NO_SETTINGS = (
    "config",
    "c",
    "resume",
    "dry_run",
    "layers",
    "workers",
    "logs",
    "experiment",
    "sweep",
    "help",
    "h",
    "print_config",
)
"""Flags of the command or of the whole sweep."""

LONGEST = 100
"""Characters of a cell's name."""


@dataclass
class Cell:
    """A run of the sweep."""

    experiment: str
    name: str
    values: dict[str, Any]
    common: list[str]
    """The command's words before those that make it this cell."""
    run: Path | None = None

    # Known once it is checked:
    config: str = ""
    left: list[Training] = field(default_factory=list)
    """Trainings that are not finished."""
    is_finished: bool = False
    lines: int = 1
    trains_on: bool = False
    """Its tickets go on from trained weights, so that none is a winning one."""
    room: tuple[int | None, int | None, int] | None = None
    """Workers and threads asked for, and bytes of a worker; None where it cannot have several."""

    @property
    def flags(self) -> list[str]:
        """The words that set its values."""
        texts = {flag: value if isinstance(value, str) else json.dumps(value) for flag, value in self.values.items()}
        return [arguments.alias(f"--{flag}={text}") for flag, text in texts.items()]

    @property
    def words(self) -> list[str]:
        """The command that makes it."""
        run = f"--resume={self.run or 'null'}"
        return [*self.common, *self.flags, "--sweep=null", f"--experiment={self.experiment}/{self.name}", run]

    def __str__(self) -> str:
        return self.name.replace(",", ", ")


def new_cells(experiment: str, words: Sequence[str], grid: dict[str, Any]) -> list[Cell]:
    """Every combination of the grid's values, the last flag's changing fastest; raises UserError for a wrong grid."""
    combinations = _combinations(grid)
    names = _names(combinations)
    return [Cell(experiment, name, values, list(words)) for name, values in zip(names, combinations, strict=True)]


def begun(folder: Path, words: Sequence[str], grid: dict[str, Any]) -> list[Cell]:
    """The cells of the sweep in `folder`, and those that `grid` adds.

    Each goes on from its own config.yaml, with what `words` say on top; a new one begins from that of the first cell
    that varies these flags, and there is one for each value that the cell's other flags have in the sweep.
    """
    if not (folder / SWEEP).is_file():
        raise UserError(f"{folder} is a run, and a sweep makes new ones: drop --resume, or the sweep.")
    content = arguments.read_sweep(folder)
    kept: dict[str, Any] = content["cells"]
    cells = []
    for name, cell in kept.items():
        run = check_run(folder / name / cell["run"])
        # `arguments.prepare` has put the first cell's config in front: each has its own.
        common = ["fit", "--config", arguments.as_word(run / CONFIG), *words[3:]]
        cells.append(Cell(content["experiment"], name, cell["values"], common, run))
    if not grid:
        return cells
    named = dict(_flat(grid))
    like = next((cell for cell in cells if set(named) <= set(cell.values)), None)
    if like is None:
        varied = list(dict.fromkeys(flag for cell in cells for flag in cell.values))
        other = [flag for flag in named if flag not in varied]
        does_not = f"but not {' and '.join(other)}" if other else "but in no cell all of these at once"
        raise UserError(
            f"--resume: the sweep in {folder} varies {' and '.join(varied)}, {does_not}: give more values of what it "
            "varies, or start a new sweep, without --resume."
        )
    alike = [cell.values for cell in cells if set(cell.values) == set(like.values)]
    # A flag that is not named keeps the values that it has.
    whole = {flag: named.get(flag) or _distinct(values[flag] for values in alike) for flag in like.values}
    known = [cell.values for cell in cells]
    added = new_cells(content["experiment"], like.common, whole)
    return [*cells, *(cell for cell in added if cell.values not in known)]


def _distinct(values: Iterable[Any]) -> list[Any]:
    return list({json.dumps(value, default=str): value for value in values}.values())


def refuse_same(cells: Sequence[Cell]) -> None:
    """Raise UserError where two cells, which are checked, are the same run."""
    seen: dict[str, Cell] = {}
    for cell in cells:
        settings = yaml.safe_load(cell.config)
        del settings["experiment"]
        other = seen.setdefault(json.dumps(settings, default=str), cell)
        if other is not cell:
            raise UserError(f"sweep: the cells {other} and {cell} are the same run: drop one of the flags or values.")


def claim_all(folder: Path, cells: Sequence[Cell]) -> None:
    """Make all runs' folders, each with its config.yaml, and put them on the list of the experiment's cells."""
    listed = arguments.read_sweep(folder)["cells"] if (folder / SWEEP).is_file() else {}
    for cell in cells:
        logs = folder.parents[len(Path(cell.experiment).parts) - 1]
        cell.run = claim(f"{cell.experiment}/{cell.name}", logs)
        write_text(cell.run / CONFIG, cell.config)
        listed[cell.name] = {"run": cell.run.name, "values": cell.values}
    write_text(folder / SWEEP, yaml.safe_dump({"experiment": cells[0].experiment, "cells": listed}, sort_keys=False))


def _combinations(grid: dict[str, Any]) -> list[dict[str, Any]]:
    flat = dict(_flat(grid))
    for flag, values in flat.items():
        if flag.replace("-", "_") in NO_SETTINGS or flag.endswith(".help"):
            raise UserError(f"sweep: '{flag}' is not a setting of a run: sweep over another flag.")
        if not isinstance(values, list):
            trouble = yaml_error(values) if isinstance(values, str) else None
            raise UserError(f"sweep: {flag} is {values!r}: {trouble or f'give a list of values, such as [{values}]'}.")
        if not values:
            raise UserError(f"sweep: {flag} has no values: give one or more, or drop it.")
        texts = [json.dumps(value, default=str) for value in values]  # 1, 1.0 and true can mean different things
        for index, value in enumerate(values):
            if texts[index] in texts[:index]:
                raise UserError(f"sweep: {flag} has the value {value!r} twice: give each once.")
    return [dict(zip(flat, values, strict=True)) for values in itertools.product(*flat.values())]


def _flat(grid: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """`{data: {normalization: […]}}` is `{data.normalization: […]}`; for '/' see `arguments.alias`."""
    for key, value in grid.items():
        flag = prefix + str(key).replace("/", ".")
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{flag}.")
        else:
            yield flag, value


def _names(combinations: Sequence[dict[str, Any]]) -> list[str]:
    """A name for each combination: the last part of each flag, where that tells the flags apart, and its value."""
    last = Counter(flag.rsplit(".", 1)[-1] for flag in combinations[0])
    names = []
    for values in combinations:
        short = {flag: flag.rsplit(".", 1)[-1] for flag in values}
        pairs = [(part if last[part] == 1 else flag, values[flag]) for flag, part in short.items()]
        names.append(",".join(f"{_safe(flag)}={'-'.join(_parts(value))}" for flag, value in pairs))
    counts = Counter(name.lower() for name in names)  # not every file system tells cases apart
    return [
        name if len(name) <= LONGEST and counts[name.lower()] == 1 else f"{name[: LONGEST - 9]}-{_digest(values)}"
        for name, values in zip(names, combinations, strict=True)
    ]


def _digest(values: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, default=str).encode()).hexdigest()[:8]


def _parts(value: Any) -> Iterator[str]:
    """`{linear: 0.2, output: 0.1}` as linear, 0.2, output, 0.1; a class's path as its name."""
    if isinstance(value, dict):
        for key, part in value.items():
            if key == "class_path":
                part = str(part).rsplit(".", 1)[-1]
            elif key != "init_args":
                yield _safe(str(key))
            yield from _parts(part)
    elif isinstance(value, list):
        for part in value:
            yield from _parts(part)
    else:
        yield _safe(value if isinstance(value, str) else json.dumps(value))


def _safe(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9.+_-]+", "-", text)
