"""The command from its words to its exit code."""

import errno
import os
import re
import signal
import sys
from argparse import ArgumentError
from collections.abc import Sequence
from typing import Any

import torch
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from lth_lightning import arguments, interrupt, resume, traces
from lth_lightning.callbacks.crew import WorkerDiedError, WorkersError
from lth_lightning.callbacks.quiet import quiet
from lth_lightning.callbacks.trainer import is_rank_zero, rank
from lth_lightning.cli.command import LTHCLI
from lth_lightning.cli.messages import plain
from lth_lightning.denormals import flushed
from lth_lightning.errors import UserError

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)
"""Errors of a disk that cannot be written; any other OSError is somebody's bug, and keeps its traceback."""

NO_MEMORY = re.compile(r"DefaultCPUAllocator|CUDA out of memory|Storage size calculation overflowed")
"""In what torch says where there is not enough memory."""


class Terminated(BaseException):
    """SIGTERM arrived."""


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    0; 2 for a user's mistake; 1 for another error, whose traceback is shown; 130 for Ctrl-C; 143 for SIGTERM. Where
    the environment asks for whole tracebacks, other errors are raised.
    """
    terminated: list[int] = []

    def on_sigterm(signum: int, _: Any) -> None:
        terminated.append(signum)
        raise Terminated

    words = list(sys.argv[1:] if args is None else args)
    resume.begin()
    before, threads = signal.signal(signal.SIGTERM, on_sigterm), torch.get_num_threads()
    try:
        with quiet(), flushed():
            arguments.refuse_environment(os.environ)
            LTHCLI(arguments.prepare(words))
        return 0
    except KeyboardInterrupt:
        interrupt.ending(interrupt.CODE)
        _say(f"\nStopped. {resume.advice()}")
        return interrupt.CODE
    except BaseException as error:
        if (message := _mistake(error)) is not None:
            return _complain(message)
        # Under SIGTERM another process's end can surface here as an error of the connection to it.
        if terminated:
            _say(f"\nTerminated. {resume.advice()}")
            return 143
        if not isinstance(error, Exception) or os.environ.get(traces.VARIABLE) == "full":
            raise
        return _show(error)
    finally:
        signal.signal(signal.SIGTERM, before)
        torch.set_num_threads(threads)


def _mistake(error: BaseException) -> str | None:
    """What to say of a user's mistake, or of a machine that has too little of something; None for another error."""
    if isinstance(error, WorkerDiedError):
        return f"{error} {resume.advice()}"
    if isinstance(error, (UserError, ArgumentError, MisconfigurationException)):
        return str(error)
    if isinstance(error, OSError) and error.errno in NO_ROOM:
        return f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}. {resume.advice()}"
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and NO_MEMORY.search(str(error))):
        return f"The memory is too small for this network and these data: make them smaller. {resume.advice()}"
    return None


def _show(error: Exception) -> int:
    """The traceback, as far as it is of the user's own code, and a line that says how to go on."""
    cause = error.__cause__
    print(cause.brief if isinstance(cause, WorkersError) else traces.brief(error), end="", file=sys.stderr)
    where = "" if is_rank_zero() else f"process {rank()}: "
    words = [*traces.works(error), resume.advice(), f"({traces.VARIABLE}=full shows all frames.)"]
    print(f"lth: {where}{' '.join(words)}", file=sys.stderr)
    return 1


def _complain(message: str) -> int:
    # Also in the processes of further devices: a mistake may be met by one of them alone.
    where = "" if is_rank_zero() else f"process {rank()}: "
    print(f"lth: {where}{plain(message)}", file=sys.stderr)
    return 2


def _say(text: str) -> None:
    if is_rank_zero():
        print(text, file=sys.stderr)
