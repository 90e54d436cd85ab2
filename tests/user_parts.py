"""Classes of somebody's own, which the command under test finds on PYTHONPATH by their class path."""

import hashlib
import json
import os
import time
from collections import Counter
from pathlib import Path
from typing import Any, ClassVar

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lth_lightning.data.base import Split, TensorDataModule
from lth_lightning.data.batches import EvalBatches
from lth_lightning.data.normalization import MeanStd

STALL = "STALL_IN_TEST"
"""Environment variable: a file to make when the first test begins, which then lasts a minute."""


def blobs(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """uint8 [count, 1, 8, 8] and int64 [count]: ten patterns under noise."""
    patterns = torch.randint(0, 256, (10, 1, 8, 8), generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 10, (count,), generator=generator)
    noise = torch.randint(0, 256, (count, 1, 8, 8), generator=generator)
    return ((patterns[labels] + 2 * noise) // 3).to(torch.uint8), labels


class Blobs(TensorDataModule):
    """A data set that needs neither files nor a download, and can be augmented."""

    num_classes: ClassVar[int] = 10
    shape: ClassVar[tuple[int, int, int]] = (1, 8, 8)
    pool_size: ClassVar[int] = 700
    mean_std: ClassVar[MeanStd] = MeanStd([0.5], [0.25])

    def _load(self) -> tuple[Split, Split]:
        return Split(*blobs(self.pool_size, 1)), Split(*blobs(200, 2))

    def test_dataloader(self) -> EvalBatches:
        if mark := os.environ.get(STALL):
            Path(mark).touch()
            time.sleep(60)
        return super().test_dataloader()


def samples(images: Tensor) -> list[str]:
    """A name for each image of [..., C, H, W]."""
    rows = images.detach().cpu().flatten(0, -4).flatten(1).numpy()
    return [hashlib.sha256(row.tobytes()).hexdigest()[:16] for row in rows]


def checksum(tensors: list[Tensor]) -> str:
    return hashlib.sha256(b"".join(tensor.detach().cpu().numpy().tobytes() for tensor in tensors)).hexdigest()


class Witness(pl.Callback):
    """Appends to `folder/rank_R.jsonl`, a line a fit: what this rank trained on and what it ended with."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)
        self.batches: list[list[str]] = []

    def on_train_batch_start(self, trainer: pl.Trainer, module: pl.LightningModule, batch: Any, index: int) -> None:
        images = batch[0]
        steps = images if images.dim() == 5 else images.unsqueeze(0)
        self.batches += [samples(step) for step in steps]

    def on_train_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        parameters = list(module.parameters())
        line = {
            "weights": checksum(parameters),
            "zeros": checksum([parameter == 0 for parameter in parameters]),
            "batches": self.batches,
        }
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / f"rank_{trainer.global_rank}.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")


class Foreign(pl.LightningModule):
    """An ordinary module with loaders of its own, as tutorials show it; it knows nothing of this package."""

    def __init__(self, batch_size: int = 20) -> None:
        super().__init__()
        self.batch_size = batch_size
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))

    def _loader(self, count: int, seed: int, shuffle: bool) -> DataLoader:
        images, labels = blobs(count, seed)
        return DataLoader(TensorDataset(images / 255, labels), self.batch_size, shuffle=shuffle)

    def train_dataloader(self) -> DataLoader:
        return self._loader(400, 1, shuffle=True)

    def val_dataloader(self) -> DataLoader:
        return self._loader(100, 2, shuffle=False)

    def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
        return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

    def validation_step(self, batch: tuple[Tensor, Tensor], index: int) -> None:
        self.log("val_loss", nn.functional.cross_entropy(self.net(batch[0]), batch[1]), sync_dist=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def lines(folder: Path, rank: int) -> list[dict[str, Any]]:
    """What `Witness` wrote for `rank`."""
    return [json.loads(line) for line in (folder / f"rank_{rank}.jsonl").read_text().splitlines()]


def counts(batches: list[list[str]]) -> Counter[str]:
    return Counter(name for batch in batches for name in batch)
