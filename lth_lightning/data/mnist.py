"""MNIST and Fashion-MNIST, which share their format and, unfortunately, their file names."""

from pathlib import Path
from typing import ClassVar

from torch import int64

from lth_lightning.data.base import Split, TensorDataModule
from lth_lightning.data.files import damaged, download, find_together, missing
from lth_lightning.data.idx import read_idx
from lth_lightning.data.normalization import MeanStd, Normalization

_NAMES = [f"{part}-{kind}-ubyte" for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")]


class MNIST(TensorDataModule):
    """MNIST: 28 x 28 gray digits; 55,000 to train on, 5,000 to validate, 10,000 to test (paper, Fig. 2).

    Looks for the four original IDX files, gzipped or not, in `root/MNIST/raw`, `root/MNIST` and `root`
    itself; where no folder has all four, torchvision downloads them into `root`. Errors: `TensorDataModule`.

    Args:
        root: folder that holds the data set's files, or into which they are downloaded.
        batch_size: samples of one optimizer step, over all devices together.
        validation_size: training images set aside for validation.
        split_seed: which images those are.
        normalization: dataset, none, half, lecun, unit_l2, or `mean` and `std` for pixels in [0, 1];
            '{mean: [0], std: [0.00392156862745098]}', of which std is 1/255, gives raw pixels of 0 to 255.
        download: fetch the files where `root` has none.
        eval_batch_size: samples evaluated at once.
    """

    num_classes: ClassVar[int] = 10
    shape: ClassVar[tuple[int, int, int]] = (1, 28, 28)
    pool_size: ClassVar[int] = 60_000
    test_size: ClassVar[int] = 10_000
    mean_std: ClassVar[MeanStd] = MeanStd([0.1307], [0.3081])
    folder: ClassVar[str] = "MNIST"
    """The data set's name, torchvision's folder and its class."""
    first_class: ClassVar[int | None] = 5923
    """How many training labels are 0: tells one data set's files from the other's. None: any number."""

    def __init__(
        self,
        root: str = "data",
        batch_size: int = 60,
        validation_size: int = 5000,
        split_seed: int = 0,
        normalization: Normalization = "dataset",
        download: bool = True,
        eval_batch_size: int = 5000,
    ) -> None:
        super().__init__(
            root=root,
            batch_size=batch_size,
            validation_size=validation_size,
            split_seed=split_seed,
            normalization=normalization,
            download=download,
            eval_batch_size=eval_batch_size,
        )

    def prepare_data(self) -> None:
        """Download where the files are not there. Raises UserError where they cannot be had."""
        if self._is_set_up or self._find() is not None:
            return
        if not self.download:
            raise missing(self.folder, self.root)
        download(self.folder, self.root, self._download)

    def _download(self) -> None:
        from torchvision import datasets  # imported late: it takes a second

        getattr(datasets, self.folder)(self.root, download=True)

    def _find(self) -> list[Path] | None:
        root = Path(self.root)
        spellings = [(name, name.replace("-idx", ".idx")) for name in _NAMES]
        return find_together([root / self.folder / "raw", root / self.folder, root], spellings)

    def _load(self) -> tuple[Split, Split]:
        paths = self._find()
        if paths is None:
            raise missing(self.folder, self.root)
        train = self._read(paths[0], paths[1], self.pool_size)
        zeros = int((train.labels == 0).sum())
        if self.first_class is not None and zeros != self.first_class:
            why = f"{zeros:,} of its labels are 0 and not {self.first_class:,}: it is not {self.folder}'s"
            raise damaged(paths[1], why)
        return train, self._read(paths[2], paths[3], self.test_size)

    def _read(self, images_path: Path, labels_path: Path, count: int) -> Split:
        images = read_idx(images_path, (count, *self.shape[1:]))
        labels = read_idx(labels_path, (count,))
        if int(labels.max()) >= self.num_classes:
            raise damaged(labels_path, f"it has labels outside 0 to {self.num_classes - 1}")
        return Split(images.view(count, *self.shape), labels.to(int64))


class FashionMNIST(MNIST):
    """Fashion-MNIST: 28 x 28 gray clothes in ten classes, sized and stored as MNIST is."""

    mean_std: ClassVar[MeanStd] = MeanStd([0.2860], [0.3530])
    folder: ClassVar[str] = "FashionMNIST"
    first_class: ClassVar[int | None] = 6000
