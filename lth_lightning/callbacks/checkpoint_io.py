"""Checkpoints that are either whole or absent."""

from pathlib import Path
from typing import Any

from lightning_fabric.plugins import TorchCheckpointIO

from lth_lightning.files import write_pt


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the target and renames.

    Lightning's own stages in the system's temporary folder, and a move across file systems can be seen half done.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        write_pt(Path(path), checkpoint)
