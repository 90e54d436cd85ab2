"""The original files of a data set: found, unpacked, or refused with one line that says what to do."""

import contextlib
import gzip
import http.client
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

from lth_lightning.errors import UserError

GZIP_MAGIC = b"\x1f\x8b"
DOWNLOAD_ERRORS = (OSError, RuntimeError, ValueError, EOFError, http.client.HTTPException)
"""What torchvision's downloads raise without a network, on a full disk, and for a wrong checksum."""


def find(folder: Path, *names: str) -> Path | None:
    """The first of `names` that is a file in `folder`, plain or with .gz behind it."""
    for name in names:
        for path in (folder / name, folder / f"{name}.gz"):
            if path.is_file():
                return path
    return None


def find_together(folders: list[Path], names: Sequence[tuple[str, ...]]) -> list[Path] | None:
    """A path for each of `names` (tuples of spellings), all from the first folder that has every one."""
    for folder in folders:
        paths = [path for spellings in names if (path := find(folder, *spellings)) is not None]
        if len(paths) == len(names):
            return paths
    return None


def read_bytes(path: Path) -> bytes:
    """A file's content, unpacked if it is gzipped, whatever its name says. Raises UserError if damaged."""
    try:
        content = path.read_bytes()
        return gzip.decompress(content) if content.startswith(GZIP_MAGIC) else content
    except (OSError, EOFError, zlib.error) as error:
        raise damaged(path, one_line(error)) from None


def damaged(path: Path | str, why: str) -> UserError:
    """The error for a file that is there and wrong."""
    return UserError(f"{path} cannot be used ({why}): delete it and fetch the original file again.")


def missing(name: str, root: str, why: str = "") -> UserError:
    """The error for files that are not there: the three ways to get them."""
    return UserError(
        f"The files of {name} are not in {str(Path(root).absolute())!r}{f' ({why})' if why else ''}: "
        "let download: true fetch them there on a machine with a network, "
        "or copy the original files (gzipped or not) there, "
        "or point --data.root at a folder that has them."
    )


def download(name: str, root: str, fetch: Callable[[], object]) -> None:
    """Run torchvision's download. Raises UserError, as `missing`, where it fails, and leaves no empty folder behind."""
    folder = Path(root).absolute()
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        fetch()
    except DOWNLOAD_ERRORS as error:
        for path in [*sorted(folder.rglob("*"), reverse=True), *made]:
            with contextlib.suppress(OSError):
                path.rmdir()
        raise missing(name, root, f"the download failed: {one_line(error)}") from None


def one_line(error: BaseException) -> str:
    """What an exception says, in one line."""
    return " ".join(str(error).split()) or type(error).__name__
