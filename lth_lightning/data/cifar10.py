"""CIFAR10 from any of its official packagings."""

import tarfile
import zlib
from pathlib import Path, PurePosixPath
from typing import ClassVar

import torch

from lth_lightning.data.base import Split, TensorDataModule
from lth_lightning.data.cifar10_files import read_binary, read_pickle
from lth_lightning.data.files import damaged, download, find_together, missing, one_line, read_bytes
from lth_lightning.data.normalization import MeanStd

_BATCHES = [f"data_batch_{number}" for number in range(1, 6)] + ["test_batch"]
_NAMES = {"python": _BATCHES, "binary": [f"{name}.bin" for name in _BATCHES]}
_READERS = {"python": read_pickle, "binary": read_binary}


class CIFAR10(TensorDataModule):
    """CIFAR10: 32 x 32 color images in ten classes; 45,000 / 5,000 / 10,000 (paper, Fig. 2).

    Reads the python or the binary version: the six batch files, gzipped or not, in
    `root/cifar-10-batches-py`, `root/cifar-10-batches-bin` or `root` itself, or `cifar-10-python.tar.gz` or
    `cifar-10-binary.tar.gz` in `root`. Where none is there, torchvision downloads the python version into
    `root`. Arguments and errors: `TensorDataModule`.
    """

    num_classes: ClassVar[int] = 10
    shape: ClassVar[tuple[int, int, int]] = (3, 32, 32)
    pool_size: ClassVar[int] = 50_000
    test_size: ClassVar[int] = 10_000
    mean_std: ClassVar[MeanStd] = MeanStd([0.4914, 0.4822, 0.4465], [0.2470, 0.2435, 0.2616])

    def prepare_data(self) -> None:
        """Download where the files are not there. Raises UserError where they cannot be had."""
        if self._is_set_up or self._find() is not None:
            return
        if not self.download:
            raise missing("CIFAR10", self.root)
        download("CIFAR10", self.root, self._download)

    def _download(self) -> None:
        from torchvision import datasets  # imported late: it takes a second

        datasets.CIFAR10(self.root, download=True)

    def _find(self) -> tuple[str, list[Path]] | None:
        """Which version was found, and its six batch files or its one archive."""
        root = Path(self.root)
        for version, folder in (("python", "cifar-10-batches-py"), ("binary", "cifar-10-batches-bin")):
            paths = find_together([root / folder, root], [(name,) for name in _NAMES[version]])
            if paths is not None:
                return version, paths
        for version in _NAMES:
            archive = root / f"cifar-10-{version}.tar.gz"
            if archive.is_file():
                return version, [archive]
        return None

    def _load(self) -> tuple[Split, Split]:
        found = self._find()
        if found is None:
            raise missing("CIFAR10", self.root)
        version, paths = found
        files = _from_archive(paths[0], _NAMES[version]) if len(paths) == 1 else map(read_bytes, paths)
        parts = []
        for number, (name, content) in enumerate(zip(_NAMES[version], files, strict=True)):
            size = self.test_size if number == len(_BATCHES) - 1 else self.pool_size // (len(_BATCHES) - 1)
            where = f"{paths[0]}, {name}" if len(paths) == 1 else str(paths[number])
            try:
                images, labels = _READERS[version](content, size)
            except ValueError as error:
                raise damaged(where, one_line(error)) from None
            if not bool(((labels >= 0) & (labels < self.num_classes)).all()):
                raise damaged(where, f"it has labels outside 0 to {self.num_classes - 1}")
            parts.append(Split(images.view(-1, *self.shape), labels))
        *pool, test = parts
        images, labels = (torch.cat(tensors) for tensors in zip(*((p.images, p.labels) for p in pool), strict=True))
        return Split(images, labels), test


def _from_archive(archive: Path, names: list[str]) -> list[bytes]:
    """The content of those files in a .tar.gz, in that order, unpacked in memory."""
    contents: dict[str, bytes] = {}
    try:
        with tarfile.open(archive, "r:gz") as tar:
            for member in tar:
                name = PurePosixPath(member.name).name
                file = tar.extractfile(member) if name in names else None
                if file is not None:
                    contents[name] = file.read()
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise damaged(archive, one_line(error)) from None
    absent = [name for name in names if name not in contents]
    if absent:
        raise damaged(archive, f"it has no {absent[0]}")
    return [contents[name] for name in names]
