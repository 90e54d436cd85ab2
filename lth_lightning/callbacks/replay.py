"""Makes any train loader give the same batches again, from any batch on, without saving a generator's state."""

import functools
import itertools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

from lightning_fabric.utilities.data import _set_sampler_epoch, sized_len
from pytorch_lightning import LightningDataModule, LightningModule, Trainer
from pytorch_lightning.trainer.states import RunningStage
from pytorch_lightning.utilities.combined_loader import CombinedLoader
from torch.utils.data import DataLoader, DistributedSampler, SequentialSampler

from lth_lightning.callbacks.generators import (
    Generator,
    flattened,
    held_generators,
    own_generators,
    sampler_generators,
    seed_own,
)
from lth_lightning.callbacks.hooks import replaced
from lth_lightning.seeding import derive_seed, seed_all


class EpochReplay:
    """Wraps a loader: the global generators are seeded before each epoch and each batch, from names.

    Generators of the loader's own are seeded before each epoch, by `own_seed`: they give one order to all trainings
    that share it. A training that is resumed within an epoch fetches that epoch's batches anew and skips those it has
    had. Where it stands is asked of the trainer when the first batch is due, so this object has no state.
    """

    def __init__(self, loader: Any, trainer: Trainer, seed: int, own_seed: int) -> None:
        self._loader, self._trainer, self._seed, self._own_seed = loader, trainer, seed, own_seed

    def __getattr__(self, name: str) -> Any:
        # `trainer.train_dataloader.batch_size` and the like are the loader's own. Not its position: Lightning would
        # restore that, and the batches skipped here would be skipped twice.
        if name in ("_loader", "state_dict", "load_state_dict"):
            raise AttributeError(name)
        return getattr(self._loader, name)

    def __len__(self) -> int:
        if not isinstance(self._loader, CombinedLoader):
            return len(self._loader)
        # Its own needs iterators, which start the loaders' worker processes.
        lengths = [sized_len(loader) for loader in self._loader.flattened]
        known = [length for length in lengths if length is not None]
        if len(known) < len(lengths):
            raise TypeError("a loader without a length")
        mode = self._loader._mode
        return min(known) if mode == "min_size" else sum(known) if mode == "sequential" else max(known)

    def __iter__(self) -> "EpochBatches":
        return EpochBatches(self._batches())

    def _batches(self) -> Iterator[Any]:
        """None when those are skipped that the training has had; then each batch."""
        fit = self._trainer.fit_loop
        epoch: int = fit.epoch_progress.current.processed  # type: ignore[attr-defined]
        done = fit.epoch_loop.batch_progress.current.ready
        for number, loader in enumerate(flattened(self._loader)):
            if getattr(loader, "_iterator", None) is not None:
                loader._iterator = None  # workers that are kept would go on with their draws of the epoch before
            if isinstance(sampler := getattr(loader, "sampler", None), DistributedSampler):
                sampler.seed = self._seed % 2**31
            _set_sampler_epoch(loader, epoch)  # Lightning looks at the outermost loader alone
            seed_own(own_generators(loader), self._own_seed, number, epoch)
        by_batch = self._drawn_by_batch()
        seed_all(derive_seed(self._seed, "epoch", epoch))
        batches = iter(self._loader)
        for index in itertools.count():
            if index == done:
                yield None
            seed_all(derive_seed(self._seed, "batch", epoch, index))
            seed_own(by_batch, self._seed, "own", epoch, index)
            try:
                batch = next(batches)
            except StopIteration:
                return
            if index >= done:
                # A CombinedLoader gives each batch with its number and its loader's, and Lightning will again.
                yield batch[0] if isinstance(self._loader, CombinedLoader) else batch

    def _drawn_by_batch(self) -> list[Generator]:
        """What datasets, and the data module's hooks for each batch, draw from besides the global generators.

        Evaluations within an epoch may draw from these, too, and a fit that goes on skips hooks of earlier batches.
        """
        datamodule: LightningDataModule | None = self._trainer.datamodule  # type: ignore[attr-defined]
        loaders = flattened(self._loader)
        own = [generator for loader in loaders for generator in own_generators(loader)]
        evaluations = [g for loader in flattened(self._trainer.val_dataloaders) for g in own_generators(loader)]
        samplers = [generator for loader in loaders for generator in sampler_generators(loader)]
        only_there = {id(generator) for generator in evaluations} - {id(generator) for generator in own}
        left_out = only_there | {id(generator) for generator in samplers}
        return [g for g in held_generators(*own, datamodule) if id(g) not in left_out]


class EpochBatches(Iterator[Any]):
    """The batches of an epoch that a training has not had yet; those before are fetched when they are skipped.

    Args:
        batches: gives None when the batches before are fetched.
    """

    def __init__(self, batches: Iterator[Any]) -> None:
        self._batches = batches
        self._has_skipped = False

    def skip(self) -> None:
        """Fetch the batches before the first one that is due, unless that is done."""
        if not self._has_skipped:
            self._has_skipped = True
            next(self._batches, None)

    def __next__(self) -> Any:
        self.skip()
        return next(self._batches)


def replaying(
    source: LightningDataModule | LightningModule, trainer: Trainer, seed: int, own_seed: int
) -> AbstractContextManager[None]:
    """Within it, `source.train_dataloader` gives an `EpochReplay`."""

    def wrap(original: Callable[[], Any]) -> Callable[[], Any]:
        @functools.wraps(original)
        def train_dataloader() -> Any:
            loader = original()
            if isinstance(loader, (list, tuple, dict)):
                loader = CombinedLoader(loader, "max_size_cycle")  # as Lightning does
            if isinstance(loader, CombinedLoader):
                loader.flattened = [_prepared(part, trainer) for part in loader.flattened]
            return EpochReplay(_prepared(loader, trainer), trainer, seed, own_seed)

        return train_dataloader

    return replaced(source, "train_dataloader", wrap)


def _prepared(loader: Any, trainer: Trainer) -> Any:
    """With a distributed sampler, which Lightning puts into a bare DataLoader only, not into what wraps one."""
    if not isinstance(loader, DataLoader) or trainer.world_size == 1:
        return loader
    return trainer._data_connector._prepare_dataloader(
        loader, not isinstance(loader.sampler, SequentialSampler), RunningStage.TRAINING
    )
