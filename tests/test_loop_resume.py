"""PruningLoop: a run that was interrupted at any step and goes on equals one that was not, bit for bit."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from loop_helpers import (
    RATES,
    TEST,
    TRAIN,
    VAL,
    OwnModule,
    SmallData,
    StopAt,
    StoppedError,
    WithLoaders,
    assert_same,
    go,
    level,
    load,
    rows,
    tiny,
)
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from lth_lightning.callbacks import RandomReinit
from lth_lightning.data import Digits
from lth_lightning.data.base import Split, TensorDataModule
from lth_lightning.data.normalization import MeanStd
from lth_lightning.models import LeNet300, WarmupMultiStepLR

OWN = {"rates": {"conv": 0.2, "output": 0.1}, "levels": 1}
EVERY = {"checkpoint_every": 1, "save_early_stop": True, "train_accuracy": False}


class StopAfter(pl.Callback):
    """Raises within the optimizer step after which `step` are done: in the midst of a long batch, too."""

    def __init__(self, step: int, folder: Path) -> None:
        self.step, self.folder = step, folder
        self.done = -1

    def state_dict(self) -> dict[str, Any]:
        return {}  # it is no part of what is trained

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if self.done < 0:
            self.done = trainer.global_step
            for optimizer in trainer.optimizers:
                optimizer.register_step_post_hook(self.count)

    def count(self, *_: Any) -> None:
        self.done += 1
        if self.done >= self.step:
            # There is something to go on from.
            assert load(self.folder / "last.ckpt")["global_step"] < self.step
            raise StoppedError


def interrupted(logs: Path, settings: dict[str, Any], stop: int, at: tuple[str, int], **arguments: Any) -> Path:
    """A run that stops at `stop` steps of the training of arm and level `at`, and then goes on."""

    def attach(training: Any) -> list[pl.Callback]:
        return [StopAfter(stop, training.folder)] if (training.arm, training.level) == at else []

    make_data = arguments.pop("data")
    with pytest.raises(StoppedError):
        go(logs, dict(settings), data=make_data and make_data(), callbacks=attach, **arguments)
    run = logs / "run" / "version_0"
    go(logs, dict(settings), data=make_data and make_data(), folder=run, **arguments)
    return run


def whole(logs: Path, settings: dict[str, Any], **arguments: Any) -> Path:
    make_data = arguments.pop("data")
    go(logs, dict(settings), data=make_data and make_data(), **arguments)
    return logs / "run" / "version_0"


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Uninterrupted runs, one for each set of options."""

    made: dict[str, Path] = {}

    def make(key: str, settings: dict[str, Any], arguments: dict[str, Any]) -> Path:
        if key not in made:
            made[key] = whole(tmp_path_factory.mktemp("whole"), settings, **arguments)
        return made[key]

    return make


# An epoch of SmallData has 12 batches: 4 divides it, 5 does not. Stops: in epoch 0, before and after its end, later.
@pytest.mark.parametrize("stop", [7, 12, 13, 29])
@pytest.mark.parametrize("every", [4, 5])
def test_a_foreign_module_goes_on_within_an_epoch(
    tmp_path: Path, reference: Callable[..., Path], every: int, stop: int
) -> None:
    settings = {**OWN, **EVERY, "evaluate_every": every}
    arguments = {"steps": 32, "model": lambda: OwnModule(epoch_schedule=True), "data": SmallData}
    expected = reference(f"own {every}", settings, arguments)
    assert_same(interrupted(tmp_path, settings, stop, ("ticket", 1), **arguments), expected)


@pytest.mark.parametrize("stop", [8, 12, 25])
def test_a_training_in_epochs_goes_on(tmp_path: Path, reference: Callable[..., Path], stop: int) -> None:
    settings = {**OWN, **EVERY, "evaluate_every": 6}
    arguments = {"max_epochs": 3, "model": lambda: OwnModule(epoch_schedule=True), "data": SmallData}
    expected = reference("epochs", settings, arguments)
    assert_same(interrupted(tmp_path, settings, stop, ("ticket", 0), **arguments), expected)


def test_a_module_with_loaders_of_its_own_goes_on(tmp_path: Path) -> None:
    settings = {**OWN, **EVERY, "evaluate_every": 5}
    arguments = {"steps": 30, "model": WithLoaders, "data": None, "own_data": True}
    expected = whole(tmp_path / "whole", settings, **arguments)
    assert_same(interrupted(tmp_path, settings, 17, ("ticket", 1), **arguments), expected)


class Stream(IterableDataset):
    """Draws noise as it goes, and has no length."""

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for image, label in zip(*TRAIN.tensors, strict=True):
            yield image + 0.1 * torch.randn(image.shape), label


class Streamed(SmallData):
    def train_dataloader(self) -> Any:
        return DataLoader(Stream(), batch_size=8)


class Noisy(SmallData):
    """Draws in its worker processes."""

    def train_dataloader(self) -> Any:
        return DataLoader(TRAIN, batch_size=8, shuffle=True, collate_fn=noisy, num_workers=1)


def noisy(samples: list[Any]) -> list[Tensor]:
    images, labels = (torch.stack(part) for part in zip(*samples, strict=True))
    return [images + 0.1 * torch.randn(images.shape), labels]


@pytest.mark.parametrize("data", [Streamed, Noisy])
def test_loaders_that_draw_go_on_with_the_same_draws(tmp_path: Path, data: type[pl.LightningDataModule]) -> None:
    settings = {**OWN, **EVERY, "evaluate_every": 5}
    arguments = {"steps": 20, "model": OwnModule, "data": data}
    expected = whole(tmp_path / "whole", settings, **arguments)
    assert_same(interrupted(tmp_path, settings, 13, ("ticket", 1), **arguments), expected)


# 5 accumulated batches a step, and the rest of an epoch of 12: evaluations fall within an accumulation.
@pytest.mark.parametrize("stop", [4, 6, 8])
def test_accumulated_gradients_are_not_lost(tmp_path: Path, reference: Callable[..., Path], stop: int) -> None:
    settings = {**OWN, **EVERY, "evaluate_every": 1}
    arguments = {"steps": 9, "model": OwnModule, "data": SmallData, "accumulate_grad_batches": 5}
    expected = reference("accumulated", settings, arguments)
    assert_same(interrupted(tmp_path, settings, stop, ("ticket", 0), **arguments), expected)


def test_clipped_ordinary_batches_of_our_own_network_go_on(tmp_path: Path) -> None:
    settings = {"rates": RATES, "levels": 1, **EVERY, "evaluate_every": 7}
    model = lambda: tiny(dropout=0.3)  # noqa: E731
    arguments = {"steps": 40, "model": model, "data": Digits, "gradient_clip_val": 0.5}
    expected = whole(tmp_path / "whole", settings, **arguments)
    assert_same(interrupted(tmp_path, settings, 30, ("ticket", 1), **arguments), expected)


def dropping() -> LeNet300:
    return tiny(
        dropout=0.3,
        optimizer=lambda p: torch.optim.Adam(p, lr=0.01),
        lr_scheduler=lambda o: WarmupMultiStepLR(o, warmup_steps=10, milestones=(25,)),
    )


# An epoch of Digits has 20 steps.
@pytest.mark.parametrize(
    ("rewind_step", "stop", "at"),
    [
        (0, 11, ("ticket", 0)),
        (0, 25, ("random_reinit", 1)),
        (6, 4, ("ticket", 0)),
        (6, 7, ("ticket", 0)),
        (6, 14, ("ticket", 0)),
        (6, 7, ("ticket", 1)),
        (6, 21, ("ticket", 1)),
        (10, 11, ("ticket", 1)),
        (10, 30, ("ticket", 1)),
    ],
)
def test_long_batches_with_dropout_and_a_schedule_go_on(
    tmp_path: Path, reference: Callable[..., Path], rewind_step: int, stop: int, at: tuple[str, int]
) -> None:
    settings = {"rates": RATES, "levels": 1, **EVERY, "evaluate_every": 10 if stop != 4 else 3}
    settings |= {"rewind_step": rewind_step, "controls": [RandomReinit()]}
    arguments = {"steps": 40, "model": dropping, "data": Digits}
    key = f"dropout {rewind_step} {settings['evaluate_every']}"
    expected = reference(key, settings, arguments)
    assert_same(interrupted(tmp_path, settings, stop, at, **arguments), expected)


# Ordinary batches: k within an epoch of 12, at its end and in a later one.
@pytest.mark.parametrize(("k", "stop"), [(5, 6), (5, 13), (12, 13), (12, 25), (14, 15), (14, 29)])
def test_a_foreign_module_that_rewinds_to_step_k_goes_on(
    tmp_path: Path, reference: Callable[..., Path], k: int, stop: int
) -> None:
    settings = {**OWN, **EVERY, "evaluate_every": 4, "rewind_step": k}
    arguments = {"steps": 32, "model": lambda: OwnModule(epoch_schedule=True), "data": SmallData}
    expected = reference(f"own from {k}", settings, arguments)
    assert_same(interrupted(tmp_path, settings, stop, ("ticket", 1), **arguments), expected)


class Pictures(TensorDataModule):
    """Small colour images at random, flipped and cropped as CIFAR10's are."""

    num_classes, shape, pool_size = 4, (3, 8, 8), 150
    mean_std = MeanStd([0.5, 0.5, 0.5], [0.25, 0.25, 0.25])

    def __init__(self) -> None:
        super().__init__(batch_size=12, validation_size=30, augmentation="flip_crop")

    def _load(self) -> tuple[Split, Split]:
        generator = torch.Generator().manual_seed(0)
        images = torch.randint(256, (190, 3, 8, 8), generator=generator, dtype=torch.uint8)
        labels = torch.randint(4, (190,), generator=generator)
        return Split(images[:150], labels[:150]), Split(images[150:], labels[150:])


@pytest.mark.parametrize("flags", [{}, {"gradient_clip_val": 1.0}], ids=["long batches", "ordinary batches"])
def test_augmented_images_go_on(tmp_path: Path, flags: dict[str, Any]) -> None:
    settings = {"rates": RATES, "levels": 1, **EVERY, "evaluate_every": 7}
    model = lambda: LeNet300(shape=(3, 8, 8), num_classes=4, hidden=(10, 8))  # noqa: E731
    arguments = {"steps": 35, "model": model, "data": Pictures, **flags}
    expected = whole(tmp_path / "whole", settings, **arguments)
    for index, stop in enumerate((9, 24)):
        run = interrupted(tmp_path / str(index), settings, stop, ("ticket", 1), **arguments)
        assert_same(run, expected)


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard shows of a training."""
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
    return {tag: [(point.step, point.value) for point in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


@pytest.mark.parametrize("own", [False, True], ids=["LeNet", "somebody's own module"])
def test_curves_past_the_last_checkpoint_are_made_anew(tmp_path: Path, own: bool) -> None:
    settings = {**OWN, "rates": {"linear": 0.2, "output": 0.1}, "evaluate_every": 5, "checkpoint_every": 10}
    model, make = (OwnModule, SmallData) if own else (tiny, Digits)
    expected = whole(tmp_path / "whole", settings, steps=30, model=model, data=make)
    with pytest.raises(StoppedError):
        go(tmp_path, settings, steps=30, model=model, data=make(), callbacks=lambda training: [StopAt(25)])
    run = tmp_path / "run" / "version_0"
    assert [int(row["step"]) for row in rows(level(run, 0) / "metrics.csv")] == [5, 10, 15, 20, 25]
    assert load(level(run, 0) / "last.ckpt")["global_step"] == 20
    go(tmp_path, settings, steps=30, model=model, data=make(), folder=run)
    assert_same(run, expected)
    for number in (0, 1):
        ours, theirs = scalars(level(run, number)), scalars(level(expected, number))
        assert {"val_loss", "val_acc"} <= set(ours)
        assert len(ours["val_loss"]) == 6
        assert ours == theirs


class FailAt(pl.Callback):
    """Raises when the test set is due: after the fit, before anything is recorded."""

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        raise StoppedError


@pytest.mark.parametrize("own", [False, True], ids=["LeNet", "somebody's own module"])
@pytest.mark.parametrize("steps", [20, 22])
def test_a_training_that_ended_but_was_not_recorded_goes_on(tmp_path: Path, own: bool, steps: int) -> None:
    settings = {**OWN, **EVERY, "evaluate_every": 10, "rates": {"linear": 0.2, "output": 0.1}}
    model, make = (OwnModule, SmallData) if own else (tiny, Digits)
    expected = whole(tmp_path / "whole", settings, steps=steps, model=model, data=make)
    attach = lambda training: [FailAt()] if training.level == 1 else []  # noqa: E731
    with pytest.raises(StoppedError):
        go(tmp_path, settings, steps=steps, model=model, data=make(), callbacks=attach)
    run = tmp_path / "run" / "version_0"
    assert not (level(run, 1) / "result.json").exists()
    go(tmp_path, settings, steps=steps, model=model, data=make(), folder=run)
    assert_same(run, expected)
    assert not list(run.glob("**/last.ckpt"))


def test_a_run_interrupted_before_its_first_checkpoint_begins_that_training_again(tmp_path: Path) -> None:
    settings = {"rates": RATES, "levels": 1, "evaluate_every": 5, "checkpoint_every": 100}
    expected = whole(tmp_path / "whole", settings, data=Digits)
    for arm_level in (0, 1):
        logs = tmp_path / str(arm_level)
        attach = lambda training: [StopAt(10)] if training.level == arm_level else []  # noqa: B023, E731
        with pytest.raises(StoppedError):
            go(logs, settings, callbacks=attach)
        run = logs / "run" / "version_0"
        assert not list(run.glob("**/last.ckpt"))
        go(logs, settings, folder=run)
        assert_same(run, expected)


def test_a_run_may_be_interrupted_many_times(tmp_path: Path) -> None:
    settings = {**OWN, **EVERY, "evaluate_every": 5}
    arguments = {"steps": 30, "model": OwnModule}
    expected = whole(tmp_path / "whole", settings, data=SmallData, **arguments)
    folder, sessions = None, 0
    while True:
        stop = iter((7, 14, 16, 22, 29, 10, 27, 1000, 1000, 1000))
        for _ in range(sessions):
            next(stop)
        step = next(stop)
        sessions += 1
        try:
            attach = lambda training: [StopAt(step)]  # noqa: B023, E731
            go(tmp_path, settings, data=SmallData(), folder=folder, callbacks=attach, **arguments)
            break
        except StoppedError:
            folder = tmp_path / "run" / "version_0"
    assert sessions == 8
    assert_same(tmp_path / "run" / "version_0", expected)


def test_what_was_interrupted_keeps_its_data_sets_apart() -> None:
    # The three small sets share no image: a mix-up would show in the numbers that these tests compare.
    images = [{tuple(image.flatten().tolist()) for image in data.tensors[0]} for data in (TRAIN, VAL, TEST)]
    assert len(set.union(*images)) == 96 + 30 + 33
