"""What a training starts from."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from lth_lightning.pruning import Mask, Weights


@dataclass
class Start:
    """What a training starts from, and how long it is. The tensors are shared: do not change them in place."""

    mask: Mask
    weights: Weights
    """The whole state dict; what it says of pruned weights does not matter."""
    step: int = 0
    """The optimizer step that it begins at: the learning-rate schedule and the data order go on from there."""
    optimizer_state: bool = False
    """Go on with the optimizer's state of that step, which is the rewind step then; otherwise it starts fresh."""
    steps: int | None = None
    """A length of its own, in optimizer steps; 0 evaluates the weights as they are."""
    learning_rates: list[float] | None = None
    """Constant rates, one a parameter group, instead of the schedule."""
    pruned: Mapping[str, Tensor] = field(default_factory=dict)
    """Values that the pruned weights are frozen at, by parameter name; 0 without."""
