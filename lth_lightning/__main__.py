"""`lth` and `python -m lth_lightning`."""

import contextlib
import os
import sys
from collections.abc import Iterator

from lth_lightning import __version__, interrupt
from lth_lightning.usage import COMMANDS, READERS, usage


def console() -> None:
    """Run the command line and exit with its code."""
    interrupt.starting()
    words = sys.argv[1:]
    if words in (["--help"], ["-h"]):
        print(usage(), end="")
        return
    if words == ["--version"]:
        print(f"lth {__version__}")
        return
    try:
        code = _run(words)
    except KeyboardInterrupt:  # a second one, when the first has been told
        code = interrupt.CODE
    interrupt.ending(code)
    # Not imported for it: it brings torch, which some commands do without.
    if ranks := sys.modules.get("lth_lightning.callbacks.ranks"):
        ranks.leave(code)
    sys.exit(code)


def _run(words: list[str]) -> int:
    if "_ARGCOMPLETE" in os.environ or any(name in words[0] for name in ("completion", "shtab") if words):
        print("lth: There is no completion of words in the shell: `lth --help` has the commands.", file=sys.stderr)
        return 2
    if not words:
        print(usage(), end="", file=sys.stderr)
        return 2
    if words[0] in READERS:
        from lth_lightning.report import command

        if words[0] == "report":  # the others write nothing
            interrupt.running()
        return command.main(words)
    if not words[0].startswith("-") and words[0] not in COMMANDS:
        print(f"lth: There is no command '{words[0]}': give one of {', '.join(COMMANDS)}.", file=sys.stderr)
        return 2
    with _sign_of_life():
        from lth_lightning.cli import main  # late: it brings torch

    # So that `--model my_file.MyModel` finds the file that lies where the command is typed.
    sys.path.append(os.getcwd())
    return main()


@contextlib.contextmanager
def _sign_of_life() -> Iterator[None]:
    """A line on a terminal that is gone when the libraries, which take seconds, are loaded."""
    is_shown = sys.stderr.isatty() and os.environ.get("LOCAL_RANK", "0") == "0"
    if is_shown:
        print("Loading PyTorch and Lightning …", end="", file=sys.stderr, flush=True)
    try:
        yield
    finally:
        if is_shown:
            print("\r\x1b[2K", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    console()
