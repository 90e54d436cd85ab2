"""Checkpoints: whole or absent, checked when they are read, and without a user's hyperparameters."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from lightning_fabric.plugins import TorchCheckpointIO
from lightning_fabric.utilities.apply_func import move_data_to_device
from pytorch_lightning import LightningDataModule, LightningModule, Trainer

from lth_lightning.errors import UserError
from lth_lightning.files import NotPlainError, foreign_names, load_pt, read_whole, write_pt
from lth_lightning.place import check_place

HYPERPARAMETERS = tuple(
    key
    for kind in (LightningModule, LightningDataModule)
    for key in (kind.CHECKPOINT_HYPER_PARAMS_KEY, kind.CHECKPOINT_HYPER_PARAMS_NAME, kind.CHECKPOINT_HYPER_PARAMS_TYPE)
)
"""Keys under which Lightning puts what `save_hyperparameters` was given: paths, classes, whatever a user has."""

TRAINING = "training"
"""Key of our own checkpoints: replicate, arm, trial and level."""


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the target and renames; reads nothing that has changed since it was written, and runs none of it.

    Lightning's own stages in the system's temporary folder, and a move across file systems can be seen half done.

    Args:
        for_weights: it reads for an evaluation, which does without what a file holds besides tensors and numbers.
    """

    def __init__(self, for_weights: bool = False) -> None:
        self._for_weights = for_weights

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        # A user's own callback may keep what it likes in a file that the user's own code reads.
        write_pt(Path(path), checkpoint, only_plain=TRAINING in checkpoint)

    def load_checkpoint(
        self, path: str | Path, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        return read_checkpoint(Path(path), self._for_weights)


class _Foreign(dict[Any, Any]):
    """Stands for any object of a class or function that a file names, of which nothing is run."""

    def __new__(cls, *_: Any, **__: Any) -> "_Foreign":
        return super().__new__(cls)

    def __init__(self, *_: Any, **__: Any) -> None:
        super().__init__()

    def __setstate__(self, _: Any) -> None:
        pass


def read_checkpoint(path: Path, for_weights: bool = False) -> dict[str, Any]:
    """A Lightning checkpoint without its hyperparameters; nothing that the file says is run.

    Args:
        path: Lightning's own file, or one of `save_own`.
        for_weights: leave out what else holds more than tensors, numbers and text.

    Raises UserError where the file is missing, damaged, no checkpoint, that of another training, or holds more.
    """
    content = read_whole(path)
    try:
        names = foreign_names(content)
    except Exception:  # a zip file that torch did not write
        names = []
    with torch.serialization.safe_globals([(_Foreign, name) for name in names]):
        checkpoint = load_pt(path, content)
    if not isinstance(checkpoint, dict) or not isinstance(checkpoint.get("state_dict"), dict):
        raise UserError(f"{path} is no checkpoint of Lightning: it has no state_dict.")
    rest = {key: value for key, value in checkpoint.items() if key not in HYPERPARAMETERS}
    foreign = [key for key, value in rest.items() if any(_is_foreign(part) for part in _parts(value))]
    if foreign and (not for_weights or "state_dict" in foreign):
        raise UserError(
            f"{path} holds more than tensors, numbers and text under '{foreign[0]}' ({', '.join(names[:3])}), which is "
            "not read, since reading such things can run anything. Keep plain values there."
        )
    if isinstance(identity := rest.get(TRAINING), dict):
        check_place(path, identity)
    return {key: value for key, value in rest.items() if key not in foreign}


def _is_foreign(value: Any) -> bool:
    return isinstance(value, _Foreign) or value is _Foreign


def _parts(value: Any) -> Iterator[Any]:
    """`value` and all that it contains."""
    yield value
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield from _parts(key)
            yield from _parts(part)
    elif isinstance(value, (list, tuple, set)):
        for part in value:
            yield from _parts(part)


def own_checkpoint(trainer: Trainer) -> dict[str, Any]:
    """Lightning's checkpoint of this moment, on the CPU, less hyperparameters: a run's come from its config.

    To be called on all ranks.
    """
    checkpoint = trainer._checkpoint_connector.dump_checkpoint(weights_only=False)
    kept = {key: value for key, value in checkpoint.items() if key not in HYPERPARAMETERS}
    on_cpu: dict[str, Any] = move_data_to_device(kept, torch.device("cpu"))
    return on_cpu


def save_own(trainer: Trainer, path: Path, identity: Mapping[str, Any], more: Mapping[str, Any]) -> str:
    """Write the checkpoint that a training goes on from after an interruption; to be called on all ranks.

    Args:
        trainer: in a fit, when a batch is over.
        path: where to.
        identity: of the training.
        more: what Lightning's checkpoints do not hold.

    Returns why there is none, where a callback or module of the user's keeps in it what cannot be read back safely.
    """
    content = {**own_checkpoint(trainer), **more, TRAINING: dict(identity)}
    why = ""
    try:
        trainer.strategy.save_checkpoint(content, path)
    except NotPlainError as error:
        why = str(error)
    trainer.strategy.barrier("save_own")
    return why
