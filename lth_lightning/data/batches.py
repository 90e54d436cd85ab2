"""Batches as the training loop takes them: one long batch is one evaluation interval, many optimizer steps.

Lightning's price is a batch's, not a step's. So a long batch holds the samples of k consecutive steps,
[k, B, C, H, W], cut from tensors on the device by one gather.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import torch
from torch import Generator, Tensor

from lth_lightning.data.augmentation import draw_choices
from lth_lightning.errors import UserError
from lth_lightning.seeding import derive_seed

Batch = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class StepPlan:
    """Which optimizer steps each long batch of a training holds.

    Raises UserError where `every` is not positive or `total` is negative.
    """

    total: int
    """Steps of the whole training."""
    every: int
    """Steps of one long batch: an evaluation interval."""
    seed: int
    """The data order and the augmentation of this training come from it."""
    cuts: tuple[int, ...] = ()
    """Further steps at which a long batch ends, such as the rewind step. They change no sample."""

    def __post_init__(self) -> None:
        if self.every < 1:
            raise UserError(f"A long batch of {self.every} steps is none: evaluate every 1 step or more.")
        if self.total < 0:
            raise UserError(f"A training of {self.total} steps is none: give 0 steps or more.")

    def bounds(self) -> list[int]:
        """Steps at which a long batch begins or ends: 0, every, ..., total and the cuts, ascending."""
        cuts = {cut for cut in self.cuts if 0 <= cut <= self.total}
        return sorted({*range(0, self.total, self.every), *cuts, self.total, 0})


@dataclass(frozen=True)
class Share:
    """Which part of every global batch this process trains on, and what it has to ask the others."""

    rank: int = 0
    world_size: int = 1
    agree: Callable[[int], int] = int
    """Gives every rank rank 0's number."""


class TrainBatches:
    """The training batches of one fit.

    With a plan: `(images [k, b, C, H, W] float32, labels [k, b] int64)`, one item an interval of the plan,
    from the step that `current_step()` gives when the first item is asked for. Step s takes, of epoch s //
    steps_per_epoch's order, the batch at s % steps_per_epoch, whatever came before: a resumed training sees
    what an uninterrupted one saw. Without a plan: one epoch of ordinary batches `(images [b, C, H, W], labels
    [b])`, in the order that a shuffling torch DataLoader would draw from the global generator.

    b is this rank's share of the global batch of `batch_size`. An epoch's last partial batch is dropped.

    `gather(index [m], choices [m] or None)` makes float32 images [m, C, H, W]; `augmented` says that it wants
    choices.
    """

    def __init__(
        self,
        labels: Tensor,
        gather: Callable[[Tensor, Tensor | None], Tensor],
        batch_size: int,
        plan: StepPlan | None = None,
        augmented: bool = False,
        current_step: Callable[[], int] = int,
        share: Share | None = None,
    ) -> None:
        self.labels = labels
        self.gather = gather
        self.batch_size = batch_size
        self.plan = plan
        self.augmented = augmented
        self.current_step = current_step
        self.share = share or Share()
        self.steps_per_epoch = len(labels) // batch_size

    def __len__(self) -> int:
        """Long batches of the whole training, or ordinary batches of one epoch."""
        return len(self.plan.bounds()) - 1 if self.plan is not None else self.steps_per_epoch

    def __iter__(self) -> Iterator[Batch]:
        # Generators both: nothing is drawn, and the trainer's step not asked for, until the first item is.
        return self._ordinary() if self.plan is None else self._planned(self.plan)

    def _planned(self, plan: StepPlan) -> Iterator[Batch]:
        @lru_cache(maxsize=1)  # short intervals share their epoch's order; it lives as long as this iteration
        def epoch(number: int) -> tuple[Tensor, Tensor | None]:
            order, augment = (derive_seed(plan.seed, what, number) for what in ("order", "augment"))
            return self._epoch(order, augment)

        start = self.current_step()
        bounds = [start, *(bound for bound in plan.bounds() if bound > start)]
        for first, end in pairwise(bounds):
            pieces = []
            step = first
            while step < end:
                number, position = divmod(step, self.steps_per_epoch)
                stop = min(position + end - step, self.steps_per_epoch)
                pieces.append([None if rows is None else rows[position:stop] for rows in epoch(number)])
                step += stop - position
            orders, choices = zip(*pieces, strict=True)
            images, labels = self._take(torch.cat(orders), torch.cat(choices) if self.augmented else None)
            yield images, labels

    def _ordinary(self) -> Iterator[Batch]:
        # DataLoader draws a base seed for its workers and then RandomSampler its own: two draws, so that a
        # program that goes from one to the other sees the same order and leaves the generator in the same
        # state.
        _, seed = (int(torch.empty((), dtype=torch.int64).random_().item()) for _ in range(2))
        seed = self.share.agree(seed)
        order, choices = self._epoch(seed, derive_seed(seed, "augment"))
        for step in range(self.steps_per_epoch):
            row = slice(step, step + 1)
            images, labels = self._take(order[row], None if choices is None else choices[row])
            yield images[0], labels[0]

    def _epoch(self, order_seed: int, augment_seed: int) -> tuple[Tensor, Tensor | None]:
        """One epoch's samples [steps, B] and, if augmented, each one's choice [steps, B], both on the CPU."""
        count = len(self.labels)
        kept = self.steps_per_epoch * self.batch_size
        order = torch.randperm(count, generator=Generator().manual_seed(order_seed))[:kept]
        if not self.augmented:
            return order.view(-1, self.batch_size), None
        choices = draw_choices(kept, Generator().manual_seed(augment_seed))
        return order.view(-1, self.batch_size), choices.view(-1, self.batch_size)

    def _take(self, order: Tensor, choices: Tensor | None) -> Batch:
        """This rank's part of the global batches [k, B], gathered: images [k, b, C, H, W], labels [k, b]."""
        size = self.batch_size // self.share.world_size
        mine = slice(self.share.rank * size, (self.share.rank + 1) * size)
        device = self.labels.device
        index = order[:, mine].flatten().to(device)
        if choices is not None:
            choices = choices[:, mine].flatten().to(device)
        images = self.gather(index, choices)
        return images.view(-1, size, *images.shape[1:]), self.labels.index_select(0, index).view(-1, size)


class JointOrders:
    """The samples that the steps of several trainings take: int64 [k, R, B], an item an interval of their plans.

    Training r's own are [:, r]: what a `TrainBatches` with its plan would gather. The plans differ in seed alone, and
    nothing is augmented.
    """

    def __init__(self, labels: Tensor, batch_size: int, plans: Sequence[StepPlan]) -> None:
        self._each = [TrainBatches(labels, lambda index, _: index, batch_size, plan) for plan in plans]

    def __len__(self) -> int:
        return len(self._each[0])

    def __iter__(self) -> Iterator[Tensor]:
        for batches in zip(*self._each, strict=True):
            yield torch.stack([index for index, _ in batches], dim=1)


class EvalBatches:
    """A split in its own order: `(images [b, C, H, W] float32, labels [b] int64)`, the last maybe smaller.

    Every rank gets everything, so every rank computes the same numbers. `normalize` is applied as batches are
    cut; None for images that are normalized already.
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        batch_size: int,
        normalize: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self.images = images
        self.labels = labels
        self.batch_size = batch_size
        self.normalize = normalize

    def __len__(self) -> int:
        return -(-len(self.labels) // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        for start in range(0, len(self.labels), self.batch_size):
            rows = slice(start, start + self.batch_size)
            images = self.images[rows]
            yield (images if self.normalize is None else self.normalize(images)), self.labels[rows]
