"""metrics.csv: the curves of one training, one row an evaluation."""

import contextlib
import csv
import io
from pathlib import Path

from lth_lightning.files import write_text

COLUMNS = ("step", "train_loss", "val_loss", "val_acc")
TEST_COLUMNS = ("test_loss", "test_acc")

Row = dict[str, float | int | None]


def shortest(value: float | None) -> float | None:
    """A float32 metric as the shortest decimal that reads back as that float32: 0.9802, not 0.9801999926567078."""
    import numpy as np  # late: reading needs none

    return None if value is None else float(str(np.float32(value)))


class MetricsFile:
    """Appends rows to `path`, each flushed, so that a run can be watched while it trains."""

    def __init__(self, path: Path, with_test: bool = False) -> None:
        self.path = path
        self.columns = (*COLUMNS, *TEST_COLUMNS) if with_test else COLUMNS

    def cut(self, step: int) -> None:
        """Keep the rows up to `step` alone (0: none), and write the header; what a killed process left behind goes."""
        rows = [row for row in read(self.path) if row["step"] is not None and row["step"] <= step] if step else []
        text = io.StringIO()
        writer = csv.DictWriter(text, self.columns, lineterminator="\n", extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
        write_text(self.path, text.getvalue())

    def append(self, row: Row) -> None:
        with self.path.open("a", newline="") as file:
            csv.DictWriter(file, self.columns, lineterminator="\n", extrasaction="ignore").writerow(row)


def read(path: Path) -> list[Row]:
    """The rows of a metrics.csv; a last line that a killed process left unfinished is not among them."""
    with contextlib.suppress(FileNotFoundError):
        text = path.read_text()
        whole = text[: text.rfind("\n") + 1]
        return [{key: _number(key, value) for key, value in row.items()} for row in csv.DictReader(io.StringIO(whole))]
    return []


def _number(key: str, value: str) -> float | int | None:
    if not value:
        return None
    return int(value) if key == "step" else float(value)
