"""The numbers of a finished training: at its early-stop step and at its end."""

from typing import Any

from pytorch_lightning import LightningDataModule, LightningModule, Trainer

from lth_lightning.callbacks.fit_watch import FitWatch
from lth_lightning.callbacks.trainer import gives
from lth_lightning.pruning.rewind import Weights
from lth_lightning.results.curve import shortest
from lth_lightning.seeding import seed_all


def measure(
    trainer: Trainer,
    model: LightningModule,
    datamodule: LightningDataModule | None,
    watch: FitWatch,
    *,
    train_accuracy: bool,
    seed: int,
) -> dict[str, Any]:
    """Test, and accuracy on the training set, with the weights at the end and with those of the early-stop step.

    The test set is used here alone, once for each. A quantity that the module does not log is None. A diverged
    training has no end to measure. The model is left with either weights. Accuracy on the training set is `val_acc`
    over the data module's `train_eval_dataloader` if it has one, else over its train loader, augmentation and all.
    """

    def evaluate(prefix: str) -> dict[str, float | None]:
        seed_all(seed)  # a loader of somebody's own may draw, and a resumed run must draw the same
        found = _evaluate(trainer, model, datamodule, train_accuracy)
        return {f"{prefix}_{name}": number for name, number in found.items()}

    # These are not points of a curve.
    trainer.loggers = []
    numbers = of_the_curve(watch)
    if not watch.diverged:
        numbers |= evaluate("final")
    if watch.early_stop_weights is not None:
        if not watch.diverged and watch.early_stop.get("step") == watch.last.get("step"):
            same = {f"early_stop_{key[6:]}": numbers[key] for key in numbers if key.startswith("final_t")}
            return numbers | same
        weights: Weights = watch.early_stop_weights
        model.load_state_dict(weights)
        numbers |= evaluate("early_stop")
    return numbers


def of_the_curve(watch: FitWatch) -> dict[str, Any]:
    """What the validation curve says of the early-stop step and, unless the training diverged, of the end."""
    numbers: dict[str, Any] = {
        "early_stop_step": watch.early_stop.get("step"),
        "early_stop_val_loss": watch.early_stop.get("val_loss"),
        "early_stop_val_acc": watch.early_stop.get("val_acc"),
    }
    if not watch.diverged:
        numbers |= {"final_val_loss": watch.last.get("val_loss"), "final_val_acc": watch.last.get("val_acc")}
    return numbers


def _evaluate(
    trainer: Trainer, model: LightningModule, datamodule: LightningDataModule | None, train_accuracy: bool
) -> dict[str, float | None]:
    found: dict[str, Any] = {}
    source = datamodule or model
    if gives(model, "test_step") and gives(source, "test_dataloader"):
        for logged in trainer.test(model, datamodule=datamodule, verbose=False):
            found |= logged
    if train_accuracy and gives(model, "validation_step"):
        make = getattr(source, "train_eval_dataloader", source.train_dataloader)
        for logged in trainer.validate(model, dataloaders=make(), verbose=False):
            found["train_acc"] = logged.get("val_acc")
    return {name: shortest(found.get(name)) for name in ("test_loss", "test_acc", "train_acc")}
