"""What TensorBoard shows beside the curves: quantities against the level, hyperparameters with their metrics, and the
layout of its CUSTOM SCALARS tab."""

import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from lth_lightning.callbacks.metrics import forms
from lth_lightning.results.record import Record
from lth_lightning.results.training import TICKET, Training

METRICS = (
    "density",
    "early_stop_step",
    "early_stop_val_loss",
    "early_stop_test_acc",
    "early_stop_train_acc",
    "final_test_acc",
    "final_train_acc",
)

LEVELS = {
    "early-stop step": "early_stop_step",
    "test accuracy at early stop": "early_stop_test_acc",
    "test accuracy at the end": "final_test_acc",
    "density": "density",
}
CURVES = {"validation loss": "val_loss", "validation accuracy": "val_acc", "training loss": "train_loss"}
TEST_CURVES = {"test accuracy": "test_acc"}


def layout(test_curve: bool, first_replicate: int = 0) -> dict[str, dict[str, list[Any]]]:
    """Charts that overlay all selected runs, by their tags: the paper's Fig. 4 above, its Fig. 3 and 11 below.

    A chart of test accuracy where the run has such a curve (`test_curve`).

    TensorBoard selects no run at all where there are more than 40, as in most of ours, and opens this tab empty. It
    selects all that its filter leaves, if these are no more than 40, so the titles say what to filter by.
    """
    curves = CURVES | (TEST_CURVES if test_curve else {})
    return {
        "Levels (x: level). Empty? Filter the runs at the left by: summary": {
            title: ["Multiline", [f"^level/{name}$"]] for title, name in LEVELS.items()
        },
        f"Curves (x: optimizer steps). Empty? Filter the runs at the left by: replicate_{first_replicate}/ticket": {
            # However the module logs it. TensorBoard draws every tag that matches.
            title: ["Multiline", [f"^({'|'.join(forms(name))})$"]]
            for title, name in curves.items()
        },
    }


_SUFFIX = ".hparams"


class SummaryBoard:
    """Curves whose x axis is the level: a TensorBoard run for each line of levels, in `<run>/summary/`.

    Written anew from the records on resume. A line has one event file: TensorBoard reads files in the order of their
    names, which is not that of their making within a second, and draws a line in the order it reads.

    Args:
        run: its folder.
        records: of the trainings that are finished.
        test_curve: whether the run has one.
        first_replicate: number of the run's first one.
    """

    def __init__(self, run: Path, records: Sequence[Record], test_curve: bool, first_replicate: int = 0) -> None:
        self._folder = run / "summary"
        self._writers: dict[Path, SummaryWriter] = {}
        if self._folder.exists():
            shutil.rmtree(self._folder)
        # In the line that every run has: in a line of its own the layout would be one without points.
        line = self._writer(Training(first_replicate, TICKET, 0, 0, Path()))
        line.add_custom_scalars(layout(test_curve, first_replicate))
        for record in records:
            self.add(record)

    def add(self, record: Record) -> None:
        """Add one training's point to its line."""
        training = Training(record.replicate, record.arm, record.trial, record.level, Path())
        writer = self._writer(training)
        _add_point(writer, record)
        writer.flush()

    def _writer(self, training: Training) -> SummaryWriter:
        """That of the training's line."""
        folder = self._folder / f"replicate_{training.replicate}" / training.label
        if folder not in self._writers:
            self._writers[folder] = SummaryWriter(str(folder))
        return self._writers[folder]

    def close(self) -> None:
        """Close the event files."""
        for writer in self._writers.values():
            writer.close()


def add_hyperparameters(training: Training, record: Record) -> None:
    """Add a row of the HPARAMS tab to the training's own TensorBoard run."""
    identity = {name: getattr(record, name) for name in ("replicate", "arm", "trial", "level", "density")}
    for path in training.folder.glob(f"events.*{_SUFFIX}"):
        path.unlink()  # of a process that was killed before it could record the training
    with SummaryWriter(str(training.folder), filename_suffix=_SUFFIX) as writer:
        # `add_hparams` would make a folder named by the time; this writes its events here, and the metrics as points
        # at the level, so that they lie on the summary's curves.
        scores = {tag: value for tag, value in _points(record).items() if tag != "level/density"}
        for event in hparams(identity, scores):
            writer.file_writer.add_summary(event)
        _add_point(writer, record)


def _points(record: Record) -> dict[str, float]:
    return {f"level/{name}": value for name, value in asdict(record).items() if name in METRICS and value is not None}


def _add_point(writer: SummaryWriter, record: Record) -> None:
    for tag, value in _points(record).items():
        writer.add_scalar(tag, value, record.level)
