"""result.json of a training, and results.csv, the table of them all."""

import csv
import io
import json
import math
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from lth_lightning.errors import UserError
from lth_lightning.files import write_text
from lth_lightning.results.run_folder import RESULT, TABLE
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
        write_text(folder / RESULT, json.dumps(asdict(self), indent=1) + "\n")

    @property
    def order(self) -> tuple[int, str, int, int]:
        """Where the row stands in the table."""
        return self.replicate, self.arm, self.trial, self.level

    @property
    def label(self) -> str:
        """As `Training.label`."""
        return TICKET if self.arm == TICKET else f"{self.arm}_{self.trial}"


COLUMNS = tuple(field.name for field in fields(Record))


def read_records(run: Path) -> list[Record]:
    """All finished trainings of a run, in the order of the table; raises UserError for a damaged result.json."""
    records = []
    for path in run.glob(f"replicate_*/*/level_*/{RESULT}"):
        try:
            content: dict[str, Any] = json.loads(path.read_text())
            records.append(Record(**{key: content[key] for key in COLUMNS}))
        except (ValueError, KeyError, TypeError):
            raise UserError(f"{path} is damaged: delete it, and --resume will train that level again.") from None
    return sorted(records, key=lambda record: record.order)


def read_table(path: Path) -> tuple[list[Record], str | None]:
    """The whole rows of a results.csv, and one line on what is wrong with the others, if any."""
    records: list[Record] = []
    wrong = None
    with path.open(newline="") as file:
        text = file.read()
    lines = text.splitlines(keepends=True)
    if not lines or tuple(lines[0].rstrip("\n").split(",")) != COLUMNS:
        return [], f"{path} is damaged: its first line does not name the columns."
    for number, line in enumerate(lines[1:], start=2):
        try:
            if not line.endswith("\n"):
                raise ValueError
            cells = dict(zip(COLUMNS, next(csv.reader([line])), strict=True))
            records.append(Record(**{name: _parse(name, cell) for name, cell in cells.items()}))
        except ValueError:
            wrong = wrong or f"{path} is damaged from line {number} on."
            break
    return records, wrong


_INTEGERS = ("replicate", "trial", "level", "weights", "weights_remaining", "steps", "early_stop_step")


def _parse(name: str, cell: str) -> Any:
    if name in ("arm", "status"):
        if not cell:
            raise ValueError
        return cell
    if not cell and name.startswith(("early_stop", "final", "seconds")):
        return None
    return int(cell) if name in _INTEGERS else float(cell)


def write_table(run: Path, records: list[Record]) -> None:
    """Rebuild results.csv."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(record) for record in records)
    write_text(run / TABLE, text.getvalue())
