"""What every data set shares: splitting, living on the device, and handing out batches."""

from typing import ClassVar, Literal

import pytorch_lightning as pl
import torch
from torch import Generator, Tensor

from lth_lightning.data.augmentation import Augmentation, flip_crop, pad, unpadded
from lth_lightning.data.batches import EvalBatches, Share, StepPlan, TrainBatches
from lth_lightning.data.normalization import MeanStd, Normalization, Normalizer
from lth_lightning.data.originals import check_content
from lth_lightning.data.splits import Split
from lth_lightning.errors import UserError
from lth_lightning.seeding import derive_seed

Part = Literal["train", "val", "test"]


class TensorDataModule(pl.LightningDataModule):
    """A data set small enough to live on the training device as tensors.

    A data set is a subclass with the constants below and `_load`. After
    `setup`, `train`, `val` and `test` are its parts; the validation part is drawn from the training images by
    `split_seed` alone, so every replicate and arm of an experiment shares it (paper: drawn at random, 5,000
    images).

    Args:
        root: folder that holds the data set's files, or into which they are downloaded.
        batch_size: samples of one optimizer step, over all devices together.
        validation_size: training images set aside for validation.
        split_seed: which images those are.
        normalization: dataset, none, half, lecun, unit_l2, or `mean` and `std` for pixels in [0, 1];
            '{mean: [0], std: [0.00392156862745098]}', of which std is 1/255, gives raw pixels of 0 to 255.
        augmentation: flip_crop flips at random and crops from a 4-pixel border, training batches only.
        download: fetch the files where `root` has none.
        eval_batch_size: samples evaluated at once.

    Raises UserError for a class without its constants, for sizes that do not fit the data set, and in `setup` for
    images that are all of one color; `train_dataloader` does for a batch size that the
    number of devices does not divide.
    """

    num_classes: ClassVar[int]
    shape: ClassVar[tuple[int, int, int]]
    """Of an image: (channels, height, width)."""
    pool_size: ClassVar[int]
    """Images of training and validation together."""
    max_value: ClassVar[int] = 255
    """The raw value of a white pixel."""
    mean_std: ClassVar[MeanStd]
    """Published statistics of the training images, pixels in [0, 1]."""

    def __init__(
        self,
        root: str = "data",
        batch_size: int = 60,
        validation_size: int = 5000,
        split_seed: int = 0,
        normalization: Normalization = "dataset",
        augmentation: Augmentation = "none",
        download: bool = True,
        eval_batch_size: int = 5000,
    ) -> None:
        super().__init__()
        if missing := [name for name in ("num_classes", "shape", "pool_size", "mean_std") if not hasattr(self, name)]:
            raise UserError(
                f"{type(self).__name__} is no data set, since it has no {missing[0]}: name one, such as MNIST, or give "
                "your own class its constants."
            )
        if not 0 < validation_size < self.pool_size:
            raise UserError(f"validation_size is {validation_size}: give 1 to {self.pool_size - 1:,}.")
        if not 1 <= batch_size <= self.pool_size - validation_size:
            most = self.pool_size - validation_size
            raise UserError(f"batch_size is {batch_size}: give 1 to the training images, {most:,}.")
        if eval_batch_size < 1:
            raise UserError(f"eval_batch_size is {eval_batch_size}: give 1 or more.")
        if augmentation not in ("none", "flip_crop"):
            raise UserError(f"Unknown augmentation {augmentation!r}: use none or flip_crop.")
        self.root = root
        self.batch_size = batch_size
        self.validation_size = validation_size
        self.split_seed = split_seed
        self.augmentation = augmentation
        self.download = download
        self.eval_batch_size = eval_batch_size
        self.normalize = Normalizer(normalization, self.shape[0], self.mean_std, self.max_value)
        self._plan: StepPlan | None = None
        self._with_test = False
        self._is_set_up = False
        self._parts: dict[Part, Split] = {}
        self._given: set[Part] = set()
        self._device: torch.device | None = None
        self._resident: dict[str, tuple[Tensor, Tensor]] = {}

    def _load(self) -> tuple[Split, Split]:
        """Read the `pool_size` images of training and validation, and the test images.

        Raises UserError where files are missing or damaged.
        """
        raise NotImplementedError

    def setup(self, stage: str | None = None) -> None:
        """Read and split, once: a run calls this for each of its fits. `stage` changes nothing."""
        if self._is_set_up:
            return
        pool, test = self._load()
        check_content(type(self), self.root, pool, test)
        generator = Generator().manual_seed(derive_seed("split", self.split_seed))
        order = torch.randperm(self.pool_size, generator=generator)
        val, train = pool.select(order[: self.validation_size]), pool.select(order[self.validation_size :])
        self._parts = {"train": train, "val": val, "test": test}
        self._given.clear()
        self._is_set_up = True

    @property
    def train(self) -> Split:
        """The training images."""
        return self._part("train")

    @train.setter
    def train(self, split: Split) -> None:
        self._give("train", split)

    @property
    def val(self) -> Split:
        """The validation images, drawn from the original training set."""
        return self._part("val")

    @val.setter
    def val(self, split: Split) -> None:
        self._give("val", split)

    @property
    def test(self) -> Split:
        """The test images."""
        return self._part("test")

    @test.setter
    def test(self, split: Split) -> None:
        self._give("test", split)

    def _give(self, part: Part, split: Split) -> None:
        """Somebody's own part: kept, for it could not be read again."""
        self._given.add(part)
        self._parts[part] = split

    def _part(self, part: Part) -> Split:
        """As it was read; read again where it has been let go."""
        if self._is_set_up and part not in self._parts:
            self._is_set_up = False
            self.setup()
        if part not in self._parts:
            raise AttributeError(f"The data set has no '{part}' yet: call setup() first.")
        return self._parts[part]

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps of one epoch: the last partial batch is dropped. Known before `setup`."""
        return (self.pool_size - self.validation_size) // self.batch_size

    def check_devices(self, count: int) -> None:
        """Raise UserError where a batch cannot be split evenly over `count` devices."""
        if self.batch_size % count:
            raise UserError(
                f"A batch of {self.batch_size} cannot be split evenly over {count} devices: "
                f"choose a batch_size that is a multiple of {count}."
            )

    def follow(self, plan: StepPlan | None, with_test: bool = False) -> None:
        """Say how the next training's batches are cut; None gives ordinary batches.

        `with_test` makes the test set a second validation loader, for a test curve.
        """
        self._plan = plan
        self._with_test = with_test

    def resident(self, part: Part, device: torch.device) -> tuple[Tensor, Tensor]:
        """A part as its batches are cut from it, moved to the device once and kept there.

        Images [n, C, H, W] are float32 and normalized, except for training images that are augmented: those stay
        uint8, padded. Labels [n] are int64.
        """
        if device != self._device:
            self._resident.clear()
            self._device = device
        if part not in self._resident:
            split = self._part(part)
            raw = split.images.to(device)
            augmented = part == "train" and self.augmentation != "none"
            self._resident[part] = (pad(raw) if augmented else self.normalize(raw)), split.labels.to(device)
            if part not in self._given:
                del self._parts[part]  # the memory of a second copy
        return self._resident[part]

    def sample(self, number: int, generator: Generator) -> tuple[Tensor, Tensor]:
        """`number` training images [number, C, H, W], float32, normalized, not augmented, and labels; on the CPU.

        No image comes twice. Raises UserError where there are fewer.
        """
        self.setup()
        images, labels = self._here("train")
        if number > len(labels):
            raise UserError(f"{number} training samples are asked for, but there are {len(labels):,}.")
        index = torch.randperm(len(labels), generator=generator)[:number].to(labels.device)
        chosen = images[index]
        if self.augmentation != "none":
            chosen = self.normalize(unpadded(chosen))
        return chosen.cpu(), labels[index].cpu()

    def train_dataloader(self) -> TrainBatches:
        """Batches of the training set: long ones by the plan, or ordinary ones, normalized and augmented."""
        share = self._share()
        self.check_devices(share.world_size)
        images, labels = self._here("train")
        augmented = self.augmentation != "none"

        def gather(index: Tensor, choices: Tensor | None) -> Tensor:
            if choices is None:
                return images.index_select(0, index)
            return self.normalize(flip_crop(images, index, choices))

        return TrainBatches(
            labels, gather, self.batch_size, self._plan, augmented, current_step=self._step, share=share
        )

    def train_eval_dataloader(self) -> EvalBatches:
        """The training set in order and without augmentation, for accuracy on it."""
        images, labels = self._here("train")
        if self.augmentation == "none":
            return EvalBatches(images, labels, self.eval_batch_size)
        return EvalBatches(unpadded(images), labels, self.eval_batch_size, self.normalize)

    def val_dataloader(self) -> EvalBatches | list[EvalBatches]:
        """The validation set, in order; with the test set behind it where a test curve was asked for."""
        batches = EvalBatches(*self._here("val"), self.eval_batch_size)
        return [batches, self.test_dataloader()] if self._with_test else batches

    def test_dataloader(self) -> EvalBatches:
        """The test set, in order."""
        return EvalBatches(*self._here("test"), self.eval_batch_size)

    def _here(self, part: Part) -> tuple[Tensor, Tensor]:
        return self.resident(part, torch.device("cpu") if self.trainer is None else self.trainer.strategy.root_device)

    def _step(self) -> int:
        return 0 if self.trainer is None else self.trainer.global_step

    def _share(self) -> Share:
        trainer = self.trainer
        if trainer is None or trainer.world_size == 1:
            return Share()
        return Share(trainer.global_rank, trainer.world_size, trainer.strategy.broadcast)
