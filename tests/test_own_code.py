"""What is said where a user's own module, data, control or criterion is wrong: one line, or a traceback of theirs."""

import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from loop_helpers import ALL_RATES as RATES
from loop_helpers import OwnModule, SmallData, driver, go, refusal, rows, tiny
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from lth_lightning import traces
from lth_lightning.callbacks import Control, Display, Rewind, Start
from lth_lightning.cli import main
from lth_lightning.data import Digits
from lth_lightning.errors import UserError
from lth_lightning.models import Conv2, LeNet300
from lth_lightning.pruning import Criterion, Score

MINE = ["fit", "--data", "loop_helpers.SmallData", "--trainer.accelerator", "cpu", "--trainer.max_steps", "4"]
OWN = [*MINE, "--pruning.levels", "1", "--pruning.rates", "{conv: 0.2, linear: 0.2, output: 0.2}"]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


# Data for a network of this package.


class Other(SmallData):
    """Batches of another kind."""

    def __init__(self, images: Any, labels: Any) -> None:
        super().__init__()
        self.sets = images, labels

    def train_dataloader(self) -> Any:
        return DataLoader(TensorDataset(*self.sets), batch_size=4)


class Named(SmallData):
    def train_dataloader(self) -> Any:
        return DataLoader([{"image": torch.zeros(1, 6, 6), "label": 1}] * 8, batch_size=4)


class Counts(SmallData):
    """Knows how often its loader was asked for."""

    asked = 0

    def train_dataloader(self) -> Any:
        self.asked += 1
        return super().train_dataloader()


def images(*shape: int, kind: torch.dtype = torch.float32) -> Tensor:
    return torch.zeros(8, *shape, dtype=kind)


LABELS = torch.arange(8) % 3


@pytest.mark.parametrize(
    ("model", "data", "told"),
    [
        (LeNet300, SmallData(), "LeNet300 wants inputs of 784 values, your data give [1, 6, 6]: name --model"),
        (LeNet300, Digits(), "LeNet300 wants inputs of 784 values, your data give [1, 8, 8]"),
        (tiny, Other(images(1, 8, 8, kind=torch.uint8), LABELS), "wants inputs of float32, your data give uint8"),
        (tiny, Other(images(1, 8, 8), LABELS + 20), "LeNet300 has 10 classes"),
        (tiny, Other(images(1, 8, 8), LABELS.float()), "takes a whole number below that as the label"),
        (tiny, Named(), "takes batches of inputs and labels, two tensors"),
        (Conv2, Other(images(1, 32, 32), LABELS), "Conv2 wants images of 3 channels, your data give [1, 32, 32]"),
        (Conv2, Other(images(3, 16, 16), LABELS), "Conv2 wants images of another size than [3, 16, 16]"),
    ],
)
def test_data_that_do_not_fit_a_network_of_this_package(model: Any, data: Any, told: str) -> None:
    assert told in refusal({}, model=model, data=data)


def test_data_that_fit_are_as_they_were() -> None:
    data = Counts()
    driver({}, model=lambda: LeNet300(shape=(1, 6, 6)), data=data).prepare()
    assert data.asked == 0


@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
def test_a_trainers_precision_is_left_to_the_trainer(kind: torch.dtype) -> None:
    driver({}, model=lambda: tiny().to(kind), data=Other(images(1, 8, 8), LABELS)).prepare()


def test_data_without_a_model_are_told_before_anything_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fit", "--data", "loop_helpers.SmallData"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("lth: LeNet300 wants inputs of 784 values, your data give [1, 6, 6]: name --model")
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


# Errors of their own.


class WrongStep(OwnModule):
    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        return self.helper(batch)

    def helper(self, batch: list[Tensor]) -> Tensor:
        return cross_entropy(self(batch[0]), batch[1][:2])


class WrongEnd(OwnModule):
    """In a hook that Lightning calls by another way."""

    def on_validation_epoch_end(self) -> None:
        if not self.trainer.sanity_checking:
            raise KeyError("my own bug")


class WrongMaking(OwnModule):
    def __init__(self) -> None:
        super().__init__()
        raise ValueError("my own bug")


class WrongWorker(SmallData):
    """Fails in a process of the loader's."""

    def train_dataloader(self) -> Any:
        return DataLoader(range(8), batch_size=4, collate_fn=self.fail, num_workers=1)

    def fail(self, _: Any) -> Any:
        raise KeyError("my own bug")


def frames_of(err: str) -> list[str]:
    return [line.split('"')[1] for line in err.splitlines() if line.startswith('  File "')]


@pytest.mark.parametrize("workers", ["1", "2"])
def test_of_an_error_in_a_users_code_the_users_frames_are_shown(
    capsys: pytest.CaptureFixture[str], workers: str
) -> None:
    words = [*OWN, "--model", "test_own_code.WrongStep", "--workers", workers, "--replicates", "2"]
    assert main(words) == 1
    *trace, last = capsys.readouterr().err.strip().splitlines()
    assert [line.rpartition(" in ")[2] for line in trace if line.startswith('  File "')][:2] == [
        "training_step",
        "helper",
    ]
    first, second, *below = frames_of("\n".join(trace))
    assert first == second == __file__
    assert below, "what torch did is shown"
    assert all(f"{os.sep}torch{os.sep}" in path for path in below)
    assert trace[-1].startswith("ValueError: Expected input batch_size (8) to match target batch_size (2)")
    assert re.fullmatch(
        r"lth: This happened in replicate [01] ticket level 0\. Nothing is finished yet, and no checkpoint is there; "
        r"begin again with: lth fit --resume lightning_logs/run/version_0 \(LTH_TRACEBACK=full shows all frames\.\)",
        last,
    )


@pytest.mark.parametrize("part", ["WrongEnd", "WrongMaking"])
def test_an_error_elsewhere_in_a_users_module(capsys: pytest.CaptureFixture[str], part: str) -> None:
    assert main([*OWN, "--model", f"test_own_code.{part}", "--pruning.evaluate_every", "2"]) == 1
    err = capsys.readouterr().err
    assert frames_of(err) == [__file__]
    assert "my own bug" in err
    is_begun = part == "WrongEnd"
    assert ("This happened in replicate 0 ticket level 0." in err) == is_begun
    assert ("Nothing was begun." in err) != is_begun


@pytest.mark.thorough
def test_an_error_in_a_process_of_a_loader_is_short_too(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["test_own_code.WrongWorker" if word == "loop_helpers.SmallData" else word for word in OWN]
    assert main([*words, "--model", "loop_helpers.OwnModule"]) == 1
    err = capsys.readouterr().err
    assert "my own bug" in err
    assert "in fail\n" in err
    assert len(err.splitlines()) < 45


def test_whole_tracebacks_by_an_environment_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LTH_TRACEBACK", "full")
    with pytest.raises(ValueError, match="batch_size") as error:
        main([*OWN, "--model", "test_own_code.WrongStep"])
    assert traces.works(error.value) == ["This happened in replicate 0 ticket level 0."]


def test_what_a_users_error_was_raised_from_is_shown() -> None:
    def fails() -> None:
        try:
            torch.zeros(2).view(3)
        except RuntimeError as cause:
            error = ValueError("theirs")
            error.add_note("a note of theirs")
            raise error from cause

    with pytest.raises(ValueError, match="theirs") as caught:
        fails()
    traces.add_work(caught.value, "a training")
    text = traces.brief(caught.value)
    assert "invalid for input of size 2" in text
    assert "direct cause" in text
    assert text.endswith("ValueError: theirs\na note of theirs\n")


# Controls and criteria.


class ADictionary(Control):
    def start(self, ticket: Start, fresh: Any, generator: torch.Generator) -> Any:
        return {"weights": fresh}


class Nothing(Control):
    def start(self, ticket: Start, fresh: Any, generator: torch.Generator) -> Any:
        pass


class TooFew(Control):
    def start(self, ticket: Start) -> Start:  # type: ignore[override]
        return ticket


class WithoutALayer(Control):
    def start(self, ticket: Start, fresh: Any, generator: torch.Generator) -> Start:
        return replace(ticket, weights={name: value for name, value in fresh.items() if name != "stem.weight"})


class OfFloats(Control):
    def start(self, ticket: Start, fresh: Any, generator: torch.Generator) -> Start:
        return replace(ticket, mask={name: part.float() for name, part in ticket.mask.items()})


class Transposed(Control):
    def start(self, ticket: Start, fresh: Any, generator: torch.Generator) -> Start:
        return replace(ticket, mask={name: part.transpose(0, 1) for name, part in ticket.mask.items()})


class HalfAStep(Control):
    def start(self, ticket: Start, fresh: Any, generator: torch.Generator) -> Start:
        return replace(ticket, steps=2.5)  # type: ignore[arg-type]


class TellsNoStart(Rewind):
    def start(self, ticket: Start, final: Any) -> Start:  # type: ignore[override]
        return ticket


@pytest.mark.parametrize(
    ("control", "told"),
    [
        (ADictionary(), "returned a dict, not a Start."),
        (Nothing(), "returned None, not a Start."),
        (TooFew(), "cannot be called (too many positional arguments): it is to be start(self, ticket, fresh, "),
        (WithoutALayer(), "returned a Start without a tensor 'stem.weight' in its weights."),
        (OfFloats(), "returned a Start with 'stem.weight' of torch.float32 in its mask, not of torch.bool."),
        (Transposed(), "returned a Start with 'stem.weight' of shape (1, 4, 3, 3) in its mask, not of (4, 1, 3, 3)."),
        (HalfAStep(), "returned a Start whose steps is 2.5, not a whole number of 0 or more."),
    ],
)
def test_a_control_that_gives_the_wrong_thing_is_named(control: Control, told: str) -> None:
    text = refusal({"controls": [control]})
    assert text.startswith(f"test_own_code.{type(control).__name__}.start (test_own_code.py, line ")
    assert told in text


class FromLevelTwo(Control):
    """Gives a wrong start where it was not tried."""

    def start(self, ticket: Start, fresh: Any, generator: torch.Generator) -> Any:
        left = sum(int(part.sum()) for part in ticket.mask.values())
        return None if left < 0.7 * sum(part.numel() for part in ticket.mask.values()) else ticket


def test_one_that_is_wrong_at_a_later_level_is_named_then(tmp_path: Path) -> None:
    loop = {"levels": 2, "rates": RATES, "controls": [FromLevelTwo(levels=[2])]}
    with pytest.raises(UserError, match=r"FromLevelTwo\.start .* returned None, not a Start\."):
        go(tmp_path, loop, steps=2, model=OwnModule, data=SmallData())


def test_a_retraining_that_cannot_be_called_is_named() -> None:
    told = "TellsNoStart.start (test_own_code.py, line "
    assert told in refusal({"retrain": TellsNoStart()})


class OneArgument(Score):
    def __call__(self, final: Tensor) -> Tensor:  # type: ignore[override]
        return final.abs()


class ANumber(Score):
    def __call__(self, final: Tensor, initial: Tensor, generator: torch.Generator) -> Any:
        return 3


class NoEvidence(Criterion):
    def scores(self) -> Any:  # type: ignore[override]
        return {}


class AList(Criterion):
    def scores(self, evidence: Any) -> Any:
        return list(evidence.final.values())


@pytest.mark.parametrize(
    ("score", "told"),
    [
        (OneArgument(), "OneArgument.__call__ (test_own_code.py, line "),
        (OneArgument(), "it is to be __call__(self, final, initial, generator)."),
        (ANumber(), "returned an int for 'stem.weight', not a tensor of the weight's shape."),
        (NoEvidence(), "it is to be scores(self, evidence)."),
        (AList(), "returned a list, not a dictionary of tensors."),
    ],
)
def test_a_criterion_that_gives_the_wrong_thing_is_named(score: Criterion, told: str) -> None:
    assert told in refusal({"score": score})


# What is logged.


class ByStep(OwnModule):
    def _evaluate(self, name: str, batch: list[Tensor]) -> None:
        logits = self(batch[0])
        metrics = {f"{name}_loss": cross_entropy(logits, batch[1]), f"{name}_acc": logits.mean()}
        self.log_dict(metrics, on_step=True, on_epoch=False)


class LossByStep(OwnModule):
    def _evaluate(self, name: str, batch: list[Tensor]) -> None:
        logits = self(batch[0])
        self.log(f"{name}_loss", cross_entropy(logits, batch[1]), on_step=name == "val", on_epoch=name != "val")
        self.log(f"{name}_acc", (logits.argmax(1) == batch[1]).float().mean(), on_step=True, on_epoch=True)


@pytest.mark.parametrize(
    ("model", "names"), [(ByStep, "val_loss, val_acc, test_loss, test_acc are"), (LossByStep, "val_loss is")]
)
def test_metrics_that_are_logged_by_step_alone_are_told_before_a_run(model: Any, names: str) -> None:
    made = driver({}, model=model)
    made.prepare()
    said = [line for line in made.remarks if "on_step" in line or "winning" in line]
    needed = "val_loss and test_acc" if model is ByStep else "val_loss"
    assert said == [
        f"{names} logged on_step alone, so a run has no mean over the set, and its results have empty cells there: "
        "drop on_step and on_epoch=False.",
        f"No ticket of this run can be called a winning one: it needs {needed}.",
    ]


class Told(Display):
    def __init__(self) -> None:
        super().__init__(enabled=False)
        self.lines: list[str] = []

    def tell(self, text: str) -> None:
        if text not in self.lines:
            self.lines.append(text)


@pytest.mark.parametrize("every", [3, 100])
def test_what_is_not_logged_is_told_whatever_the_number_of_steps(tmp_path: Path, every: int) -> None:
    display = Told()
    loop = {"levels": 0, "evaluate_every": every}
    go(tmp_path, loop, steps=7, model=ByStep, data=SmallData(), display=display)
    assert [line for line in display.lines if line.startswith("The module logs no val")] == [
        "The module logs no val_loss and no val_acc: the results will have empty cells there."
    ]
    (last, *_) = reversed(rows(tmp_path / "run" / "version_0" / "replicate_0" / "ticket" / "level_00" / "metrics.csv"))
    assert (last["step"], last["val_loss"]) == ("7", "")


# Threads.


def test_advice_on_threads_is_given_where_nobody_has_chosen(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("lth_lightning.machine.cores", lambda: 4)
    advice = "CPU threads: 4. A small network may train faster with one: --threads 1."
    words = [*OWN, "--model", "loop_helpers.OwnModule", "--dry-run"]
    assert main(words) == 0
    assert advice in capsys.readouterr().out
    assert main([*words, "--threads", "4"]) == 0
    assert advice not in capsys.readouterr().out
