"""Generators that loaders draw from instead of the global ones, which a run seeds anyway."""

from collections.abc import Iterable
from typing import Any

import torch
from pytorch_lightning.utilities.combined_loader import CombinedLoader

from lth_lightning.seeding import derive_seed


def flattened(loaders: Any) -> list[Any]:
    """The loaders of any collection of them, or the one that it is."""
    if loaders is None:
        return []
    if isinstance(loaders, (list, tuple, dict)):
        loaders = CombinedLoader(loaders)
    return list(loaders.flattened) if isinstance(loaders, CombinedLoader) else [loaders]


def own_generators(loader: Any) -> Iterable[torch.Generator]:
    """The generators that a DataLoader and its samplers draw from instead of the global one."""
    batches = getattr(loader, "batch_sampler", None)
    holders = (loader, getattr(loader, "sampler", None), batches, getattr(batches, "sampler", None))
    found = [getattr(holder, "generator", None) for holder in holders]
    return [generator for generator in found if isinstance(generator, torch.Generator)]


def seed_evaluation_loaders(loaders: Any, seed: int) -> None:
    """Have all evaluations of a run draw the same from generators of the loaders' own; `seed` is the run's."""
    for number, loader in enumerate(flattened(loaders)):
        for generator in own_generators(loader):
            generator.manual_seed(derive_seed(seed, "evaluation loaders", number))
