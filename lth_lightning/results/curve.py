"""metrics.csv: the curves of one training, one row an evaluation."""

import csv
import io
from pathlib import Path

from lth_lightning.errors import UserError
from lth_lightning.files import read_text, write_text

COLUMNS = ("step", "train_loss", "val_loss", "val_acc")
TEST_COLUMNS = ("test_loss", "test_acc")

Row = dict[str, float | int | None]


def shortest(value: float | None) -> float | None:
    """A float32 metric as the shortest decimal that reads back as that float32: 0.9802, not 0.9801999926567078."""
    import numpy as np  # late: reading needs none

    return None if value is None else float(str(np.float32(value)))


class MetricsFile:
    """Appends rows to `path`, each flushed, so that a run can be watched while it trains.

    It knows all of them, so that a checkpoint can hold them and a file that was damaged or removed is made whole.
    """

    def __init__(self, path: Path, with_test: bool = False) -> None:
        self.path = path
        self.columns = (*COLUMNS, *TEST_COLUMNS) if with_test else COLUMNS
        self._lines: list[str] = []
        self._size = 0

    @property
    def has_begun(self) -> bool:
        """Whether this process has written the file."""
        return bool(self._lines)

    @property
    def text(self) -> str:
        """All that the file holds."""
        return "".join(self._lines)

    def restore(self, text: str) -> None:
        """Have the file hold what it held at a checkpoint, whatever has become of it."""
        self._lines = text.splitlines(keepends=True)
        self._rewrite()

    def cut(self, step: int) -> None:
        """Keep the rows up to `step` alone (0: none), and write the header; what a killed process left behind goes."""
        rows = [row for row in read(self.path) if row["step"] is not None and row["step"] <= step] if step else []
        self.restore("".join([",".join(self.columns) + "\n", *map(self._line, rows)]))

    def append(self, row: Row) -> None:
        line = self._line(row)
        self._lines.append(line)
        if not self.path.is_file() or self.path.stat().st_size != self._size:
            self._rewrite()
            return
        with self.path.open("a", newline="") as file:
            file.write(line)
        self._size += len(line)

    def _line(self, row: Row) -> str:
        text = io.StringIO()
        csv.DictWriter(text, self.columns, lineterminator="\n", extrasaction="ignore").writerow(row)
        return text.getvalue()

    def _rewrite(self) -> None:
        write_text(self.path, self.text)
        self._size = len(self.text)


def read(path: Path) -> list[Row]:
    """The rows of a metrics.csv; a last line that a killed process left unfinished is not among them.

    Raises UserError where the file is damaged.
    """
    if not path.exists():
        return []
    text = read_text(path)
    whole = text[: text.rfind("\n") + 1]
    try:
        rows = list(csv.DictReader(io.StringIO(whole)))
        return [{key: _number(key, value) for key, value in row.items()} for row in rows]
    except (ValueError, TypeError, csv.Error):
        raise UserError(f"{path} is damaged: a cell is no number.") from None


def _number(key: str, value: str) -> float | int | None:
    if not value:
        return None
    return int(value) if key == "step" else float(value)
