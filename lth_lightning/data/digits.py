"""scikit-learn's handwritten digits: a data set that needs no download."""

from typing import ClassVar

import torch
from torch import Generator

from lth_lightning.data.base import Split, TensorDataModule
from lth_lightning.data.normalization import MeanStd, Normalization
from lth_lightning.errors import UserError
from lth_lightning.seeding import derive_seed


class Digits(TensorDataModule):
    """1,797 gray digits of 8 x 8 pixels: 1,200 for training, 200 for validation, 397 for testing.

    The set has no official test part: ours is drawn once, from a constant seed. Errors: `TensorDataModule`;
    UserError too where scikit-learn is not installed.

    Args:
        batch_size: samples of one optimizer step, over all devices together.
        validation_size: training images set aside for validation.
        split_seed: which images those are.
        normalization: dataset, none, half, lecun, unit_l2, or `mean` and `std` for pixels in [0, 1];
            '{mean: [0], std: [0.00392156862745098]}', of which std is 1/255, gives raw pixels of 0 to 255.
        eval_batch_size: samples evaluated at once.
    """

    num_classes: ClassVar[int] = 10
    shape: ClassVar[tuple[int, int, int]] = (1, 8, 8)
    pool_size: ClassVar[int] = 1400
    max_value: ClassVar[int] = 16
    mean_std: ClassVar[MeanStd] = MeanStd([0.3053], [0.3760])  # computed from all 1,797 images

    def __init__(
        self,
        batch_size: int = 60,
        validation_size: int = 200,
        split_seed: int = 0,
        normalization: Normalization = "dataset",
        eval_batch_size: int = 5000,
    ) -> None:
        super().__init__(
            batch_size=batch_size,
            validation_size=validation_size,
            split_seed=split_seed,
            normalization=normalization,
            eval_batch_size=eval_batch_size,
        )

    def _load(self) -> tuple[Split, Split]:
        try:
            from sklearn.datasets import load_digits  # imported late: it takes a second
        except ImportError:
            raise UserError("Digits needs scikit-learn: pip install scikit-learn.") from None
        bunch = load_digits()
        everything = Split(
            torch.from_numpy(bunch.images).to(torch.uint8).unsqueeze(1),
            torch.from_numpy(bunch.target).to(torch.int64),
        )
        generator = Generator().manual_seed(derive_seed("digits", "test"))
        order = torch.randperm(len(everything.labels), generator=generator)
        return everything.select(order[: self.pool_size]), everything.select(order[self.pool_size :])
