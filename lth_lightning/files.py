"""Files that are either whole or absent: written beside themselves in the same folder, then renamed."""

import errno
import io
import os
import zipfile
from pathlib import Path
from typing import Any

from lth_lightning.errors import UserError
from lth_lightning.place import place_of


class NotPlainError(UserError):
    """What is to be saved holds more than tensors, numbers and text, and so could not be read back safely."""


def write_bytes(path: Path, content: bytes | memoryview, make_folder: bool = True) -> None:
    """Replace `path` by `content` in one step; a reader, or a kill at any moment, never sees half of it.

    Nor does anybody after the machine itself has stopped: file and folder are on the disk when this returns.

    Args:
        path: what to write.
        content: all of it.
        make_folder: make the folder of `path`, if it is not there.

    Raises:
        OSError: the folder cannot be written or the disk is full; `path` is then as it was.
        UserError: a folder stands in the place of the file, or a file in that of its folder.
    """
    if make_folder:
        _make_folder(path.parent)
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        beside.write_bytes(content)
        _put_on_disk(beside)
        beside.replace(path)
    except IsADirectoryError:
        beside.unlink(missing_ok=True)
        raise UserError(f"{path} is a folder where a file belongs: move it away.") from None
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    _put_on_disk(path.parent)


def _make_folder(folder: Path) -> None:
    """Make a folder and those above it; but not that of a run, which is there unless it was renamed or removed."""
    place = place_of(folder)
    if place and not (run := folder.parents[2 if "level" in place else 0]).is_dir():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(run))
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise UserError(f"{folder} cannot be a folder, for a file is in its place: move that file away.") from None


def _put_on_disk(path: Path) -> None:
    """Wait until what was written to a file, or renamed in a folder, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # a file system that cannot do it, such as some networks'
            raise
    finally:
        os.close(descriptor)


def write_text(path: Path, content: str, make_folder: bool = True) -> None:
    """`write_bytes` of UTF-8 text."""
    write_bytes(path, content.encode(), make_folder)


def read_text(path: Path) -> str:
    """The UTF-8 text of a file; raises UserError where it is missing, cannot be read, or is no text."""
    try:
        return path.read_bytes().decode()
    except UnicodeDecodeError:
        raise UserError(f"{path} is damaged: it is no text.") from None
    except OSError as error:
        raise UserError(unreadable(path, error)) from None


def write_pt(path: Path, content: Any, only_plain: bool = True) -> None:
    """`write_bytes` of what `torch.save` makes of plain tensors, numbers, strings, lists and dicts.

    Raises NotPlainError for other content, with `only_plain`.
    """
    import torch  # late, here and below: `lth ls` needs files of text alone

    # Through memory: on a full disk torch.save itself raises a RuntimeError and leaves half a file.
    buffer = io.BytesIO()
    torch.save(content, buffer)
    if only_plain:
        _check_plain(path, buffer)
    write_bytes(path, buffer.getbuffer())


def _check_plain(path: Path, content: io.BytesIO) -> None:
    if names := foreign_names(content):
        raise NotPlainError(
            f"{path} would hold {names[0]}, which is no tensor, number or text and could not be read back safely: keep "
            "plain values in state dicts and checkpoints."
        )


def plain_copy(path: Path, content: Any) -> Any:
    """`content` as `path` would hold it, on the CPU; raises NotPlainError as `write_pt`."""
    import torch

    buffer = io.BytesIO()
    torch.save(content, buffer)
    _check_plain(path, buffer)
    return load_pt(path, buffer)


def read_pt(path: Path) -> Any:
    """Load a `.pt` file to the CPU; raises UserError where it is missing or damaged, if only by a bit."""
    return load_pt(path, read_whole(path))


def read_whole(path: Path) -> io.BytesIO:
    """The bytes of a `.pt` or `.ckpt` file, each of which is the one that was written.

    Raises UserError where the file is missing, or a checksum differs: its zip format has one for each tensor, and
    `torch.load` does not look at them.
    """
    try:
        content = io.BytesIO(path.read_bytes())
    except OSError as error:
        raise UserError(unreadable(path, error)) from None
    try:
        with zipfile.ZipFile(content) as archive:
            changed = archive.testzip()
    except Exception as error:  # zipfile raises half a dozen types for what is no whole zip file
        raise UserError(
            f"{path} is damaged or no file of this kind: it is cut short, changed or something else ({_short(error)})."
        ) from None
    if changed is not None:
        raise UserError(f"{path} is damaged: bytes of it have changed since it was written (in its part {changed}).")
    content.seek(0)
    return content


def load_pt(path: Path, content: io.BytesIO) -> Any:
    """What the whole `content` of `path` holds; raises UserError where it is more than tensors, numbers and text."""
    import torch

    try:
        return torch.load(content, map_location="cpu", weights_only=True)
    except Exception:  # torch.load raises half a dozen types, and advises to run what the file says
        raise UserError(
            f"{path} is damaged or no file of this program: {_what_else(content) or 'torch cannot read it'}."
        ) from None


def foreign_names(content: io.BytesIO) -> list[str]:
    """Names of classes and functions in a file of `torch.save`, less those of tensors, numbers and text."""
    from torch.serialization import get_unsafe_globals_in_checkpoint

    content.seek(0)
    names = sorted(get_unsafe_globals_in_checkpoint(content))
    content.seek(0)
    return names


def _what_else(content: io.BytesIO) -> str:
    try:
        names = foreign_names(content)
    except Exception:  # as above: it may be any zip file
        return ""
    return f"it holds {names[0]}, which is no tensor, number or text" if names else ""


def unreadable(path: Path, error: OSError) -> str:
    """Why a file could not be read, in one line."""
    if isinstance(error, FileNotFoundError):
        return f"{path} does not exist."
    if isinstance(error, IsADirectoryError):
        return f"{path} cannot be read: it is a folder where a file belongs."
    return f"{path} cannot be read ({error.strerror})."


def _short(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
