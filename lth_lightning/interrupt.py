"""Ctrl-C outside of a run: while the command starts, which takes seconds, and while its process ends.

There a KeyboardInterrupt would surface in the middle of some other package's import or clean-up, as a long traceback or
in a destructor. Nothing is begun or open at those times, so the process ends at once. Within a run Ctrl-C is the
ordinary KeyboardInterrupt. This is for a process of the command's own: one that calls `main` is left alone.
"""

# The modules beneath `signal`, and no others: importing more takes time in which Ctrl-C is not ours yet.
import _signal  # type: ignore[import-not-found]
import atexit
import os
import sys

CODE = 130
"""128 + SIGINT, as shells have it."""

_is_ours = False
_pressed = 0


def starting() -> None:
    """From now on Ctrl-C ends the process with one line, for nothing is begun."""
    global _is_ours
    # Where it is ignored, in a script's background, it stays so.
    _is_ours = _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler
    _end_with(CODE, b"\nStopped. Nothing was begun.\n")
    if _is_ours:
        # The first that is registered is called last. Then Python gives Ctrl-C back to the system, unless it is
        # ignored, and the system would end the process with another code.
        atexit.register(_signal.signal, _signal.SIGINT, _signal.SIG_IGN)


def running() -> None:
    """From now on Ctrl-C is a KeyboardInterrupt, and the third ends the process, whatever the first two have begun.

    A cell of a sweep calls it in a worker process, too. Nothing changes there: Ctrl-C is the parent's to follow, and
    cells are made in a thread, which may set no handler.
    """
    import threading  # by now others have imported it

    if _is_ours and threading.current_thread() is threading.main_thread():
        _signal.signal(_signal.SIGINT, _interrupt)


def ending(code: int) -> None:
    """From now on Ctrl-C ends the process with `code`: all is said."""
    _end_with(code, b"")


def say_stopped() -> None:
    """Say that the command is stopped and how to go on, where the run itself could not."""
    resume = sys.modules.get("lth_lightning.resume")
    _say(f"\nStopped.{f' {resume.advice()}' if resume else ''}\n".encode())


def _interrupt(*_: object) -> None:
    global _pressed
    _pressed += 1
    if _pressed > 2:
        say_stopped()
        os._exit(CODE)
    raise KeyboardInterrupt


def _end_with(code: int, said: bytes) -> None:
    def end(*_: object) -> None:
        _say(said)
        os._exit(code)

    if _is_ours:
        _signal.signal(_signal.SIGINT, end)


def _say(text: bytes) -> None:
    if os.environ.get("LOCAL_RANK", "0") == "0":
        os.write(2, text)
