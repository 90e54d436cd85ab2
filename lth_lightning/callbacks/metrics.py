"""What a module has logged in an evaluation, by the names that a run records."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from pytorch_lightning import Trainer
from torch import Tensor

from lth_lightning.errors import UserError
from lth_lightning.results.curve import TEST_COLUMNS

VAL_COLUMNS = ("val_loss", "val_acc")


def forms(name: str) -> Iterable[str]:
    """The names under which `val_loss` may be logged: `val_loss`, `val/loss`; the mean first of what is logged by step.

    `self.log(…, on_step=True, on_epoch=True)` makes `val_loss_step` and `val_loss_epoch` of `val_loss`.
    """
    for form in (name, name.replace("_", "/", 1)):
        yield f"{form}_epoch"
        yield form


_KNOWN = tuple(form for name in (*VAL_COLUMNS, *TEST_COLUMNS) for form in forms(name))


def find(metrics: Mapping[str, Any], name: str) -> Any | None:
    """The value of `name` in any of its forms; None where it is in none of them."""
    return next((metrics[form] for form in forms(name) if form in metrics), None)


def forget(trainer: Trainer) -> None:
    """Drop what an earlier evaluation has logged, which Lightning would give again where this one logs nothing."""
    kept = trainer._logger_connector._callback_metrics
    for form in _KNOWN:
        kept.pop(form, None)


def numbers(trainer: Trainer, names: Sequence[str], *more: Tensor | None) -> list[float | None]:
    """What the evaluation that has just ended logged by these names, then `more`; means over the ranks.

    One transfer for all, and every rank gets the same numbers, so all make the same decisions.
    """
    metrics = trainer.callback_metrics
    values = [*(find(metrics, name) for name in names), *more]
    device = trainer.strategy.root_device  # the module's own is the CPU once the fit has ended
    known = [torch.as_tensor(value).float().to(device) for value in values if value is not None]
    together = torch.stack(known) if known else torch.zeros(0)
    if trainer.world_size > 1:
        together = trainer.strategy.reduce(together, reduce_op="mean")
    rest = iter(together.tolist())
    found = [None if value is None else next(rest) for value in values]
    check_fractions(dict(zip(names, found, strict=False)))
    return found


def check_fractions(found: Mapping[str, Any]) -> None:
    """Raise UserError where an accuracy is no fraction of 1, such as a percentage: a run compares and shows fractions.

    `found` holds numbers by the names that a run records.
    """
    for name, value in found.items():
        if name.endswith("_acc") and value is not None and not -1e-3 <= value <= 1 + 1e-3 and not math.isnan(value):
            raise UserError(
                f"The module logs {value:.4g} as {name}, and a run's accuracies are fractions of 1: log it as such, or "
                "by another name."
            )


def unknown_line(trainer: Trainer, wanted: Sequence[str]) -> str | None:
    """One line that names what is not logged of `wanted`, and what is logged instead; None where all are."""
    logged = trainer.callback_metrics
    missing = [name for name in wanted if find(logged, name) is None]
    if not missing:
        return None
    # Those of training steps are there as well, in a fit.
    others = sorted(name for name in logged if name not in (*_KNOWN, "step", "epoch") and not name.startswith("train"))
    instead = f" (it logs {', '.join(others)})" if others else ""
    return f"The module logs no {' and no '.join(missing)}{instead}: the results will have empty cells there."
