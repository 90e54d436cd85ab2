"""Files that are either whole or absent: written beside themselves in the same folder, then renamed."""

import io
import os
from pathlib import Path
from typing import Any

from lth_lightning.errors import UserError


def write_bytes(path: Path, content: bytes | memoryview) -> None:
    """Replace `path` by `content` in one step; a reader, or a kill at any moment, never sees half of it.

    Raises OSError where the folder cannot be written or the disk is full; `path` is then as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        beside.write_bytes(content)
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def write_text(path: Path, content: str) -> None:
    """`write_bytes` of UTF-8 text."""
    write_bytes(path, content.encode())


def write_pt(path: Path, content: Any) -> None:
    """`write_bytes` of what `torch.save` makes of plain tensors, numbers, strings, lists and dicts."""
    import torch  # late, here and below: `lth ls` needs files of text alone

    # Through memory: on a full disk torch.save itself raises a RuntimeError and leaves half a file.
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_bytes(path, buffer.getbuffer())


def read_pt(path: Path) -> Any:
    """Load a `.pt` file to the CPU; raises UserError where it is missing or damaged."""
    import torch

    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist.") from None
    except Exception as error:  # torch.load raises half a dozen types for a damaged file
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{path} cannot be read ({reason}): it is damaged or no file of this program.") from None
