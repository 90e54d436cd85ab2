"""Data sets as LightningDataModules: tensors on the training device, batches cut by arithmetic.

A data set of one's own is one class: `TensorDataModule` with its constants and a `_load`.
"""

from lth_lightning.data.base import Part, Split, TensorDataModule
from lth_lightning.data.batches import EvalBatches, JointOrders, StepPlan, TrainBatches
from lth_lightning.data.cifar10 import CIFAR10
from lth_lightning.data.digits import Digits
from lth_lightning.data.mnist import MNIST, FashionMNIST
from lth_lightning.data.normalization import MeanStd

__all__ = [
    "CIFAR10",
    "MNIST",
    "Digits",
    "EvalBatches",
    "FashionMNIST",
    "JointOrders",
    "MeanStd",
    "Part",
    "Split",
    "StepPlan",
    "TensorDataModule",
    "TrainBatches",
]
