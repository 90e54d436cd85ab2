"""Every random draw comes from names, not from a generator whose state would have to be saved.

A training's initial weights, data order, augmentation and dropout are drawn from seeds derived from
(seed, replicate, arm, trial, level, what, step or epoch). So a resumed run draws what an uninterrupted one drew.
"""

import hashlib
import random


def derive_seed(*parts: int | str) -> int:
    """A seed in [0, 2**63) from the parts: equal parts give equal seeds, on every machine and version."""
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def seed_all(seed: int) -> None:
    """Seed Python's, NumPy's and torch's global generators (torch's on every device)."""
    import numpy as np  # late: what reads run folders needs names of trainings alone, and no torch
    import torch

    random.seed(seed)
    np.random.seed(seed % 2**32)
    if torch.accelerator.is_available():
        torch.manual_seed(seed)
    else:
        # The same for the CPU. A CUDA build would write down the whole call stack, for a device that never comes.
        torch.default_generator.manual_seed(seed)
