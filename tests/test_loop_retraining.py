"""What a level trains from: rewinding with the optimizer's state, learning-rate rewinding, fine-tuning."""

from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from loop_helpers import (
    RATES,
    Captures,
    OwnModule,
    SmallData,
    StopAt,
    StoppedError,
    assert_same,
    equal,
    go,
    level,
    load,
    tiny,
)
from test_loop_resume import FailAt, StopAfter
from test_loop_rewind import Curve
from torch import Tensor
from torch.nn.functional import cross_entropy

from lth_lightning.callbacks import FineTune, LearningRateRewind, Rewind, Rewound
from lth_lightning.callbacks.retraining import Retraining
from lth_lightning.errors import UserError
from lth_lightning.models import WarmupMultiStepLR

STEPS, OWN_RATES = 30, {"conv": 0.2, "output": 0.1}


def scheduled() -> Any:
    """Its schedule changes the rate at every one of the first 12 steps, and drops it at 20 and 25."""
    return tiny(
        optimizer=lambda p: torch.optim.Adam(p, lr=0.01),
        lr_scheduler=lambda o: WarmupMultiStepLR(o, warmup_steps=12, milestones=(20, 25)),
    )


def by_epochs() -> OwnModule:
    """Two groups of parameters; the rates are halved after each epoch of 12 steps."""
    return OwnModule(epoch_schedule=True)


PLAN = [0.01 * min(1, t / 12) * 0.1 ** ((t >= 20) + (t >= 25)) for t in range(STEPS)]
OWN_PLAN = [(0.05 * 0.5 ** (t // 12), 0.02 * 0.5 ** (t // 12)) for t in range(STEPS)]


class States(Curve):
    """Notes the optimizers' state when the first step is due, and, before step `at`, of a whole training."""

    def __init__(self, at: int = -1) -> None:
        super().__init__()
        self.at = at
        self.first: list[dict[str, Any]] = []
        self.then: list[dict[str, Any]] = []
        self.done = -1

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if self.done < 0:
            self.done = trainer.global_step
            for optimizer in trainer.optimizers:
                optimizer.register_step_pre_hook(self.note)
        super().on_train_batch_start(trainer, pl_module, batch, batch_idx)

    def note(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        # In the order of the parameters: nothing names them.
        weights = [p for group in optimizer.param_groups for p in group["params"]]
        state = [{k: torch.as_tensor(v).clone() for k, v in optimizer.state.get(p, {}).items()} for p in weights]
        self.first = self.first or state
        if self.done == self.at:
            self.then = state
        self.done += 1


def settings(own: bool, **more: Any) -> dict[str, Any]:
    return {"levels": 2, "rates": OWN_RATES if own else RATES, "evaluate_every": 10, **more}


def arguments(own: bool, **more: Any) -> dict[str, Any]:
    return {"steps": STEPS, "model": by_epochs if own else scheduled, "data": SmallData() if own else None, **more}


def close(found: list[tuple[float, ...]], expected: list[Any]) -> None:
    wanted = [rate if isinstance(rate, tuple) else (rate,) for rate in expected]
    assert len(found) == len(wanted)
    for one, other in zip(found, wanted, strict=True):
        assert one == pytest.approx(other, rel=1e-12)


OURS = pytest.mark.parametrize("own", [False, True], ids=["LeNet", "somebody's own module"])


@OURS
@pytest.mark.parametrize("k", [0, 7])
def test_learning_rate_rewinding_keeps_the_weights_and_repeats_the_schedule_from_k(
    tmp_path: Path, own: bool, k: int
) -> None:
    captures = Captures(Curve)
    go(
        tmp_path,
        settings(own, rewind_step=k, retrain=LearningRateRewind()),
        **arguments(own, callbacks=captures),
    )
    run = tmp_path / "run" / "version_0"
    close(captures.ticket(0).rates, OWN_PLAN if own else PLAN)
    for number in (1, 2):
        start, mask = captures.ticket(number), load(level(run, number) / "mask.pt")["mask"]
        final = load(level(run, number - 1) / "trained.pt")["weights"]
        assert (start.step, start.state_sizes) == (k, [0])
        assert equal(start.weights, {name: w * mask[name] if name in mask else w for name, w in final.items()})
        close(start.rates, (OWN_PLAN if own else PLAN)[k:])


@OURS
def test_weights_that_are_rewound_to_step_k_go_on_with_the_schedule_of_k(tmp_path: Path, own: bool) -> None:
    captures = Captures(Curve)
    go(tmp_path, settings(own, rewind_step=7), **arguments(own, callbacks=captures))
    point = load(tmp_path / "run" / "version_0" / "replicate_0" / "rewind.pt")["weights"]
    for number in (1, 2):
        mask = load(level(tmp_path / "run" / "version_0", number) / "mask.pt")["mask"]
        start = captures.ticket(number)
        assert equal(start.weights, {name: w * mask[name] if name in mask else w for name, w in point.items()})
        close(start.rates, (OWN_PLAN if own else PLAN)[7:])


@OURS
@pytest.mark.parametrize("k", [0, 7])
def test_fine_tuning_goes_on_at_the_last_learning_rate_for_its_steps(tmp_path: Path, own: bool, k: int) -> None:
    captures = Captures(Curve)
    records = go(
        tmp_path,
        settings(own, rewind_step=k, retrain=FineTune(14)),
        **arguments(own, callbacks=captures),
    )
    assert [record.steps for record in records] == [STEPS, 14, 14]
    run, plan = tmp_path / "run" / "version_0", OWN_PLAN if own else PLAN
    for number in (1, 2):
        start, mask = captures.ticket(number), load(level(run, number) / "mask.pt")["mask"]
        final = load(level(run, number - 1) / "trained.pt")["weights"]
        assert (start.step, start.state_sizes) == (0, [0])
        assert equal(start.weights, {name: w * mask[name] if name in mask else w for name, w in final.items()})
        close(start.rates, [plan[-1]] * 14)


@pytest.mark.parametrize("every", [12, 7])
def test_the_last_learning_rate_is_the_last_steps_where_the_schedule_moves_once_more_behind_it(
    tmp_path: Path, every: int
) -> None:
    # After each epoch, the last one too, the rates are halved: 0.025 is that of no step.
    captures = Captures(Curve)
    more = settings(True, retrain=FineTune(5), evaluate_every=every, levels=1)
    go(tmp_path, more, model=by_epochs, data=SmallData(), callbacks=captures, max_epochs=1)
    close(captures.ticket(1).rates, [(0.05, 0.02)] * 5)


def test_the_last_learning_rate_is_the_last_steps_with_long_batches_too(tmp_path: Path) -> None:
    captures = Captures(Curve)
    more = settings(False, retrain=FineTune(5), levels=1)
    go(tmp_path, more, model=scheduled, callbacks=captures, steps=25)
    close(captures.ticket(1).rates, [0.001] * 5)


@OURS
def test_fine_tuning_may_have_a_learning_rate_of_its_own(tmp_path: Path, own: bool) -> None:
    captures = Captures(Curve)
    retrain = FineTune(steps=4, learning_rate=0.003)
    go(tmp_path, settings(own, retrain=retrain, levels=1), **arguments(own, callbacks=captures))
    close(captures.ticket(1).rates, [(0.003, 0.003) if own else 0.003] * 4)


def ending_at_zero() -> Any:
    return tiny(lr_scheduler=lambda o: torch.optim.lr_scheduler.LambdaLR(o, lambda t: max(0.0, 1 - t / 10)))


def test_fine_tuning_at_rate_0_is_refused_unless_it_has_a_rate_of_its_own(tmp_path: Path) -> None:
    more = {"levels": 1, "rates": RATES, "evaluate_every": 10}
    with pytest.raises(UserError, match="learning_rate") as error:
        go(tmp_path, {**more, "retrain": FineTune(5)}, model=ending_at_zero)
    assert "\n" not in str(error.value)
    captures = Captures(Curve)
    retrain = FineTune(5, learning_rate=0.25)
    go(tmp_path, {**more, "retrain": retrain}, model=ending_at_zero, callbacks=captures)
    close(captures.ticket(1).rates, [0.25] * 5)


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: FineTune(0), "steps=0"),
        (lambda: FineTune(-3), "steps=-3"),
        (lambda: FineTune(3, learning_rate=0.0), "learning_rate=0.0"),
        (lambda: FineTune(3, learning_rate=-1.0), "learning_rate=-1.0"),
        (lambda: FineTune(3, learning_rate=float("nan")), "learning_rate=nan"),
    ],
)
def test_fine_tuning_that_cannot_be_is_refused_in_one_line(make: Any, told: str) -> None:
    with pytest.raises(UserError, match=told) as error:
        make()
    assert "\n" not in str(error.value)


def same_states(first: list[dict[str, Tensor]], second: list[dict[str, Tensor]]) -> bool:
    return len(first) == len(second) and all(
        list(one) == list(other) and all(torch.equal(one[name], other[name]) for name in one)
        for one, other in zip(first, second, strict=True)
    )


@OURS
@pytest.mark.parametrize("keeps", [True, False])
def test_the_optimizer_goes_on_with_its_state_of_step_k_or_starts_fresh(tmp_path: Path, own: bool, keeps: bool) -> None:
    captures = Captures(lambda: States(at=7))
    more = settings(own, rewind_step=7, retrain=Rewind(optimizer_state=keeps))
    go(tmp_path, more, **arguments(own, callbacks=captures))
    at_k = captures.ticket(0).then
    assert any(at_k)
    # Adam counts its steps; SGD's momentum is a sum over them.
    assert own or all(int(state["step"]) == 7 and state["exp_avg"].any() for state in at_k)
    assert not own or all(state["momentum_buffer"].any() for state in at_k)
    for number in (1, 2):
        first = captures.ticket(number).first
        assert same_states(first, at_k) if keeps else not any(first)
        close(captures.ticket(number).rates, (OWN_PLAN if own else PLAN)[7:])


def test_level_0_is_a_plain_training_whatever_is_kept_for_later(tmp_path: Path) -> None:
    captures = Captures(lambda: States(at=7))
    more = settings(False, rewind_step=7, retrain=Rewind(optimizer_state=True), levels=1)
    go(tmp_path, more, **arguments(False, callbacks=captures))
    first = captures.ticket(0)
    module = scheduled()
    module.load_state_dict(first.weights)
    optimizer = torch.optim.Adam(module.parameters(), lr=0.01)
    images, labels = (torch.cat([batch[i] for batch in first.batches]) for i in (0, 1))
    assert len(images) == STEPS
    for step in range(STEPS):
        if step == 7:
            state = [optimizer.state[p] for p in module.parameters()]
            assert same_states(first.then, [{k: v.clone() for k, v in one.items()} for one in state])
        optimizer.param_groups[0]["lr"] = first.rates[step][0]
        optimizer.zero_grad()
        cross_entropy(module(images[step]), labels[step]).backward()
        optimizer.step()
    assert equal(load(level(tmp_path / "run" / "version_0", 0) / "trained.pt")["weights"], module.state_dict())


def test_a_level_with_the_optimizers_state_is_a_plain_training_from_it(tmp_path: Path) -> None:
    captures = Captures(lambda: States(at=7))
    more = settings(False, rewind_step=7, retrain=Rewind(optimizer_state=True), levels=1)
    go(tmp_path, more, **arguments(False, callbacks=captures))
    run, start = tmp_path / "run" / "version_0", captures.ticket(1)
    mask = load(level(run, 1) / "mask.pt")["mask"]
    module = scheduled()
    module.load_state_dict(start.weights)
    optimizer = torch.optim.Adam(module.parameters(), lr=0.01)
    for parameter, state in zip(module.parameters(), captures.ticket(0).then, strict=True):
        optimizer.state[parameter] = {name: value.clone() for name, value in state.items()}
    images, labels = (torch.cat([batch[i] for batch in start.batches]) for i in (0, 1))
    assert len(images) == STEPS - 7
    for step in range(STEPS - 7):
        optimizer.param_groups[0]["lr"] = start.rates[step][0]
        optimizer.zero_grad()
        cross_entropy(module(images[step]), labels[step]).backward()
        optimizer.step()
        with torch.no_grad():
            for name, parameter in module.named_parameters():
                if name in mask:
                    parameter.mul_(mask[name])
    assert equal(load(level(run, 1) / "trained.pt")["weights"], module.state_dict())


def test_at_step_0_there_is_no_optimizer_state_to_keep() -> None:
    with pytest.raises(UserError, match="rewind_step") as error:
        go(Path("unused"), {"levels": 1, "retrain": Rewind(optimizer_state=True)})
    assert "\n" not in str(error.value)


RETRAININGS = {
    "rewind to 7 with the optimizer": {"rewind_step": 7, "retrain": Rewind(optimizer_state=True)},
    "learning-rate rewind to 0": {"retrain": LearningRateRewind(), "controls": [Rewound(levels=[2])]},
    "learning-rate rewind to 7": {"rewind_step": 7, "retrain": LearningRateRewind(), "controls": [Rewound(levels=[2])]},
    "fine-tuning": {"retrain": FineTune(16), "rewind_step": 7},
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Any:
    made: dict[tuple[str, bool], Path] = {}

    def make(name: str, own: bool) -> Path:
        if (name, own) not in made:
            logs = tmp_path_factory.mktemp("whole")
            go(logs, settings(own, **RETRAININGS[name], checkpoint_every=1, evaluate_every=5), **arguments(own))
            made[name, own] = logs / "run" / "version_0"
        return made[name, own]

    return make


@pytest.mark.thorough
@pytest.mark.parametrize("name", RETRAININGS)
@pytest.mark.parametrize(("own", "at", "stop"), [(False, 0, 19), (False, 1, 8), (False, 2, 14), (True, 2, 14)])
def test_an_interrupted_run_goes_on_bit_for_bit(
    tmp_path: Path, whole: Any, name: str, own: bool, at: int, stop: int
) -> None:
    more = settings(own, **RETRAININGS[name], checkpoint_every=1, evaluate_every=5)
    attach = lambda t: [StopAfter(stop, t.folder)] if (t.arm, t.level) == ("ticket", at) else []  # noqa: E731
    with pytest.raises(StoppedError):
        go(tmp_path, more, **arguments(own, callbacks=attach))
    run = tmp_path / "run" / "version_0"
    captures = Captures(Curve)
    go(tmp_path, more, **arguments(own, folder=run, callbacks=captures))
    assert_same(run, whole(name, own))
    if name == "fine-tuning" and at:
        rates = captures.ticket(at).rates
        assert 0 < len(rates) < 16
        close(rates, [(OWN_PLAN if own else PLAN)[-1]] * len(rates))


@OURS
def test_the_last_learning_rate_is_known_where_the_run_was_stopped_behind_it(tmp_path: Path, own: bool) -> None:
    more = settings(own, retrain=FineTune(6), checkpoint_every=1, evaluate_every=6)
    options: dict[str, Any] = arguments(own, max_epochs=2) if own else arguments(own, steps=25)
    go(tmp_path / "whole", more, **options)
    for at in (0, 1):
        logs = tmp_path / str(at)
        attach = lambda t: [FailAt()] if t.level == at else []  # noqa: B023, E731
        with pytest.raises(StoppedError):
            go(logs, more, **options, callbacks=attach)
        go(logs, more, **options, folder=logs / "run" / "version_0")
        assert_same(logs / "run" / "version_0", tmp_path / "whole" / "run" / "version_0")


@pytest.mark.parametrize("retrain", [FineTune(9), LearningRateRewind()])
def test_a_finished_run_is_extended_by_a_level(tmp_path: Path, retrain: Retraining) -> None:
    more = settings(False, retrain=retrain)
    go(tmp_path / "whole", more, **arguments(False))
    go(tmp_path, {**more, "levels": 1}, **arguments(False))
    go(tmp_path, more, **arguments(False), folder=tmp_path / "run" / "version_0")
    assert_same(tmp_path / "run" / "version_0", tmp_path / "whole" / "run" / "version_0")


def test_a_run_stopped_before_a_level_began_goes_on(tmp_path: Path) -> None:
    more = settings(False, rewind_step=7, retrain=Rewind(optimizer_state=True), checkpoint_every=100)
    go(tmp_path / "whole", more, **arguments(False))
    attach = lambda t: [StopAt(10)] if t.level == 1 else []  # noqa: E731
    with pytest.raises(StoppedError):
        go(tmp_path, more, **arguments(False, callbacks=attach))
    go(tmp_path, more, **arguments(False), folder=tmp_path / "run" / "version_0")
    assert_same(tmp_path / "run" / "version_0", tmp_path / "whole" / "run" / "version_0")
