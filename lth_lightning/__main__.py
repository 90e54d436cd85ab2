"""`lth` and `python -m lth_lightning`."""

# Nothing else, since Ctrl-C is not ours while it is imported.
import os
import sys

from lth_lightning import interrupt


def console() -> None:
    """Run the command line and exit with its code."""
    interrupt.starting()
    words = sys.argv[1:]
    try:
        code = _run(words)
    except KeyboardInterrupt:  # a second one, before the first has been told
        code = interrupt.CODE
        interrupt.ending(code)
        interrupt.say_stopped()
    interrupt.ending(code)
    # Not imported for it: it brings torch, which some commands do without.
    if ranks := sys.modules.get("lth_lightning.callbacks.ranks"):
        ranks.leave(code)
    sys.exit(code)


def _run(words: list[str]) -> int:
    from lth_lightning import __version__
    from lth_lightning.usage import COMMANDS, READERS, usage

    if words in (["--help"], ["-h"]):
        print(usage(), end="")
        return 0
    if words == ["--version"]:
        print(f"lth {__version__}")
        return 0
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
    is_shown = sys.stderr.isatty() and os.environ.get("LOCAL_RANK", "0") == "0"
    if is_shown:  # a line on a terminal that is gone when the libraries, which take seconds, are loaded
        print("Loading PyTorch and Lightning …", end="", file=sys.stderr, flush=True)
    try:
        from lth_lightning.cli import main  # late: it brings torch
    finally:
        if is_shown:
            print("\r\x1b[2K", end="", file=sys.stderr, flush=True)

    # So that `--model my_file.MyModel` finds the file that lies where the command is typed.
    sys.path.append(os.getcwd())
    return main()


if __name__ == "__main__":
    console()
