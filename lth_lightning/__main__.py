"""`lth` and `python -m lth_lightning`."""

import os
import sys

from lth_lightning import __version__
from lth_lightning.usage import COMMANDS, READERS, usage


def console() -> None:
    """Run the command line and exit with its code."""
    if sys.argv[1:] in (["--help"], ["-h"]):
        print(usage(), end="")
        return
    if sys.argv[1:] == ["--version"]:
        print(f"lth {__version__}")
        return
    if not sys.argv[1:]:
        print(usage(), end="", file=sys.stderr)
        sys.exit(2)
    if sys.argv[1] in READERS:
        from lth_lightning.report import command

        sys.exit(command.main(sys.argv[1:]))
    if not sys.argv[1].startswith("-") and sys.argv[1] not in COMMANDS:
        print(f"lth: There is no command '{sys.argv[1]}': give one of {', '.join(COMMANDS)}.", file=sys.stderr)
        sys.exit(2)
    from lth_lightning.callbacks.ranks import leave  # imported late: they bring torch
    from lth_lightning.cli import main

    # So that `--model my_file.MyModel` finds the file that lies where the command is typed.
    sys.path.append(os.getcwd())
    leave(main())


if __name__ == "__main__":
    console()
