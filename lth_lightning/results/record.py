"""result.json of a training, and results.csv, the table of them all."""

import csv
import io
import json
import math
import zlib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from lth_lightning.errors import UserError
from lth_lightning.files import unreadable, write_text
from lth_lightning.place import check_place
from lth_lightning.results.run_folder import RESULT, TABLE, training_folders
from lth_lightning.results.training import TICKET

OK, DIVERGED = "ok", "diverged"


@dataclass
class Record:
    """A row of results.csv. Accuracies are fractions of 1, losses means over samples, seconds wall time.

    A quantity that the module does not log, or that is NaN or infinite, is None, an empty cell.
    """

    replicate: int
    arm: str
    trial: int
    level: int
    status: str
    weights: int
    weights_remaining: int
    density: float
    steps: int
    early_stop_step: int | None = None
    early_stop_val_loss: float | None = None
    early_stop_val_acc: float | None = None
    early_stop_test_loss: float | None = None
    early_stop_test_acc: float | None = None
    early_stop_train_acc: float | None = None
    final_val_loss: float | None = None
    final_val_acc: float | None = None
    final_test_loss: float | None = None
    final_test_acc: float | None = None
    final_train_acc: float | None = None
    seconds: float | None = None

    def __post_init__(self) -> None:
        # JSON lacks them; so a record is the same before it is written and after it is read.
        for name, value in vars(self).items():
            if isinstance(value, float) and not math.isfinite(value):
                setattr(self, name, None)

    def write(self, folder: Path) -> None:
        """Write the training's result.json."""
        content = vars(self)
        write_text(folder / RESULT, json.dumps({**content, CHECKSUM: _checksum(content)}, indent=1) + "\n")

    @classmethod
    def read(cls, path: Path) -> "Record":
        """A training's result.json; raises UserError where it is missing, damaged or another training's."""
        try:
            content: dict[str, Any] = json.loads(path.read_bytes().decode())
            record = cls(**{key: content[key] for key in COLUMNS})
            whole = record.is_possible and (CHECKSUM not in content or content[CHECKSUM] == _checksum(vars(record)))
        except OSError as error:
            raise UserError(unreadable(path, error)) from None
        except (ValueError, KeyError, TypeError, RecursionError):
            whole = False
        if not whole:
            raise UserError(f"{path} is damaged: delete it, and --resume will train that level again.")
        check_place(path, vars(record))
        return record

    @property
    def is_possible(self) -> bool:
        """Whether a training can have such a result: every value of its type, every count and density in its range."""
        counts = [getattr(self, name) for name in _COUNTS]
        if not all(type(count) is int and count >= 0 for count in counts):
            return False
        if not (type(self.arm) is str and self.arm and self.status in (OK, DIVERGED)):
            return False
        numbers = [getattr(self, name) for name in _MEASURED]
        if not all(number is None or type(number) in (int, float) for number in numbers):
            return False
        if self.early_stop_step is not None and not (type(self.early_stop_step) is int and self.early_stop_step >= 0):
            return False
        is_share = type(self.density) in (int, float) and 0 < self.density <= 1
        return is_share and 0 < self.weights_remaining <= self.weights

    @property
    def order(self) -> tuple[int, str, int, int]:
        """Where the row stands in the table."""
        return self.replicate, self.arm, self.trial, self.level

    @property
    def label(self) -> str:
        """As `Training.label`."""
        return TICKET if self.arm == TICKET else f"{self.arm}_{self.trial}"


COLUMNS = tuple(field.name for field in fields(Record))

CHECKSUM = "checksum"
"""Key of a result.json beside those of the table, of all of them but `seconds`; an older version's has none."""


def _checksum(content: dict[str, Any]) -> int:
    same_twice = {name: value for name, value in content.items() if name != "seconds"}
    return zlib.crc32(json.dumps(same_twice, sort_keys=True).encode())


def read_records(run: Path, problems: list[str] | None = None) -> list[Record]:
    """All finished trainings of a run, in the order of the table.

    A damaged result.json, one in the wrong place, and a folder that may not be read are lines in `problems` and left
    out; without `problems` they raise UserError or OSError.
    """
    records = []
    for folder in training_folders(run, problems):
        path = folder / RESULT
        if not path.exists():
            continue
        try:
            records.append(Record.read(path))
        except UserError as error:
            if problems is None:
                raise
            problems.append(str(error))
    return sorted(records, key=lambda record: record.order)


def read_table(path: Path) -> tuple[list[Record], str | None]:
    """The whole rows of a results.csv, and one line on what is wrong with the others, if any."""
    records: list[Record] = []
    seen: set[tuple[int, str, int, int]] = set()
    wrong = None
    with path.open(newline="", encoding="utf-8") as file:
        text = file.read()
    lines = text.splitlines(keepends=True)
    if not lines or tuple(lines[0].rstrip("\n").split(",")) != COLUMNS:
        return [], f"{path} is damaged: its first line does not name the columns."
    for number, line in enumerate(lines[1:], start=2):
        try:
            if not line.endswith("\n"):
                raise ValueError
            cells = dict(zip(COLUMNS, next(csv.reader([line])), strict=True))
            record = Record(**{name: _parse(name, cell) for name, cell in cells.items()})
            if not record.is_possible or record.order in seen:
                raise ValueError
            records.append(record)
            seen.add(record.order)
        except (ValueError, csv.Error, StopIteration):
            wrong = wrong or f"{path} is damaged from line {number} on."
            break
    return records, wrong


_COUNTS = ("replicate", "trial", "level", "weights", "weights_remaining", "steps")
_INTEGERS = (*_COUNTS, "early_stop_step")
_MEASURED = tuple(name for name in COLUMNS if name.startswith(("early_stop", "final", "seconds")))


def _parse(name: str, cell: str) -> Any:
    if name in ("arm", "status"):
        if not cell:
            raise ValueError
        return cell
    if not cell and name in _MEASURED:
        return None
    return int(cell) if name in _INTEGERS else float(cell)


def write_table(run: Path, records: list[Record]) -> None:
    """Rebuild results.csv."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(vars(record) for record in records)
    write_text(run / TABLE, text.getvalue(), make_folder=False)
