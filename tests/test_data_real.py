"""The original data sets, in the folder that LTH_DATA names: sizes, label counts, published statistics."""

import os

import pytest
import torch

from lth_lightning.data import CIFAR10, MNIST, FashionMNIST, StepPlan, TensorDataModule

pytestmark = [
    pytest.mark.real_data,
    pytest.mark.skipif("LTH_DATA" not in os.environ, reason="LTH_DATA names no folder"),
]

# MNIST's are counted in its files by many; the other two are balanced by construction.
COUNTS = {
    MNIST: (
        [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949],
        [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009],
    ),
    FashionMNIST: ([6000] * 10, [1000] * 10),
    CIFAR10: ([5000] * 10, [1000] * 10),
}
STATISTICS = {  # the project's paper notes, section 6
    MNIST: ([0.1307], [0.3081]),
    FashionMNIST: ([0.2860], [0.3530]),
    CIFAR10: ([0.4914, 0.4822, 0.4465], [0.2470, 0.2435, 0.2616]),
}


@pytest.fixture(scope="module", params=[MNIST, FashionMNIST, CIFAR10], ids=lambda cls: cls.__name__)
def data(request: pytest.FixtureRequest) -> TensorDataModule:
    module = request.param(os.environ["LTH_DATA"], download=False)
    module.prepare_data()
    module.setup("fit")
    return module


def test_sizes_are_the_papers(data: TensorDataModule) -> None:
    train = 45_000 if isinstance(data, CIFAR10) else 55_000
    assert [len(part.labels) for part in (data.train, data.val, data.test)] == [train, 5000, 10_000]
    assert data.train.images.shape == (train, *data.shape)


def test_labels_are_as_many_as_published(data: TensorDataModule) -> None:
    pool, test = COUNTS[type(data)]
    assert torch.bincount(torch.cat([data.train.labels, data.val.labels])).tolist() == pool
    assert torch.bincount(data.test.labels).tolist() == test


def test_means_and_deviations_are_the_published_ones(data: TensorDataModule) -> None:
    mean, std = STATISTICS[type(data)]
    assert data.mean_std.mean == mean
    assert data.mean_std.std == std
    pool = torch.cat([data.train.images, data.val.images]) / 255
    channels = pool.transpose(0, 1).flatten(1)
    assert channels.mean(1).tolist() == pytest.approx(mean, abs=2e-4)
    assert channels.std(1).tolist() == pytest.approx(std, abs=2e-4)


def test_training_batches_are_standardized(data: TensorDataModule) -> None:
    data.follow(StepPlan(total=100, every=100, seed=0))
    ((images, labels),) = data.train_dataloader()
    assert images.shape == (100, 60, *data.shape)
    assert labels.shape == (100, 60)
    assert abs(float(images.mean())) < 0.05
    assert abs(float(images.std()) - 1) < 0.05
