"""The training, validation and test steps that all networks share."""

import pytorch_lightning as pl
import torch
from pytorch_lightning.cli import LRSchedulerCallable, OptimizerCallable
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import nn
from torch.nn.functional import cross_entropy
from torchmetrics.functional.classification import multiclass_accuracy

from lth_lightning.errors import UserError
from lth_lightning.models.attendance import attends_steps, count_steps

Batch = tuple[torch.Tensor, torch.Tensor]


class Classifier(pl.LightningModule):
    """Cross-entropy classifier around `self.net`, which maps images [B, C, H, W] to logits [B, num_classes].

    By default an ordinary, automatically optimized module. After `use_long_batches(True)` one batch holds the
    samples of k optimizer steps, which `training_step` runs in a plain loop: Lightning's cost of a batch is
    paid once in k steps. The weights are the same bit for bit either way.

    Logs `train_loss` (a batch; the mean over its k steps), `val_loss`, `val_acc`, `test_loss` and `test_acc`
    (an evaluation; means over samples, accuracies as fractions of 1), and with train and val ones `step`, the
    number of optimizer steps done, which Lightning's loggers take as the x value.

    Args:
        net: the network; its parameters are trained as they come, nothing is initialized here.
        num_classes: the number of logits.
        optimizer: makes the optimizer from the parameters.
        lr_scheduler: makes a scheduler from the optimizer, stepped after every optimizer step.
    """

    def __init__(
        self,
        net: nn.Module,
        num_classes: int,
        optimizer: OptimizerCallable = lambda p: torch.optim.Adam(p, lr=1e-3, fused=True),
        lr_scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        super().__init__()
        self.net = net
        self.num_classes = num_classes
        self.optimizer = optimizer
        self.lr_scheduler = lr_scheduler

    def use_long_batches(self, on: bool) -> None:
        """Switch between long batches and ordinary ones; off by default.

        Long: images [k, B, C, H, W] and labels [k, B]. Ordinary: [B, C, H, W] and [B]. Call it before `fit`.
        Long batches are manual optimization, so Trainer flags that need automatic optimization (gradient
        clipping, accumulation) need ordinary ones.
        """
        self.automatic_optimization = not on

    def on_fit_start(self) -> None:
        # A GPU's tensor cores convolve fastest with the channels innermost; the values stay as they are.
        if self.device.type == "cuda" and "16" in str(self.trainer.precision):
            self.net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images [B, C, H, W] -> logits [B, num_classes]."""
        return self.net(images)

    def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:
        """The loss of an ordinary batch; of a long one, the mean over its k steps, which are done by then."""
        if self.automatic_optimization:
            images, labels = batch
            loss = cross_entropy(self(images), labels)
            # The step that this batch is part of, so that it equals a long batch's count after its last step.
            self._log_train(loss.detach(), self.global_step + 1)
            return loss
        loss = self._run_steps(batch)
        self._log_train(loss, self.global_step)
        return loss

    def _run_steps(self, batch: Batch) -> torch.Tensor:
        """k optimizer steps; nothing in this loop waits for the device."""
        images, labels = batch
        is_attended = attends_steps(self.trainer)
        optimizer = self.optimizers(use_pl_optimizer=is_attended)
        scheduler = self.lr_schedulers()
        # Lightning gives lists where there are several; `configure_optimizers` makes one of each.
        assert not isinstance(optimizer, list)
        assert not isinstance(scheduler, list)
        total = torch.zeros((), device=images.device)
        for step_images, step_labels in zip(images, labels, strict=True):
            optimizer.zero_grad()
            loss = cross_entropy(self(step_images), step_labels)
            if is_attended:
                self.manual_backward(loss)
            else:
                loss.backward()
            optimizer.step()
            if scheduler is not None:
                scheduler.step()
            total += loss.detach()
        if not is_attended:
            count_steps(self.trainer, len(images))
        return total / len(images)

    def _log_train(self, loss: torch.Tensor, step: int) -> None:
        self.log_dict({"train_loss": loss, "step": float(step)}, on_step=True, on_epoch=False)

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Log `val_loss` and `val_acc` over images [B, C, H, W] and labels [B].

        A second loader is the test set, evaluated along the way for a test curve: `test_loss` and `test_acc`.
        """
        self._log_evaluation("test" if dataloader_idx else "val", batch)
        # At step 0 a logger needs no telling, and `lth validate` would list it as a metric.
        if dataloader_idx == 0 and self.global_step:
            # A mean weighted by samples would round the step number; the maximum of equal numbers does not.
            size = len(batch[1])
            step = float(self.global_step)
            self.log("step", step, on_epoch=True, reduce_fx="max", batch_size=size, add_dataloader_idx=False)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Log `test_loss` and `test_acc` over images [B, C, H, W] and labels [B]."""
        self._log_evaluation("test", batch)

    def _log_evaluation(self, name: str, batch: Batch) -> None:
        images, labels = batch
        logits = self(images)
        # validate_args inspects the labels' values, which makes a GPU wait.
        accuracy = multiclass_accuracy(
            logits, labels, num_classes=self.num_classes, average="micro", validate_args=False
        )
        metrics = {f"{name}_loss": cross_entropy(logits, labels), f"{name}_acc": accuracy}
        self.log_dict(metrics, on_step=False, on_epoch=True, batch_size=len(labels), add_dataloader_idx=False)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """The optimizer, and the scheduler with the interval "step".

        Raises:
            UserError: a scheduler that waits for a metric.
        """
        optimizer = self.optimizer(self.parameters())
        if self.lr_scheduler is None:
            return {"optimizer": optimizer}
        scheduler = self.lr_scheduler(optimizer)
        if isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
            raise UserError("ReduceLROnPlateau waits for a metric: use a schedule in steps, such as WarmupMultiStepLR")
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}
