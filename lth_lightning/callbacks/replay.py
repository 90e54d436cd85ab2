"""Makes any train loader give the same batches again, from any batch on, without saving a generator's state."""

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pytorch_lightning import LightningDataModule, LightningModule, Trainer
from pytorch_lightning.trainer.states import RunningStage
from pytorch_lightning.utilities.combined_loader import CombinedLoader
from torch.utils.data import DataLoader, DistributedSampler, SequentialSampler

from lth_lightning.seeding import derive_seed, seed_all


class EpochReplay:
    """Wraps a loader: the global generators are seeded before each epoch and each batch, from names.

    A training that is resumed within an epoch fetches that epoch's batches anew and skips those it has had. Where it
    stands is asked of the trainer when the first batch is due, so this object has no state.
    """

    def __init__(self, loader: Any, trainer: Trainer, seed: int) -> None:
        self._loader, self._trainer, self._seed = loader, trainer, seed

    def __getattr__(self, name: str) -> Any:
        # `trainer.train_dataloader.batch_size` and the like are the loader's own. Not its position: Lightning would
        # restore that, and the batches skipped here would be skipped twice.
        if name in ("_loader", "state_dict", "load_state_dict"):
            raise AttributeError(name)
        return getattr(self._loader, name)

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[Any]:
        fit = self._trainer.fit_loop
        epoch: int = fit.epoch_progress.current.processed  # type: ignore[attr-defined]
        done = fit.epoch_loop.batch_progress.current.ready
        if isinstance(sampler := getattr(self._loader, "sampler", None), DistributedSampler):
            sampler.seed = self._seed % 2**31
            sampler.set_epoch(epoch)
        seed_all(derive_seed(self._seed, "epoch", epoch))
        batches, index = iter(self._loader), 0
        while True:
            seed_all(derive_seed(self._seed, "batch", epoch, index))
            try:
                batch = next(batches)
            except StopIteration:
                return
            if index >= done:
                yield batch
            index += 1


@contextmanager
def replaying(source: LightningDataModule | LightningModule, trainer: Trainer, seed: int) -> Iterator[None]:
    """Within it, `source.train_dataloader` gives an `EpochReplay`. A collection of loaders is left as it is."""
    original = source.train_dataloader
    # `LightningDataModule.from_datasets` gives its loaders to the object, not to a class.
    is_own = "train_dataloader" in vars(source)

    @functools.wraps(original)
    def train_dataloader() -> Any:
        loader = original()
        if isinstance(loader, (list, tuple, dict, CombinedLoader)):
            return loader
        if isinstance(loader, DataLoader) and trainer.world_size > 1:
            # Lightning puts its distributed sampler into a bare DataLoader only, not into what wraps one.
            shuffled = not isinstance(loader.sampler, SequentialSampler)
            loader = trainer._data_connector._prepare_dataloader(loader, shuffled, RunningStage.TRAINING)
        return EpochReplay(loader, trainer, seed)

    source.train_dataloader = train_dataloader  # type: ignore[method-assign]
    try:
        yield
    finally:
        if is_own:
            source.train_dataloader = original  # type: ignore[method-assign]
        else:
            del source.train_dataloader
