"""Training samples for criteria that look at the data."""

from typing import Any

import torch
from pytorch_lightning import LightningDataModule, LightningModule
from torch import Tensor

from lth_lightning.callbacks.replay import own_generators
from lth_lightning.data import TensorDataModule
from lth_lightning.errors import UserError
from lth_lightning.seeding import seed_all


def draw_samples(
    source: LightningDataModule | LightningModule, number: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """`number` inputs [number, ...] of the training set and their targets [number], on the CPU.

    From somebody's own loaders they are the first of a newly made train loader, in the order of its own draws.

    Raises UserError where there are fewer, or where batches are no pairs of inputs and targets.
    """
    if isinstance(source, TensorDataModule):
        return source.sample(number, generator)
    seed = int(torch.randint(2**31, (), generator=generator))
    source.prepare_data()
    source.setup("fit")
    loader = source.train_dataloader()
    for own in own_generators(loader):
        own.manual_seed(seed)
    seed_all(seed)
    inputs, targets, found = [], [], 0
    for batch in loader:
        pair: Any = batch
        if not isinstance(pair, (tuple, list)) or len(pair) != 2 or not all(isinstance(p, Tensor) for p in pair):
            raise UserError("This criterion needs batches of two tensors, inputs and targets: use another.")
        inputs.append(pair[0].cpu())
        targets.append(pair[1].cpu())
        found += len(targets[-1])
        if found >= number:
            return torch.cat(inputs)[:number], torch.cat(targets)[:number]
    raise UserError(f"{number} training samples are asked for, but the train loader gives {found}.")
