"""What every loop of a comparison trains: the same network, start, mask, batch size and learning rate."""

import contextlib
import os
import platform
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lth_lightning.models import LeNet300
from lth_lightning.pruning import Ticket, remaining

BATCH, EVERY, RATE = 60, 100, 1.2e-3
"""Samples of a step, steps between evaluations, Adam's learning rate: LeNet's in the paper (LTH Fig. 2)."""


@dataclass(frozen=True)
class Timing:
    """One loop, run once."""

    seconds: float
    steps: int
    validations: int
    """Evaluations of the whole validation set."""
    tests: int
    """Evaluations of the whole test set."""
    weights: dict[str, Tensor]
    """At its end, on the CPU, by their names in `LeNet300().net`."""

    @property
    def micros(self) -> float:
        """Microseconds a step, evaluations included."""
        return 1e6 * self.seconds / self.steps


def start_at(density: float) -> Ticket:
    """LeNet-300-100 from a fixed seed, with a random mask that leaves `density` of every layer; 1 leaves all."""
    torch.manual_seed(0)
    weights = LeNet300().state_dict()
    mask = {}
    for name, weight in weights.items():
        if name.endswith("weight"):
            kept = torch.randperm(weight.numel()) < round(density * weight.numel())
            mask[name] = kept.view_as(weight)
    total = sum(part.numel() for part in mask.values())
    return Ticket(mask, weights, level=1, density=remaining(mask) / total)


def network(ticket: Ticket, own_layers: bool = False) -> nn.Module:
    """784-300-100-10 with the ticket's weights and zeros: in torch's own layers under LeNet300's names, or LeNet300's.

    The latter (`own_layers`) choose between MKL and oneDNN.
    """
    model = LeNet300()
    ticket.apply(model)
    if own_layers:
        return model.net
    net = nn.Sequential()
    for name, layer in model.net.named_children():
        net.add_module(name, nn.Linear(layer.in_features, layer.out_features) if hasattr(layer, "weight") else layer)
    net.load_state_dict(model.net.state_dict())
    return net


def masks(ticket: Ticket) -> dict[str, Tensor]:
    """The ticket's mask by the names of `network`'s parameters."""
    return {name.removeprefix("net."): part for name, part in ticket.mask.items()}


def wait(device: str) -> None:
    """Until the device has done what it was given, so that a clock can be read."""
    if device == "cuda":
        torch.cuda.synchronize()


@contextlib.contextmanager
def lightnings_check(on: bool) -> Iterator[None]:
    """Within it, a step of an optimizer costs what it does in a process that has, or has not, imported Lightning.

    Its import sets this variable, with which a CUDA build of torch, on a machine without a GPU, looks for the driver's
    library in each step: a tenth of a millisecond that a program without Lightning does not pay.
    """
    name = "PYTORCH_NVML_BASED_CUDA_CHECK"
    before = os.environ.get(name, "0")
    os.environ[name] = "1" if on else "0"
    try:
        yield
    finally:
        os.environ[name] = before


@contextlib.contextmanager
def threads(count: int) -> Iterator[None]:
    """Within it, torch uses so many CPU threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def machine() -> str:
    """What a printed number depends on beside the code; a load well above 0 says that the machine has other work."""
    chip = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    versions = f"Python {platform.python_version()}, torch {torch.__version__}"
    return f"{os.cpu_count()} {platform.machine()} cores, {chip}, {versions}, load average {os.getloadavg()[0]:.1f}"


def spread(values: Sequence[float], form: str = ".3f") -> str:
    """Median, and the least and the greatest in brackets."""
    return f"{statistics.median(values):{form}} ({min(values):{form}}-{max(values):{form}})"
