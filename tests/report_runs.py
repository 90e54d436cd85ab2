"""Run folders with known numbers, for tests of reports: whole ones but for weights, written in milliseconds."""

import csv
import io
from collections.abc import Callable, Container, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any

import yaml

from lth_lightning.results.curve import MetricsFile
from lth_lightning.results.record import DIVERGED, OK, Record, write_table
from lth_lightning.results.run_folder import CONFIG, METRICS
from lth_lightning.results.training import TICKET, Training

LENET = {"linear": 265_200, "output": 1_000}
RATES = {"linear": 0.2, "output": 0.1}

Key = tuple[int, str, int, int]
"""Replicate, arm, trial and level."""


def write_run(
    folder: Path,
    *,
    replicates: int = 3,
    first_replicate: int = 0,
    levels: Sequence[int] = range(16),
    controls: Mapping[str, Sequence[int]] | None = None,
    trials: int = 1,
    steps: int = 2000,
    every: int = 100,
    test_curve: bool = False,
    curves: bool = True,
    weights: Mapping[str, int] = LENET,
    rates: Mapping[str, float] = RATES,
    first: int = 0,
    diverged: Container[Key] = (),
    missing: Container[Key] = (),
    without: Sequence[str] = (),
    change: Callable[[Record], None] = lambda record: None,
    config: Mapping[str, Any] | None = None,
) -> list[Record]:
    """Write config.yaml, results.csv and each training's metrics.csv and result.json; returns the table's records.

    The numbers are plausible, differ between trainings, and agree: a record's early stop is its curve's.

    Args:
        folder: `…/<experiment>/version_N`.
        controls: arm to its levels. Each has `trials` trials a replicate.
        without: columns of the table to leave empty, such as `early_stop_train_acc`.
        first: rounds of pruning that level 0 has behind it, for a run that started from a ticket.
        diverged: trainings that end so: without numbers, their curve cut after two evaluations.
        missing: trainings that are not there.
        change: called with each record before it is written, to set other numbers.
        config: merged into the config.yaml, by its dotted keys, such as
            `{"pruning.one_shot": True, "model.init_args.dropout": 0.5}`.
    """
    arms = {TICKET: levels, **(controls or {})}
    keys = [
        (replicate, arm, trial, level)
        for replicate in range(first_replicate, first_replicate + replicates)
        for arm, of_arm in arms.items()
        for trial in range(1 if arm == TICKET else trials)
        for level in of_arm
    ]
    records = []
    for key in keys:
        if key in missing:
            continue
        training = Training(*key, run=folder)
        rows = _curve(training, steps, every)
        left = dict(weights)
        for _ in range(first + training.level):
            left = {kind: count - round(rates.get(kind, 0) * count) for kind, count in left.items()}
        total, remaining = sum(weights.values()), sum(left.values())
        record = Record(*key, OK, total, remaining, remaining / total, steps, **_results(rows), seconds=12.5)
        if key in diverged:
            record, rows = Record(*key, DIVERGED, total, remaining, remaining / total, steps, seconds=3.0), rows[:2]
        for name in without:
            setattr(record, name, None)
        change(record)
        records.append(record)
        if curves:
            _write_curve(training.folder / METRICS, rows, test_curve)
            record.write(training.folder)
    records.sort(key=lambda record: record.order)
    folder.mkdir(parents=True, exist_ok=True)
    write_table(folder, records)
    more = {"pruning.first_replicate": first_replicate} if first_replicate else {}
    (folder / CONFIG).write_text(yaml.safe_dump(_config(steps, levels, rates, replicates, {**more, **(config or {})})))
    return records


def _curve(training: Training, steps: int, every: int) -> list[dict[str, float]]:
    """Rows of a metrics.csv, test columns included; tickets are quickest at level 6, controls ever slower."""
    random = Random(str(training.order))
    level = training.level
    lag = 1 + 0.008 * (level - 6) ** 2 if training.is_ticket else 1.3 + 0.12 * level
    stop = 0.3 * steps * lag * random.uniform(0.85, 1.15)
    peak = 0.985 - 0.002 * lag + random.uniform(-0.001, 0.001)
    rows = []
    for step in range(every, steps + 1, every):
        share = step / stop
        accuracy = peak - 0.15 / (1 + (4 * share) ** 2) - 0.0005 * max(0, share - 1)
        row = {
            "step": step,
            "train_loss": 0.5 / (1 + 4 * share),
            "val_loss": 0.06 + 0.02 * (share + 1 / share),
            "val_acc": accuracy,
            "test_loss": 0.062 + 0.02 * (share + 1 / share),
            "test_acc": accuracy + 0.001,
        }
        rows.append({name: round(value, 6) for name, value in row.items()})
    return rows


def _results(rows: Sequence[dict[str, float]]) -> dict[str, Any]:
    best, last = min(rows, key=lambda row: row["val_loss"]), rows[-1]
    result: dict[str, Any] = {"early_stop_step": int(best["step"])}
    for when, row in (("early_stop", best), ("final", last)):
        for name in ("val_loss", "val_acc", "test_loss", "test_acc"):
            result[f"{when}_{name}"] = row[name]
        result[f"{when}_train_acc"] = round(min(1.0, row["val_acc"] + 0.012), 6)
    return result


def _write_curve(path: Path, rows: Sequence[dict[str, float]], test_curve: bool) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(
        text, MetricsFile(path, with_test=test_curve).columns, lineterminator="\n", extrasaction="ignore"
    )
    writer.writeheader()
    writer.writerows(rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text.getvalue())


def _config(
    steps: int, levels: Sequence[int], rates: Mapping[str, float], replicates: int, more: Mapping[str, Any]
) -> dict[str, Any]:
    config: dict[str, Any] = {
        "seed_everything": 0,
        "trainer": {"max_steps": steps},
        "model": {"class_path": "lth_lightning.models.LeNet300", "init_args": {"activation": "relu"}},
        "data": {"class_path": "lth_lightning.data.MNIST", "init_args": {"batch_size": 60}},
        "pruning": {
            "levels": max(levels, default=0),
            "rates": dict(rates),
            "one_shot": False,
            "rewind_step": 0,
            "retrain": {"class_path": "lth_lightning.callbacks.Rewind"},
            "replicates": replicates,
        },
    }
    for key, value in more.items():
        *parts, last = key.split(".")
        place = config
        for part in parts:
            place = place.setdefault(part, {})
        place[last] = value
    return config
