"""Training samples, and the loss on them, for criteria that look at the data."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from pytorch_lightning import LightningDataModule, LightningModule
from pytorch_lightning.utilities.combined_loader import CombinedLoader
from pytorch_lightning.utilities.signature_utils import is_param_in_hook_signature
from torch import Tensor, nn

from lth_lightning.callbacks.generators import flattened, own_generators, seed_generator
from lth_lightning.callbacks.hooks import seeded_hooks
from lth_lightning.callbacks.rehearsal import TRANSFERS
from lth_lightning.callbacks.trainer import gives
from lth_lightning.data import TensorDataModule
from lth_lightning.errors import UserError
from lth_lightning.models import Classifier
from lth_lightning.pruning.criteria.base import Loss
from lth_lightning.seeding import seed_all


def draw_samples(
    datamodule: LightningDataModule | None,
    make_model: Callable[[], LightningModule],
    number: int,
    generator: torch.Generator,
    seed: int = 0,
) -> Any:
    """A batch of `number` training samples, on the CPU: [number, ...] of each tensor in it.

    From a user's own loaders they are the first of a newly made train loader, in the order of its own draws, as the
    hooks around a batch's transfer leave them; `seed` is the run's, from which its hooks draw.

    Raises UserError where there are fewer, or where batches hold anything but tensors.
    """
    if isinstance(datamodule, TensorDataModule):
        return datamodule.sample(number, generator)
    model = make_model()
    source = datamodule or model
    with seeded_hooks(seed, source):
        source.prepare_data()
        source.setup("fit")
        loaders = source.train_dataloader()
    draw = int(torch.randint(2**31, (), generator=generator))
    for loader in flattened(loaders):
        for own in own_generators(loader):
            seed_generator(own, draw)
    seed_all(draw)
    batches, found = [], 0
    for batch in _batches(loaders):
        for hook in TRANSFERS:
            owner: Any = source if gives(source, hook) else model
            batch = getattr(owner, hook)(batch, 0)
        batches.append(batch)
        found += len(_tensors(batch)[0])
        if found >= number:
            return _joined(batches, number)
    raise UserError(f"{number} training samples are asked for, but the train loader gives {found}.")


def loss_of(model: LightningModule) -> Loss | None:
    """How networks of the kind of `model` give their loss; None for class logits, which this package's give."""
    is_own = isinstance(model, Classifier) and type(model).training_step is Classifier.training_step
    return None if is_own else _step_loss


def _step_loss(network: nn.Module, batch: Any, generator: torch.Generator) -> Tensor:
    """What `training_step` returns for the batch; it may draw, logs nothing, and has no Trainer."""
    module: Any = network
    if not module.automatic_optimization:
        raise UserError(
            "This criterion needs the loss, which a module that steps its optimizers itself keeps: use another."
        )
    module.log = lambda *_, **__: None  # there is nothing to log to
    seed_all(int(torch.randint(2**31, (), generator=generator)))
    index = (0,) if is_param_in_hook_signature(module.training_step, "batch_idx", min_args=2) else ()
    output = module.training_step(batch, *index)
    loss = output.get("loss") if isinstance(output, Mapping) else output
    if not isinstance(loss, Tensor) or loss.numel() != 1 or not loss.requires_grad:
        raise UserError("This criterion needs the loss, and training_step returns none: use another criterion.")
    return loss.reshape(())


def _batches(loaders: Any) -> Any:
    """The batches of a loader, or of a collection of loaders as Lightning combines them."""
    if not isinstance(loaders, (Mapping, list, tuple)):
        return loaders
    combined = CombinedLoader(loaders, "max_size_cycle")
    return (batch for batch, _, _ in combined)


_NO_TENSORS = (
    "This criterion needs batches of tensors, one entry a sample, and of lists and dictionaries of such: use another."
)


def _tensors(batch: Any) -> list[Tensor]:
    """All tensors of a batch, which have as many entries each."""
    if isinstance(batch, Tensor):
        if batch.dim() == 0:
            raise UserError(_NO_TENSORS)
        return [batch]
    if not isinstance(batch, (Mapping, list, tuple)):
        raise UserError(_NO_TENSORS)
    parts = batch.values() if isinstance(batch, Mapping) else batch
    found = [tensor for part in parts for tensor in _tensors(part)]
    if not found or len({len(tensor) for tensor in found}) > 1:
        raise UserError(_NO_TENSORS)
    return found


def _joined(batches: list[Any], number: int) -> Any:
    """One batch of the first `number` samples of several."""
    first = batches[0]
    if isinstance(first, Tensor):
        return torch.cat([batch.cpu() for batch in batches])[:number]
    if isinstance(first, Mapping):
        return {key: _joined([batch[key] for batch in batches], number) for key in first}
    parts = [_joined(list(column), number) for column in zip(*batches, strict=True)]
    if isinstance(first, list):
        return parts
    return type(first)(*parts) if hasattr(first, "_fields") else tuple(parts)
