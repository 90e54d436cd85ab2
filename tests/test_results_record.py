"""result.json and results.csv hold what was measured, and a hole where nothing was."""

import csv
import json
import os
from dataclasses import asdict, replace
from pathlib import Path

import pandas as pd
import pytest

from lth_lightning.errors import UserError
from lth_lightning.results import Record, Training, read_records
from lth_lightning.results.record import COLUMNS, write_table

# As the design promises them to users, in this order.
PROMISED = """replicate, arm, trial, level, status, weights, weights_remaining, density,
steps, early_stop_step, early_stop_val_loss, early_stop_val_acc, early_stop_test_loss, early_stop_test_acc,
early_stop_train_acc, final_val_loss, final_val_acc, final_test_loss, final_test_acc, final_train_acc, seconds"""

FULL = Record(
    replicate=0,
    arm="ticket",
    trial=0,
    level=3,
    status="ok",
    weights=266_200,
    weights_remaining=136_511,
    density=136_511 / 266_200,
    steps=50_000,
    early_stop_step=5_300,
    early_stop_val_loss=0.0712,
    early_stop_val_acc=0.9802,
    early_stop_test_loss=0.0688,
    early_stop_test_acc=0.9811,
    early_stop_train_acc=0.9991,
    final_val_loss=0.19,
    final_val_acc=0.981,
    final_test_loss=0.18,
    final_test_acc=0.9815,
    final_train_acc=1.0,
    seconds=51.25,
)
BARE = Record(0, "ticket", 0, 0, "ok", 10, 10, 1.0, 5)


def put(run: Path, record: Record) -> Path:
    folder = Training(record.replicate, record.arm, record.trial, record.level, run).folder
    record.write(folder)
    return folder / "result.json"


def test_columns_are_the_promised_ones_in_order():
    assert list(COLUMNS) == [name.strip() for name in PROMISED.split(",")]


@pytest.mark.parametrize("record", [FULL, BARE, replace(FULL, status="diverged", early_stop_test_acc=None)])
def test_a_record_comes_back_as_it_was(tmp_path, record):
    path = put(tmp_path, record)
    assert read_records(tmp_path) == [record]
    assert list(json.loads(path.read_text())) == [*COLUMNS, "checksum"]
    assert path.read_text().endswith("}\n")
    assert os.listdir(path.parent) == ["result.json"]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_json_lacks_becomes_null(tmp_path, value):
    record = replace(FULL, status="diverged", final_val_loss=value, early_stop_val_loss=value)
    path = put(tmp_path, record)

    def refuse(name: str) -> None:
        pytest.fail(f"{name} is no JSON")

    content = json.loads(path.read_text(), parse_constant=refuse)
    assert content["final_val_loss"] is None
    assert content["early_stop_val_loss"] is None
    assert read_records(tmp_path) == [replace(record, final_val_loss=None, early_stop_val_loss=None)]


def test_records_are_sorted_by_replicate_arm_trial_and_level_as_numbers(tmp_path):
    expected = [
        (replicate, arm, trial, level)
        for replicate in (0, 2, 10)
        for arm, trials in (("random_mask", (0, 2, 10)), ("ticket", (0,)))
        for trial in trials
        for level in (0, 9, 10, 100)
    ]
    for replicate, arm, trial, level in reversed(expected):
        put(tmp_path, replace(BARE, replicate=replicate, arm=arm, trial=trial, level=level))
    assert [record.order for record in read_records(tmp_path)] == expected


def test_unfinished_trainings_and_an_empty_run_have_no_records(tmp_path):
    assert read_records(tmp_path) == []
    put(tmp_path, BARE)
    (tmp_path / "replicate_0" / "ticket" / "level_01").mkdir()
    (tmp_path / "replicate_0" / "ticket" / "level_01" / "metrics.csv").write_text("step\n")
    (tmp_path / "results.csv").write_text("")
    assert read_records(tmp_path) == [BARE]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b'{\n "replicate": 0,\n "arm": "tic',
        b"null",
        b"[1, 2]",
        b"{}",
        b'{"replicate": 0}',
        b"\xff\xfe\x00",
    ],
    ids=["empty", "truncated", "null", "list", "no keys", "one key", "no text"],
)
def test_a_damaged_result_is_one_line_that_names_it_and_says_what_to_do(tmp_path, content):
    put(tmp_path, BARE)
    path = put(tmp_path, FULL)
    path.write_bytes(content)
    with pytest.raises(UserError) as error:
        read_records(tmp_path)
    text = str(error.value)
    assert str(path) in text
    assert "delete it" in text
    assert "\n" not in text


def test_a_result_of_a_later_version_with_more_keys_is_read(tmp_path):
    path = put(tmp_path, FULL)
    path.write_text(json.dumps({**asdict(FULL), "joules": 3}))
    assert read_records(tmp_path) == [FULL]


def test_the_table_has_the_promised_header_and_a_line_a_record(tmp_path):
    write_table(tmp_path, [BARE, FULL])
    lines = (tmp_path / "results.csv").read_bytes().decode().split("\n")
    assert lines == [
        PROMISED.replace("\n", " ").replace(", ", ","),
        "0,ticket,0,0,ok,10,10,1.0,5,,,,,,,,,,,,",
        "0,ticket,0,3,ok,266200,136511,0.5128136739293764,50000,5300,0.0712,0.9802,0.0688,0.9811,0.9991,"
        "0.19,0.981,0.18,0.9815,1.0,51.25",
        "",
    ]
    assert os.listdir(tmp_path) == ["results.csv"]


def test_the_table_reads_back_the_same_numbers(tmp_path):
    write_table(tmp_path, [FULL])
    with (tmp_path / "results.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert {name: type(value)(row[name]) for name, value in asdict(FULL).items()} == asdict(FULL)
    frame = pd.read_csv(tmp_path / "results.csv")
    assert frame.loc[0, "density"] == FULL.density
    assert frame.loc[0, "early_stop_step"] == 5_300


def test_the_table_is_rebuilt_not_appended_to(tmp_path):
    write_table(tmp_path, [BARE, FULL])
    write_table(tmp_path, [FULL])
    assert len((tmp_path / "results.csv").read_text().splitlines()) == 2
    write_table(tmp_path, [])
    assert len((tmp_path / "results.csv").read_text().splitlines()) == 1
