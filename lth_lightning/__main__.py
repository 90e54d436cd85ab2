"""`lth` and `python -m lth_lightning`."""

import os
import sys


def console() -> None:
    """Run the command line and exit with its code."""
    from lth_lightning.cli import main

    # So that `--model my_file.MyModel` finds the file that lies where the command is typed.
    sys.path.append(os.getcwd())
    sys.exit(main())


if __name__ == "__main__":
    console()
