"""The command line: a LightningCLI whose `fit` is a run of a PruningLoop."""

from lth_lightning.cli.command import LTHCLI
from lth_lightning.cli.entry import main

__all__ = ["LTHCLI", "main"]
