"""Controls of a length of their own: untrained, or of n steps."""

from pathlib import Path
from typing import Any

import pytest
import torch
from loop_helpers import (
    RATES,
    TEST,
    TRAIN,
    VAL,
    Captures,
    OwnModule,
    SmallData,
    StoppedError,
    WithLoaders,
    assert_same,
    go,
    level,
    load,
    make_trainer,
    rows,
    tiny,
)
from test_loop_resume import FailAt, StopAfter
from test_loop_rewind import Curve
from torch.nn.functional import cross_entropy

from lth_lightning.callbacks import Display, FineTune, Noise, PruningLoop, RandomMask, RandomReinit, Rewound, SignFlips
from lth_lightning.callbacks.driver import Driver
from lth_lightning.data import Digits
from lth_lightning.models import LeNet300, WarmupMultiStepLR
from lth_lightning.results import Record

LOOP = {"levels": 2, "rates": RATES, "evaluate_every": 10}
OWN = {**LOOP, "rates": {"conv": 0.2, "output": 0.1}, "train_accuracy": True}


def evaluated(model: Any, images: torch.Tensor, labels: torch.Tensor) -> tuple[float, float]:
    """Loss and accuracy."""
    with torch.no_grad():
        logits = model.eval()(images)
    return cross_entropy(logits, labels).item(), (logits.argmax(1) == labels).float().mean().item()


def parts_of(own: bool) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    if own:
        return {"train": TRAIN.tensors, "val": VAL.tensors, "test": TEST.tensors}
    data = Digits()
    data.setup()
    names = ("train", "val", "test")
    return {name: (data.normalize(getattr(data, name).images), getattr(data, name).labels) for name in names}


def assert_is_untrained(record: Record, run: Path, own: bool, test_curve: bool) -> None:
    """Its numbers are those of the masked weights at the rewind point."""
    point = load(run / "replicate_0" / "rewind.pt")["weights"]
    folder = level(run, record.level, f"{record.arm}_0")
    mask = load(folder / "mask.pt")["mask"]
    model = OwnModule() if own else tiny()
    model.load_state_dict({name: w * mask[name] if name in mask else w for name, w in point.items()})
    numbers = {part: evaluated(model, *sets) for part, sets in parts_of(own).items()}
    assert (record.steps, record.early_stop_step, record.status) == (0, 0, "ok")
    for when in ("early_stop", "final"):
        for part in ("val", "test"):
            loss, accuracy = (getattr(record, f"{when}_{part}_{what}") for what in ("loss", "acc"))
            assert (loss, accuracy) == pytest.approx(numbers[part], rel=1e-5)
        assert getattr(record, f"{when}_train_acc") == pytest.approx(numbers["train"][1], abs=2e-3)
    (row,) = rows(folder / "metrics.csv")
    assert (row["step"], row["train_loss"]) == ("0", "")
    assert (float(row["val_loss"]), float(row["val_acc"])) == pytest.approx(numbers["val"], rel=1e-5)
    assert ("test_loss" in row) == test_curve
    if test_curve:
        assert (float(row["test_loss"]), float(row["test_acc"])) == pytest.approx(numbers["test"], rel=1e-5)
    assert not (folder / "last.ckpt").exists()


def untrained() -> list[Any]:
    return [Rewound(steps=0, name="supermask")]


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("k", [0, 7])
@pytest.mark.parametrize("test_curve", [False, True])
def test_a_control_of_0_steps_is_the_masked_weights_evaluated(
    tmp_path: Path, test_curve: bool, k: int, workers: int
) -> None:
    loop = PruningLoop(**LOOP, test_curve=test_curve, rewind_step=k, controls=untrained(), save_controls=True)
    display = Display(enabled=False)
    records = loop.run(lambda _: make_trainer(20), tiny, Digits(), logs=tmp_path, workers=workers, display=display)
    found = [record for record in records if record.arm == "supermask"]
    assert [record.level for record in found] == [1, 2]
    run = tmp_path / "run" / "version_0"
    for record in found:
        assert_is_untrained(record, run, False, test_curve)
        mask = load(level(run, record.level) / "mask.pt")["mask"]
        kept = load(level(run, record.level, "supermask_0") / "trained.pt")
        point = load(run / "replicate_0" / "rewind.pt")["weights"]
        assert all(torch.equal(kept["weights"][n], w * mask[n] if n in mask else w) for n, w in point.items())


def test_its_test_curve_is_there_where_it_is_all_that_is_left_to_make(tmp_path: Path) -> None:
    settings = {**LOOP, "test_curve": True}
    go(tmp_path, settings)
    run = tmp_path / "run" / "version_0"
    records = go(tmp_path, {**settings, "controls": untrained()}, folder=run)
    for record in records:
        if record.arm == "supermask":
            assert_is_untrained(record, run, False, True)


@pytest.mark.parametrize("k", [0, 7])
@pytest.mark.parametrize("workers", [1, 2])
def test_somebodys_own_module_is_evaluated_untrained_too(tmp_path: Path, k: int, workers: int) -> None:
    loop = PruningLoop(**OWN, rewind_step=k, controls=untrained())
    make = lambda _: make_trainer(20)  # noqa: E731
    records = loop.run(make, OwnModule, SmallData(), logs=tmp_path, workers=workers, display=Display(enabled=False))
    found = [record for record in records if record.arm == "supermask"]
    assert len(found) == 2
    for record in found:
        assert_is_untrained(record, tmp_path / "run" / "version_0", True, False)


def test_a_module_with_loaders_of_its_own_is_evaluated_untrained_too(tmp_path: Path) -> None:
    records = go(tmp_path, {**OWN, "controls": untrained()}, model=WithLoaders, own_data=True)
    for record in records:
        if record.arm == "supermask":
            assert_is_untrained(record, tmp_path / "run" / "version_0", True, False)


def scheduled() -> LeNet300:
    return tiny(
        optimizer=lambda p: torch.optim.Adam(p, lr=0.01),
        lr_scheduler=lambda o: WarmupMultiStepLR(o, warmup_steps=12, milestones=(20, 25)),
    )


PLAN = [0.01 * min(1, t / 12) * 0.1 ** ((t >= 20) + (t >= 25)) for t in range(60)]


# 3 end within an interval, 10 at its end, 40 behind the whole length of 30.
@pytest.mark.parametrize("steps", [3, 10, 40])
@pytest.mark.parametrize("k", [0, 7])
def test_a_control_of_n_steps_makes_n_steps_of_its_schedule(tmp_path: Path, steps: int, k: int) -> None:
    captures = Captures(Curve)
    controls = [Noise(0.5, steps=steps), SignFlips(1, steps=steps), RandomReinit(steps=steps), RandomMask()]
    settings = {**LOOP, "levels": 1, "rewind_step": k, "controls": controls}
    records = {r.arm: r for r in go(tmp_path, settings, steps=30, model=scheduled, callbacks=captures)}
    for arm, first in (("noise_0.5", k), ("sign_flips_1", k), ("random_reinit", 0)):
        rates = captures.of[0, arm, 0, 1].rates
        assert captures.of[0, arm, 0, 1].step == first
        assert [rate for (rate,) in rates] == pytest.approx(PLAN[first : first + steps])
        # Steps count from the beginning of the schedule, as those of the tickets do.
        assert records[arm].steps == first + steps
        last = int(rows(level(tmp_path / "run" / "version_0", 1, f"{arm}_0") / "metrics.csv")[-1]["step"])
        assert last == first + steps
    assert len(captures.of[0, "random_mask", 0, 1].rates) == 30
    assert len(captures.ticket(1).rates) == 30 - k


@pytest.mark.parametrize("k", [0, 7, 12])
@pytest.mark.parametrize("limit", ["max_steps", "max_epochs"])
def test_somebodys_own_module_makes_n_steps_too(tmp_path: Path, k: int, limit: str) -> None:
    captures = Captures(Curve)
    flags: dict[str, Any] = {"steps": 24} if limit == "max_steps" else {"max_epochs": 2}
    controls = [Rewound(steps=14), RandomReinit(steps=30)]
    settings = {**OWN, "levels": 1, "rewind_step": k, "controls": controls}
    model = lambda: OwnModule(epoch_schedule=True)  # noqa: E731
    go(tmp_path, settings, model=model, data=SmallData(), callbacks=captures, **flags)
    for arm, first, steps in (("rewound", k, 14), ("random_reinit", 0, 30)):
        rates = captures.of[0, arm, 0, 1].rates
        assert captures.of[0, arm, 0, 1].step == first
        assert [one for one, _ in rates] == [0.05 * 0.5 ** (t // 12) for t in range(first, first + steps)]


@pytest.mark.thorough
@pytest.mark.parametrize("own", [False, True], ids=["LeNet", "somebody's own module"])
@pytest.mark.parametrize("test_curve", [False, True])
def test_an_interrupted_run_with_them_goes_on(tmp_path: Path, own: bool, test_curve: bool) -> None:
    settings = {**(OWN if own else LOOP), "levels": 1, "evaluate_every": 5, "checkpoint_every": 1, "rewind_step": 7}
    settings |= {"controls": [Noise(1, steps=16), Rewound(steps=0)], "test_curve": test_curve and not own}
    options: dict[str, Any] = {"model": OwnModule, "data": SmallData()} if own else {}
    go(tmp_path / "whole", settings, **options)
    for index, (arm, number) in enumerate((("noise_1", 1), ("ticket", 1))):
        logs = tmp_path / str(index)
        attach = lambda t: [StopAfter(13, t.folder)] if (t.arm, t.level) == (arm, number) else []  # noqa: B023, E731
        with pytest.raises(StoppedError):
            go(logs, settings, callbacks=attach, **options)
        go(logs, settings, folder=logs / "run" / "version_0", **options)
        assert_same(logs / "run" / "version_0", tmp_path / "whole" / "run" / "version_0")


# Evaluations at 10 and 20, and one more at the end, which has two loaders; what is measured then has one.
@pytest.mark.parametrize("flags", [{"gradient_clip_val": 0.5}, {"accumulate_grad_batches": 2}])
def test_a_test_curve_may_end_between_evaluations(tmp_path: Path, flags: dict[str, Any]) -> None:
    go(tmp_path, {**LOOP, "levels": 0, "test_curve": True}, steps=25, **flags)
    folder = level(tmp_path / "run" / "version_0", 0)
    model = tiny()
    model.load_state_dict(load(folder / "trained.pt")["weights"])
    found = rows(folder / "metrics.csv")
    assert [row["step"] for row in found] == ["10", "20", "25"]
    for part in ("val", "test"):
        numbers = [float(found[-1][f"{part}_{what}"]) for what in ("loss", "acc")]
        assert numbers == pytest.approx(evaluated(model, *parts_of(False)[part]), rel=1e-5)


def test_an_untrained_control_that_was_stopped_goes_on(tmp_path: Path) -> None:
    settings = {**LOOP, "levels": 1, "rewind_step": 7, "controls": untrained(), "test_curve": True}
    go(tmp_path / "whole", settings)
    attach = lambda t: [FailAt()] if t.arm == "supermask" else []  # noqa: E731
    with pytest.raises(StoppedError):
        go(tmp_path, settings, callbacks=attach)
    run = tmp_path / "run" / "version_0"
    go(tmp_path, settings, folder=run)
    assert_same(run, tmp_path / "whole" / "run" / "version_0")
    assert not list(run.glob("**/last.ckpt"))


# What each training makes: level 0 20 steps, and the others as the option says.
@pytest.mark.parametrize(
    ("settings", "steps"),
    [
        ({"controls": [Noise(1), Rewound(steps=0)]}, 20 * 3 + 20 * 2),
        ({"controls": [Rewound(steps=3)]}, 20 * 3 + 3 * 2),
        ({"rewind_step": 7, "controls": [RandomReinit(steps=3)]}, 20 + 13 * 2 + 3 * 2),
        ({"rewind_step": 7, "controls": [RandomReinit(), Noise(2, levels=[2], steps=4)]}, 20 + 13 * 2 + 20 * 2 + 4),
        ({"rewind_step": 7, "retrain": FineTune(5), "controls": [RandomMask(levels=[1])]}, 20 + 5 * 2 + 20),
    ],
)
def test_a_dry_run_counts_the_steps_that_are_made(tmp_path: Path, settings: dict[str, Any], steps: int) -> None:
    captures = Captures(Curve)
    loop = PruningLoop(**{**LOOP, **settings})
    driver = Driver(
        loop, lambda t: make_trainer(20, captures(t)), tiny, Digits(), seed=0, display=Display(enabled=False)
    )
    driver.prepare()
    counted = sum(loop.steps_of(training, driver.steps or 0) for training in driver.plan(Path()))
    captures.of.clear()
    go(tmp_path, loop, callbacks=captures)
    assert sum(len(capture.rates) for capture in captures.of.values()) == steps
    assert counted == steps
