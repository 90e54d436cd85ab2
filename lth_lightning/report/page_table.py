"""The summary table as the page shows it: percent, means with their range, in columns that can be sorted."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import pandas as pd

from lth_lightning.report.lines import named
from lth_lightning.report.style import percent


@dataclass(frozen=True)
class Cell:
    """Attributes:
    text: the value, or the trials' mean; empty where there is none.
    low: the trials' least value, empty where that is the mean.
    high: their greatest.
    key: what to sort by; empty: comes last.
    """

    text: str = ""
    low: str = ""
    high: str = ""
    key: str = ""


@dataclass(frozen=True)
class Column:
    """Attributes:
    name: in summary.csv.
    title: on the page.
    group: what is written above this column and its neighbours, empty for nothing.
    show: a value as text.
    """

    name: str
    title: str
    group: str
    show: Callable[[Any], str]

    @property
    def is_text(self) -> bool:
        return self.show in (str, named)


@dataclass(frozen=True)
class Table:
    """Columns, those of a group side by side, and for each row a cell in each of them."""

    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]

    @property
    def groups(self) -> list[tuple[str, list[Column]]]:
        """Neighbours of one group; a column without a group is alone."""
        numbered = groupby(enumerate(self.columns), key=lambda item: item[1].group or item[0])
        return [(key if isinstance(key, str) else "", [column for _, column in items]) for key, items in numbered]


def table(summary: pd.DataFrame) -> Table:
    """summary.csv for the page.

    Left out are columns that are empty throughout, those it does not know, the run where there is but one, and how many
    diverged where none did.

    Args:
        summary: run, arm, level, density (fraction of 1), weights (remaining), trials, diverged, perhaps `wins` (True,
            False, None); for each quantity q of results.csv the columns q (mean), q_min, q_max. Any may be missing.
    """
    columns = [column for column in COLUMNS if column.name in summary and _says_something(column, summary[column.name])]
    rows = [[_cell(row, column) for column in columns] for row in summary.to_dict("records")]
    return Table(columns, rows)


def _says_something(column: Column, values: pd.Series) -> bool:
    if column.name == "run":
        return values.nunique() > 1
    if column.name == "diverged":
        return bool(values.any())
    return bool(values.notna().any())


def _cell(row: dict[Any, Any], column: Column) -> Cell:
    value = row[column.name]
    if pd.isna(value):
        return Cell()
    text = column.show(value)
    if column.is_text:
        return Cell(text, key=text)
    low, high = row.get(f"{column.name}_min"), row.get(f"{column.name}_max")
    key = f"{float(value):.9g}"
    # Of one trial, or of several that agree.
    if low is None or pd.isna(low) or low == high:
        return Cell(text, key=key)
    return Cell(text, column.show(low).removesuffix("%"), column.show(high), key)


def _count(value: float) -> str:
    return f"{value:,.0f}"


def _percent(value: float) -> str:
    return f"{100 * value:.2f}%"


def _loss(value: float) -> str:
    return f"{value:.4f}" if abs(value) < 10 else f"{value:,.5g}"


def _seconds(value: float) -> str:
    return f"{value:,.1f}"


def _star(value: bool) -> str:
    return "winning ticket" if value else ""


_AT_STOP, _AT_END = "At early stop", "At the end"

COLUMNS = (
    Column("run", "Run", "", str),
    Column("arm", "Arm", "", named),
    Column("level", "Level", "", _count),
    Column("density", "Weights left", "", percent),
    Column("weights", "Weights", "", _count),
    Column("wins", "Wins", "", _star),
    Column("trials", "Trials", "", _count),
    Column("diverged", "Diverged", "", _count),
    Column("early_stop_step", "Step", _AT_STOP, _count),
    Column("early_stop_val_loss", "Validation loss", _AT_STOP, _loss),
    Column("early_stop_val_acc", "Validation accuracy", _AT_STOP, _percent),
    Column("early_stop_test_loss", "Test loss", _AT_STOP, _loss),
    Column("early_stop_test_acc", "Test accuracy", _AT_STOP, _percent),
    Column("early_stop_train_acc", "Training accuracy", _AT_STOP, _percent),
    Column("final_val_loss", "Validation loss", _AT_END, _loss),
    Column("final_val_acc", "Validation accuracy", _AT_END, _percent),
    Column("final_test_loss", "Test loss", _AT_END, _loss),
    Column("final_test_acc", "Test accuracy", _AT_END, _percent),
    Column("final_train_acc", "Training accuracy", _AT_END, _percent),
    Column("seconds", "Seconds a training", "", _seconds),
)
