"""Hooks that draw, that make layers, or that expect what Lightning alone would give them."""

from collections.abc import Iterator
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset, Subset, TensorDataset, random_split
from zoo_base import TRAIN, VAL, Data, Kind, Plain, points

WHOLE = points(80, 4)
"""Training and validation data that a user splits at random."""


class SplitsInSetup(Data):
    """A random split without a seed, in `setup`, which Lightning calls for every fit, validation and test."""

    splits: ClassVar[set[tuple[int, ...]]] = set()
    """The training samples of all splits that were drawn."""

    def setup(self, stage: str) -> None:
        self.train, self.val, self.test = random_split(WHOLE, [40, 20, 20])
        self.splits.add(tuple(sorted(self.train.indices)))

    def train_dataloader(self) -> Any:
        return DataLoader(self.train, batch_size=8, shuffle=True)

    def val_dataloader(self) -> Any:
        return DataLoader(self.val, batch_size=10)

    def test_dataloader(self) -> Any:
        return DataLoader(self.test, batch_size=10)


class SplitsInLoaders(Data):
    """Each loader splits the data anew."""

    parts: ClassVar[list[tuple[str, frozenset[int]]]] = []

    def _part(self, number: int, name: str) -> Subset[Any]:
        part = random_split(WHOLE, [40, 40])[number]
        self.parts.append((name, frozenset(part.indices)))
        return part

    def train_dataloader(self) -> Any:
        return DataLoader(self._part(0, "train"), batch_size=8, shuffle=True)

    def val_dataloader(self) -> Any:
        return DataLoader(self._part(1, "val"), batch_size=10)


class SplitsInPrepareData(SplitsInSetup):
    """A split that `prepare_data` draws."""

    def prepare_data(self) -> None:
        self.order = torch.randperm(80).tolist()

    def setup(self, stage: str) -> None:
        cut = [self.order[:40], self.order[40:60], self.order[60:]]
        self.train, self.val, self.test = (Subset(WHOLE, part) for part in cut)


class SplitsWhenMade(SplitsInSetup):
    """A split that is drawn when the data module is made, before any hook."""

    def __init__(self) -> None:
        super().__init__()
        self.train, self.val, self.test = random_split(WHOLE, [40, 20, 20])

    def setup(self, stage: str) -> None:
        pass


def one_split(_: Any) -> None:
    assert len(SplitsInSetup.splits) == 1


def disjoint_parts(_: Any) -> None:
    found = {name: {part for who, part in SplitsInLoaders.parts if who == name} for name in ("train", "val")}
    assert {name: len(parts) for name, parts in found.items()} == {"train": 1, "val": 1}
    (train,), (val,) = found.values()
    assert not train & val


class OwnGenerator(Data):
    """The loader draws from a generator that lives as long as the data module."""

    orders: ClassVar[list[list[float]]] = []

    def __init__(self) -> None:
        super().__init__()
        self.generator = torch.Generator().manual_seed(5)

    def train_dataloader(self) -> Any:
        return DataLoader(TRAIN, batch_size=8, shuffle=True, generator=self.generator)


class HeadInSetup(Plain):
    """A layer that is made in `setup`, for a size that the data tell, the first time alone."""

    def __init__(self) -> None:
        super().__init__()
        del self.head

    def setup(self, stage: str) -> None:
        if not hasattr(self, "head"):
            self.head = nn.Linear(10, self.classes())

    def classes(self) -> int:
        assert isinstance(self.trainer.datamodule, Data)
        return 3


class HeadInEverySetup(HeadInSetup):
    """A layer that `setup` makes anew each time: Lightning's own `fit` and then `test` would test an untrained one."""

    def setup(self, stage: str) -> None:
        self.head = nn.Linear(10, self.classes())


class HeadInConfigureModel(HeadInSetup):
    """A layer that is made in `configure_model`."""

    def configure_model(self) -> None:
        if not hasattr(self, "head"):
            self.head = nn.Linear(10, 3)

    def setup(self, stage: str) -> None:
        pass


class GrowsInSetup(Plain):
    """A network that gets another layer each time that `setup` is called."""

    def setup(self, stage: str) -> None:
        number = sum(name.startswith("extra") for name, _ in self.named_children())
        self.add_module(f"extra{number}", nn.Linear(2, 2))


class InitializesInFit(Plain):
    """Weights that are drawn when a fit starts, after they were rewound."""

    def on_fit_start(self) -> None:
        nn.init.normal_(self.stem.weight)


class LogsByHand(Plain):
    """Uses its logger at the end of a test."""

    def on_test_epoch_end(self) -> None:
        self.logger.experiment.add_scalar("by_hand", 1.0, self.global_step)
        assert isinstance(self.logger.log_dir, str)

    on_validation_epoch_end = on_test_epoch_end


class Endless(IterableDataset[Any]):
    """Training samples for ever."""

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        while True:
            yield TRAIN[int(torch.randint(len(TRAIN), ()))]


class EndlessData(Data):
    def train_dataloader(self) -> Any:
        return DataLoader(Endless(), batch_size=8)


class TwoTrainLoaders(Data):
    """A dictionary of train loaders of different lengths, each shuffled."""

    def train_dataloader(self) -> Any:
        more = TensorDataset(*VAL.tensors)
        return {"main": DataLoader(TRAIN, 8, shuffle=True), "more": DataLoader(more, 5, shuffle=True)}


class TakesTwo(Plain):
    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return sum(Plain.training_step(self, part, batch_idx) for part in batch.values())


class ThreeInABatch(Data):
    """Training batches that validation_step does not know."""

    def train_dataloader(self) -> Any:
        inputs, labels = TRAIN.tensors
        return DataLoader(TensorDataset(inputs, inputs.flip(0), labels), 8, shuffle=True)


class Mixes(Plain):
    """Trains on triples; evaluates pairs."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        inputs, others, labels = batch
        return Plain.training_step(self, (inputs + 0.1 * others, labels), batch_idx)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        inputs, labels = batch
        self.evaluate("val", (inputs, labels))


class DropsABackbone(Plain):
    """Keeps a frozen part out of its checkpoints, and brings it itself when one is loaded."""

    def __init__(self) -> None:
        super().__init__()
        self.stem.requires_grad_(False)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        for name in ("stem.weight", "stem.bias"):
            del checkpoint["state_dict"][name]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        own = self.state_dict()
        for name in ("stem.weight", "stem.bias"):
            checkpoint["state_dict"].setdefault(name, own[name])

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam([p for p in self.parameters() if p.requires_grad], lr=0.02)


class DrawsAtEpochStart(Plain):
    """Noise that is drawn once an epoch."""

    @torch.no_grad()
    def on_train_epoch_start(self) -> None:
        if self.current_epoch > 0:
            self.norm.bias.add_(0.01 * torch.randn(10))


NO_ACCURACY = "Training accuracy is not measured"
KINDS = [
    Kind("plain"),
    Kind("splits in setup", data=SplitsInSetup, draws_data=True, check=one_split),
    Kind("splits in prepare_data", data=SplitsInPrepareData, draws_data=True),
    Kind("splits in its loaders", data=SplitsInLoaders, draws_data=True, check=disjoint_parts),
    Kind("a generator of its own", data=OwnGenerator),
    Kind("a head made in setup", model=HeadInSetup),
    Kind("a head made in every setup", model=HeadInEverySetup),
    Kind("a head made in configure_model", model=HeadInConfigureModel),
    Kind("layers added in every setup", model=GrowsInSetup, refusal="makes other layers each time", trained=True),
    Kind("weights drawn in on_fit_start", model=InitializesInFit, refusal=r"'stem.weight' when a fit", trained=True),
    Kind("logs by hand", model=LogsByHand),
    Kind("endless data", data=EndlessData, told=NO_ACCURACY),
    Kind("two train loaders", model=TakesTwo, data=TwoTrainLoaders, told=NO_ACCURACY),
    Kind("train batches of three", model=Mixes, data=ThreeInABatch, told=f"{NO_ACCURACY}.*not enough values|too many"),
    Kind("a backbone left out of checkpoints", model=DropsABackbone),
    Kind("draws at an epoch's start", model=DrawsAtEpochStart),
]
