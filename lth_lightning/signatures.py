"""Whether a method of a user's own class can be called as a run calls it, and how a message names it."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lth_lightning.errors import UserError


def named(method: Callable[..., Any]) -> str:
    """`halved.BadReturn.start (halved.py, line 4)`, of a bound method."""
    owner = type(method.__self__)  # type: ignore[attr-defined]
    name = f"{owner.__module__}.{owner.__qualname__}.{method.__name__}"
    code = getattr(inspect.unwrap(method), "__code__", None)
    return f"{name} ({Path(code.co_filename).name}, line {code.co_firstlineno})" if code else name


def a_kind(value: object) -> str:
    """`a dict`, `an int`, or `None`."""
    name = type(value).__name__
    return "None" if value is None else f"{'an' if name[0] in 'aeiouAEIOU' else 'a'} {name}"


def check_signature(method: Callable[..., Any], like: Callable[..., Any]) -> None:
    """Raise UserError unless the bound `method` takes, by position, what the base class's `like` does."""
    wanted = list(inspect.signature(like).parameters)  # `self` first
    try:
        signature = inspect.signature(method)
    except (ValueError, TypeError):  # not written in Python
        return
    try:
        signature.bind(*wanted[1:])
    except TypeError as error:
        raise UserError(
            f"{named(method)} cannot be called ({error}): it is to be {like.__name__}({', '.join(wanted)})."
        ) from None
