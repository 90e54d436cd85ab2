"""How the processes of a run on several devices end when it is interrupted."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import torch
from pytorch_lightning import Trainer
from pytorch_lightning.strategies.launchers import _SubprocessScriptLauncher

from lth_lightning.callbacks.trainer import is_rank_zero

_started: list[subprocess.Popen[bytes]] = []
"""The processes that Lightning has started for further devices, for all fits of the run."""
_abandoned: list[object] = []
"""Process groups that must not be destroyed."""


@contextlib.contextmanager
def clean_interrupts(trainer: Trainer) -> Iterator[None]:
    """Ctrl-C stays a KeyboardInterrupt, and no process that was started for a further device outlives this one."""
    before = signal.getsignal(signal.SIGINT)
    launcher = trainer.strategy.launcher
    try:
        yield
    except BaseException as error:
        # The first fit's launcher starts them; later ones find them there and have none.
        is_interrupt = not isinstance(error, Exception)
        for process in launcher.procs if isinstance(launcher, _SubprocessScriptLauncher) else _started:
            # One that waits for this process in a collective hears no other signal. It writes no files.
            process.send_signal(signal.SIGKILL if is_interrupt else signal.SIGTERM)
        if isinstance(error, SystemExit) and signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
            # Lightning turns Ctrl-C into exit 1 and leaves the signal ignored.
            signal.signal(signal.SIGINT, before)
            raise KeyboardInterrupt from None
        raise
    if isinstance(launcher, _SubprocessScriptLauncher) and launcher.procs:
        _started[:] = launcher.procs


@contextlib.contextmanager
def process_group() -> Iterator[None]:
    """At its end the process group that the fits within it have made is destroyed, lest gloo aborts at exit."""
    try:
        yield
    except BaseException as error:
        if torch.distributed.is_initialized():
            if not is_rank_zero() and not isinstance(error, Exception):
                # It has nothing to say or to keep. 0: at another code Lightning kills rank 0, which has.
                os._exit(0)
            # An interrupt leaves collectives under way. The destructor of gloo's process group waits for their threads
            # without letting go of the interpreter's lock, which they need to free their tensors: it would never end.
            _abandoned.append(torch.distributed.group.WORLD)
        raise
    finally:
        _started.clear()
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


def leave(code: int) -> None:
    """End this process with exit code `code`, in whatever state its process group is."""
    if _abandoned:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)
