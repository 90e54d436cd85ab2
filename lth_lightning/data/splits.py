"""One part of a data set, as it is read."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Split:
    """One part of a data set, raw, on the CPU."""

    images: Tensor
    """uint8 [n, C, H, W]."""
    labels: Tensor
    """int64 [n]."""

    def select(self, index: Tensor) -> "Split":
        """The samples at `index`, int64 [m], copied in that order."""
        return Split(self.images.index_select(0, index), self.labels.index_select(0, index))
