"""What a module logs in an evaluation, learned from one batch before a run: most names are known only by logging."""

import math
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from pytorch_lightning import LightningDataModule, LightningModule
from torch import Tensor

from lth_lightning.callbacks.generators import flattened
from lth_lightning.callbacks.hooks import seeded_hooks
from lth_lightning.callbacks.trainer import gives

STEPS = {"val": "validation_step", "test": "test_step"}
TRANSFERS = ("on_before_batch_transfer", "on_after_batch_transfer")


Part = Literal["train", "val", "test"]


@dataclass
class Logged:
    """What an evaluation logs, by name: means over the set, as numbers where they are such."""

    means: dict[str, Any] = field(default_factory=dict)
    by_step: list[str] = field(default_factory=list)
    """Names that are logged for each batch, without a mean over the set."""

    def log(
        self, name: str, value: Any, *_: Any, on_step: bool | None = None, on_epoch: bool | None = None, **__: Any
    ) -> None:
        """In place of a module's, whose `log_dict` calls it, too."""
        if on_step and on_epoch is False:
            self.by_step.append(name)
        else:
            self.means[name] = _number(value)


def first_batch(model: LightningModule, datamodule: LightningDataModule | None, part: Part, seed: int) -> Any | None:
    """The first batch of a part of the data, as the hooks around its transfer leave it; None of an empty set."""
    source: Any = datamodule or model
    with seeded_hooks(seed, source):
        if datamodule is None:
            source.prepare_data()
        source.setup("test" if part == "test" else "fit")
        batch = next(iter(flattened(getattr(source, f"{part}_dataloader")())[0]), None)
    for hook in TRANSFERS if batch is not None else ():
        owner: Any = source if gives(source, hook) else model
        batch = getattr(owner, hook)(batch, 0)
    return batch


def logged(
    model: LightningModule, datamodule: LightningDataModule | None, part: Literal["val", "test"], seed: int
) -> Logged | None:
    """What the evaluation step of a throwaway `model` logs, and its epoch's end; None where it takes a Trainer.

    Nothing is logged, and what goes wrong here is left to the run itself to tell.
    """
    found = Logged()
    module: Any = model
    module.log = found.log
    try:
        batch = first_batch(model, datamodule, part, seed)
        if batch is None:
            return found
        with torch.no_grad():
            module.eval()
            getattr(module, STEPS[part])(batch, 0)
            if gives(model, end := f"on_{STEPS[part].removesuffix('_step')}_epoch_end"):
                getattr(module, end)()
    except Exception:
        return None
    return found


def _number(value: Any) -> float:
    """The value; NaN for what is no number, such as a torchmetrics object."""
    return float(value) if isinstance(value, (int, float, Tensor)) else math.nan
