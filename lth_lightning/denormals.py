"""Denormal numbers, which are rounded to zero while networks are trained and evaluated.

Adam's moments of dead units, of pruned weights and of samples that are learned by heart shrink until they are below the
smallest normal number (1.2e-38), where a CPU's arithmetic takes many times as long. They are too small to matter.
"""

import contextlib
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def flushed() -> Iterator[None]:
    """Within it, this thread computes with zero in place of denormal numbers, where the CPU can.

    So do the threads and processes that begin within it: the flag is copied to them. The `lth` command enters it before
    torch's pool of threads begins. Does nothing on a GPU, which computes with denormals at full speed.
    """
    before = are_flushed()
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)


def are_flushed() -> bool:
    """Whether this thread computes with zero in place of denormal numbers."""
    return not bool(torch.tensor(2.0**-126, dtype=torch.float32, device="cpu") * 0.5)
