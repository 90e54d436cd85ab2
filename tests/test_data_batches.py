"""The order of training batches, computed here by a plain loop over steps."""

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from lth_lightning.data import Split, StepPlan, TensorDataModule
from lth_lightning.data.normalization import MeanStd
from lth_lightning.errors import UserError
from lth_lightning.seeding import derive_seed


class Numbered(TensorDataModule):
    """Sample i has label i and a first pixel of i: 103 to train on, 20 to validate, 30 to test."""

    num_classes = 1000
    shape = (2, 6, 6)
    pool_size = 123
    mean_std = MeanStd([0.5], [0.25])

    def _load(self) -> tuple[Split, Split]:
        generator = torch.Generator().manual_seed(0)
        images = torch.randint(0, 256, (153, 2, 6, 6), generator=generator).to(torch.uint8)
        images[:, 0, 0, 0] = torch.arange(153)
        labels = torch.arange(153)
        return Split(images[:123], labels[:123]), Split(images[123:], labels[123:])


def data(**arguments: object) -> Numbered:
    module = Numbered(**{"batch_size": 10, "validation_size": 20, "normalization": "none", **arguments})
    module.setup("fit")
    return module


def fake_trainer(step: int = 0, rank: int = 0, world_size: int = 1, agreed: int | None = None) -> SimpleNamespace:
    strategy = SimpleNamespace(
        root_device=torch.device("cpu"), broadcast=lambda number: number if agreed is None else agreed
    )
    return SimpleNamespace(global_step=step, global_rank=rank, world_size=world_size, strategy=strategy)


def steps(module: Numbered) -> list[tuple[Tensor, Tensor]]:
    """Every optimizer step's images and labels, however long the batches they came in."""
    return [
        (image, label)
        for images, labels in module.train_dataloader()
        for image, label in zip(images, labels, strict=True)
    ]


def assert_same(left: list[tuple[Tensor, Tensor]], right: list[tuple[Tensor, Tensor]]) -> None:
    assert len(left) == len(right)
    for (images, labels), (other_images, other_labels) in zip(left, right, strict=True):
        assert torch.equal(labels, other_labels)
        assert torch.equal(images, other_images)


def test_bounds_hold_every_interval_the_cuts_and_the_end() -> None:
    assert StepPlan(total=10, every=4, seed=0).bounds() == [0, 4, 8, 10]
    assert StepPlan(total=8, every=4, seed=0, cuts=(4, 5, 0, 8, 9, -1)).bounds() == [0, 4, 5, 8]
    assert StepPlan(total=3, every=100, seed=0).bounds() == [0, 3]
    assert StepPlan(total=0, every=100, seed=0).bounds() == [0]


@pytest.mark.parametrize(("total", "every"), [(10, 0), (10, -5), (-1, 10)])
def test_an_impossible_plan_is_refused(total: int, every: int) -> None:
    with pytest.raises(UserError):
        StepPlan(total=total, every=every, seed=0)


def test_each_step_takes_its_batch_of_its_epochs_permutation() -> None:
    module = data()
    module.follow(StepPlan(total=35, every=7, seed=5))
    found = steps(module)
    assert len(found) == 35
    for step, (images, labels) in enumerate(found):
        epoch, position = step // 10, step % 10  # 103 samples make 10 batches of 10
        generator = torch.Generator().manual_seed(derive_seed(5, "order", epoch))
        samples = torch.randperm(103, generator=generator)[position * 10 : (position + 1) * 10]
        assert torch.equal(labels, module.train.labels[samples])
        assert torch.equal(images, module.train.images[samples].float() / 255)


def test_long_batches_have_the_promised_shapes_number_and_types() -> None:
    module = data()
    module.follow(StepPlan(total=35, every=15, seed=5, cuts=(4,)))
    loader = module.train_dataloader()
    batches = list(loader)
    assert len(loader) == len(batches) == 4
    assert [images.shape for images, _ in batches] == [(k, 10, 2, 6, 6) for k in (4, 11, 15, 5)]
    assert [labels.shape for _, labels in batches] == [(k, 10) for k in (4, 11, 15, 5)]
    assert {images.dtype for images, _ in batches} == {torch.float32}
    assert {labels.dtype for _, labels in batches} == {torch.int64}


def test_no_sample_comes_twice_in_an_epoch_and_epochs_differ() -> None:
    module = data()
    module.follow(StepPlan(total=20, every=10, seed=0))
    first, second = (labels.flatten().tolist() for _, labels in module.train_dataloader())
    assert len(set(first)) == len(set(second)) == 100
    assert first != second


def test_an_epoch_of_whole_batches_holds_every_training_sample_once() -> None:
    module = data(batch_size=103)
    module.follow(StepPlan(total=1, every=1, seed=0))
    ((_, labels),) = module.train_dataloader()
    assert sorted(labels.flatten().tolist()) == sorted(module.train.labels.tolist())


@pytest.mark.parametrize("augmentation", ["none", "flip_crop"])
@pytest.mark.parametrize("start", [0, 1, 7, 10, 12, 34, 35])
def test_any_start_step_gives_what_an_uninterrupted_training_had(augmentation: str, start: int) -> None:
    module = data(augmentation=augmentation)
    module.follow(StepPlan(total=35, every=7, seed=5))
    whole = steps(module)
    resumed = data(augmentation=augmentation)
    resumed.follow(StepPlan(total=35, every=7, seed=5))
    resumed.trainer = fake_trainer(step=start)
    assert_same(steps(resumed), whole[start:])


def test_a_start_between_bounds_goes_to_the_next_bound() -> None:
    module = data()
    module.follow(StepPlan(total=35, every=10, seed=5))
    module.trainer = fake_trainer(step=13)
    assert [len(labels) for _, labels in module.train_dataloader()] == [7, 10, 5]


def test_the_trainers_step_is_asked_for_only_when_the_first_batch_is() -> None:
    module = data()
    module.follow(StepPlan(total=35, every=10, seed=5))
    module.trainer = fake_trainer(step=0)
    batches = iter(module.train_dataloader())
    module.trainer.global_step = 30
    assert [len(labels) for _, labels in batches] == [5]


@pytest.mark.parametrize("augmentation", ["none", "flip_crop"])
def test_cuts_and_the_interval_change_no_sample(augmentation: str) -> None:
    module = data(augmentation=augmentation)
    module.follow(StepPlan(total=35, every=35, seed=5))
    whole = steps(module)
    for plan in (StepPlan(35, 7, 5, cuts=(3, 11, 12)), StepPlan(35, 1, 5), StepPlan(35, 10, 5, cuts=(1,))):
        module.follow(plan)
        assert_same(steps(module), whole)


def test_another_seed_gives_another_order() -> None:
    module = data()
    orders = []
    for seed in (0, 1):
        module.follow(StepPlan(total=10, every=10, seed=seed))
        orders.append(torch.cat([labels for _, labels in steps(module)]).tolist())
    assert orders[0] != orders[1]


def test_planned_batches_leave_the_global_generator_alone() -> None:
    module = data(augmentation="flip_crop")
    module.follow(StepPlan(total=20, every=5, seed=0))
    before = torch.get_rng_state()
    steps(module)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("augmentation", ["none", "flip_crop"])
@pytest.mark.parametrize("plan", [None, StepPlan(total=25, every=7, seed=5)])
def test_the_ranks_slices_side_by_side_are_the_global_batch(augmentation: str, plan: StepPlan | None) -> None:
    module = data(augmentation=augmentation)
    module.follow(plan)
    torch.manual_seed(3)
    whole = list(module.train_dataloader())
    ranks = []
    for rank in range(2):
        module.trainer = fake_trainer(rank=rank, world_size=2)
        torch.manual_seed(3)
        ranks.append(list(module.train_dataloader()))
    axis = 0 if plan is None else 1
    together = [(torch.cat([a, c], axis), torch.cat([b, d], axis)) for (a, b), (c, d) in zip(*ranks, strict=True)]
    assert_same(together, whole)


def test_ordinary_order_is_rank_zeros_on_every_rank() -> None:
    module = data()
    found = []
    for seed in (1, 2):  # ranks whose global generators went apart
        torch.manual_seed(seed)
        module.trainer = fake_trainer(rank=0, world_size=2, agreed=99)
        found.append(list(module.train_dataloader()))
    assert_same(*found)


def test_a_batch_size_that_the_ranks_do_not_divide_is_refused() -> None:
    module = data()
    module.trainer = fake_trainer(world_size=3)
    with pytest.raises(UserError, match="multiple of 3"):
        module.train_dataloader()


def test_every_rank_evaluates_everything() -> None:
    module = data()
    module.trainer = fake_trainer(rank=1, world_size=2)
    assert torch.cat([labels for _, labels in module.test_dataloader()]).tolist() == list(range(123, 153))


def test_without_a_plan_the_order_is_a_shuffling_dataloaders() -> None:
    module = data()
    dataset = TensorDataset(module.train.images.float() / 255, module.train.labels)
    torch.manual_seed(7)
    theirs = [tuple(batch) for _ in range(2) for batch in DataLoader(dataset, 10, shuffle=True, drop_last=True)]
    state = torch.get_rng_state()
    torch.manual_seed(7)
    ours = [batch for _ in range(2) for batch in module.train_dataloader()]
    assert len(module.train_dataloader()) == 10
    assert_same(ours, theirs)
    assert torch.equal(torch.get_rng_state(), state)


def test_without_a_plan_augmentation_follows_the_global_seed() -> None:
    module = data(augmentation="flip_crop")
    runs = []
    for seed in (7, 7, 8):
        torch.manual_seed(seed)
        runs.append(list(module.train_dataloader()))
    assert_same(runs[0], runs[1])
    assert not torch.equal(runs[0][0][0], runs[2][0][0])


def test_a_plan_can_be_taken_back() -> None:
    module = data()
    module.follow(StepPlan(total=20, every=5, seed=0))
    module.follow(None)
    assert next(iter(module.train_dataloader()))[0].shape == (10, 2, 6, 6)


@pytest.mark.parametrize(("size", "sizes"), [(30, [30]), (100, [30]), (12, [12, 12, 6]), (15, [15, 15])])
def test_evaluation_holds_every_sample_once_in_order(size: int, sizes: list[int]) -> None:
    module = data(eval_batch_size=size)
    loader = module.test_dataloader()
    batches = list(loader)
    assert len(loader) == len(batches)
    assert [len(labels) for _, labels in batches] == sizes
    assert torch.equal(torch.cat([images for images, _ in batches]), module.test.images.float() / 255)
    assert torch.equal(torch.cat([labels for _, labels in batches]), module.test.labels)


@pytest.mark.parametrize("augmentation", ["none", "flip_crop"])
def test_accuracy_on_the_training_set_is_taken_in_order_and_without_augmentation(augmentation: str) -> None:
    module = data(augmentation=augmentation, eval_batch_size=40)
    batches = list(module.train_eval_dataloader())
    assert torch.equal(torch.cat([images for images, _ in batches]), module.train.images.float() / 255)
    assert torch.equal(torch.cat([labels for _, labels in batches]), module.train.labels)


@pytest.mark.gpu
@pytest.mark.parametrize("augmentation", ["none", "flip_crop"])
def test_a_gpu_sees_the_cpus_batches(augmentation: str) -> None:
    module = data(augmentation=augmentation)
    module.follow(StepPlan(total=25, every=7, seed=5))
    on_cpu = steps(module)
    module.trainer = fake_trainer()
    module.trainer.strategy.root_device = torch.device("cuda", 0)
    on_gpu = steps(module)
    assert {images.device.type for images, _ in on_gpu} == {"cuda"}
    for (images, labels), (other_images, other_labels) in zip(on_cpu, on_gpu, strict=True):
        assert torch.equal(labels, other_labels.cpu())
        torch.testing.assert_close(images, other_images.cpu())
