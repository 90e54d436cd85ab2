"""`pruning.kernels`: compact and CSR layers train to what masked ones train to, and leave the same files."""

from pathlib import Path
from typing import Any

import pytest
import torch
from loop_helpers import SHAPE, Capture, StopAt, StoppedError, go, level, load, rows

from lth_lightning.callbacks import PruningLoop, RandomReinit
from lth_lightning.errors import UserError
from lth_lightning.models import LeNet300, ResNet20
from lth_lightning.pruning.compact import CompactLinear
from lth_lightning.pruning.csr import CSRLinear

HIDDEN = (1000, 40)
"""Layers of 64,000 and 40,000 weights: CSR kernels are not used for small ones."""
LOOP: dict[str, Any] = {"one_shot": True, "grid": [0.05, 0.01], "evaluate_every": 20, "save_early_stop": True}
LAYERS = {"compact": CompactLinear, "csr": CSRLinear}


def wide(**arguments: Any) -> LeNet300:
    return LeNet300(shape=SHAPE, hidden=HIDDEN, **arguments)


def loop(kernels: str) -> PruningLoop:
    return PruningLoop(kernels=kernels, controls=[RandomReinit()], **LOOP)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def masked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    logs = tmp_path_factory.mktemp("masked")
    go(logs, loop("masked"), steps=60, model=wide)
    return logs / "run" / "version_0"


def assert_same_run(found: Path, expected: Path) -> None:
    """Masks bit for bit, weights and numbers to float32 rounding, pruned weights exactly zero."""
    for number in (0, 1, 2):
        here, there = level(found, number), level(expected, number)
        mask = load(there / "mask.pt")["mask"]
        for name, part in load(here / "mask.pt")["mask"].items():
            assert torch.equal(part, mask[name]), name
        ours, theirs = load(here / "trained.pt"), load(there / "trained.pt")
        for kind in ("weights", "early_stop_weights"):
            for name, value in theirs[kind].items():
                torch.testing.assert_close(ours[kind][name], value, rtol=1e-3, atol=1e-4)
                if name in mask:
                    assert not ours[kind][name][~mask[name]].any(), name
        for mine, other in zip(rows(here / "metrics.csv"), rows(there / "metrics.csv"), strict=True):
            assert mine["step"] == other["step"]
            assert float(mine["val_loss"]) == pytest.approx(float(other["val_loss"]), rel=1e-3)
    for mine, other in zip(rows(found / "results.csv"), rows(expected / "results.csv"), strict=True):
        for column in ("arm", "level", "weights_remaining", "density", "steps", "early_stop_step"):
            assert mine[column] == other[column]
        assert float(mine["final_test_acc"]) == pytest.approx(float(other["final_test_acc"]), abs=0.006)


@pytest.mark.parametrize("kernels", ["compact", "csr"])
def test_a_run_gives_what_a_masked_one_gives(tmp_path: Path, masked: Path, kernels: str) -> None:
    kinds = []

    class Look(Capture):
        def on_train_start(self, trainer: Any, pl_module: Any) -> None:
            kinds.append({type(layer) for layer in pl_module.modules()})

    go(tmp_path, loop(kernels), steps=60, model=wide, callbacks=lambda training: [Look()])
    assert [LAYERS[kernels] in kind for kind in kinds] == [False, True, True, True, True]
    assert_same_run(tmp_path / "run" / "version_0", masked)


@pytest.mark.thorough
@pytest.mark.parametrize("kernels", ["compact", "csr"])
def test_a_run_that_is_stopped_within_a_level_goes_on_bit_for_bit(tmp_path: Path, kernels: str) -> None:
    go(tmp_path / "whole", loop(kernels), steps=60, model=wide)
    settings = {"checkpoint_every": 20, **LOOP}
    again = lambda: PruningLoop(kernels=kernels, controls=[RandomReinit()], **settings)  # type: ignore[arg-type]  # noqa: E731
    with pytest.raises(StoppedError):
        go(tmp_path, again(), steps=60, model=wide, callbacks=lambda t: [StopAt(40)] if t.level == 1 else [])
    run = tmp_path / "run" / "version_0"
    go(tmp_path, again(), steps=60, model=wide, folder=run)
    for number in (1, 2):
        ours = load(level(run, number) / "trained.pt")["weights"]
        theirs = load(level(tmp_path / "whole" / "run" / "version_0", number) / "trained.pt")["weights"]
        for name, value in theirs.items():
            assert torch.equal(ours[name], value), name


@pytest.mark.parametrize("kernels", ["compact", "csr"])
def test_a_level_starts_from_the_rewound_weights_bit_for_bit(tmp_path: Path, kernels: str) -> None:
    seen: dict[int, Capture] = {}

    def callbacks(training: Any) -> list[Capture]:
        if training.is_ticket:
            seen[training.level] = Capture()
        return [seen[training.level]] if training.is_ticket else []

    go(tmp_path, PruningLoop(kernels=kernels, rewind_step=20, **LOOP), steps=60, model=wide, callbacks=callbacks)  # type: ignore[arg-type]
    run = tmp_path / "run" / "version_0"
    start = load(run / "replicate_0" / "rewind.pt")["weights"]
    for number in (1, 2):
        mask = load(level(run, number) / "mask.pt")["mask"]
        assert seen[number].step == 20
        for name, value in start.items():
            expected = value * mask[name] if name in mask else value
            assert torch.equal(seen[number].weights[name], expected), name


@pytest.mark.parametrize(
    ("settings", "model", "flags", "part"),
    [
        ({"kernels": "compact"}, lambda: ResNet20(num_classes=10, shape=(1, 8, 8)), {}, "compact"),
        (
            {"kernels": "compact"},
            lambda: wide(optimizer=lambda p: torch.optim.AdamW(p, lr=1e-3, weight_decay=0.01)),
            {},
            "weight decay",
        ),
        (
            {"kernels": "compact"},
            lambda: wide(optimizer=lambda p: torch.optim.SGD([{"params": list(p), "weight_decay": 0.1}], lr=0.1)),
            {},
            "weight decay",
        ),
        (
            {"kernels": "csr"},
            lambda: wide(optimizer=lambda p: torch.optim.Adafactor(p, lr=0.01)),
            {},
            "Adafactor",
        ),
        ({"kernels": "csr"}, wide, {"precision": "bf16-mixed"}, "float32"),
        ({"kernels": "csr", "together": True}, wide, {}, "kernels"),
    ],
)
def test_what_kernels_do_not_go_with_is_refused_before_anything_is_written(
    tmp_path: Path, settings: dict[str, Any], model: Any, flags: dict[str, Any], part: str
) -> None:
    with pytest.raises(UserError, match=part) as refused:
        go(tmp_path, {"levels": 1, **settings}, model=model, **flags)
    assert "\n" not in str(refused.value)
    assert list(tmp_path.iterdir()) == []
