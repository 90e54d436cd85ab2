"""Images of random numbers in MNIST's shapes and sizes, so that nothing needs to be downloaded."""

import torch

from lth_lightning.data import MNIST, Split


class RandomMNIST(MNIST):
    """60,000 images [1, 28, 28] for training and validation, 10,000 to test; the labels are random too."""

    def prepare_data(self) -> None:
        pass

    def _load(self) -> tuple[Split, Split]:
        generator = torch.Generator().manual_seed(0)

        def split(size: int) -> Split:
            images = torch.randint(256, (size, *self.shape), dtype=torch.uint8, generator=generator)
            return Split(images, torch.randint(self.num_classes, (size,), generator=generator))

        return split(self.pool_size), split(self.test_size)
