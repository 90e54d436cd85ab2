"""`pruning.together`: what trainings that are made as one batched model give is what each gives alone.

In float64, so that "the same to rounding" is narrow enough to tell a wrong sample, mask or weight from rounding.
"""

import functools
import io
import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import pytorch_lightning as pl
import torch
from loop_helpers import Capture, Captures, OwnModule, SmallData, StopAt, StoppedError, assert_same, level, load, rows
from pytorch_lightning import Trainer
from rich.console import Console
from runs import names, scalars
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW
from user_parts import Blobs

from lth_lightning.callbacks import Control, Display, PruningLoop, RandomMask, RandomReinit, Start
from lth_lightning.callbacks.maker import Maker
from lth_lightning.cli import main
from lth_lightning.data import JointOrders, StepPlan, TrainBatches
from lth_lightning.data.base import Split
from lth_lightning.errors import UserError
from lth_lightning.models import Classifier, Conv2, LeNet300, ResNet20, WarmupMultiStepLR
from lth_lightning.models.stack import Stack
from lth_lightning.pruning import Weights
from lth_lightning.results import Record, Training
from lth_lightning.seeding import derive_seed

STEPS = 40
RATES = {"conv": 0.3, "linear": 0.2, "output": 0.1}
SETTINGS: dict[str, Any] = {
    "levels": 2,
    "rates": RATES,
    "replicates": 2,
    "test_curve": True,
    "save_controls": True,
    "save_early_stop": True,
}
SHORT: dict[str, Any] = {"levels": 1, "rates": RATES, "evaluate_every": 10, "replicates": 2}
"""For tests of something else: few, short trainings."""


class Noisy(Blobs):
    """180 images of which half are labelled at random: networks overfit, so early stop comes before the end.

    In double precision, evaluated in batches of 25, the last of them smaller. Of the training images one alone has a
    first pixel that is not 0, and so no evaluated one has.
    """

    pool_size = 240

    def __init__(self, augmentation: Any = "none", dtype: torch.dtype = torch.float64) -> None:
        super().__init__(
            batch_size=20,
            validation_size=60,
            normalization="none",
            eval_batch_size=25,
            augmentation=augmentation,
        )
        normalize = self.normalize
        self.normalize = lambda images: normalize(images).to(dtype)  # type: ignore[assignment]

    def _load(self) -> tuple[Split, Split]:
        generator = torch.Generator().manual_seed(5)
        pool, test = super()._load()
        for part in (pool, test):
            part.images[:, 0, 0, 0] = 0
            wrong = torch.rand(len(part.labels), generator=generator) < 0.5
            part.labels[wrong] = torch.randint(10, (int(wrong.sum()),), generator=generator)
        return pool, test.select(torch.arange(60))

    def setup(self, stage: str | None = None) -> None:
        super().setup(stage)
        self.train.images[0, 0, 0, 0] = 255


class Little(Noisy):
    """4 x 4 pixels, for a convolutional network."""

    shape = (1, 4, 4)

    def _load(self) -> tuple[Split, Split]:
        pool, test = super()._load()
        return Split(pool.images[..., ::2, ::2], pool.labels), Split(test.images[..., ::2, ::2], test.labels)


FAST, SLOW = functools.partial(Adam, lr=0.01, fused=True), functools.partial(Adam, lr=1e-3, fused=True)


def lenet(optimizer: Any = FAST, **arguments: Any) -> LeNet300:
    return LeNet300(shape=(1, 8, 8), hidden=(16, 8), optimizer=optimizer, **arguments).double()


def conv2(optimizer: Any = SLOW, **arguments: Any) -> Conv2:
    return Conv2(shape=(1, 4, 4), optimizer=optimizer, **arguments).double()


def run(
    logs: Path,
    together: bool = True,
    *,
    model: Callable[[], pl.LightningModule] = lenet,
    data: pl.LightningDataModule | None = None,
    steps: int = STEPS,
    callbacks: Callable[[Any], Any] = lambda training: [],
    folder: Path | None = None,
    display: Display | None = None,
    workers: int = 1,
    trainer: dict[str, Any] | None = None,
    **loop: Any,
) -> Path:
    """A run in `logs`; its folder."""
    flags = {"accelerator": "cpu", "max_steps": steps, **(trainer or {})}
    PruningLoop(**loop, together=together).run(
        lambda training: Trainer(callbacks=callbacks(training), **flags),
        model,
        data or Noisy(),
        logs=logs,
        folder=folder,
        display=display or Display(enabled=False),
        workers=workers,
    )
    return folder or logs / "run" / "version_0"


# Comparing.


def close(first: str, second: str) -> bool:
    """Two cells of a table: words and whole numbers equal, other numbers to the rounding of a float32."""
    if first == second:
        return True
    if not first or not second or "." not in first + second:
        return False
    return float(first) == pytest.approx(float(second), rel=1e-6)


def assert_tables_alike(first: Path, second: Path) -> None:
    ours, theirs = rows(first), rows(second)
    assert len(ours) == len(theirs) > 0, first
    for mine, other in zip(ours, theirs, strict=True):
        assert list(mine) == list(other)
        for column in mine:
            assert column == "seconds" or close(mine[column], other[column]), (first, column, mine, other)


def assert_weights_alike(first: Weights, second: Weights, where: Any = "", tolerance: float = 1e-11) -> None:
    assert list(first) == list(second)
    for name, value in first.items():
        # Where an absurd training ended in numbers that are none, they are none in both.
        torch.testing.assert_close(
            value, second[name], rtol=0, atol=tolerance, equal_nan=True, msg=lambda m, n=name: f"{where} {n}: {m}"
        )


def assert_alike(ours: Path, theirs: Path, tolerance: float = 1e-11) -> None:
    """The same files, with the same content but for rounding. Whole numbers, words and masks are equal."""
    assert names(ours) == names(theirs)
    assert_tables_alike(ours / "results.csv", theirs / "results.csv")
    for path in sorted(theirs.glob("replicate_*/**/*")):
        mine = ours / path.relative_to(theirs)
        if path.name == "metrics.csv":
            assert_tables_alike(mine, path)
        elif path.name in ("mask.pt", "rewind.pt"):
            mine_content, content = load(mine), load(path)
            assert {k: v for k, v in mine_content.items() if not isinstance(v, dict)} == {
                k: v for k, v in content.items() if not isinstance(v, dict)
            }
            part = "mask" if path.name == "mask.pt" else "weights"
            assert list(mine_content[part]) == list(content[part])
            assert all(torch.equal(mine_content[part][name], value) for name, value in content[part].items()), path
        elif path.name == "trained.pt":
            mine_content, content = load(mine), load(path)
            assert list(mine_content) == list(content)
            for part in content:
                if isinstance(content[part], dict):
                    assert_weights_alike(mine_content[part], content[part], path, tolerance)
                else:
                    assert mine_content[part] == content[part], (path, part)
        elif path.name == "result.json":
            kept = [
                {k: str(v) for k, v in json.loads(p.read_text()).items() if k not in ("seconds", "checksum")}
                for p in (mine, path)
            ]
            assert list(kept[0]) == list(kept[1])
            assert all(close(kept[0][key], kept[1][key]) for key in kept[0]), (path, kept)


# (a), (b), (c): one run of each kind.


class Zeros(Capture):
    """As Capture; and after every interval, that what was zero at the start of a masked layer is zero."""

    def on_train_batch_end(self, trainer: Any, pl_module: pl.LightningModule, *_: Any) -> None:
        for name, value in pl_module.named_parameters():
            if name.endswith("weight"):
                assert not value[self.weights[name] == 0].any()


NETWORKS = {"LeNet300": (lenet, Noisy, STEPS, 7), "Conv2": (conv2, Little, 14, 4)}
"""Model, data, steps, and steps between evaluations: the last interval is shorter, and most cross an epoch's end."""


class Pair:
    """A run made together and one made training by training, and what each fit began with."""

    def __init__(self, folder: Path, network: str) -> None:
        model, data, steps, every = NETWORKS[network]
        # Objects of their own: a control must not carry anything from the one run into the other.
        self.captures = {True: Captures(Zeros), False: Captures(Zeros)}
        self.runs = {
            together: run(
                folder / str(together),
                together,
                model=model,
                data=data(),
                steps=steps,
                callbacks=captures,
                controls=[RandomReinit(trials=2), RandomMask(levels=[1])],
                evaluate_every=every,
                **SETTINGS,
            )
            for together, captures in self.captures.items()
        }
        self.together, self.alone = self.runs[True], self.runs[False]


@pytest.fixture(scope="module", params=list(NETWORKS))
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return Pair(tmp_path_factory.mktemp("pair"), request.param)


def test_records_curves_masks_and_weights_are_those_of_each_training_alone(pair: Pair) -> None:
    assert_alike(pair.together, pair.alone)
    table = rows(pair.together / "results.csv")
    assert len(table) == 2 * (3 + 2 * 2 + 1)
    # Otherwise the comparison would say little.
    assert len({row["early_stop_step"] for row in table}) > 2
    assert len({row["final_val_loss"] for row in table}) == len(table)


def test_every_level_is_one_fit_of_all_its_trainings(pair: Pair) -> None:
    assert list(pair.captures[True].of) == [(0, "ticket", 0, number) for number in range(3)]
    members = [len(pair.captures[True].ticket(number).weights["net.output.bias"]) for number in range(3)]
    assert members == [2, 2 * 4, 2 * 3]


def test_every_training_begins_bit_for_bit_with_its_rewound_or_fresh_weights_and_a_fresh_optimizer(pair: Pair) -> None:
    for number in range(3):
        stacked = pair.captures[True].ticket(number)
        assert (stacked.step, stacked.state_sizes) == (0, [0])
        begun = [key for key in pair.captures[False].of if key[3] == number]
        found = []
        for key in begun:
            alone = pair.captures[False].of[key].weights
            (index,) = (
                i
                for i in range(len(begun))
                if all(torch.equal(value[i], alone[name]) for name, value in stacked.weights.items())
            )
            found.append(index)
            if key[1] == "ticket":
                mask = load(level(pair.together, number, replicate=key[0]) / "mask.pt")["mask"]
                start = load(pair.together / f"replicate_{key[0]}" / "rewind.pt")["weights"]
                for name, value in stacked.weights.items():
                    assert torch.equal(value[index], start[name] * mask[name] if name in mask else start[name])
        assert sorted(found) == list(range(len(begun)))


def test_pruned_weights_are_exactly_zero_in_what_is_kept(pair: Pair) -> None:
    checked = 0
    for path in pair.together.glob("replicate_*/*/level_*/trained.pt"):
        mask, trained = load(path.with_name("mask.pt"))["mask"], load(path)
        for name, part in mask.items():
            for weights in (trained["weights"], trained["early_stop_weights"]):
                assert not weights[name][~part].any()
                assert weights[name][part].all()
                checked += int((~part).sum())
    assert checked


def test_every_promised_file_is_there_and_no_other(pair: Pair) -> None:
    training = {"mask.pt", "metrics.csv", "result.json", "trained.pt", "hparams.yaml", "events"}
    expected = {"config.yaml", "run.json", "results.csv"}
    for replicate in range(2):
        folders = [f"ticket/level_{number:02d}" for number in range(3)]
        folders += [f"random_reinit_{trial}/level_{number:02d}" for trial in range(2) for number in (1, 2)]
        folders += ["random_mask_0/level_01"]
        expected |= {f"replicate_{replicate}/{folder}/{name}" for folder in folders for name in training}
        expected |= {f"replicate_{replicate}/rewind.pt"}
        expected |= {f"summary/replicate_{replicate}/{Path(folder).parent}/events" for folder in folders}
    assert {path.as_posix() for path in names(pair.together)} == expected


def test_tensorboard_shows_the_curves_of_each_training_alone(pair: Pair) -> None:
    folders = sorted({path.parent for path in pair.alone.rglob("events.*")})
    assert len(folders) == 16 + 8
    for folder in folders:
        ours, theirs = scalars(pair.together / folder.relative_to(pair.alone)), scalars(folder)
        assert ours.keys() == theirs.keys()
        for tag, points in theirs.items():
            assert [step for step, _ in ours[tag]] == [step for step, _ in points], (folder, tag)
            assert [value for _, value in ours[tag]] == pytest.approx([value for _, value in points], rel=1e-6)


# (h) optimizers and schedules, and other plans of levels.


def scheduled(optimizer: Any) -> WarmupMultiStepLR:
    return WarmupMultiStepLR(optimizer, warmup_steps=5, milestones=(13, 20), gamma=0.3)


@pytest.mark.parametrize(
    ("optimizer", "lr_scheduler"),
    [
        (functools.partial(Adam, lr=0.02), scheduled),
        (functools.partial(SGD, lr=0.1, momentum=0.9, weight_decay=1e-2), scheduled),
        (functools.partial(SGD, lr=0.05, momentum=0.9, weight_decay=1e-2, nesterov=True, fused=True), None),
        (functools.partial(AdamW, lr=0.02, weight_decay=0.1, fused=True), None),
        (functools.partial(torch.optim.RMSprop, lr=0.003, momentum=0.5), None),
    ],
    ids=["Adam, schedule", "SGD, schedule", "SGD fused", "AdamW", "RMSprop"],
)
def test_optimizers_and_schedules_move_each_member_as_alone(tmp_path: Path, optimizer: Any, lr_scheduler: Any) -> None:
    model = lambda: lenet(optimizer=optimizer, lr_scheduler=lr_scheduler)  # noqa: E731
    settings = {**SHORT, "controls": [RandomReinit()]}
    runs = [run(tmp_path / str(flag), flag, model=model, steps=25, **settings) for flag in (True, False)]
    assert_alike(*runs)


@pytest.mark.parametrize(
    "plan",
    [
        {"levels": 2, "one_shot": True},
        {"levels": 2, "scope": "global", "rates": {"linear": 0.2, "output": 0.2}},
        {"until_density": 0.6, "train_accuracy": False, "test_curve": True},
    ],
    ids=["one-shot", "global", "until_density"],
)
def test_other_plans_give_what_they_give_alone(tmp_path: Path, plan: dict[str, Any]) -> None:
    settings = {**SHORT, "controls": [RandomReinit(levels=[1])], **plan}
    assert_alike(*(run(tmp_path / str(flag), flag, steps=20, **settings) for flag in (True, False)))


def test_a_ticket_is_what_level_0_starts_from(tmp_path: Path) -> None:
    found = run(tmp_path / "found", steps=20, **{**SHORT, "replicates": 1})
    settings = {**SHORT, "ticket": str(level(found, 1))}
    runs = [run(tmp_path / str(flag), flag, steps=20, **settings) for flag in (True, False)]
    assert_alike(*runs)
    assert load(level(runs[0], 0) / "mask.pt")["density"] == load(level(found, 1) / "mask.pt")["density"]


def test_epochs_limit_a_training_too(tmp_path: Path) -> None:
    trainer = {"max_epochs": 2, "max_steps": -1}
    assert_alike(*(run(tmp_path / str(flag), flag, trainer=trainer, **SHORT) for flag in (True, False)))
    assert {row["steps"] for row in rows(tmp_path / "True" / "run" / "version_0" / "results.csv")} == {"18"}


def test_orders_are_those_of_each_plan_alone() -> None:
    labels = torch.arange(50)
    plans = [StepPlan(total=23, every=6, seed=seed) for seed in (3, 4, 3)]
    joint = list(JointOrders(labels, 8, plans))
    assert [list(index.shape) for index in joint] == [[6, 3, 8]] * 3 + [[5, 3, 8]]
    assert len(JointOrders(labels, 8, plans)) == 4
    images = labels.float().view(-1, 1, 1, 1)
    for member, plan in enumerate(plans):
        alone = TrainBatches(labels, lambda index, _: images.index_select(0, index), 8, plan)
        for index, (batch, _) in zip(joint, alone, strict=True):
            assert torch.equal(images[index[:, member]], batch)
    assert not torch.equal(joint[0][:, 0], joint[0][:, 1])


# (d) going on.


def test_a_level_that_was_interrupted_begins_anew_and_the_run_ends_as_an_undisturbed_one(tmp_path: Path) -> None:
    settings = {**SHORT, "levels": 2, "controls": [RandomReinit()], "save_controls": True}
    whole = run(tmp_path / "whole", steps=25, **settings)
    with pytest.raises(StoppedError):
        run(tmp_path, steps=25, callbacks=lambda t: [StopAt(10)] if t.level == 1 else [], **settings)
    part = tmp_path / "run" / "version_0"
    assert len(rows(part / "results.csv")) == 2
    assert len(rows(level(part, 1) / "metrics.csv")) == 1
    finished = {path: path.stat().st_mtime_ns for path in part.glob("*/ticket/level_00/*") if "events" not in path.name}
    run(tmp_path, steps=25, folder=part, **settings)
    assert {path: path.stat().st_mtime_ns for path in finished} == finished
    # The same trainings share the fit again, so not even rounding differs.
    assert_same(part, whole)
    assert names(part) == names(whole)
    for events in {path.parent for path in whole.rglob("events.*")}:
        assert scalars(part / events.relative_to(whole)) == scalars(events)


def test_a_kill_while_a_levels_trainings_are_written_leaves_the_rest_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {**SHORT, "controls": [RandomReinit(trials=2)]}
    whole = run(tmp_path / "whole", steps=20, **settings)
    write = Maker.write

    def dying(self: Maker, training: Training, *arguments: Any) -> None:
        if (training.arm, training.trial, training.level) == ("random_reinit", 1, 1):
            raise StoppedError
        write(self, training, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Maker, "write", dying)
        with pytest.raises(StoppedError):
            run(tmp_path, steps=20, **settings)
    part = tmp_path / "run" / "version_0"
    assert len(list(part.rglob("result.json"))) == 2 + 2 + 1
    run(tmp_path, steps=20, folder=part, **settings)
    assert_alike(part, whole)


def test_a_run_that_was_begun_one_by_one_goes_on_together_and_back(tmp_path: Path) -> None:
    settings = {**SHORT, "levels": 2, "checkpoint_every": 5, "evaluate_every": 5}
    whole = run(tmp_path / "whole", False, steps=20, **settings)
    for number, together in ((1, False), (2, True)):
        stop = lambda t, number=number: [StopAt(10)] if t.level == number else []  # noqa: E731
        folder = tmp_path / "run" / "version_0" if number == 2 else None
        with pytest.raises(StoppedError):
            run(tmp_path, together, steps=20, callbacks=stop, folder=folder, **settings)
    part = tmp_path / "run" / "version_0"
    run(tmp_path, False, steps=20, folder=part, **settings)
    assert_alike(part, whole)


class Groups(pl.Callback):
    """How many trainings each fit has."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def on_train_start(self, trainer: Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module.net, Stack)
        self.sizes.append(pl_module.net.members)


def test_a_run_is_extended_by_replicates_levels_and_controls(tmp_path: Path) -> None:
    further = {**SHORT, "levels": 2, "replicates": 2, "controls": [RandomReinit()]}
    whole = run(tmp_path / "whole", steps=20, **further)
    part = run(tmp_path, steps=20, **{**SHORT, "replicates": 1})
    run(tmp_path, steps=20, folder=part, **SHORT)
    run(tmp_path, steps=20, folder=part, **further)
    assert_alike(part, whole)


def test_trainings_of_one_level_share_a_fit_also_where_a_run_is_extended(tmp_path: Path) -> None:
    part = run(tmp_path, steps=10, **{**SHORT, "replicates": 1})
    groups = Groups()
    run(tmp_path, steps=10, folder=part, callbacks=lambda t: [groups], **{**SHORT, "levels": 3})
    # Replicate 1 catches up with replicate 0, and from level 2 on they go together.
    assert groups.sizes == [1, 1, 2, 2]


# (e) divergence.


def absurd_(network: nn.Module) -> None:
    """One image alone shows the pixel that these weights see: the loss overflows in the step that takes it."""
    with torch.no_grad():
        network.get_parameter("net.fc1.weight")[:, 0] = 1e200


class Absurd(Control):
    """The ticket with weights that diverge some steps later."""

    def start(self, ticket: Start, fresh: Weights, generator: torch.Generator) -> Start:
        weights = {name: value.clone() for name, value in ticket.weights.items()}
        weights["net.fc1.weight"][:, 0] = 1e200
        return Start(ticket.mask, weights)


class Shorter(Control):
    def start(self, ticket: Start, fresh: Weights, generator: torch.Generator) -> Start:
        return Start(ticket.mask, ticket.weights, steps=10)


def test_a_control_with_a_length_of_its_own_class_is_refused_not_made_otherwise(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="replicate 0 shorter_0 level 1"):
        run(tmp_path, steps=20, **{**SHORT, "controls": [Shorter()]})


def test_a_control_that_diverges_does_not_disturb_the_others_and_ends_its_line(tmp_path: Path) -> None:
    plan: dict[str, Any] = {"levels": 2, "rates": RATES, "evaluate_every": 2, "replicates": 2}
    settings = {**plan, "controls": [RandomReinit(), Absurd(trials=2)], "test_curve": True}
    runs = [run(tmp_path / str(flag), flag, steps=20, **settings) for flag in (True, False)]
    assert_alike(*runs)
    diverged = [row for row in rows(runs[0] / "results.csv") if row["status"] == "diverged"]
    assert [(row["arm"], row["level"]) for row in diverged] == [("absurd", "1")] * 4
    # In the midst of the training, at a step of its own, after evaluations that were good.
    assert len({row["steps"] for row in diverged}) > 1
    assert all(int(row["steps"]) < 10 and row["final_test_acc"] == "" for row in diverged)
    assert any(row["early_stop_test_acc"] for row in diverged)
    assert not list(runs[0].glob("replicate_*/absurd_*/level_02"))
    # Nor do their numbers reach the others: those are what they are without them.
    without = run(tmp_path / "without", steps=20, **{**plan, "controls": [RandomReinit()], "test_curve": True})
    for path in without.glob("replicate_*/*/*/trained.pt"):
        assert_weights_alike(load(path)["weights"], load(runs[0] / path.relative_to(without))["weights"])


def test_a_replicate_whose_ticket_diverges_stops_and_the_other_goes_on(tmp_path: Path) -> None:
    def model() -> LeNet300:
        network = lenet()
        if torch.initial_seed() == derive_seed(0, 1, "init"):
            absurd_(network)
        return network

    settings = {**SHORT, "levels": 2, "evaluate_every": 2, "controls": [RandomReinit()]}
    runs = [run(tmp_path / str(flag), flag, model=model, steps=20, **settings) for flag in (True, False)]
    found = [(row["replicate"], row["arm"], row["level"], row["status"]) for row in rows(runs[0] / "results.csv")]
    assert found == [
        *[("0", "random_reinit", number, "ok") for number in "12"],
        *[("0", "ticket", number, "ok") for number in "012"],
        ("1", "ticket", "0", "diverged"),
    ]
    # The diverged one's weights, too, are those of the step that it is recorded at.
    assert_alike(*runs)


def test_where_all_diverge_the_fit_ends_there(tmp_path: Path) -> None:
    model = lambda: lenet(optimizer=lambda p: SGD(p, lr=1e200))  # noqa: E731
    groups = Groups()
    found = run(tmp_path, model=model, callbacks=lambda t: [groups], **SHORT)
    assert [(row["status"], row["steps"]) for row in rows(found / "results.csv")] == [("diverged", "10")] * 2
    assert groups.sizes == [2]
    assert len(rows(level(found, 0) / "metrics.csv")) == 1


# (f) memory.


def with_room_for(members: int, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A device on which a step of more members does not fit; the sizes that were tried."""
    tried: list[int] = []
    forward = Stack.forward

    def limited(self: Stack, images: Tensor) -> Tensor:
        if not tried or tried[-1] != self.members:
            tried.append(self.members)
        if self.members > members:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity")
        return forward(self, images)

    monkeypatch.setattr(Stack, "forward", limited)
    return tried


def spoken(logs: Path, **settings: Any) -> list[str]:
    """The lines of a run's display."""
    text = io.StringIO()
    run(logs, steps=20, display=Display(Console(file=text)), **settings)
    return text.getvalue().splitlines()


def test_what_does_not_fit_at_once_is_made_in_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {**SHORT, "levels": 2, "controls": [RandomReinit(trials=2)], "save_controls": True}
    whole = run(tmp_path / "whole", steps=20, **settings)
    tried = with_room_for(3, monkeypatch)
    lines = spoken(tmp_path, **settings)
    # The two replicates' dense networks; six trainings of each level, three by three once that is known.
    assert tried == [2, 6, 3]
    memory = [line for line in lines if "memory" in line]
    assert memory == ["6 trainings at once do not fit into the device's memory: 3 at a time."]
    assert_alike(tmp_path / "run" / "version_0", whole)


def test_groups_are_halved_until_they_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {**SHORT, "replicates": 1, "controls": [RandomReinit(trials=4)]}
    whole = run(tmp_path / "whole", steps=20, **settings)
    tried = with_room_for(1, monkeypatch)
    lines = spoken(tmp_path, **settings)
    assert tried == [1, 5, 2, 1]
    assert len([line for line in lines if "memory" in line]) == 2
    assert_alike(tmp_path / "run" / "version_0", whole)


def test_where_not_even_one_fits_one_line_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_room_for(0, monkeypatch)
    with pytest.raises(UserError, match=r"Not even one training fits .*CUDA out of memory") as error:
        run(tmp_path, steps=20, **SHORT)
    assert "\n" not in str(error.value)
    # With more room it goes on.
    monkeypatch.undo()
    part = run(tmp_path, steps=20, folder=tmp_path / "run" / "version_0", **SHORT)
    assert_alike(part, run(tmp_path / "whole", steps=20, **SHORT))


# (g) what it is not for.


class OwnStep(LeNet300):
    """A network with a loss of its own."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return 2 * super().training_step(batch, batch_idx)


class OwnHook(LeNet300):
    """A network that does something of its own with its gradients."""

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        for parameter in self.parameters():
            parameter.grad.sign_()


class Normalized(Adam):
    """Somebody's own, which takes a norm over all of a parameter."""

    def step(self, closure: Any = None) -> Any:
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.grad /= parameter.grad.norm()
        return super().step(closure)


Normalized.__name__ = "Adam"

REFUSED: dict[str, tuple[str, dict[str, Any]]] = {
    "batch norm": ("BatchNorm2d", {"model": lambda: ResNet20(shape=(1, 8, 8)), "rates": {"conv": 0.2}}),
    "dropout": ("Dropout", {"model": lambda: lenet(dropout=0.5)}),
    "own module": ("this package's networks", {"model": OwnModule, "rates": {"output": 0.2}}),
    "own data": (
        "data sets",
        {"data": SmallData(), "model": lambda: LeNet300(shape=(1, 6, 6), hidden=(16,), num_classes=3)},
    ),
    "own step": ("OwnStep", {"model": lambda: OwnStep(shape=(1, 8, 8)).double()}),
    "own hook": ("OwnHook", {"model": lambda: OwnHook(shape=(1, 8, 8)).double()}),
    "own optimizer of a known name": ("Adam", {"model": lambda: lenet(optimizer=Normalized)}),
    "clipping": ("gradient_clip_val", {"trainer": {"gradient_clip_val": 1.0}}),
    "accumulation": ("accumulate_grad_batches", {"trainer": {"accumulate_grad_batches": 2}}),
    "part of the batches": ("limit_train_batches", {"trainer": {"limit_train_batches": 3}}),
    "late rewinding": ("step 0", {"rewind_step": 5}),
    "augmentation": ("augment", {"data": Noisy(augmentation="flip_crop")}),
    "compile": ("compile", {"compile": True}),
    "Adafactor": ("Adafactor", {"model": lambda: lenet(optimizer=torch.optim.Adafactor)}),
    "LBFGS": ("LBFGS", {"model": lambda: lenet(optimizer=torch.optim.LBFGS)}),
    "float64": ("64-true", {"trainer": {"precision": "64-true"}}),
    "workers": ("workers 1", {"workers": 2}),
}


@pytest.mark.parametrize(("reason", "arguments"), REFUSED.values(), ids=REFUSED)
def test_what_would_not_be_as_alone_is_refused_in_one_line(
    tmp_path: Path, reason: str, arguments: dict[str, Any]
) -> None:
    with pytest.raises(UserError, match=r"pruning\.together") as error:
        run(tmp_path, **{**SHORT, **arguments})
    assert reason in str(error.value)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


def test_the_command_makes_trainings_together_and_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["fit", "--config", "quickstart", "--trainer.max_steps", "40", "--pruning.levels", "1"]
    words += ["--logs", str(tmp_path), "--pruning.together", "true"]
    assert main(words) == 0
    found = tmp_path / "quickstart" / "version_0"
    assert "together: true" in (found / "config.yaml").read_text()
    assert main(["fit", "--resume", str(found), "--replicates", "4"]) == 0
    assert len(rows(found / "results.csv")) == 4 * 3
    assert main([*words, "--workers", "2"]) == 2
    assert "--workers 1" in capsys.readouterr().err


# What a training alone keeps to, and those together must.


class Interrupt(pl.Callback):
    def on_train_batch_end(self, *_: Any) -> None:
        raise KeyboardInterrupt


def test_ctrl_c_stays_a_keyboard_interrupt(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT)
    try:
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, callbacks=lambda t: [Interrupt()], **SHORT)
        assert signal.getsignal(signal.SIGINT) is before
    finally:
        signal.signal(signal.SIGINT, before)


class Short(pl.Callback):
    """Somebody's own way to stop early."""

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        trainer.should_stop = trainer.global_step >= 20


def test_trainings_that_a_callback_stops_are_not_recorded(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"ended at step 20 of 40: a callback stopped it"):
        run(tmp_path, callbacks=lambda t: [Short()] if t.run != Path() else [], **SHORT)
    assert not list(tmp_path.rglob("result.json"))


@pytest.mark.parametrize("limit", [0, 1, 0.5])
@pytest.mark.parametrize("flag", ["limit_val_batches", "limit_test_batches"])
def test_flags_that_it_does_not_follow_are_refused(tmp_path: Path, flag: str, limit: float) -> None:
    with pytest.raises(UserError, match=flag):
        run(tmp_path, trainer={flag: limit}, **SHORT)


def test_an_optimizer_that_tells_parameters_apart_by_their_shape_is_refused(tmp_path: Path) -> None:
    def decaying(parameters: Any) -> AdamW:
        """The usual split; in a stack a bias has two dimensions as well."""
        parts: dict[bool, list[nn.Parameter]] = {True: [], False: []}
        for parameter in parameters:
            parts[parameter.ndim > 1].append(parameter)
        groups = [{"params": part, "weight_decay": 0.1 * matrix} for matrix, part in parts.items() if part]
        return AdamW(groups, lr=0.01)

    with pytest.raises(UserError, match=r"pruning\.together"):
        run(tmp_path, model=lambda: lenet(optimizer=decaying), **SHORT)


def test_curves_are_computed_in_the_trainers_precision(tmp_path: Path) -> None:
    """The last point of the test curve and the end's measurement are of the same weights and the same images."""
    found = run(
        tmp_path,
        model=lambda: lenet().float(),
        data=Noisy(dtype=torch.float32),
        trainer={"precision": "bf16-mixed"},
        test_curve=True,
        **SHORT,
    )
    for row in rows(found / "results.csv"):
        curve = rows(level(found, int(row["level"]), replicate=int(row["replicate"])) / "metrics.csv")
        assert curve[-1]["step"] == row["steps"]
        assert curve[-1]["test_loss"] == row["final_test_loss"]


# A GPU's memory format, on the CPU.


@pytest.fixture
def _as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """The networks prepare for a fit as if they lay on a GPU."""
    prepare = Classifier.on_fit_start

    def on_fit_start(self: Classifier) -> None:
        with mock.patch.object(Classifier, "device", torch.device("cuda"), create=True):
            prepare(self)

    monkeypatch.setattr(Classifier, "on_fit_start", on_fit_start)


BF16: dict[str, Any] = {"model": lambda: conv2().float(), "trainer": {"precision": "bf16-mixed"}, "steps": 20}


class Strides(pl.Callback):
    def on_train_end(self, trainer: Trainer, pl_module: pl.LightningModule) -> None:
        weights = pl_module.get_parameter("net.conv2.weight")
        assert weights.is_contiguous(memory_format=torch.channels_last)
        assert not weights.is_contiguous()


@pytest.mark.usefixtures("_as_on_a_gpu")
def test_channels_last_changes_neither_names_nor_masks_nor_what_resumes(tmp_path: Path) -> None:
    settings = {**SHORT, "levels": 2, "controls": [RandomMask()], "evaluate_every": 5, "checkpoint_every": 5, **BF16}
    little = functools.partial(Little, dtype=torch.float32)
    whole = run(tmp_path / "whole", False, data=little(), callbacks=lambda t: [Strides()], **settings)
    expected = list(conv2().state_dict())
    for path in whole.rglob("trained.pt"):
        weights, mask = load(path)["weights"], load(path.with_name("mask.pt"))["mask"]
        assert list(weights) == expected
        assert all(not weights[name][~part].any() for name, part in mask.items())
    for number in (1, 2):
        trained = load(level(whole, number - 1) / "trained.pt")["weights"]["net.conv2.weight"].abs()
        before, after = (load(level(whole, n) / "mask.pt")["mask"]["net.conv2.weight"] for n in (number - 1, number))
        gone = before & ~after
        assert int(gone.sum()) == round(0.3 * int(before.sum()))
        assert trained[gone].max() <= trained[after].min()
    with pytest.raises(StoppedError):
        run(tmp_path, False, data=little(), callbacks=lambda t: [StopAt(10)] if t.level == 1 else [], **settings)
    part = tmp_path / "run" / "version_0"
    assert (level(part, 1) / "last.ckpt").exists()
    run(tmp_path, False, data=little(), folder=part, **settings)
    assert_same(part, whole)


@pytest.mark.usefixtures("_as_on_a_gpu")
def test_convolutional_networks_are_trained_together_in_bf16_on_a_gpu(tmp_path: Path) -> None:
    found = run(tmp_path, data=Little(dtype=torch.float32), **{**SHORT, **BF16})
    assert [row["status"] for row in rows(found / "results.csv")] == ["ok"] * 4


# (i) compiling.


def compiled(tmp_path: Path, counts: list[int], **arguments: Any) -> tuple[Path, Path]:
    """A run that compiles and one that does not; `counts` gets the number of compiled networks before each fit."""
    settings: dict[str, Any] = {"levels": 2, "rates": RATES, "evaluate_every": 7, "controls": [RandomReinit()]}
    graphs: list[Any] = []

    def backend(graph: Any, inputs: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    make = nn.Module.compile

    def note(training: Training) -> list[pl.Callback]:
        counts.append(len(graphs))
        return [Capture()]

    torch.compiler.reset()
    with mock.patch.object(nn.Module, "compile", lambda self: make(self, backend=backend)):
        ours = run(tmp_path / "compiled", False, compile=True, callbacks=note, steps=20, **arguments, **settings)
    counts.append(len(graphs))
    return ours, run(tmp_path / "plain", False, steps=20, **arguments, **settings)


@pytest.mark.thorough
@pytest.mark.parametrize("network", ["LeNet300", "Conv2"])
def test_a_run_compiles_its_networks_once_for_all_trainings(tmp_path: Path, network: str) -> None:
    model, data, _, _ = NETWORKS[network]
    counts: list[int] = []
    ours, theirs = compiled(tmp_path, counts, model=model, data=data())
    assert_alike(ours, theirs)
    # The Trainer that is looked at, five trainings, the end. By the third training every shape has been seen.
    assert len(counts) == 7
    assert counts[2] > 0
    assert len(set(counts[3:])) == 1


def test_a_compiled_run_keeps_plain_names_and_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"levels": 1, "rates": RATES, "evaluate_every": 5, "checkpoint_every": 5}
    eager = functools.partialmethod(nn.Module.compile, backend="eager")
    with mock.patch.object(nn.Module, "compile", eager):
        whole = run(tmp_path / "whole", False, compile=True, steps=20, **settings)
        with pytest.raises(StoppedError):
            run(tmp_path, False, compile=True, steps=20, callbacks=lambda t: [StopAt(10)], **settings)
        part = tmp_path / "run" / "version_0"
        saved = torch.load(level(part, 0) / "last.ckpt", weights_only=True)
        assert list(saved["state_dict"]) == list(lenet().state_dict())
        run(tmp_path, False, compile=True, steps=20, folder=part, **settings)
    assert_same(part, whole)
    assert list(load(level(whole, 1) / "trained.pt")["weights"]) == list(lenet().state_dict())


def has_compiler() -> bool:
    from torch._inductor.cpp_builder import get_cpp_compiler

    try:
        return bool(get_cpp_compiler())
    except Exception:  # torch's own, of several kinds
        return False


@pytest.mark.thorough
def test_inductors_code_trains_to_the_same_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not has_compiler():
        pytest.skip("no C++ compiler")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr("torch._inductor.config.compile_threads", 1)  # no pool of processes is left behind
    torch.compiler.reset()
    settings: dict[str, Any] = {"levels": 1, "rates": RATES, "evaluate_every": 10, "steps": 20}
    runs = [run(tmp_path / str(flag), False, compile=flag, **settings) for flag in (True, False)]
    assert_alike(*runs, tolerance=1e-9)


def test_compiling_somebodys_own_module_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"pruning\.compile is for this package's networks"):
        run(tmp_path, False, compile=True, model=OwnModule, data=SmallData(), levels=1, rates={"output": 0.2})


def test_the_records_that_run_returns_are_those_of_the_table(tmp_path: Path) -> None:
    records: list[Record] = PruningLoop(**SHORT, together=True).run(
        lambda training: Trainer(max_steps=20, accelerator="cpu", logger=False),
        lenet,
        Noisy(),
        logs=tmp_path,
        display=Display(enabled=False),
    )
    table = rows(tmp_path / "run" / "version_0" / "results.csv")
    assert [str(record.final_test_loss) for record in records] == [row["final_test_loss"] for row in table]
    assert [record.order for record in records] == sorted(record.order for record in records)
    assert not list(tmp_path.rglob("events.*"))
