"""Seeds come from names alone, and seed every generator."""

import hashlib
import random
import subprocess
import sys

import numpy as np
import pytest
import torch

from lth_lightning.seeding import derive_seed, seed_all


def test_a_seed_is_the_first_63_bits_of_the_parts_hash():
    digest = hashlib.sha256(b"int:7\x1fstr:ticket\x1fint:3").hexdigest()
    assert derive_seed(7, "ticket", 3) == int(digest[:16], 16) // 2


def test_a_seed_fits_every_generator():
    seeds = [derive_seed(n) for n in range(1_000)]
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert max(seeds) > 2**62
    assert len(set(seeds)) == 1_000
    torch.Generator().manual_seed(max(seeds))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ((0, 1), (1, 0)),
        ((1, 11), (11, 1)),
        (("ab", "c"), ("a", "bc")),
        ((1,), ("1",)),
        ((1,), (1, "")),
        ((0,), ()),
        ((0, "order"), (0, "init")),
    ],
)
def test_other_parts_give_other_seeds(one, other):
    assert derive_seed(*one) != derive_seed(*other)


def test_seeds_are_the_same_in_another_process():
    # Python's own `hash` of a string differs from process to process.
    code = "from lth_lightning.seeding import derive_seed; print(derive_seed(0, 'ticket', -1))"
    printed = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert int(printed) == derive_seed(0, "ticket", -1)


def draws() -> tuple[float, float, float]:
    return random.random(), float(np.random.rand()), float(torch.rand(()))


@pytest.mark.parametrize("seed", [0, 1, 2**32, 2**63 - 1])
def test_seed_all_seeds_python_numpy_and_torch(seed):
    seed_all(seed)
    first = draws()
    after = draws()
    seed_all(seed)
    assert draws() == first
    assert all(a != b for a, b in zip(first, after, strict=True))
    seed_all(seed ^ 1)
    assert all(a != b for a, b in zip(first, draws(), strict=True))
