"""The hooks of a user's module and data draw the same numbers, whenever and however often they are called."""

import functools
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import LightningDataModule, LightningModule, Trainer

from lth_lightning.callbacks.generators import seed_evaluation_loaders
from lth_lightning.callbacks.trainer import gives, is_rank_zero
from lth_lightning.results.training import TICKET, Training
from lth_lightning.seeding import derive_seed, seed_all

HOOKS = (
    "prepare_data",
    "setup",
    "configure_model",
    "configure_callbacks",
    "configure_optimizers",
    "train_dataloader",
    "val_dataloader",
    "test_dataloader",
)
"""What Lightning calls at the start of each fit and of each evaluation."""

Source = LightningDataModule | LightningModule


@contextmanager
def seeded_hooks(seed: int, *sources: Source | None) -> Iterator[None]:
    """Within it, the global generators are seeded before each of the `HOOKS` that a source defines.

    All trainings of a run, and all evaluations of a training, call the hooks anew. A hook that splits the data at
    random must give one split to all of them, so every call starts from the same seed: one seed for all hooks, so that
    a split that is drawn in `train_dataloader` and again in `val_dataloader` is the same one.
    """
    with ExitStack() as stack:
        for source in sources:
            for name in HOOKS:
                if source is not None and gives(source, name):
                    stack.enter_context(replaced(source, name, functools.partial(_seeded, seed)))
        yield


def _seeded(seed: int, hook: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(hook)
    def call(*args: Any, **kwargs: Any) -> Any:
        seed_all(derive_seed(seed, "hooks"))
        found = hook(*args, **kwargs)
        if hook.__name__ in ("val_dataloader", "test_dataloader"):
            seed_evaluation_loaders(found, seed)
        return found

    return call


@contextmanager
def replaced(source: Source, name: str, wrap: Callable[[Callable[..., Any]], Callable[..., Any]]) -> Iterator[None]:
    """Within it, `source` has `wrap` of its hook `name` instead of the hook."""
    original = getattr(source, name)
    # `LightningDataModule.from_datasets` gives its loaders to the object, not to a class.
    is_own = name in vars(source)
    setattr(source, name, wrap(original))
    try:
        yield
    finally:
        if is_own:
            setattr(source, name, original)
        else:
            delattr(source, name)


def builds_layers(model: LightningModule) -> bool:
    """Whether the module may make layers after its `__init__`, in `setup` or `configure_model`."""
    return gives(model, "setup") or gives(model, "configure_model")


def built(
    make_model: Callable[[], LightningModule],
    make_trainer: Callable[[Training], Trainer],
    datamodule: LightningDataModule | None,
    seed: int,
) -> Callable[[], LightningModule]:
    """`make_model`, with the layers that the module makes in `setup` or `configure_model`.

    A run counts, saves and rewinds a network before any fit has called these hooks. What they draw comes from the
    global generators as `make_model` has left them.
    """
    prepared: list[Source] = []

    @functools.wraps(make_model)
    def make() -> LightningModule:
        model = make_model()
        if not builds_layers(model):
            return model
        draw = int(torch.randint(2**62, ()))  # the network's own stream: setting up the data starts another
        trainer = make_trainer(Training(0, TICKET, 0, 0, Path()))
        trainer.strategy.connect(model)
        trainer._data_connector.attach_data(model, datamodule=datamodule)
        source = datamodule or model
        with seeded_hooks(seed, source):
            if not prepared and is_rank_zero():
                source.prepare_data()
            prepared.append(source)
            if datamodule is not None:
                datamodule.setup("fit")
        seed_all(draw)
        model.setup("fit")
        model.configure_model()
        model.trainer = None
        if datamodule is not None:
            datamodule.trainer = None
        return model

    return make
