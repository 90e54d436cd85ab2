"""Values that no option can have, whichever it is: looked for in the whole config, before anything is made of it."""

import inspect
import math
from collections.abc import Iterator
from pydoc import locate
from typing import Any

from jsonargparse import Namespace

from lth_lightning.errors import UserError

LARGEST = 2**63 - 1
"""Of integers, for torch; a seed may be larger, since draws come from names that are hashed."""

NOT_EMPTY = ("resume", "pruning.ticket", "ckpt_path", "logs", "experiment", "data.init_args.root")
"""Names of files and folders: one that is empty is a mistake, such as a variable of the shell that is not set."""

MOST_THREADS, MOST_WORKERS = 1024, 256
"""More than any machine has, and few enough that asking for them does no harm."""


def check_values(config: Namespace) -> None:
    """Raise UserError naming the first option whose value cannot be meant."""
    for name in NOT_EMPTY:
        if config.get(name) == "":
            raise UserError(f"--{_flag(name)} is empty (an unset variable of the shell?): give a name, or drop it.")
    for name, most in (("threads", MOST_THREADS), ("workers", MOST_WORKERS)):
        number = config.get(name)
        if number is not None and not 1 <= number <= most:
            raise UserError(f"--{name} is {number}: give 1 to {most:,}, or leave the choice to the command.")
    for name in ("trainer.max_steps", "trainer.max_epochs"):
        number = config.get(name)
        # -1 is what the Trainer has where the length is not given.
        if number is not None and number < -1:
            raise UserError(f"--{name} is {number}: give 1 or more.")
    # The config of a run that was made before this was refused may have it.
    is_of_run = config.get("resume") or config.get("ckpt_path")
    if config.get("trainer.default_root_dir") is not None and not is_of_run:
        raise UserError("--trainer.default_root_dir has no effect on a run: name the folder of runs with --logs.")
    if config.get("trainer.check_val_every_n_epoch") not in (None, 1) and not is_of_run:
        raise UserError(
            "--trainer.check_val_every_n_epoch has no effect on a run: set --pruning.evaluate_every, in steps."
        )
    for group in ("model", "data"):
        _check_null(config.get(group), group)
    for name, value in _leaves(config, ""):
        if isinstance(value, float) and math.isnan(value):
            raise UserError(f"{name} is not a number (nan): give one.")
        is_seed = "seed" in name.rsplit(".", 1)[-1]
        if isinstance(value, int) and abs(value) > LARGEST and not is_seed:
            raise UserError(f"{name} is {_short(value)}, which no computer's integer holds: give a smaller number.")
        if isinstance(value, str) and "\0" in value:
            raise UserError(f"{name} has a character of code 0 in it, which no name can have: drop it.")


def _check_null(spec: Any, name: str) -> None:
    """The parser takes null for any type; a class that asks for a number would find none."""
    made: Any = locate(spec["class_path"]) if isinstance(spec, Namespace) and spec.get("class_path") else None
    if not inspect.isclass(made) or not isinstance(spec.get("init_args"), Namespace):
        return
    asked = inspect.signature(made).parameters
    for key, value in vars(spec["init_args"]).items():
        if value is None and key in asked and asked[key].annotation in (int, float, str, bool):
            raise UserError(
                f"{name}.{key} is null: give a value of the type {asked[key].annotation.__name__}, or drop it."
            )


def _flag(name: str) -> str:
    return name.replace("init_args.", "")


def _short(number: int) -> str:
    return f"{number:,}" if abs(number) < 10**30 else "a number of more than 30 digits"


def _leaves(value: Any, name: str) -> Iterator[tuple[str, Any]]:
    """All numbers and strings, keys of dictionaries too, each with the option that it is part of."""
    if isinstance(value, Namespace | dict):
        for key, part in (vars(value) if isinstance(value, Namespace) else value).items():
            yield from [(name, key)] if isinstance(value, dict) else []
            yield from _leaves(part, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list | tuple | set):
        for part in value:
            yield from _leaves(part, name)
    else:
        yield name, value
