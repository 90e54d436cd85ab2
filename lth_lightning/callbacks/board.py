"""The summary in TensorBoard: curves whose x axis is the level, and hyperparameters with their metrics."""

import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from lth_lightning.results.record import Record
from lth_lightning.results.training import Training

METRICS = (
    "density",
    "early_stop_step",
    "early_stop_val_loss",
    "early_stop_test_acc",
    "early_stop_train_acc",
    "final_test_acc",
    "final_train_acc",
)


class SummaryBoard:
    """One TensorBoard run for each line of levels, in `<run>/summary/`; written anew from the records on resume."""

    def __init__(self, run: Path, records: Sequence[Record]) -> None:
        self._folder = run / "summary"
        if self._folder.exists():
            shutil.rmtree(self._folder)
        for record in records:
            self.add(record)

    def add(self, record: Record) -> None:
        """Add one training's point to its line."""
        training = Training(record.replicate, record.arm, record.trial, record.level, Path())
        folder = self._folder / f"replicate_{record.replicate}" / training.label
        values = {name: value for name, value in asdict(record).items() if name in METRICS and value is not None}
        with SummaryWriter(str(folder)) as writer:
            for name, value in values.items():
                writer.add_scalar(f"level/{name}", value, record.level)
        identity = {name: getattr(record, name) for name in ("replicate", "arm", "trial", "level", "density")}
        with SummaryWriter(str(folder / f"level_{record.level:02d}")) as writer:
            # `add_hparams` would make a folder named by the time; this writes the same three events here.
            scores = {f"hparam/{name}": value for name, value in values.items() if name != "density"}
            for event in hparams(identity, scores):
                writer.file_writer.add_summary(event)
            for name, value in scores.items():
                writer.add_scalar(name, value)
