"""Ctrl-C outside of a run: while the command starts, which takes seconds, and while its process ends.

There a KeyboardInterrupt would surface in the middle of some other package's import or clean-up, as a long traceback or
in a destructor. Nothing is begun or open at those times, so the process ends at once. Within a run Ctrl-C is the
ordinary KeyboardInterrupt. This is for a process of the command's own: one that calls `main` is left alone.
"""

import os
import signal

CODE = 130
"""128 + SIGINT, as shells have it."""

_is_ours = False


def starting() -> None:
    """From now on Ctrl-C ends the process with one line, for nothing is begun."""
    global _is_ours
    # Where it is ignored, in a script's background, it stays so.
    _is_ours = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    said = b"\nStopped. Nothing was begun.\n" if os.environ.get("LOCAL_RANK", "0") == "0" else b""
    _end_with(CODE, said)


def running() -> None:
    """From now on Ctrl-C is a KeyboardInterrupt."""
    if _is_ours:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def ending(code: int) -> None:
    """From now on Ctrl-C ends the process with `code`: all is said."""
    _end_with(code, b"")


def _end_with(code: int, said: bytes) -> None:
    def end(*_: object) -> None:
        os.write(2, said)
        os._exit(code)

    if _is_ours:
        signal.signal(signal.SIGINT, end)
