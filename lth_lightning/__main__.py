"""`lth` and `python -m lth_lightning`."""

import sys


def console() -> None:
    """Run the command line and exit with its code."""
    from lth_lightning.cli import main

    sys.exit(main())


if __name__ == "__main__":
    console()
