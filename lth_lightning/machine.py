"""What this machine can do at once: cores, memory, and the worker processes that fit into them."""

import contextlib
import ctypes
import gc
import os
import sys
from pathlib import Path

import torch
from torch import nn

from lth_lightning.data import TensorDataModule

CGROUP = Path("/sys/fs/cgroup")
BASE_BYTES = 400 * 2**20
"""A worker's own memory before it trains; libraries and data sets are shared."""


def cores() -> int:
    """CPU cores that this process may use, a container's quota counted."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota, period = (_read(CGROUP / "cpu.max") or "max 1").split()
    return allowed if quota == "max" else max(1, min(allowed, int(quota) // int(period)))


def free_bytes() -> int | None:
    """Memory that can still be had, a container's limit counted; None where the system does not say."""
    known = []
    for line in (_read(Path("/proc/meminfo")) or "").splitlines():
        if line.startswith("MemAvailable:"):
            known.append(int(line.split()[1]) * 1024)
    limit, used = _read(CGROUP / "memory.max"), _read(CGROUP / "memory.current")
    if limit and used and limit != "max":
        stat = dict(line.split() for line in (_read(CGROUP / "memory.stat") or "").splitlines())
        # What files were read is counted as used, though it goes when memory is needed.
        known.append(int(limit) - int(used) + int(stat.get("inactive_file", 0)))
    return min(known, default=None)


def give_back_memory() -> None:
    """Collect what earlier trainings left, and give the system what the allocator keeps of it (glibc alone does)."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def _read(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None


def bytes_of_training(model: nn.Module, data: object, evaluate_every: int) -> int:
    """About how much memory of its own a worker needs: activations of a step and of an evaluation, copies of weights.

    Where `model` or `data` are somebody's own, the weights alone are known.
    """
    weights: int = sum(value.nbytes for value in model.state_dict().values() if isinstance(value, torch.Tensor))
    total = BASE_BYTES + 10 * weights
    if isinstance(data, TensorDataModule):
        outputs: list[int] = []
        handles = [
            module.register_forward_hook(lambda _, __, output: outputs.append(output.nbytes))
            for module in model.modules()
            if not list(module.children())
        ]
        image = torch.zeros(1, *data.shape)
        try:
            with torch.no_grad():
                model.eval()(image)
        except Exception:
            outputs = []  # somebody's own module, which takes something else
        finally:
            model.train()
            for handle in handles:
                handle.remove()
        total += 2 * data.batch_size * sum(outputs) + 3 * data.eval_batch_size * max(outputs, default=0)
        total += 2 * evaluate_every * data.batch_size * image.nbytes
    return total


def share_out(lines: int, bytes_each: int, workers: int | None = None, threads: int | None = None) -> tuple[int, int]:
    """Workers for so many lines of trainings, and threads of each, where the user leaves one or both open.

    As many workers as cores and memory allow; with fewer lines than cores, more threads for each.
    """
    if workers is None:
        free = free_bytes()
        room = sys.maxsize if free is None else free // bytes_each
        workers = min(lines, cores() // (threads or 1), room)
        # A fork copies no thread pool of the system's own libraries elsewhere.
        workers = max(1, workers) if sys.platform == "linux" else 1
    workers = max(1, min(workers, lines))
    return workers, threads or max(1, cores() // workers)
