"""PruningLoop with a rewind step k > 0: level 0 trains from the start, the others from k."""

from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from loop_helpers import (
    RATES,
    Capture,
    Captures,
    OwnModule,
    SmallData,
    equal,
    go,
    level,
    load,
    rows,
    tiny,
)
from torch.nn.functional import cross_entropy

from lth_lightning.callbacks import RandomReinit
from lth_lightning.errors import UserError
from lth_lightning.models import WarmupMultiStepLR

STEPS = 30
INSIDE, ON_ONE = 7, 10
"""Steps inside an evaluation interval of 10, and at its end."""


class Curve(Capture):
    """Notes the learning rate of every step and the batches of the whole training."""

    def __init__(self) -> None:
        super().__init__()
        self.rates: list[tuple[float, ...]] = []
        self.batches: list[Any] = []

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if self.step < 0:
            for optimizer in trainer.optimizers:
                optimizer.register_step_pre_hook(
                    lambda o, *_: self.rates.append(tuple(group["lr"] for group in o.param_groups))
                )
        self.batches.append([part.clone() for part in batch])
        super().on_train_batch_start(trainer, pl_module, batch, batch_idx)


def scheduled() -> Any:
    return tiny(
        optimizer=lambda p: torch.optim.Adam(p, lr=0.01),
        lr_scheduler=lambda o: WarmupMultiStepLR(o, warmup_steps=12, milestones=(20, 25)),
    )


@pytest.fixture(scope="module", params=[INSIDE, ON_ONE], ids=["inside an interval", "at its end"])
def late(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[int, Path, Captures, list[Any]]:
    logs, captures = tmp_path_factory.mktemp("late"), Captures(Curve)
    settings = {"levels": 2, "rates": RATES, "evaluate_every": 10, "rewind_step": request.param}
    settings |= {"controls": [RandomReinit(levels=[2])], "checkpoint_every": 10}
    records = go(logs, settings, steps=STEPS, model=scheduled, callbacks=captures)
    return request.param, logs / "run" / "version_0", captures, records


def test_the_rewind_point_is_what_a_plain_training_of_k_steps_gives(
    late: tuple[int, Path, Captures, list[Any]],
) -> None:
    k, run, captures, _ = late
    first = captures.ticket(0)
    assert first.step == 0
    module = scheduled()
    module.load_state_dict(first.weights)
    optimizer = torch.optim.Adam(module.parameters(), lr=0.01)
    images, labels = (torch.cat([batch[i] for batch in first.batches]) for i in (0, 1))
    assert len(images) == STEPS
    for step in range(k):
        for group in optimizer.param_groups:
            group["lr"] = 0.01 * min(1.0, step / 12)
        optimizer.zero_grad()
        cross_entropy(module(images[step]), labels[step]).backward()
        optimizer.step()
    point = load(run / "replicate_0" / "rewind.pt")
    assert point["step"] == k
    assert (point["format"], point["seed"]) == (1, 0)
    assert equal(point["weights"], module.state_dict())


@pytest.mark.parametrize("number", [1, 2])
def test_a_level_starts_at_step_k_with_a_fresh_optimizer(
    late: tuple[int, Path, Captures, list[Any]], number: int
) -> None:
    k, run, captures, _ = late
    start = captures.ticket(number)
    weights = load(run / "replicate_0" / "rewind.pt")["weights"]
    mask = load(level(run, number) / "mask.pt")["mask"]
    assert start.step == k
    assert start.state_sizes == [0]
    assert equal(start.weights, {name: w * mask[name] if name in mask else w for name, w in weights.items()})


def test_the_learning_rate_goes_on_from_k(late: tuple[int, Path, Captures, list[Any]]) -> None:
    k, _, captures, _ = late
    rates = captures.ticket(0).rates
    assert len(rates) == STEPS
    assert rates[0] == (0.0,)
    assert rates[15] == (0.01,)
    for number in (1, 2):
        assert captures.ticket(number).rates == rates[k:]


def test_steps_and_curves_count_from_the_beginning(late: tuple[int, Path, Captures, list[Any]]) -> None:
    k, run, _, records = late
    assert [record.steps for record in records] == [STEPS] * 4
    assert [record.arm for record in records] == ["random_reinit", "ticket", "ticket", "ticket"]
    for number in (1, 2):
        assert [int(row["step"]) for row in rows(level(run, number) / "metrics.csv")] == [
            step for step in (10, 20, 30) if step > k
        ]
    assert [int(row["step"]) for row in rows(level(run, 0) / "metrics.csv")] == sorted({k, 10, 20, 30})
    tickets = [record for record in records if record.arm == "ticket"]
    assert all(record.early_stop_step > k for record in tickets[1:])


def test_a_level_takes_its_own_orders_samples_from_step_k_on(late: tuple[int, Path, Captures, list[Any]]) -> None:
    # 30 steps of 60 are one and a half epochs of 1,200: an epoch's samples come once each, those before k were skipped.
    k, _, captures, _ = late
    for number in (1, 2):
        images = torch.cat([batch[0] for batch in captures.ticket(number).batches])
        assert len(images) == STEPS - k
        epoch = [tuple(image.flatten().tolist()) for image in images[: 20 - k].flatten(0, 1)]
        full = {tuple(image.flatten().tolist()) for image in images.flatten(0, 1)}
        assert len(set(epoch)) > 0.97 * len(epoch)
        assert len(full) > 0.5 * 1200


def test_a_reinitialized_control_trains_from_step_0(late: tuple[int, Path, Captures, list[Any]]) -> None:
    _, run, captures, _ = late
    control = captures.of[0, "random_reinit", 0, 2]
    assert control.step == 0
    assert control.rates == captures.ticket(0).rates
    assert int(rows(level(run, 2, "random_reinit_0") / "metrics.csv")[0]["step"]) <= 10


class NotedEpochs(Curve):
    """Notes in which epoch each step falls, too."""

    def __init__(self) -> None:
        super().__init__()
        self.epochs: list[int] = []

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self.epochs.append(trainer.current_epoch)
        super().on_train_batch_start(trainer, pl_module, batch, batch_idx)


# An epoch has 12 batches.
@pytest.mark.parametrize("k", [5, 10, 12, 17, 24])
@pytest.mark.parametrize("limit", ["max_steps", "max_epochs"])
def test_a_foreign_module_rewinds_to_step_k(tmp_path: Path, k: int, limit: str) -> None:
    captures = Captures(NotedEpochs)
    settings = {"levels": 2, "rates": {"conv": 0.2, "output": 0.1}, "evaluate_every": 10, "rewind_step": k}
    flags: dict[str, Any] = {"steps": 36} if limit == "max_steps" else {"max_epochs": 3}
    model = lambda: OwnModule(epoch_schedule=True)  # noqa: E731
    records = go(tmp_path, settings, model=model, data=SmallData(), callbacks=captures, **flags)
    run = tmp_path / "run" / "version_0"
    weights = load(run / "replicate_0" / "rewind.pt")["weights"]
    assert [record.steps for record in records] == [36] * 3
    first = captures.ticket(0)
    assert first.epochs == [0] * 12 + [1] * 12 + [2] * 12
    assert [group for group, _ in first.rates] == [0.05] * 12 + [0.025] * 12 + [0.0125] * 12
    assert int(weights["block.norm.num_batches_tracked"]) == k
    for number in (1, 2):
        start, mask = captures.ticket(number), load(level(run, number) / "mask.pt")["mask"]
        assert (start.step, start.state_sizes) == (k, [0])
        assert equal(start.weights, {name: w * mask[name] if name in mask else w for name, w in weights.items()})
        assert start.epochs == first.epochs[k:]
        assert start.rates == first.rates[k:]
        assert [int(row["step"]) for row in rows(level(run, number) / "metrics.csv")] == [
            step for step in (10, 20, 30, 36) if step > k
        ]
        # Each epoch's samples come once: whole epochs after k hold every sample.
        labels = torch.cat([batch[0].flatten(1).sum(1) for batch in start.batches])
        assert len(set(labels[-96:].tolist())) == 96


def test_rewinding_counts_optimizer_steps_not_accumulated_batches(tmp_path: Path) -> None:
    captures = Captures(NotedEpochs)
    settings = {"levels": 1, "rates": {"conv": 0.2, "output": 0.1}, "evaluate_every": 2, "rewind_step": 3}
    go(tmp_path, settings, steps=8, model=OwnModule, data=SmallData(), callbacks=captures, accumulate_grad_batches=2)
    assert len(captures.ticket(0).batches) == 16
    assert captures.ticket(1).step == 3
    assert len(captures.ticket(1).batches) == 10


@pytest.mark.parametrize("k", [20, 21])
def test_a_rewind_step_at_or_past_the_end_is_refused(tmp_path: Path, k: int) -> None:
    with pytest.raises(UserError, match="rewind_step"):
        go(tmp_path, {"levels": 1, "rates": RATES, "rewind_step": k}, steps=20)
    with pytest.raises(UserError, match="rewind_step"):
        go(tmp_path, {"levels": 1, "rates": {"output": 0.1}, "rewind_step": k}, model=OwnModule, data=SmallData())
    assert not list(tmp_path.iterdir())


def test_a_rewind_step_that_epochs_do_not_reach_is_refused(tmp_path: Path) -> None:
    settings = {"levels": 1, "rates": {"output": 0.1}, "rewind_step": 12, "evaluate_every": 5}
    with pytest.raises(UserError, match="rewind_step"):
        go(tmp_path, settings, model=OwnModule, data=SmallData(), max_epochs=1)
    with pytest.raises(UserError, match="rewind_step"):
        go(tmp_path, {**settings, "rewind_step": 20}, max_epochs=1)


def test_a_negative_rewind_step_is_refused() -> None:
    with pytest.raises(UserError, match="rewind_step"):
        go(Path("unused"), {"rewind_step": -1})
