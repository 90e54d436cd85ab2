"""Why a Trainer cannot have the devices that it is asked for, and what to write instead."""

from collections.abc import Iterable
from typing import Any

from lightning_fabric.accelerators.registry import _AcceleratorRegistry
from pytorch_lightning.accelerators import Accelerator, AcceleratorRegistry

REGISTRY: _AcceleratorRegistry = AcceleratorRegistry


def why_not(accelerator: Any, devices: Any, resumes: bool) -> str | None:
    """One line on the flag that asks for what this machine has not; None where it has it.

    Args:
        accelerator: the value of `--trainer.accelerator`. Of one that is no part of Lightning nothing is said.
        devices: the value of `--trainer.devices`.
        resumes: whether the values are those of a run that goes on, which may not change.
    """
    known = {name: REGISTRY[name]["accelerator"] for name in sorted(REGISTRY.available_accelerators())}
    here = {name: kind for name, kind in known.items() if kind.is_available()}
    if type(accelerator) in known.values():
        accelerator = accelerator.name()
    if not isinstance(accelerator, str):
        return None
    if accelerator not in known and accelerator not in ("auto", "gpu"):
        return f"--trainer.accelerator {accelerator}: there is no such device. Write one of {_listed(known)}."
    wanted = {"auto": ("tpu", "mps", "cuda", "cpu"), "gpu": ("mps", "cuda")}.get(accelerator, (accelerator,))
    name = next((name for name in wanted if name in here), None)
    if name is None:
        instead = (
            "Go on with the run where there is one; a new run may have another."
            if resumes
            else f"Write --trainer.accelerator {' or '.join(here)}, or drop the flag."
        )
        return f"--trainer.accelerator {accelerator}: torch finds no such device on this machine. {instead}"
    return None if _has(here[name], devices) else f"--trainer.devices {devices}: {_devices_of(name, here[name])}"


def _listed(names: Iterable[str]) -> str:
    return ", ".join(("auto", "gpu", *names))


def _has(kind: type[Accelerator], devices: Any) -> bool:
    if devices == "auto":
        return True
    if devices in ([], 0, "0"):
        return False
    try:
        return bool(kind.get_parallel_devices(kind.parse_devices(devices)))
    except Exception:  # each kind raises types of its own, for a number that is too large and for what is no number
        return False


def _devices_of(name: str, kind: type[Accelerator]) -> str:
    if name == "cpu":
        return "on a CPU this is a number of processes. Write --trainer.devices 1, or more."
    number = kind.auto_device_count()
    if number == 1:
        return f"this machine has one {name} device. Write --trainer.devices 1, or drop the flag."
    return (
        f"this machine has {number} {name} devices. Write a number of 1 to {number}, or a list of theirs, such as "
        f"--trainer.devices '[{number - 1}]' for the last."
    )
