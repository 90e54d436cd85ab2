"""Several Classifiers of one architecture, trained side by side as one module."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from lth_lightning.models.attendance import count_steps
from lth_lightning.models.classifier import Batch, Classifier
from lth_lightning.models.stack import Stack, StepRunner, member_losses


class JointClassifier(Classifier):
    """R members, each with its own weights, batches and mask; parameters are [R, ...] under a member's names.

    What each member computes is what it would compute alone, up to float rounding. It logs nothing: whoever trains it
    takes the members' losses from `training_step`'s result, and `validation` after each evaluation.

    Args:
        members: freshly made networks of one kind, with the weights to start from; `can_stack` must take their `net`.
            The first one's optimizer and schedule serve all.
        images: float32 [n, C, H, W], the training images, on the device that will train.
        labels: int64 [n].
        graph: on a GPU, replay the steps as a CUDA graph.
    """

    def __init__(self, members: Sequence[Classifier], images: Tensor, labels: Tensor, graph: bool = False) -> None:
        first = members[0]
        super().__init__(Stack([m.net for m in members]), first.num_classes, first.optimizer, first.lr_scheduler)
        self.automatic_optimization = False
        self.net: Stack
        self.validation: list[tuple[Tensor, Tensor]] = []
        """The mean loss [R] and accuracy [R] of the last evaluation, for each of its loaders."""
        self._train_set = (images, labels)
        self._graph = graph
        self._runner: StepRunner | None = None
        self._batches: list[list[Batch]] = []

    def on_fit_start(self) -> None:
        """Keep the memory format: weights of a stack have five dimensions, which none with channels last fits."""

    def training_step(self, index: Tensor, batch_idx: int) -> dict[str, Tensor]:  # type: ignore[override]
        """k optimizer steps on the samples `index`, int64 [k, R, B]: `losses`, each member's mean over them [R]."""
        if self._runner is None:
            optimizer = self.optimizers(use_pl_optimizer=False)
            scheduler = self.lr_schedulers()
            assert isinstance(optimizer, torch.optim.Optimizer)
            assert scheduler is None or isinstance(scheduler, torch.optim.lr_scheduler.LRScheduler)
            images, labels = self._train_set
            self._runner = StepRunner(
                self.net, optimizer, images, labels, index.shape[2], scheduler=scheduler, graph=self._graph
            )
        losses = self._runner.run(index)
        count_steps(self.trainer, len(index))
        return {"losses": losses}

    def on_validation_epoch_start(self) -> None:
        self._batches = []

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Take in images [B, C, H, W] and labels [B], the same for all members."""
        if dataloader_idx == len(self._batches):
            self._batches.append([])
        self._batches[dataloader_idx].append(batch)

    def on_validation_epoch_end(self) -> None:
        # Lightning opens the precision's context for steps alone.
        with self.trainer.precision_plugin.val_step_context():
            self.validation = [self.evaluate(batches) for batches in self._batches]
        self._batches = []

    @torch.no_grad()
    def evaluate(self, batches: Iterable[Batch]) -> tuple[Tensor, Tensor]:
        """Each member's mean loss [R] and accuracy [R] over batches of images [B, C, H, W] and labels [B]."""
        loss, hits = torch.zeros(2, self.net.members, device=self.device)
        count = 0
        for images, labels in batches:
            logits = self.net.predict(images)
            loss += member_losses(logits, labels) * len(labels)
            hits += (logits.argmax(-1) == labels).sum(1)
            count += len(labels)
        return loss / count, hits / count
