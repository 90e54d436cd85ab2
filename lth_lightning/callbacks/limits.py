"""Whether an optimizer and its schedule come through a training, tried before anything is written."""

import copy
from typing import Any

import torch
from pytorch_lightning import LightningModule, Trainer
from torch import Tensor

from lth_lightning.errors import UserError


def check_steps(model: LightningModule, trainer: Trainer, steps: int | None) -> None:
    """Make one step of a copy of `model` without gradients, and let its schedule jump to the end of a training.

    Args:
        model: a network of this package, which makes one optimizer. It stays as it is.
        trainer: whose device is used.
        steps: optimizer steps of a whole training; None where they are not known.

    Raises:
        UserError: an optimizer that does not step by itself or not for dense gradients, or a schedule that ends before
            the training.
    """
    copied = copy.deepcopy(model).to(trainer.strategy.root_device)
    made: Any = copied.configure_optimizers()
    optimizer: torch.optim.Optimizer = made["optimizer"]
    for parameter in copied.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.zeros_like(parameter)
    name = type(optimizer).__name__
    try:
        optimizer.step()
    except TypeError as error:
        raise UserError(
            f"{name} cannot train these networks, which give it gradients and no closure ({error}): use another, "
            "such as Adam or SGD."
        ) from None
    except RuntimeError as error:
        raise UserError(f"{name} cannot train these networks ({error}): use another, such as Adam or SGD.") from None
    scheduler = made.get("lr_scheduler", {}).get("scheduler")
    if scheduler is None or steps is None:
        return
    scheduler.last_epoch = steps - 1
    try:
        scheduler.step()
    except (ValueError, ArithmeticError) as error:
        raise UserError(
            f"{type(scheduler).__name__} does not last for the {steps:,} steps of a training ({error}): give it other "
            "settings."
        ) from None
    for group in optimizer.param_groups:
        rate: float | Tensor = group["lr"]
        if not float(rate) >= 0:
            raise UserError(
                f"{type(scheduler).__name__} ends with the learning rate {float(rate)}: give other settings."
            )
