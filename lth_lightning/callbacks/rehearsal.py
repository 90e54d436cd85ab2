"""What a module logs in an evaluation, learned from one batch before a run: most names are known only by logging."""

import math
from typing import Any, Literal

import torch
from pytorch_lightning import LightningDataModule, LightningModule
from torch import Tensor

from lth_lightning.callbacks.hooks import seeded_hooks
from lth_lightning.callbacks.trainer import gives

STEPS = {"val": "validation_step", "test": "test_step"}


def logged(
    model: LightningModule, datamodule: LightningDataModule | None, part: Literal["val", "test"], seed: int
) -> dict[str, Any] | None:
    """What the evaluation step of a throwaway `model` logs, and its epoch's end; None where it takes a Trainer.

    By name, as numbers where they are such.

    Nothing is logged, and what goes wrong here is left to the run itself to tell.
    """
    found: dict[str, Any] = {}
    module: Any = model
    module.log = lambda name, value, *_, **__: found.update({name: _number(value)})  # `log_dict` calls it, too
    source = datamodule or model
    try:
        with seeded_hooks(seed, source):
            if datamodule is None:
                source.prepare_data()
            source.setup("fit" if part == "val" else "test")
            batch = next(iter(getattr(source, f"{part}_dataloader")()), None)
        if batch is None:
            return {}  # an empty set
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
