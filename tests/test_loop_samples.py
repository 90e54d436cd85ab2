"""Criteria that look at training samples, within runs."""

from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from loop_helpers import (
    RATES,
    TRAIN,
    OwnModule,
    SmallData,
    StoppedError,
    WithLoaders,
    assert_same,
    equal,
    go,
    level,
    load,
    make_trainer,
    tiny,
)
from test_loop_resume import Pictures, StopAfter
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, relu
from torch.utils.data import DataLoader

from lth_lightning.callbacks import Display, PruningLoop, RandomReinit, SearchedAnew
from lth_lightning.callbacks.samples import draw_samples
from lth_lightning.data import Digits
from lth_lightning.errors import UserError
from lth_lightning.models import LeNet300
from lth_lightning.pruning.criteria.snip import SNIP
from lth_lightning.results.training import Training

LOOP = {"levels": 2, "rates": RATES, "evaluate_every": 10, "score": SNIP(samples=40)}
OWN = {**LOOP, "rates": {"conv": 0.2, "output": 0.1}}


def pictured() -> LeNet300:
    return LeNet300(shape=(3, 8, 8), num_classes=4, hidden=(10, 8))


def generator_of(number: int) -> torch.Generator:
    """What a level's mask may draw from, as its documentation says: seed, replicate, arm, level."""
    return torch.Generator().manual_seed(Training(0, "ticket", 0, number, Path()).seed(0, "score"))


def by_sensitivity(model: Any, mask: dict[str, Tensor], inputs: Tensor, labels: Tensor, keep: dict[str, int]) -> Any:
    """The `keep` of each layer with the largest |w dL/dw|; `model` has its weights, masked here."""
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name, part in mask.items():
            parameters[name].mul_(part)
    cross_entropy(model(inputs), labels).backward()
    new = {}
    for name, part in mask.items():
        score = (parameters[name].grad * parameters[name].detach()).abs().flatten().tolist()
        alive = [place for place, kept in enumerate(part.flatten().tolist()) if kept]
        gone = sorted(alive, key=lambda p: (score[p], p))[: len(alive) - keep[name]]
        new[name] = part.clone()
        new[name].view(-1)[gone] = False
    return new


def check_masks(run: Path, model: Any, samples: Any, one_shot: bool) -> None:
    point = load(run / "replicate_0" / "rewind.pt")["weights"]
    for number in (1, 2):
        mask = load(level(run, 0 if one_shot else number - 1) / "mask.pt")["mask"]
        found = load(level(run, number) / "mask.pt")["mask"]
        network = model()
        network.load_state_dict(point)
        inputs, labels = samples(generator_of(number))
        keep = {name: int(part.sum()) for name, part in found.items()}
        assert equal(found, by_sensitivity(network, mask, inputs, labels, keep))


@pytest.mark.parametrize("k", [0, 7])
@pytest.mark.parametrize("one_shot", [True, False], ids=["one-shot", "iterative"])
def test_the_mask_is_that_of_the_rewind_points_weights_and_drawn_samples(
    tmp_path: Path, k: int, one_shot: bool
) -> None:
    go(tmp_path, {**LOOP, "one_shot": one_shot, "rewind_step": k})
    data = Digits()
    check_masks(tmp_path / "run" / "version_0", tiny, lambda g: data.sample(40, g), one_shot)


@pytest.mark.parametrize("k", [0, 7])
def test_augmented_data_give_their_samples_as_they_are(tmp_path: Path, k: int) -> None:
    go(tmp_path, {**LOOP, "one_shot": True, "rewind_step": k}, model=pictured, data=Pictures())
    data = Pictures()
    data.setup()

    def samples(generator: torch.Generator) -> Any:
        index = torch.randperm(120, generator=generator)[:40]
        return data.normalize(data.train.images[index]), data.train.labels[index]

    check_masks(tmp_path / "run" / "version_0", pictured, samples, True)


@pytest.mark.parametrize("k", [0, 5])
@pytest.mark.parametrize("has_loaders", [False, True], ids=["a data module", "loaders of its own"])
def test_somebodys_own_module_is_judged_by_what_its_loader_gives(tmp_path: Path, k: int, has_loaders: bool) -> None:
    model, data = (WithLoaders, None) if has_loaders else (OwnModule, SmallData())
    go(tmp_path, {**OWN, "one_shot": True, "rewind_step": k}, model=model, data=data, own_data=has_loaders)

    def samples(generator: torch.Generator) -> Any:
        torch.manual_seed(int(torch.randint(2**31, (), generator=generator)))
        batches = list(DataLoader(TRAIN, batch_size=8, shuffle=True))[:5]
        return tuple(torch.cat([batch[i] for batch in batches]) for i in (0, 1))

    # Batch norm as in training, no dropout.
    check_masks(tmp_path / "run" / "version_0", lambda: OwnModule(dropout=0.0).train(), samples, True)


@pytest.mark.parametrize("augmented", [False, True])
@pytest.mark.parametrize("used", [False, True], ids=["before any training", "on a used data module"])
def test_samples_are_normalized_training_images_and_none_comes_twice(augmented: bool, used: bool) -> None:
    data: Any = Pictures()
    data.augmentation = "flip_crop" if augmented else "none"
    if used:
        data.setup()
        data.resident("train", torch.device("cpu"))
        next(iter(data.train_dataloader()))
    images, labels = data.sample(70, torch.Generator().manual_seed(3))
    assert images.shape == (70, 3, 8, 8)
    assert (images.dtype, labels.dtype) == (torch.float32, torch.int64)
    reference = Pictures()
    reference.setup()
    known = (reference.train.images.float() / 255 - 0.5) / 0.25
    found = [int((known - image).abs().amax((1, 2, 3)).argmin()) for image in images]
    assert len(set(found)) == 70
    assert torch.allclose(images, known[found], atol=1e-6)
    assert torch.equal(labels, reference.train.labels[found])
    again, _ = data.sample(70, torch.Generator().manual_seed(3))
    other, _ = data.sample(70, torch.Generator().manual_seed(4))
    assert torch.equal(images, again)
    assert not torch.equal(images, other)
    images += 1  # they are the caller's
    assert torch.equal(data.sample(70, torch.Generator().manual_seed(3))[0], again)
    everything, _ = data.sample(120, torch.Generator().manual_seed(5))
    assert len({tuple(image.flatten().tolist()) for image in everything}) == 120
    with pytest.raises(UserError, match="121") as error:
        data.sample(121, torch.Generator())
    assert "\n" not in str(error.value)


def test_a_loaders_samples_are_the_first_of_it_whatever_the_batch_size() -> None:
    inputs, labels = draw_samples(SmallData(), OwnModule, 13, torch.Generator().manual_seed(1))
    assert inputs.shape == (13, 1, 6, 6)
    assert labels.shape == (13,)
    assert len({tuple(image.flatten().tolist()) for image in inputs}) == 13
    again, _ = draw_samples(SmallData(), OwnModule, 13, torch.Generator().manual_seed(1))
    other, _ = draw_samples(SmallData(), OwnModule, 13, torch.Generator().manual_seed(2))
    assert torch.equal(inputs, again)
    assert not torch.equal(inputs, other)
    assert len(draw_samples(SmallData(), OwnModule, 96, torch.Generator())[1]) == 96
    with pytest.raises(UserError, match=r"97 training samples .* gives 96") as error:
        draw_samples(SmallData(), OwnModule, 97, torch.Generator())
    assert "\n" not in str(error.value)


class Strings(SmallData):
    def train_dataloader(self) -> Any:
        return DataLoader([("a word", 1)] * 9, batch_size=8)


def test_batches_that_hold_no_tensors_are_refused_in_one_line() -> None:
    with pytest.raises(UserError, match="batches of tensors") as error:
        draw_samples(Strings(), OwnModule, 8, torch.Generator())
    assert "\n" not in str(error.value)


def test_a_module_is_judged_by_its_own_loss_on_batches_of_its_own_form(tmp_path: Path) -> None:
    """A regression on dictionaries with noise in its steps: SNIP by another way than ours, and no zeros by position."""
    go(tmp_path, {**OWN, "rates": {"linear": 0.5, "output": 0.5}, "one_shot": True}, model=Regression, own_data=True)
    point = load(tmp_path / "run" / "version_0" / "replicate_0" / "rewind.pt")["weights"]
    for number in (1, 2):
        generator, model = generator_of(number), Regression()
        torch.manual_seed(int(torch.randint(2**31, (), generator=generator)))
        rows = list(model.train_dataloader())
        batch = {key: torch.cat([row[key] for row in rows])[:40] for key in ("x", "y")}
        batch["x"] = batch["x"] - 0.5  # its hook
        torch.manual_seed(int(torch.randint(2**31, (), generator=generator)))
        model.load_state_dict(point)
        noise = batch["x"] + 0.1 * torch.randn_like(batch["x"])
        (model.out(relu(model.hidden(noise))).squeeze(1) - batch["y"]).square().mean().backward()
        mask = load(level(tmp_path / "run" / "version_0", number) / "mask.pt")["mask"]
        for name, weight in model.named_parameters():
            if "weight" in name:
                order = (weight * weight.grad).abs().flatten().argsort(stable=True)
                gone = (~mask[name]).flatten().nonzero().flatten().tolist()
                assert sorted(order[: len(gone)].tolist()) == gone, name


class Regression(pl.LightningModule):
    """Float targets, batches that are dictionaries, a hook around their transfer, and draws within a step."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.out = nn.Linear(6, 12), nn.Linear(12, 1)

    def train_dataloader(self) -> Any:
        drawn = torch.rand(60, 6, generator=torch.Generator().manual_seed(5))
        return DataLoader([{"x": x, "y": x.sum()} for x in drawn], batch_size=7, shuffle=True)

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        return {**batch, "x": batch["x"] - 0.5}

    def training_step(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        noise = batch["x"] + 0.1 * torch.randn_like(batch["x"])
        loss = (self.out(relu(self.hidden(noise))).squeeze(1) - batch["y"]).square().mean()
        self.log_dict({"train_loss": loss})
        return {"loss": loss}

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.01)


@pytest.mark.thorough
@pytest.mark.parametrize("kind", ["LeNet", "augmented", "own"])
def test_runs_are_the_same_again_by_workers_extended_and_interrupted(tmp_path: Path, kind: str) -> None:
    make: Any = {"LeNet": (tiny, Digits), "augmented": (pictured, Pictures), "own": (OwnModule, SmallData)}[kind]
    model, data = make
    settings = {**(OWN if kind == "own" else LOOP), "evaluate_every": 5, "checkpoint_every": 1}
    settings |= {"controls": [RandomReinit(levels=[2]), SearchedAnew(score=SNIP(samples=16))]}
    whole = tmp_path / "whole" / "run" / "version_0"
    go(tmp_path / "whole", settings, model=model, data=data())
    torch.manual_seed(99)
    go(tmp_path / "again", settings, model=model, data=data())
    assert_same(tmp_path / "again" / "run" / "version_0", whole)
    loop, display = PruningLoop(**settings), Display(enabled=False)
    loop.run(lambda _: make_trainer(20), model, data(), logs=tmp_path / "workers", workers=2, display=display)
    assert_same(tmp_path / "workers" / "run" / "version_0", whole)
    fewer = {**settings, "levels": 1, "controls": []}
    run = tmp_path / "extended" / "run" / "version_0"
    go(tmp_path / "extended", fewer, model=model, data=data())
    attach = lambda t: [StopAfter(12, t.folder)] if t.level == 2 else []  # noqa: E731
    with pytest.raises(StoppedError):
        go(tmp_path / "extended", settings, model=model, data=data(), folder=run, callbacks=attach)
    go(tmp_path / "extended", settings, model=model, data=data(), folder=run)
    assert_same(run, whole)


@pytest.mark.parametrize("own", [False, True], ids=["LeNet", "somebody's own module"])
def test_too_many_samples_are_refused_in_one_line(tmp_path: Path, own: bool) -> None:
    options: dict[str, Any] = {"model": OwnModule, "data": SmallData()} if own else {}
    with pytest.raises(UserError, match="1201 training samples") as error:
        go(tmp_path, {**(OWN if own else LOOP), "score": SNIP(samples=1201)}, **options)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir()), "it is told before anything is written"


def test_a_control_that_searches_with_too_many_samples_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="1201 training samples"):
        go(tmp_path, {**LOOP, "score": SNIP(samples=16), "controls": [SearchedAnew(score=SNIP(samples=1201))]})
    assert not list(tmp_path.iterdir())
