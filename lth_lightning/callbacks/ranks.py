"""How the processes of a run on several devices begin together, and how they end when it is interrupted."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import torch
from pytorch_lightning import Trainer
from pytorch_lightning.strategies.launchers import _SubprocessScriptLauncher, subprocess_script

from lth_lightning.callbacks.peers import present
from lth_lightning.callbacks.trainer import is_rank_zero

_started: list[subprocess.Popen[bytes]] = []
"""The processes that Lightning has started for further devices, for all fits of the run."""
SETTLE = 0.3
"""Seconds in which gloo's threads let go of what they have done."""
_abandoned: list[object] = []
"""Process groups that must not be destroyed."""


@contextlib.contextmanager
def clean_interrupts(trainer: Trainer) -> Iterator[None]:
    """Ctrl-C stays a KeyboardInterrupt, and no process that was started for a further device outlives this one."""
    before = signal.getsignal(signal.SIGINT)
    launcher = trainer.strategy.launcher
    try:
        with _together(trainer):
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
def _together(trainer: Trainer) -> Iterator[None]:
    """Within it, a fit that makes the process group waits before that for the other processes."""
    peers = present()
    if peers is None or torch.distributed.is_initialized():
        yield
        return
    strategy, launcher = trainer.strategy, trainer.strategy.launcher
    set_up = strategy.setup_environment

    def meet_and_set_up() -> None:
        if isinstance(launcher, _SubprocessScriptLauncher):
            peers.started = launcher.procs
        peers.wait_for_all()
        set_up()

    strategy.setup_environment = meet_and_set_up  # type: ignore[method-assign]
    # Lightning's observer of the processes that it starts kills this one, without a word, when one of them fails.
    observe = subprocess_script._launch_process_observer
    subprocess_script._launch_process_observer = lambda child_processes: None
    try:
        yield
    finally:
        subprocess_script._launch_process_observer = observe


@contextlib.contextmanager
def process_group() -> Iterator[None]:
    """At its end the process group that the fits within it have made is destroyed: else gloo may abort at exit."""
    try:
        yield
    except BaseException as error:
        if torch.distributed.is_initialized():
            if not is_rank_zero() and not isinstance(error, Exception):
                # It has nothing to say or to keep.
                os._exit(130 if isinstance(error, KeyboardInterrupt) else 143)
            # An interrupt leaves collectives under way. The destructor of gloo's process group waits for their threads
            # without letting go of the interpreter's lock, which they need to free their tensors: it would never end.
            _abandoned.append(torch.distributed.group.WORLD)
        raise
    finally:
        _started.clear()
        if torch.distributed.is_initialized():
            group = torch.distributed.group.WORLD
            torch.distributed.destroy_process_group()
            # Its destructor would wait for a thread that still frees the last collective's tensors, which takes the
            # interpreter's lock too: that is to be had meanwhile, and the destructor runs after it.
            time.sleep(SETTLE)
            del group


def leave(code: int) -> None:
    """End this process with exit code `code`, in whatever state its process group is."""
    if _abandoned:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)
