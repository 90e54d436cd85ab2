"""A learning rate that is given in optimizer steps."""

from collections.abc import Sequence

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from lth_lightning.errors import UserError


class WarmupMultiStepLR(LRScheduler):
    """Linear warmup, then a drop at every milestone; call `step()` after every optimizer step (LTH app. I).

    Step t, counted from 0, uses the rate `base * min(1, t / warmup_steps) * gamma ** (milestones <= t)`: step
    0 of a warmup has rate 0, as in the paper ("from 0 to the initial learning rate over k iterations"), and
    step `warmup_steps` is the first with the whole base rate. A milestone m changes the rate of step m
    itself.

    The rate is this closed formula, not a running product, so a schedule resumed at step t has the same rate
    bit for bit.

    Raises:
        UserError: negative `warmup_steps`, or a milestone below 1.
    """

    def __init__(
        self, optimizer: Optimizer, warmup_steps: int = 0, milestones: Sequence[int] = (), gamma: float = 0.1
    ) -> None:
        if warmup_steps < 0:
            raise UserError(
                f"warmup_steps is {warmup_steps}: give 0 (no warmup) or a positive number of optimizer steps"
            )
        if any(milestone < 1 for milestone in milestones):
            raise UserError(f"milestones are {list(milestones)}: give optimizer steps of 1 or more")
        self.warmup_steps = warmup_steps
        self.milestones = sorted(milestones)
        self.gamma = gamma
        super().__init__(optimizer)  # sets step 0's rate, so it needs the attributes above

    def get_lr(self) -> list[float | Tensor]:
        """One rate a parameter group, at step `self.last_epoch`: torch's name for the number of `step()`
        calls."""
        step = self.last_epoch
        warmup = min(1.0, step / self.warmup_steps) if self.warmup_steps else 1.0
        factor = warmup * self.gamma ** sum(milestone <= step for milestone in self.milestones)
        return [base * factor for base in self.base_lrs]
