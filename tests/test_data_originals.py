"""Files that are not a data set's own: images that show nothing, another set's under its names, and changed ones."""

import warnings
import zlib

import pytest
import torch

from lth_lightning.data import MNIST, originals
from lth_lightning.data.base import Split
from lth_lightning.errors import UserError


def made(seed: int, count: int = 6) -> Split:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (count, 1, 4, 4), generator=generator).to(torch.uint8)
    return Split(images, torch.randint(0, 10, (count,), generator=generator))


def sums(*splits: Split) -> tuple[int, ...]:
    return tuple(
        zlib.crc32(bytes(part.flatten().tolist())) for split in splits for part in (split.images, split.labels)
    )


@pytest.fixture(autouse=True)
def _known(monkeypatch: pytest.MonkeyPatch) -> None:
    known = {"MNIST": sums(made(1), made(2)), "FashionMNIST": sums(made(3), made(4))}
    monkeypatch.setattr(originals, "CHECKSUMS", known)


def test_the_original_files_pass_in_silence() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        originals.check_content(MNIST, "data", made(1), made(2))


def test_images_of_one_color_are_refused() -> None:
    black = Split(torch.zeros(6, 1, 4, 4, dtype=torch.uint8), made(1).labels)
    for parts in ((black, made(2)), (made(1), black)):
        with pytest.raises(UserError, match="fetch the original ones"):
            originals.check_content(MNIST, "data", *parts)


def test_another_sets_files_are_refused_by_name() -> None:
    for parts in ((made(3), made(4)), (Split(made(3).images, made(1).labels), made(2)), (made(1), made(4))):
        with pytest.raises(UserError, match="those of FashionMNIST"):
            originals.check_content(MNIST, "data", *parts)


def test_changed_files_are_warned_of() -> None:
    changed = made(1)
    changed.images[0, 0, 0, 0] ^= 1
    with pytest.warns(UserWarning, match=r"training images in 'data' are not the original ones of MNIST"):
        originals.check_content(MNIST, "data", changed, made(2))


def test_a_class_of_ones_own_is_not_asked() -> None:
    class Mine(MNIST):
        pass

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        originals.check_content(Mine, "data", made(8), made(9))
