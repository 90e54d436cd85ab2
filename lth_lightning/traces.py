"""Tracebacks of errors in a user's own code, without the frames of those who called it."""

import contextlib
import functools
import sys
import sysconfig
import traceback
from collections.abc import Iterator
from pathlib import Path

from lth_lightning.errors import UserError

VARIABLE = "LTH_TRACEBACK"
"""An environment variable; `full` has the command leave tracebacks whole."""

CALLERS = (
    "lth_lightning", "pytorch_lightning", "lightning_fabric", "lightning_utilities", "lightning", "jsonargparse",
    "torch", "torchmetrics",
)  # fmt: skip
"""Packages that call a user's code; the standard library does, too."""

_LAST = 6
"""Frames that are shown where none is the user's."""

_HAPPENED = "This happened in "


@contextlib.contextmanager
def during(what: object) -> Iterator[None]:
    """An exception within it has a note that says what was being done."""
    try:
        yield
    except Exception as error:
        add_work(error, what)
        raise


def add_work(error: BaseException, what: object) -> None:
    """Note that `error` arose while `what` was done; a user's mistake says all that there is to say."""
    if not isinstance(error, UserError):
        error.add_note(f"{_HAPPENED}{what}.")


def works(error: BaseException) -> list[str]:
    """The sentences that `add_work` has noted."""
    return [note for note in getattr(error, "__notes__", ()) if _is_work(note)]


def brief(error: BaseException) -> str:
    """The traceback of `error` and of those before it: the user's frames, and all below the last of these."""
    told = traceback.TracebackException.from_exception(error)
    _cut(told)
    return "".join(told.format())


def _is_work(note: object) -> bool:
    return str(note).startswith(_HAPPENED)


def _cut(told: traceback.TracebackException) -> None:
    frames = told.stack
    own = [place for place, frame in enumerate(frames) if not _is_callers(frame.filename)]
    if own:
        frames[:] = [frame for place, frame in enumerate(frames) if place in own or place > own[-1]]
    else:
        del frames[:-_LAST]
    told.__notes__ = [note for note in getattr(told, "__notes__", None) or () if not _is_work(note)]
    for part in getattr(told, "exceptions", None) or ():
        _cut(part)
    if told.__cause__:
        _cut(told.__cause__)
    if told.__context__ and not _cut_context(told.__context__):
        told.__context__ = None


def _cut_context(told: traceback.TracebackException) -> bool:
    """Cut what was being handled, and say whether any of it is the user's."""
    is_own = not all(_is_callers(frame.filename) for frame in told.stack)
    _cut(told)
    return is_own


def _is_callers(filename: str) -> bool:
    if filename.startswith("<frozen"):
        return True
    path = Path(filename)
    if any(path.is_relative_to(folder) for folder in _folders()):
        return True
    standard = Path(sysconfig.get_path("stdlib"))
    # Packages that are installed beside it lie below it.
    return path.is_relative_to(standard) and not {"site-packages", "dist-packages"} & {*path.parts}


@functools.cache
def _folders() -> tuple[Path, ...]:
    modules = (sys.modules.get(name) for name in CALLERS)
    return tuple(Path(module.__file__).parent for module in modules if module and module.__file__)
