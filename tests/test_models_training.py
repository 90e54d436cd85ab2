"""Training through a Trainer, in long batches or ordinary ones, equals plain PyTorch bit for bit."""

from collections.abc import Iterator
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers.logger import Logger
from torch import nn
from torch.utils.data import DataLoader, IterableDataset

from lth_lightning.errors import UserError
from lth_lightning.models import Classifier, LeNet300, WarmupMultiStepLR, glorot_normal_

SHAPE = (1, 4, 4)
# The lengths of the long batches, as a driver cuts them at the rewind step and the last one.
CUTS = (4, 1, 3, 2)
STEPS = sum(CUTS)


class Batches(IterableDataset):
    """Ready-made batches, in order."""

    def __init__(self, batches: list[tuple[torch.Tensor, torch.Tensor]]) -> None:
        self.batches = batches

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        return iter(self.batches)


def loader(batches: list[tuple[torch.Tensor, torch.Tensor]]) -> DataLoader:
    return DataLoader(Batches(batches), batch_size=None)


class Recorder(Logger):
    """Keeps (step, metrics) as a logger would get them."""

    name = "recorder"
    version = 0

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[tuple[int, dict[str, float]]] = []

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.rows.append((step, dict(metrics)))

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        pass


class Rates(pl.Callback):
    """The learning rate of every optimizer step."""

    def __init__(self) -> None:
        self.rates: list[float] = []

    def on_before_optimizer_step(self, trainer, pl_module, optimizer) -> None:
        self.rates.append(optimizer.param_groups[0]["lr"])


def make_trainer(**flags: Any) -> pl.Trainer:
    defaults = {
        "accelerator": "cpu",
        "devices": 1,
        "logger": False,
        "max_steps": STEPS,
        "max_epochs": 1,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "log_every_n_steps": 1,
    }
    return pl.Trainer(**(defaults | flags))


def samples(steps: int = STEPS, batch: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    images = torch.randn(steps, batch, *SHAPE, generator=generator)
    return images, torch.randint(10, (steps, batch), generator=generator)


def long_batches() -> list[tuple[torch.Tensor, torch.Tensor]]:
    images, labels = samples()
    return list(zip(images.split(CUTS), labels.split(CUTS), strict=True))


def ordinary_batches() -> list[tuple[torch.Tensor, torch.Tensor]]:
    return list(zip(*samples(), strict=True))


def adam(parameters):
    return torch.optim.Adam(parameters, lr=0.01, fused=True)


def momentum(parameters):
    return torch.optim.SGD(parameters, lr=0.05, momentum=0.9, weight_decay=1e-4, fused=True)


def norm_net() -> nn.Module:
    return glorot_normal_(
        nn.Sequential(nn.Conv2d(1, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 10))
    )


def build(optimizer, kind: str = "lenet", lr_scheduler=None) -> Classifier:
    torch.manual_seed(11)
    if kind == "lenet":
        return LeNet300(shape=SHAPE, hidden=(12, 8), optimizer=optimizer, lr_scheduler=lr_scheduler)
    return Classifier(norm_net(), num_classes=10, optimizer=optimizer, lr_scheduler=lr_scheduler)


def train_plainly(net: nn.Module, make_optimizer, rates: list[float] | None = None) -> list[float]:
    """Ordinary PyTorch, with none of the code under test; the loss of every step."""
    optimizer = make_optimizer(net.parameters())
    losses = []
    for step, (images, labels) in enumerate(ordinary_batches()):
        if rates is not None:
            optimizer.param_groups[0]["lr"] = rates[step]
        optimizer.zero_grad()
        loss = nn.CrossEntropyLoss()(net(images), labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def fit(model: Classifier, long: bool, **flags: Any) -> pl.Trainer:
    model.use_long_batches(long)
    trainer = make_trainer(**flags)
    trainer.fit(model, loader(long_batches() if long else ordinary_batches()))
    return trainer


@pytest.mark.parametrize("kind", ["lenet", "norm"])
@pytest.mark.parametrize("optimizer", [adam, momentum])
@pytest.mark.parametrize("long", [True, False])
def test_a_fit_gives_the_weights_of_plain_pytorch_bit_for_bit(long, optimizer, kind):
    plain, model = build(optimizer, kind), build(optimizer, kind)
    start = {name: value.clone() for name, value in model.state_dict().items()}
    train_plainly(plain.net, optimizer)
    trainer = fit(model, long)
    assert trainer.global_step == STEPS
    trained = model.state_dict()
    for name, value in plain.state_dict().items():
        assert torch.equal(trained[name], value), name
        assert not torch.equal(trained[name], start[name]), name


@pytest.mark.parametrize("long", [True, False])
def test_the_schedule_goes_by_optimizer_steps(long):
    def schedule(optimizer):
        return WarmupMultiStepLR(optimizer, warmup_steps=4, milestones=[6, 8])

    expected = [0.05 * t / 4 for t in range(4)] + [0.05] * 2 + [0.005] * 2 + [0.0005] * 2
    plain, model, rates = build(momentum), build(momentum, lr_scheduler=schedule), Rates()
    fit(model, long, callbacks=[rates])
    assert rates.rates == pytest.approx(expected, rel=1e-12)
    train_plainly(plain.net, momentum, rates.rates)
    for mine, theirs in zip(model.parameters(), plain.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_a_long_batch_logs_its_mean_loss_once_at_the_step_it_ends_on():
    plain, model, recorder = build(adam), build(adam), Recorder()
    losses = train_plainly(plain.net, adam)
    fit(model, True, logger=recorder)
    rows = [(step, row["train_loss"]) for step, row in recorder.rows]
    assert [step for step, _ in rows] == [4, 5, 8, 10]
    means = [sum(losses[0:4]) / 4, losses[4], sum(losses[5:8]) / 3, sum(losses[8:10]) / 2]
    assert [loss for _, loss in rows] == pytest.approx(means, rel=1e-6)


def test_an_ordinary_batch_logs_its_loss_at_its_own_step():
    plain, model, recorder = build(adam), build(adam), Recorder()
    losses = train_plainly(plain.net, adam)
    fit(model, False, logger=recorder)
    assert [step for step, _ in recorder.rows] == list(range(1, STEPS + 1))
    assert [row["train_loss"] for _, row in recorder.rows] == pytest.approx(losses, rel=1e-6)


def test_callbacks_get_the_mean_loss_of_a_long_batch():
    outputs = []

    class Outputs(pl.Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs_, batch, batch_idx):
            outputs.append(outputs_["loss"])

    plain, model = build(adam), build(adam)
    losses = train_plainly(plain.net, adam)
    fit(model, True, callbacks=[Outputs()])
    assert outputs[0].item() == pytest.approx(sum(losses[:4]) / 4, rel=1e-6)
    assert not outputs[0].requires_grad


def test_every_optimizer_step_of_a_long_batch_runs_lightnings_hooks():
    model, rates = build(adam), Rates()
    fit(model, True, callbacks=[rates])
    assert len(rates.rates) == STEPS


def evaluation_batches() -> list[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(5)
    return [(torch.randn(n, *SHAPE, generator=generator), torch.randint(10, (n,), generator=generator)) for n in (7, 3)]


@pytest.mark.parametrize("name", ["val", "test"])
def test_evaluation_metrics_are_means_over_samples(name):
    model = build(adam)
    evaluate = {"val": pl.Trainer.validate, "test": pl.Trainer.test}[name]
    (metrics,) = evaluate(make_trainer(), model, loader(evaluation_batches()), verbose=False)
    losses, hits = [], []
    with torch.no_grad():
        for images, labels in evaluation_batches():
            for image, label in zip(images, labels, strict=True):
                logits = model.net(image[None])[0].double()
                losses.append((torch.logsumexp(logits, 0) - logits[label]).item())
                hits.append(float(logits.argmax() == label))
    assert metrics[f"{name}_loss"] == pytest.approx(sum(losses) / 10, rel=1e-5)
    assert metrics[f"{name}_acc"] == pytest.approx(sum(hits) / 10, rel=1e-6)


@pytest.mark.parametrize("long", [True, False])
def test_validation_is_logged_at_the_optimizers_step(long):
    model, recorder = build(adam), Recorder()
    model.use_long_batches(long)
    trainer = make_trainer(logger=recorder, val_check_interval=2, num_sanity_val_steps=0)
    trainer.fit(model, loader(long_batches() if long else ordinary_batches()), loader(evaluation_batches()))
    validated = [step for step, row in recorder.rows if "val_loss" in row]
    assert validated == ([5, 10] if long else [2, 4, 6, 8, 10])
    assert all({"val_loss", "val_acc"} <= row.keys() for _, row in recorder.rows if "val_loss" in row)


def test_the_logged_step_of_an_evaluation_is_exact_however_many_samples_it_has():
    class Late(LeNet300):
        global_step = 112_479

    torch.manual_seed(0)
    model = Late(shape=SHAPE, hidden=(4,))
    generator = torch.Generator().manual_seed(5)
    batches = [(torch.randn(n, *SHAPE, generator=generator), torch.zeros(n, dtype=torch.long)) for n in (4999, 3)]
    (metrics,) = make_trainer().validate(model, loader(batches), verbose=False)
    assert metrics["step"] == 112_479


@pytest.mark.parametrize("long", [True, False])
def test_a_checkpoint_loads_with_weights_only(long, tmp_path):
    model = build(adam, lr_scheduler=lambda optimizer: WarmupMultiStepLR(optimizer, 4, (6,)))
    trainer = fit(model, long)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    saved = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert saved["global_step"] == STEPS
    assert saved["lr_schedulers"][0]["last_epoch"] == STEPS
    for name, value in model.state_dict().items():
        assert torch.equal(saved["state_dict"][name], value)


def test_modules_take_ordinary_batches_until_told_otherwise():
    model = build(adam)
    assert model.automatic_optimization
    model.use_long_batches(True)
    assert not model.automatic_optimization
    model.use_long_batches(False)
    assert model.automatic_optimization


def test_a_scheduler_that_waits_for_a_metric_is_a_users_mistake():
    model = build(adam, lr_scheduler=torch.optim.lr_scheduler.ReduceLROnPlateau)
    with pytest.raises(UserError, match="use a schedule in steps"):
        model.configure_optimizers()


def test_dropout_is_off_in_evaluation_and_on_in_training():
    torch.manual_seed(1)
    model = LeNet300(shape=SHAPE, hidden=(50,), dropout=0.5)
    images = torch.randn(4, *SHAPE)
    assert not torch.equal(model(images), model(images))
    model.eval()
    assert torch.equal(model(images), model(images))


def test_in_half_precision_every_step_of_a_long_batch_uses_the_weights_of_the_step_before():
    # Autocast's own default is to cache its copies of the weights, for as long as a `training_step` runs.
    trained = []
    for long in (True, False):
        model = build(adam)
        fit(model, long, precision="bf16-mixed")
        trained.append(model.state_dict())
    for name, value in trained[0].items():
        assert torch.equal(value, trained[1][name]), name
