"""metrics.csv: rows as they come, cut back to a step, and readable after a kill at any moment."""

import math
import os
import struct

import pytest
import torch

from lth_lightning.results.curve import MetricsFile, read, shortest

ROWS = [
    {"step": 100, "train_loss": 0.5, "val_loss": 0.4321, "val_acc": 0.9},
    {"step": 200, "train_loss": 1e-05, "val_loss": 0.3, "val_acc": 0.9802},
    {"step": 300, "train_loss": None, "val_loss": 0.25, "val_acc": 1.0},
]


@pytest.fixture
def metrics(tmp_path) -> MetricsFile:
    file = MetricsFile(tmp_path / "metrics.csv")
    file.cut(0)
    return file


def test_a_new_file_is_a_header(metrics):
    assert metrics.path.read_bytes() == b"step,train_loss,val_loss,val_acc\n"
    assert read(metrics.path) == []


def test_a_test_curve_adds_its_columns(tmp_path):
    metrics = MetricsFile(tmp_path / "new" / "metrics.csv", with_test=True)
    metrics.cut(0)
    assert metrics.path.read_bytes() == b"step,train_loss,val_loss,val_acc,test_loss,test_acc\n"
    row = {**ROWS[0], "test_loss": 0.6, "test_acc": 0.85}
    metrics.append(row)
    assert read(metrics.path) == [row]
    metrics.cut(100)
    assert read(metrics.path) == [row]


def test_rows_can_be_read_as_soon_as_they_are_appended(metrics):
    for n, row in enumerate(ROWS, start=1):
        metrics.append(row)
        assert read(metrics.path) == ROWS[:n]
    assert metrics.path.read_text() == (
        "step,train_loss,val_loss,val_acc\n100,0.5,0.4321,0.9\n200,1e-05,0.3,0.9802\n300,,0.25,1.0\n"
    )


def test_steps_are_whole_numbers_and_a_hole_is_none(metrics):
    metrics.append(ROWS[2])
    (row,) = read(metrics.path)
    assert type(row["step"]) is int
    assert type(row["val_acc"]) is float
    assert row["train_loss"] is None


def test_what_is_no_column_is_left_out(metrics):
    metrics.append({**ROWS[0], "test_acc": 0.5, "lr": 0.1})
    assert read(metrics.path) == [ROWS[0]]


def test_a_diverged_loss_is_kept(metrics):
    metrics.append({**ROWS[0], "train_loss": math.nan, "val_loss": math.inf})
    metrics.cut(100)
    (row,) = read(metrics.path)
    assert math.isnan(row["train_loss"])
    assert row["val_loss"] == math.inf


@pytest.mark.parametrize(("step", "left"), [(0, 0), (99, 0), (100, 1), (250, 2), (300, 3), (10_000, 3)])
def test_a_cut_keeps_the_rows_up_to_its_step(metrics, step, left):
    for row in ROWS:
        metrics.append(row)
    whole = metrics.path.read_bytes().splitlines(keepends=True)
    metrics.cut(step)
    assert metrics.path.read_bytes() == b"".join(whole[: 1 + left]), "the rows that stay are the same bytes"
    assert os.listdir(metrics.path.parent) == ["metrics.csv"]


def test_rows_go_on_after_a_cut(metrics):
    for row in ROWS:
        metrics.append(row)
    metrics.cut(100)
    metrics.append(ROWS[1])
    assert read(metrics.path) == ROWS[:2]


def test_a_cut_of_no_file_writes_a_header(tmp_path):
    metrics = MetricsFile(tmp_path / "metrics.csv")
    metrics.cut(500)
    assert metrics.path.read_text() == "step,train_loss,val_loss,val_acc\n"


def test_no_file_has_no_rows(tmp_path):
    assert read(tmp_path / "metrics.csv") == []


def test_a_last_line_cut_off_anywhere_is_not_a_row(metrics):
    metrics.append(ROWS[0])
    before = metrics.path.read_bytes()
    metrics.append(ROWS[1])
    whole = metrics.path.read_bytes()
    for end in range(len(before), len(whole)):
        metrics.path.write_bytes(whole[:end])
        assert read(metrics.path) == ROWS[:1], end
    for end in range(len(before.splitlines()[0])):
        metrics.path.write_bytes(whole[:end])
        assert read(metrics.path) == [], end


@pytest.mark.parametrize("step", [100, 200])
def test_a_cut_takes_an_unfinished_line_away(metrics, step):
    metrics.append(ROWS[0])
    before = metrics.path.read_bytes()
    metrics.append(ROWS[1])
    metrics.path.write_bytes(metrics.path.read_bytes()[:-3])
    metrics.cut(step)
    assert metrics.path.read_bytes() == before
    metrics.append(ROWS[1])
    assert read(metrics.path) == ROWS[:2]


@pytest.mark.parametrize(
    ("value", "decimal"),
    [
        (0.9802, 0.9802),
        (0.1, 0.1),
        (1 / 3, 0.33333334),
        (1e-8, 1e-8),
        (2.0, 2.0),
        (0.0, 0.0),
        (16_777_216.0, 16_777_216.0),
    ],
)
def test_a_float32_becomes_its_shortest_decimal(value, decimal):
    metric = torch.tensor(value).item()
    assert shortest(metric) == decimal


def test_the_shortest_decimal_reads_back_as_the_same_float32():
    values = torch.rand(2_000, generator=torch.Generator().manual_seed(0)) * torch.logspace(-9, 4, 2_000)
    for value in values.tolist():
        short = shortest(value)
        assert short is not None
        assert struct.pack("f", short) == struct.pack("f", value)
        assert len(repr(short)) <= len(repr(value))


def test_no_metric_stays_none_and_nan_stays_nan():
    assert shortest(None) is None
    assert math.isnan(shortest(math.nan))
    assert shortest(math.inf) == math.inf
