"""Whether a data set's files are the original ones: by check sums of what they hold, whatever they are packed in."""

import warnings
import zlib

import torch

from lth_lightning.data.splits import Split
from lth_lightning.errors import UserError

CHECKSUMS = {
    "MNIST": (0xF3639B56, 0xBA07E8EF, 0xE4CA5F57, 0xEE8604D9),
    "FashionMNIST": (0xAE65DCCD, 0x2ED6E46A, 0x12728439, 0x242BC73F),
    "CIFAR10": (0xE26E264D, 0x4EE6AC62, 0x6E8778C0, 0xBADA58C9),
}
"""CRC-32 of all pixels and all labels, each a byte: training images, their labels, test images, their labels."""

_PARTS = ("training images", "training labels", "test images", "test labels")


def check_content(kind: type, root: str, pool: Split, test: Split) -> None:
    """Raise UserError for images that show nothing, or are another data set's; warn of files that are not the original.

    Args:
        kind: the data set's class. A subclass may read files of its own, so its check sums are not looked up.
        root: where the files are.
        pool: all images of training and validation, raw.
        test: the test images.
    """
    for name, split in (("training", pool), ("test", test)):
        if len(split.images) and int(split.images.min()) == int(split.images.max()):
            raise UserError(
                f"All pixels of all {name} images in {root!r} are {int(split.images.min())}: "
                "delete the files and fetch the original ones again."
            )
    own = CHECKSUMS.get(kind.__name__) if kind.__module__.startswith("lth_lightning.") else None
    if own is None:
        return
    found = [
        zlib.crc32(part.to(torch.uint8).numpy().tobytes())
        for split in (pool, test)
        for part in (split.images, split.labels)
    ]
    for name, others in CHECKSUMS.items():
        for what, sum_, other in zip(_PARTS, found, others, strict=True):
            if name != kind.__name__ and sum_ == other:
                raise UserError(
                    f"The {what} in {root!r} are those of {name}, and not of {kind.__name__}: use --data {name}, "
                    "or point --data.root at the right files."
                )
    if wrong := [what for what, sum_, right in zip(_PARTS, found, own, strict=True) if sum_ != right]:
        warnings.warn(
            f"The {' and the '.join(wrong)} in {root!r} are not the original ones of {kind.__name__} (their check sums "
            "differ): results are of other data.",
            stacklevel=2,
        )
