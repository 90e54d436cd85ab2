"""Generators that a user's data and modules draw from instead of the global ones, which a run seeds anyway."""

import random
from collections.abc import Iterable, Mapping
from types import FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from pytorch_lightning import Trainer
from pytorch_lightning.utilities.combined_loader import CombinedLoader
from torch import Tensor
from torch.utils.data import DataLoader

from lth_lightning.seeding import derive_seed

Generator = torch.Generator | np.random.Generator | np.random.RandomState | random.Random

_MOST_ENTRIES = 1000
"""Of a collection that is looked through: longer ones are lists of data."""

_CLOSED = (Tensor, np.ndarray, Trainer, type, ModuleType, FunctionType)
"""What is not looked into."""


def flattened(loaders: Any) -> list[Any]:
    """The loaders of any collection of them, or the one that it is."""
    if loaders is None:
        return []
    if isinstance(loaders, (list, tuple, dict)):
        loaders = CombinedLoader(loaders)
    return list(loaders.flattened) if isinstance(loaders, CombinedLoader) else [loaders]


def own_generators(loader: Any) -> list[Generator]:
    """Those that a DataLoader, its samplers, its dataset and the dataset's transforms hold; each once."""
    return held_generators(*_samplers(loader), *_fetchers(loader))


def sampler_generators(loader: Any) -> list[Generator]:
    """Those of `own_generators` that decide which samples an epoch has, and in which order."""
    return held_generators(*_samplers(loader))


def _samplers(loader: Any) -> list[Any]:
    batches = getattr(loader, "batch_sampler", None)
    samplers = [getattr(loader, "sampler", None), batches, getattr(batches, "sampler", None)]
    return [getattr(loader, "generator", None), *samplers]


def _fetchers(loader: Any) -> list[Any]:
    return [loader.dataset, loader.collate_fn] if isinstance(loader, DataLoader) else [loader]


def held_generators(*holders: Any) -> list[Generator]:
    """The generators that objects are or hold, in attributes and collections at any depth; each once, in order."""
    found: list[Generator] = []
    seen: set[int] = set()
    left = list(reversed(holders))
    while left:
        thing = left.pop()
        if id(thing) in seen:
            continue
        seen.add(id(thing))
        if isinstance(thing, Generator):
            found.append(thing)
        else:
            left += reversed(_parts(thing))
    return found


def _parts(thing: Any) -> list[Any]:
    """What an object consists of."""
    if isinstance(thing, _CLOSED) or type(thing).__module__.startswith("lth_lightning."):
        return []  # this package's own draw from names
    if isinstance(thing, (Mapping, list, tuple, set)):
        parts = thing.values() if isinstance(thing, Mapping) else thing
        return list(parts) if len(thing) <= _MOST_ENTRIES else []
    if isinstance(thing, MethodType):
        return [thing.__self__]
    if isinstance(thing, DataLoader):
        return [*_samplers(thing), *_fetchers(thing)]
    return list(vars(thing).values()) if hasattr(thing, "__dict__") else []


def seed_own(generators: Iterable[Generator], *names: int | str) -> None:
    """Seed the generators from names, each otherwise."""
    for number, generator in enumerate(generators):
        # The first one has the names alone, as always.
        seed_generator(generator, derive_seed(*names, *([number] if number else [])))


def seed_generator(generator: Generator, seed: int) -> None:
    """Begin a generator anew, in place."""
    if isinstance(generator, torch.Generator):
        generator.manual_seed(seed)
    elif isinstance(generator, np.random.Generator):
        generator.bit_generator.state = type(generator.bit_generator)(seed).state
    elif isinstance(generator, np.random.RandomState):
        generator.seed(seed % 2**32)
    else:
        generator.seed(seed)


def seed_evaluation_loaders(loaders: Any, seed: int) -> None:
    """Have all evaluations of a run draw the same from generators of the loaders' own; `seed` is the run's."""
    for number, loader in enumerate(flattened(loaders)):
        seed_own(own_generators(loader), seed, "evaluation loaders", number)
