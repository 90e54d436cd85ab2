"""Pruned weights that are frozen at their initial values instead of 0."""

from collections.abc import Callable
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
    StoppedError,
    assert_same,
    equal,
    go,
    level,
    load,
    pruned_by_magnitude,
    tiny,
)
from test_loop_resume import StopAfter
from test_loop_rewind import Curve
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from lth_lightning.callbacks import FineTune, LearningRateRewind, PruningLoop, RandomReinit, Rewound, SearchedAnew
from lth_lightning.errors import UserError
from lth_lightning.pruning import MaskKeeper, rewind
from lth_lightning.pruning.frozen import frozen

LOOP = {"levels": 2, "rates": RATES, "evaluate_every": 5, "save_early_stop": True}
Optimizer = Callable[[Any], torch.optim.Optimizer]


def adam(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=0.01)


def sgd(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.05, momentum=0.9, weight_decay=0.02)


OPTIMIZERS = pytest.mark.parametrize("optimizer", [adam, sgd], ids=["Adam", "SGD, momentum and decay"])


def bits(first: Tensor, second: Tensor) -> bool:
    return torch.equal(first.contiguous().view(torch.int32), second.contiguous().view(torch.int32))


def plain(module: nn.Module, optimizer: Optimizer, batches: list[Any], start: Any, mask: Any, values: Any) -> Any:
    """A training in which `mask` survives and the others are written back to `values` after each step."""
    module.load_state_dict(start)
    made = optimizer(module.parameters())
    parameters = dict(module.named_parameters())
    for images, labels in zip(*(torch.cat([batch[i] for batch in batches]) for i in (0, 1)), strict=True):
        made.zero_grad()
        cross_entropy(module(images), labels).backward()
        made.step()
        with torch.no_grad():
            for name, part in mask.items():
                parameters[name].copy_(torch.where(part, parameters[name], values[name]))
    return module.state_dict()


class EachStep(Curve):
    """Notes all weights after each optimizer step."""

    def __init__(self) -> None:
        super().__init__()
        self.after: list[dict[str, Tensor]] = []

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if self.step < 0:
            for optimizer in trainer.optimizers:
                optimizer.register_step_post_hook(lambda *_: self.after.append(self.now(pl_module)))
        super().on_train_batch_start(trainer, pl_module, batch, batch_idx)

    @staticmethod
    def now(module: nn.Module) -> dict[str, Tensor]:
        return {name: value.detach().clone() for name, value in module.state_dict().items()}


@OPTIMIZERS
@pytest.mark.parametrize("k", [0, 7])
def test_pruned_weights_have_exactly_their_initial_values_after_every_step(
    tmp_path: Path, optimizer: Optimizer, k: int
) -> None:
    captures = Captures(EachStep)
    model = lambda: tiny(optimizer=optimizer)  # noqa: E731
    records = go(tmp_path, {**LOOP, "pruned": "init", "rewind_step": k}, model=model, callbacks=captures)
    run = tmp_path / "run" / "version_0"
    point = load(run / "replicate_0" / "rewind.pt")["weights"]
    # The dense network has nothing that is frozen.
    first = captures.ticket(0)
    dense = {name: torch.ones_like(point[name], dtype=torch.bool) for name in load_mask(run, 0)}
    assert equal(plain(model(), optimizer, first.batches, first.weights, dense, point), trained(run, 0))
    for number in (1, 2):
        mask, capture = load_mask(run, number), captures.ticket(number)
        # Rewinding, the second time as well, restores all of the network.
        assert equal(capture.weights, point)
        assert len(capture.after) == 20 - k
        content = load(level(run, number) / "trained.pt")
        for weights in [*capture.after, content["weights"], content["early_stop_weights"]]:
            assert all(bits(weights[name][~part], point[name][~part]) for name, part in mask.items())
            assert all(not torch.equal(weights[name][part], point[name][part]) for name, part in mask.items())
        expected = plain(model(), optimizer, capture.batches, point, mask, point)
        assert equal(expected, content["weights"])
        left = sum(int(part.sum()) for part in mask.values())
        assert records[number].weights_remaining == left
        assert records[number].density == pytest.approx(left / 1232)
        assert equal(mask, pruned_by_magnitude(load_mask(run, number - 1), trained(run, number - 1), by_name()))


def by_name() -> dict[str, float]:
    return {"net.fc1.weight": 0.2, "net.fc2.weight": 0.2, "net.output.weight": 0.1}


def load_mask(run: Path, number: int, arm: str = "ticket") -> dict[str, Tensor]:
    return load(level(run, number, arm) / "mask.pt")["mask"]


def trained(run: Path, number: int, arm: str = "ticket") -> dict[str, Tensor]:
    return load(level(run, number, arm) / "trained.pt")["weights"]


def by_hand(point: dict[str, Tensor], finals: list[dict[str, Tensor]], masks: list[dict[str, Tensor]]) -> Any:
    """What each weight is frozen at by the last of `masks`: decided once, in the training before it was pruned."""
    values = {}
    for name in masks[0]:
        flat = [0.0] * point[name].numel()
        initial = point[name].flatten().tolist()
        for place in range(len(flat)):
            for final, mask in zip(finals, masks, strict=True):
                if not mask[name].flatten()[place]:
                    shrunk = abs(final[name].flatten()[place].item()) < abs(initial[place])
                    flat[place] = 0.0 if shrunk else initial[place]
                    break
        values[name] = torch.tensor(flat).view_as(point[name])
    return values


@OPTIMIZERS
@pytest.mark.parametrize("one_shot", [False, True], ids=["iterative", "one-shot"])
def test_weights_that_have_shrunk_are_frozen_at_0_and_the_others_at_their_initial_values(
    tmp_path: Path, optimizer: Optimizer, one_shot: bool
) -> None:
    captures = Captures(EachStep)
    model = lambda: tiny(optimizer=optimizer)  # noqa: E731
    settings = {**LOOP, "pruned": "zero_if_shrunk", "one_shot": one_shot}
    go(tmp_path, settings, model=model, callbacks=captures)
    run = tmp_path / "run" / "version_0"
    point = load(run / "replicate_0" / "rewind.pt")["weights"]
    kinds = set()
    for number in (1, 2):
        parents = [0] if one_shot else range(number)
        levels = [number] if one_shot else range(1, number + 1)
        masks = [load_mask(run, n) for n in levels]
        values = by_hand(point, [trained(run, n) for n in parents], masks)
        mask, capture = masks[-1], captures.ticket(number)
        start = {name: torch.where(mask[name], w, values[name]) if name in mask else w for name, w in point.items()}
        assert equal(capture.weights, start)
        for weights in capture.after:
            assert all(torch.equal(weights[name][~part], values[name][~part]) for name, part in mask.items())
        assert equal(plain(model(), optimizer, capture.batches, start, mask, values), trained(run, number))
        for name, part in mask.items():
            kinds |= {(number, bool(value)) for value in values[name][~part].tolist()}
    assert kinds == {(1, False), (1, True), (2, False), (2, True)}


def test_a_weight_that_was_frozen_before_is_not_judged_again() -> None:
    origin = {"w": torch.tensor([0.5, -0.5, 0.5, -0.0, 0.0, 2.0])}
    final = {"w": torch.tensor([0.5, 0.0, -0.4, 0.3, 0.0, -2.0])}
    mask = {"w": torch.zeros(6, dtype=torch.bool)}
    values = frozen("zero_if_shrunk", mask, origin, final, origin)["w"]
    assert values.tolist() == [0.5, 0.0, 0.0, 0.0, 0.0, 2.0]
    assert frozen("init", mask, origin, final, origin)["w"].tolist() == origin["w"].tolist()
    assert frozen("zero", mask, origin, final, origin) == {}
    assert origin["w"].tolist() == [0.5, -0.5, 0.5, 0.0, 0.0, 2.0]


def test_a_keeper_writes_given_values_and_zeros_elsewhere() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2), nn.Linear(2, 2))
    mask = {f"{i}.weight": torch.rand(model[i].weight.shape) < 0.5 for i in range(2)}
    mask["0.weight"].view(-1)[0], mask["1.weight"].view(-1)[0] = False, False
    before = {name: value.clone() for name, value in model.state_dict().items()}
    values = {"0.weight": torch.randn(4, 3).double() * ~mask["0.weight"]}
    keeper = MaskKeeper(model, mask, values)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 1
    for _ in range(3):  # again and again, nothing adds up
        keeper.mask_weights()
    part = mask["0.weight"]
    assert torch.equal(model[0].weight[part], (before["0.weight"] + 1)[part])
    assert torch.equal(model[0].weight[~part], values["0.weight"].float()[~part])
    assert not model[1].weight[~mask["1.weight"]].any()
    rewind(model, before, mask, values)
    rewind(model, before, mask, values)
    assert torch.equal(model[0].weight, torch.where(part, before["0.weight"], values["0.weight"].float()))
    assert torch.equal(model[2].weight, before["2.weight"])


@pytest.mark.parametrize("retrain", [LearningRateRewind(), FineTune(6)])
def test_survivors_that_stay_as_trained_stand_among_initial_values(tmp_path: Path, retrain: Any) -> None:
    captures = Captures(EachStep)
    settings = {**LOOP, "pruned": "init", "retrain": retrain, "controls": [Rewound(levels=[2]), RandomReinit()]}
    go(tmp_path, settings, callbacks=captures)
    run = tmp_path / "run" / "version_0"
    point = load(run / "replicate_0" / "rewind.pt")["weights"]
    for number in (1, 2):
        mask, final = load_mask(run, number), trained(run, number - 1)
        start = {n: torch.where(mask[n], w, point[n]) if n in mask else w for n, w in final.items()}
        assert equal(captures.ticket(number).weights, start)
        assert all(
            bits(weights[name][~part], point[name][~part])
            for weights in captures.ticket(number).after
            for name, part in mask.items()
        )
        # The control's pruned weights have the values that it was drawn with, which are not the ticket's.
        control = captures.of[0, "random_reinit", 0, number]
        for name, part in mask.items():
            assert control.weights[name][~part].all()
            assert not (control.weights[name] == point[name]).any()
            assert all(bits(w[name][~part], control.weights[name][~part]) for w in control.after)
    assert equal(captures.of[0, "rewound", 0, 2].weights, point)


def test_somebodys_own_module_has_frozen_weights_too(tmp_path: Path) -> None:
    captures = Captures(EachStep)
    settings = {"levels": 2, "rates": {"conv": 0.2, "output": 0.1}, "evaluate_every": 5, "pruned": "init"}
    go(tmp_path, settings, model=OwnModule, data=SmallData(), callbacks=captures, gradient_clip_val=0.1)
    run = tmp_path / "run" / "version_0"
    point = load(run / "replicate_0" / "rewind.pt")["weights"]
    for number in (1, 2):
        assert equal(captures.ticket(number).weights, point)
        for weights in captures.ticket(number).after:
            assert all(bits(weights[name][~part], point[name][~part]) for name, part in load_mask(run, number).items())


@pytest.mark.thorough
@pytest.mark.parametrize("pruned", ["init", "zero_if_shrunk"])
@pytest.mark.parametrize("own", [False, True], ids=["LeNet", "somebody's own module"])
def test_an_interrupted_run_with_frozen_weights_goes_on(tmp_path: Path, pruned: str, own: bool) -> None:
    rates = {"conv": 0.2, "output": 0.1} if own else RATES
    settings = {**LOOP, "rates": rates, "pruned": pruned, "checkpoint_every": 1, "rewind_step": 4}
    settings |= {"controls": [RandomReinit(levels=[2])]}
    model, data = (OwnModule, SmallData) if own else (tiny, lambda: None)
    go(tmp_path / "whole", settings, model=model, data=data())
    for index, (arm, number) in enumerate((("ticket", 2), ("random_reinit", 2))):
        logs = tmp_path / str(index)
        attach = lambda t: [StopAfter(12, t.folder)] if (t.arm, t.level) == (arm, number) else []  # noqa: B023, E731
        with pytest.raises(StoppedError):
            go(logs, settings, model=model, data=data(), callbacks=attach)
        go(logs, settings, model=model, data=data(), folder=logs / "run" / "version_0")
        assert_same(logs / "run" / "version_0", tmp_path / "whole" / "run" / "version_0")


@pytest.mark.parametrize("kernels", ["compact", "csr"])
@pytest.mark.parametrize("pruned", ["init", "zero_if_shrunk"])
def test_kernels_that_leave_pruned_weights_out_are_refused(kernels: Any, pruned: Any) -> None:
    with pytest.raises(UserError, match=f"pruning.kernels {kernels}") as error:
        PruningLoop(pruned=pruned, kernels=kernels)
    assert "\n" not in str(error.value)


def test_a_control_that_searches_masks_is_refused_beside_frozen_weights(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="searches its own masks") as error:
        go(tmp_path, {**LOOP, "pruned": "init", "controls": [SearchedAnew()]})
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())
