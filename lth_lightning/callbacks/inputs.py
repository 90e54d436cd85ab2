"""Whether data fit a network of this package, tried with one batch before a run."""

from typing import Any

import torch
from pytorch_lightning import LightningDataModule, LightningModule
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from lth_lightning.callbacks.data_state import DataState
from lth_lightning.callbacks.rehearsal import first_batch
from lth_lightning.data import TensorDataModule
from lth_lightning.errors import UserError
from lth_lightning.models import Classifier

_SAMPLES = 2
"""Of the batch, that go through the network."""

_REMEDY = "name --model, or data that fit"


def check_inputs(model: LightningModule, datamodule: LightningDataModule | None, seed: int, fetch: bool) -> None:
    """Raise UserError where the data do not fit a `model` of this package.

    Somebody's own module is theirs to mend, and its errors keep their traceback. `fetch` says that somebody's own data
    may be touched; those of this package say what they are like.
    """
    if not isinstance(model, Classifier) or not type(model).__module__.startswith("lth_lightning."):
        return
    if isinstance(datamodule, TensorDataModule):
        batch: Any = (torch.zeros(_SAMPLES, *datamodule.shape), torch.full((_SAMPLES,), datamodule.num_classes - 1))
    elif fetch:
        state = DataState(datamodule)
        try:
            batch = first_batch(model, datamodule, "train", seed)
        finally:
            state.put_back()
    else:
        return
    if batch is not None:
        _try(model, batch)


def _try(model: Classifier, batch: Any) -> None:
    name = type(model).__name__
    is_pair = isinstance(batch, (list, tuple)) and len(batch) == 2 and all(isinstance(part, Tensor) for part in batch)
    if not is_pair or not all(part.dim() for part in batch):
        raise UserError(
            f"{name} takes batches of inputs and labels, two tensors, and your data give others: {_REMEDY}."
        )
    inputs, labels = batch[0][:_SAMPLES], batch[1]
    if inputs.is_floating_point():
        # A Trainer's precision has the two meet.
        inputs = inputs.to(next(model.parameters()).dtype)
    model.eval()
    try:
        with torch.no_grad():
            logits = model(inputs)
    except Exception as error:
        raise UserError(f"{_wanted(model, inputs)}: {_REMEDY} ({_line(error)}).") from None
    finally:
        model.train()
    try:
        cross_entropy(logits[:1].expand(len(labels), -1), labels)
    except Exception as error:
        raise UserError(
            f"{name} has {logits.shape[1]} classes, and takes a whole number below that as the label of each sample; "
            f"your data give others: {_REMEDY} ({_line(error)})."
        ) from None


def _wanted(model: Classifier, inputs: Tensor) -> str:
    name, given = type(model).__name__, list(inputs.shape[1:])
    first = next((part for part in model.modules() if isinstance(part, (nn.Linear, nn.Conv2d))), None)
    if not inputs.is_floating_point():
        return f"{name} wants inputs of float32, your data give {str(inputs.dtype).removeprefix('torch.')}"
    if isinstance(first, nn.Linear):
        return f"{name} wants inputs of {first.in_features} values, your data give {given}"
    if isinstance(first, nn.Conv2d) and (len(given) != 3 or given[0] != first.in_channels):
        return f"{name} wants images of {first.in_channels} channels, your data give {given}"
    return f"{name} wants images of another size than {given}, which your data give"


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
