"""What training changes in a module is kept where that can be, told where it cannot, and missed in no older file."""

import io
import json
import threading
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from loop_helpers import SMALL_REWOUND as SETTINGS
from loop_helpers import OwnModule, SmallData, StopAt, StoppedError, assert_same, equal, go, level, load, rows
from rich.console import Console

from lth_lightning.callbacks import Display, PruningLoop
from lth_lightning.callbacks.checkpoint_io import save_own
from lth_lightning.callbacks.module_state import CHANGED
from lth_lightning.results.run_folder import CHECKPOINT


def stop(training: Any) -> list[pl.Callback]:
    return [StopAt(10)] if training.level == 1 else []


def run_of(logs: Path) -> Path:
    return logs / "run" / "version_0"


class Mark:
    """Somebody's own object, of which a checkpoint cannot make new ones."""


class Streams(OwnModule):
    """Takes numbers from a generator, which nothing can put back where it was, and makes objects."""

    def __init__(self) -> None:
        super().__init__()
        self.stream = (number for number in range(1000))
        self.marks: list[Mark] = []

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        self.marks.append(Mark())
        return super().training_step(batch, batch_idx) * (1 + 0.01 * next(self.stream))

    def on_train_start(self) -> None:
        self.made_again = threading.Lock()


def test_what_cannot_be_kept_is_told_where_a_training_goes_on(tmp_path: Path) -> None:
    said = io.StringIO()
    display = Display(Console(file=said, width=300))
    with pytest.raises(StoppedError):
        go(tmp_path, dict(SETTINGS), model=Streams, data=SmallData(), callbacks=stop, display=display)
    lines = [f"Streams keeps {what}, which a checkpoint cannot" for what in ("'stream' (generator)", "'marks' (Mark)")]
    assert all(line in said.getvalue() for line in lines), "level 1 goes on from the rewind step"
    said.seek(0)
    said.truncate()
    again = Display(Console(file=said, width=300))
    go(tmp_path, dict(SETTINGS), model=Streams, data=SmallData(), folder=run_of(tmp_path), display=again)
    assert [said.getvalue().count(line) for line in lines] == [1, 1]
    assert said.getvalue().count("keeps") == 2


def test_an_ordinary_module_changes_nothing_that_would_have_to_be_kept(tmp_path: Path) -> None:
    with pytest.raises(StoppedError):
        go(tmp_path, dict(SETTINGS), model=OwnModule, data=SmallData(), callbacks=stop)
    for file, key in ((level(run_of(tmp_path), 1) / CHECKPOINT, None), (run_of(tmp_path) / "replicate_0/rewind.pt", 1)):
        content = load(file)
        (changed,) = (content["trainer"] if key else content)[CHANGED]["ranks"]
        for name in ("attributes", "dropped", "requires_grad", "lost", "results"):
            assert not changed[name], (file, name, changed[name])


class Older(PruningLoop):
    """Saves when versions did that knew nothing of a module's state."""

    def _interval_ended(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super()._interval_ended(trainer, pl_module)
        if self._is_checkpoint_due:
            self._is_checkpoint_due, self._saved_step = False, trainer.global_step
            assert self._training is not None
            save_own(trainer, self._training.folder / CHECKPOINT, self._training.identity, {})

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any) -> None:
        super().on_train_batch_end(trainer, pl_module, *args)
        if self._is_rewind_step:
            self._is_rewind_step = False
            self._module_state.content = dict  # type: ignore[method-assign]
            self._save_rewind_point(trainer, pl_module)


Older.__qualname__ = PruningLoop.__qualname__  # checkpoints name a callback by it


def stop_later(training: Any) -> list[pl.Callback]:
    return [StopAt(18)] if training.level == 1 else []


@pytest.mark.parametrize("rewind_step", [pytest.param(6, marks=pytest.mark.thorough), 12])
def test_a_run_of_an_older_version_goes_on(tmp_path: Path, rewind_step: int) -> None:
    settings = {**SETTINGS, "rewind_step": rewind_step}
    go(tmp_path / "whole", dict(settings), model=OwnModule, data=SmallData())
    with pytest.raises(StoppedError):
        go(tmp_path, Older(**settings), model=OwnModule, data=SmallData(), callbacks=stop_later)
    run, whole = run_of(tmp_path), run_of(tmp_path / "whole")
    assert CHANGED not in load(level(run, 1) / CHECKPOINT)
    go(tmp_path, dict(settings), model=OwnModule, data=SmallData(), folder=run)
    for number in (0, 1):
        one, other = (load(level(place, number) / "trained.pt") for place in (whole, run))
        assert equal(one["weights"], other["weights"])
        assert rows(level(whole, number) / "metrics.csv") == rows(level(run, number) / "metrics.csv")
    one, other = (json.loads((level(place, 1) / "result.json").read_text()) for place in (whole, run))
    assert {**one, "seconds": 0, "checksum": 0} == {**other, "seconds": 0, "checksum": 0}


class Corrects(OwnModule):
    """Restores another number than the one that was saved, and means it."""

    def __init__(self) -> None:
        super().__init__()
        self.number = 0

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        self.number += 1
        return super().training_step(batch, batch_idx)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.number = 1000

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        if not NUMBERS or NUMBERS[-1][0] is not self:
            NUMBERS.append((self, self.number))


NUMBERS: list[tuple[Any, int]] = []


def test_what_a_module_restores_itself_is_as_it_says(tmp_path: Path) -> None:
    go(tmp_path, dict(SETTINGS), model=Corrects, data=SmallData())
    assert [number for _, number in NUMBERS] == [0, 1000]


class Averages(OwnModule):
    """A buffer that a hook of the batch's end moves, as teachers' averages are."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("average", torch.zeros(3))

    @torch.no_grad()
    def on_train_batch_end(self, *_: Any) -> None:
        self.average += self.head.bias
        self.head.weight += 0.01


def test_the_rewind_point_is_of_a_step_whose_hooks_have_run_and_masks_come_after_them(tmp_path: Path) -> None:
    seen: list[bool] = []

    class Looks(pl.Callback):
        def on_train_batch_start(self, trainer: pl.Trainer, module: Any, *_: Any) -> None:
            seen.append(bool((module.head.weight == 0).any()))

    class Counted(Averages):
        def on_train_batch_end(self, *_: Any) -> None:
            super().on_train_batch_end()
            sums.append(self.average.clone())

    sums: list[Any] = []
    go(tmp_path, dict(SETTINGS), model=Counted, data=SmallData(), callbacks=lambda training: [Looks()])
    point = load(run_of(tmp_path) / "replicate_0" / "rewind.pt")
    assert torch.equal(point["weights"]["average"], sums[5])
    assert seen == [False] * 20 + [True] * 14


@pytest.mark.thorough
def test_the_same_files_come_of_an_interrupted_run(tmp_path: Path) -> None:
    go(tmp_path / "whole", dict(SETTINGS), model=Averages, data=SmallData())
    with pytest.raises(StoppedError):
        go(tmp_path, dict(SETTINGS), model=Averages, data=SmallData(), callbacks=stop)
    go(tmp_path, dict(SETTINGS), model=Averages, data=SmallData(), folder=run_of(tmp_path))
    assert_same(run_of(tmp_path / "whole"), run_of(tmp_path))


class Counts(OwnModule):
    """Counts zeros where a fit begins, which differ by level, and batches."""

    zeros = -1
    batches = 0

    def on_train_start(self) -> None:
        self.zeros = int((self.head.weight == 0).sum())

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        self.batches += 1
        SEEN.append((self.zeros, int((self.head.weight == 0).sum()), self.batches))
        return super().training_step(batch, batch_idx)


SEEN: list[tuple[int, int, int]] = []


@pytest.mark.parametrize("stop", [None, 4, 14])
def test_a_ticket_begins_with_what_its_own_hooks_set_and_goes_on_with_what_training_counted(
    tmp_path: Path, stop: int | None
) -> None:
    settings = {
        **SETTINGS,
        "levels": 1,
        "rewind_step": 10,
        "rates": {"linear": 0.5, "output": 0.5},
        "checkpoint_every": 2,
    }
    SEEN.clear()
    if stop is None:
        go(tmp_path, settings, model=Counts, data=SmallData())
    else:
        with pytest.raises(StoppedError):
            go(tmp_path, settings, model=Counts, data=SmallData(), callbacks=lambda training: [StopAt(stop)])
        go(tmp_path, settings, model=Counts, data=SmallData(), folder=run_of(tmp_path))
    assert all(said == zeros for said, zeros, _ in SEEN)
    ticket = [(zeros, batches) for _, zeros, batches in SEEN if zeros > 20]
    assert [batches for _, batches in ticket] == list(range(11, 21)), "step 10 of level 0 had counted 10"


class Remembers(OwnModule):
    """Draws its weights towards those that a fit begins with."""

    def on_train_start(self) -> None:
        self.first = self.head.weight.detach().clone()

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return super().training_step(batch, batch_idx) + (self.head.weight - self.first).square().sum()


@pytest.mark.parametrize("stop", [4, 14])
def test_a_rewind_point_after_an_interruption_leaves_out_what_hooks_set_as_without_one(
    tmp_path: Path, stop: int
) -> None:
    settings = {**SETTINGS, "levels": 1, "rewind_step": 10, "checkpoint_every": 2, "evaluate_every": 2}
    go(tmp_path / "whole", settings, model=Remembers, data=SmallData())
    with pytest.raises(StoppedError):
        go(tmp_path, settings, model=Remembers, data=SmallData(), callbacks=lambda training: [StopAt(stop)])
    go(tmp_path, settings, model=Remembers, data=SmallData(), folder=run_of(tmp_path))
    assert_same(run_of(tmp_path / "whole"), run_of(tmp_path))
