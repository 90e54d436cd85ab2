"""LightningModules: one classifier base and the networks of the paper around it."""

from lth_lightning.models.classifier import Classifier
from lth_lightning.models.conv import Conv2, Conv4, Conv6
from lth_lightning.models.initialization import glorot_normal_
from lth_lightning.models.lenet import LeNet300
from lth_lightning.models.resnet import ResNet20
from lth_lightning.models.schedule import WarmupMultiStepLR
from lth_lightning.models.supermask import Supermask
from lth_lightning.models.vgg import VGG19

__all__ = [
    "VGG19",
    "Classifier",
    "Conv2",
    "Conv4",
    "Conv6",
    "LeNet300",
    "ResNet20",
    "Supermask",
    "WarmupMultiStepLR",
    "glorot_normal_",
]
