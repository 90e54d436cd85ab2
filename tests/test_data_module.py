"""Data modules as a Trainer and a run use them, on the data set that needs no files."""

import copy
import subprocess
import sys
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor

from lth_lightning.data import CIFAR10, MNIST, Digits, FashionMNIST, Split, StepPlan
from lth_lightning.errors import UserError


def digits(**arguments: object) -> Digits:
    data = Digits(**arguments)
    data.prepare_data()
    data.setup("fit")
    return data


def rows(images: Tensor) -> list[tuple[int, ...]]:
    return sorted(tuple(row) for row in images.flatten(1).tolist())


def test_digits_are_split_into_1200_200_and_397() -> None:
    data = digits()
    assert [len(part.labels) for part in (data.train, data.val, data.test)] == [1200, 200, 397]
    assert [part.images.shape[1:] for part in (data.train, data.val, data.test)] == [(1, 8, 8)] * 3
    assert {part.images.dtype for part in (data.train, data.val, data.test)} == {torch.uint8}
    assert {part.labels.dtype for part in (data.train, data.val, data.test)} == {torch.int64}


def test_the_parts_are_disjoint_and_cover_the_set() -> None:
    from sklearn.datasets import load_digits

    data = digits()
    together = torch.cat([data.train.images, data.val.images, data.test.images])
    assert rows(together) == rows(torch.from_numpy(load_digits().images).to(torch.uint8))


def test_images_keep_their_labels() -> None:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    pairs = zip(bunch.images.astype(int), bunch.target, strict=True)
    labels = {tuple(image.ravel()): int(label) for image, label in pairs}
    data = digits()
    for part in (data.train, data.val, data.test):
        for image, label in zip(part.images.flatten(1).tolist(), part.labels.tolist(), strict=True):
            assert labels[tuple(image)] == label


def test_digits_statistics_are_those_of_all_images() -> None:
    from sklearn.datasets import load_digits

    pixels = load_digits().images / 16
    assert Digits.mean_std.mean == [round(pixels.mean(), 4)]
    assert Digits.mean_std.std == pytest.approx([pixels.std()], abs=1e-4)


def test_split_seed_moves_the_validation_part_and_never_the_test_part() -> None:
    first, again, other = digits(split_seed=0), digits(split_seed=0), digits(split_seed=1)
    assert torch.equal(first.val.images, again.val.images)
    assert torch.equal(first.train.images, again.train.images)
    assert not torch.equal(first.val.images, other.val.images)
    assert torch.equal(first.test.images, other.test.images)


def test_the_global_seed_moves_no_part() -> None:
    torch.manual_seed(1)
    first = digits()
    torch.manual_seed(2)
    assert torch.equal(first.val.images, digits().val.images)


def test_a_second_setup_reads_nothing() -> None:
    data = digits()
    train = data.train
    data.setup("test")
    assert data.train is train


def test_tensors_are_moved_and_normalized_once() -> None:
    data = digits()
    first, second = (next(iter(data.val_dataloader()))[0] for _ in range(2))
    assert first.data_ptr() == second.data_ptr()


def test_steps_per_epoch_drops_the_partial_batch_and_is_known_without_data() -> None:
    assert Digits(batch_size=70).steps_per_epoch == 17
    assert MNIST().steps_per_epoch == 916
    assert CIFAR10(batch_size=128).steps_per_epoch == 351
    assert digits(batch_size=70).train_dataloader().steps_per_epoch == 17


@pytest.mark.parametrize("cls", [MNIST, FashionMNIST, CIFAR10, Digits])
def test_classes_and_shape_are_known_without_data(cls: type) -> None:
    assert cls.num_classes == 10
    assert len(cls.shape) == 3


@pytest.mark.parametrize(
    "arguments",
    [
        {"validation_size": 0},
        {"validation_size": -1},
        {"validation_size": 1400},
        {"batch_size": 0},
        {"batch_size": 1201},
        {"eval_batch_size": 0},
    ],
)
def test_sizes_that_do_not_fit_are_refused_in_one_line(arguments: dict) -> None:
    with pytest.raises(UserError, match=next(iter(arguments)).split("_")[0]) as error:
        Digits(**arguments)
    assert "\n" not in str(error.value)


def test_an_unknown_augmentation_is_refused() -> None:
    with pytest.raises(UserError, match="flip_crop"):
        CIFAR10(augmentation="flip")


def test_importing_the_data_sets_imports_neither_torchvision_nor_scikit_learn() -> None:
    # Lightning itself may import torchvision: what counts is what our import adds to it.
    code = (
        "import sys, torch, pytorch_lightning; before = set(sys.modules); import lth_lightning.data; "
        "ours = {name.split('.')[0] for name in set(sys.modules) - before}; "
        "print(sorted(ours & {'torchvision', 'sklearn'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


class Recorder(pl.LightningModule):
    """Takes every step of a long batch with a manual optimizer and notes the labels it saw."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.net = torch.nn.Linear(64, 10)
        self.seen: list[Tensor] = []
        self.evaluated = 0

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        optimizer = self.optimizers()
        for images, labels in zip(*batch, strict=True):
            self.seen.append(labels)
            loss = torch.nn.functional.cross_entropy(self.net(images.flatten(1)), labels)
            optimizer.zero_grad()
            self.manual_backward(loss)
            optimizer.step()

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self.evaluated += len(batch[1])

    test_step = validation_step

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def trainer(**arguments: object) -> pl.Trainer:
    return pl.Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        **arguments,
    )


def test_a_trainer_takes_every_step_of_the_plan() -> None:
    data, module = Digits(), Recorder()
    data.follow(StepPlan(total=45, every=10, seed=3, cuts=(7,)))
    fit = trainer(max_steps=45, val_check_interval=1)
    fit.fit(module, datamodule=data)
    assert fit.global_step == 45
    assert module.evaluated == 6 * 200
    alone = digits()
    alone.follow(StepPlan(total=45, every=45, seed=3))
    ((_, labels),) = alone.train_dataloader()
    assert torch.equal(torch.stack(module.seen), labels)
    module.evaluated = 0
    trainer().test(module, datamodule=data)
    assert module.evaluated == 397


def test_a_resumed_fit_goes_on_with_the_samples_that_were_due(tmp_path: Path) -> None:
    plan = StepPlan(total=40, every=10, seed=3)
    torch.manual_seed(0)
    whole, second = Recorder(), Recorder()
    first = copy.deepcopy(whole)
    for module, steps, path in ((whole, 40, None), (first, 20, None), (second, 40, tmp_path / "half.ckpt")):
        data = Digits()
        data.follow(plan)
        fit = trainer(max_steps=steps, val_check_interval=1)
        fit.fit(module, datamodule=data, ckpt_path=path)
        if module is first:
            fit.save_checkpoint(tmp_path / "half.ckpt")
    assert torch.equal(torch.stack(first.seen + second.seen), torch.stack(whole.seen))
    assert torch.equal(whole.net.weight, second.net.weight)


class Plain(pl.LightningModule):
    """Somebody's own module: automatic optimization, one ordinary batch a step."""

    def __init__(self) -> None:
        super().__init__()
        self.net = torch.nn.Linear(64, 10)
        self.shapes: set[torch.Size] = set()

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        images, labels = batch
        self.shapes.add(images.shape)
        return torch.nn.functional.cross_entropy(self.net(images.flatten(1)), labels)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_somebodys_own_module_gets_ordinary_batches_over_whole_epochs() -> None:
    module = Plain()
    fit = trainer(max_epochs=2)
    fit.fit(module, datamodule=Digits(batch_size=70))
    assert fit.global_step == 2 * 17
    assert module.shapes == {(70, 1, 8, 8)}


def test_what_was_read_is_let_go_once_resident_and_read_again_where_it_is_wanted() -> None:
    data = Digits()
    data.setup()
    images = data.train.images
    data.resident("train", torch.device("cpu"))
    assert data.train.images is not images
    assert torch.equal(data.train.images, images)


def test_a_part_that_somebody_has_put_in_is_kept() -> None:
    data = Digits()
    data.setup()
    data.train = Split(data.train.images, torch.zeros_like(data.train.labels))
    assert not data.resident("train", torch.device("cpu"))[1].any()
    assert not data.train.labels.any()


def test_a_data_set_that_was_not_set_up_says_so() -> None:
    with pytest.raises(AttributeError, match="setup"):
        _ = Digits().val
