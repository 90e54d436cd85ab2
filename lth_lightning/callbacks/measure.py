"""The numbers of a finished training: at its early-stop step and at its end."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

from lightning_fabric.utilities.data import sized_len
from pytorch_lightning import Callback, LightningDataModule, LightningModule, Trainer
from pytorch_lightning.utilities.combined_loader import CombinedLoader
from torch import Tensor

from lth_lightning.callbacks.display import Display
from lth_lightning.callbacks.fit_watch import FitWatch
from lth_lightning.callbacks.generators import held_generators, seed_own
from lth_lightning.callbacks.hooks import replaced
from lth_lightning.callbacks.loggers import MutedLogger
from lth_lightning.callbacks.metrics import VAL_COLUMNS, forget, numbers, unknown_line
from lth_lightning.callbacks.trainer import gives
from lth_lightning.errors import UserError
from lth_lightning.pruning.rewind import Weights, check_fits, same_values
from lth_lightning.results.curve import TEST_COLUMNS, shortest
from lth_lightning.seeding import seed_all


class Measure:
    """Evaluates a training that has ended, always with weights that are kept.

    The test set is used here alone, once for the weights at the end and once for those of the early-stop step. A
    quantity that the module does not log is None. The model is left with either weights. Accuracy on the training set
    is `val_acc` over the data module's `train_eval_dataloader` if it has one, else over its train loader, augmentation
    and all.

    Args:
        trainer: has fitted `model`.
        model: the network.
        datamodule: None where the module has its own loaders.
        train_accuracy: whether to compute accuracy on the training set.
        seed: of what the loaders draw, so that a resumed run draws the same.
        display: is told what cannot be measured.
    """

    def __init__(
        self,
        trainer: Trainer,
        model: LightningModule,
        datamodule: LightningDataModule | None,
        *,
        train_accuracy: bool,
        seed: int,
        display: Display,
    ) -> None:
        self._trainer, self._model, self._datamodule = trainer, model, datamodule
        self._source = datamodule or model
        self._train_accuracy, self._seed, self._display = train_accuracy, seed, display

    def validates(self) -> bool:
        """Whether there is a validation set."""
        return gives(self._model, "validation_step") and gives(self._source, "val_dataloader")

    def validation(self, weights: Weights, names: Sequence[str]) -> dict[str, float | None]:
        """What the module logs of `names` in a validation of these weights."""
        with self._evaluating(weights):
            self._trainer.validate(self._model, datamodule=self._datamodule, verbose=False)
            if line := unknown_line(self._trainer, VAL_COLUMNS):
                self._display.tell(line)
            return dict(zip(names, numbers(self._trainer, names), strict=True))

    def scores(self, watch: FitWatch, final: Weights) -> dict[str, Any]:
        """The record's columns, by name: `final` are the weights at the end."""
        found = of_the_curve(watch)
        if not watch.diverged:
            found |= self._scores("final", final)
        if watch.early_stop_weights is not None:
            is_same = not watch.diverged and _are_equal(watch.early_stop_weights, final)
            if self._trainer.strategy.broadcast(is_same):  # rank 0 decides for all
                same = {f"early_stop_{key[6:]}": found[key] for key in found if key.startswith("final_t")}
                return found | same
            found |= self._scores("early_stop", watch.early_stop_weights)
        return found

    def _scores(self, prefix: str, weights: Weights) -> dict[str, float | None]:
        """Test loss and accuracy, and accuracy on the training set, of these weights."""
        found: dict[str, float | None] = dict.fromkeys((*TEST_COLUMNS, "train_acc"))
        trainer, model = self._trainer, self._model
        if gives(model, "test_step") and gives(self._source, "test_dataloader"):
            with self._evaluating(weights):
                trainer.test(model, datamodule=self._datamodule, verbose=False)
                found |= zip(TEST_COLUMNS, numbers(trainer, TEST_COLUMNS), strict=True)
                if line := unknown_line(trainer, TEST_COLUMNS):
                    self._display.tell(line)
        if self._train_accuracy and gives(model, "validation_step"):
            found["train_acc"] = self._train_acc(weights)
        return {f"{prefix}_{name}": shortest(number) for name, number in found.items()}

    def _train_acc(self, weights: Weights) -> float | None:
        """Accuracy on the training set; None, and a line that says why, where it cannot be had."""
        source: Any = self._source
        with self._evaluating(weights):
            source.setup("fit")  # a teardown may have let the training data go
            loader = getattr(source, "train_eval_dataloader", source.train_dataloader)()
            if why := _unfit(loader):
                self._display.tell(f"Training accuracy is not measured: {why}.")
                return None
            try:
                # In place of the validation loader: the data module's hooks for a batch are called, too.
                with replaced(source, "val_dataloader", lambda _: lambda: loader):
                    self._trainer.validate(self._model, datamodule=self._datamodule, verbose=False)
            except UserError:
                raise
            except Exception as error:
                # It is the user's own validation_step, which may well know validation batches alone.
                self._display.tell(
                    "Training accuracy is not measured: validation_step fails on the training batches "
                    f"({type(error).__name__}: {' '.join(str(error).split())[:200]})."
                )
                return None
            return numbers(self._trainer, ("val_acc",))[0]

    @contextlib.contextmanager
    def _evaluating(self, weights: Weights) -> Iterator[None]:
        """Within it, an evaluation is of `weights`, draws the same numbers, and adds no point to a curve."""
        trainer = self._trainer
        theirs = trainer.loggers
        trainer.loggers = [MutedLogger(logger) for logger in theirs]
        callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
        holder = WeightsHolder(weights)
        callbacks.append(holder)
        seed_all(self._seed)  # a loader of the user's own may draw
        seed_own(held_generators(self._datamodule, self._model), self._seed)
        try:
            yield
        finally:
            callbacks.remove(holder)
            trainer.loggers = theirs
            # Lightning holds on to what was logged of which of two loaders; another evaluation may have one.
            trainer.validate_loop._results.clear()


def _are_equal(first: Weights, second: Weights) -> bool:
    tensors = [(value, second[name]) for name, value in first.items() if isinstance(value, Tensor)]
    return all(same_values(one.cpu(), other.cpu()) for one, other in tensors)


class WeightsHolder(Callback):
    """Puts weights into the network when an evaluation starts: the module's hooks have run since the fit."""

    def __init__(self, weights: Weights) -> None:
        self._weights = weights

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        load_built(pl_module, self._weights)
        forget(trainer)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.on_validation_start(trainer, pl_module)


def load_built(model: LightningModule, weights: Weights) -> None:
    """Load `weights` into a network whose `setup` has been called again.

    Raises UserError where that has made other layers of it.
    """
    try:
        check_fits(model, weights, "The network")
    except UserError as error:
        raise UserError(
            f"{type(model).__name__} makes other layers each time that `setup` or `configure_model` is called, which "
            f"Lightning does before each fit, validation and test ({error}): let it make them the first time alone."
        ) from None
    model.load_state_dict(weights)


def _unfit(loader: Any) -> str | None:
    """Why a train loader cannot be evaluated as a validation loader; None where it can."""
    if isinstance(loader, (list, tuple, dict, CombinedLoader)):
        return "there are several train loaders"
    if sized_len(loader) is None:
        return "the train loader has no length, so it need not end"
    return None


def of_the_curve(watch: FitWatch) -> dict[str, Any]:
    """What the validation curve says of the early-stop step and, unless the training diverged, of the end."""
    found: dict[str, Any] = {
        "early_stop_step": watch.early_stop.get("step"),
        "early_stop_val_loss": watch.early_stop.get("val_loss"),
        "early_stop_val_acc": watch.early_stop.get("val_acc"),
    }
    if not watch.diverged:
        found |= {"final_val_loss": watch.last.get("val_loss"), "final_val_acc": watch.last.get("val_acc")}
    return found
