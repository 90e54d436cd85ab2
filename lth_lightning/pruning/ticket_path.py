"""What to say of a path that is named for a ticket, and is none."""

from pathlib import Path

WHAT = (
    "A ticket is a level's folder within its run (mask.pt in it, and rewind.pt in the folder of its replicate), or one "
    "file that Ticket.save has written."
)


def no_ticket(path: Path, why: str) -> str:
    """One line: `why` it is none, what a ticket consists of, and which folder near `path` is one, if any."""
    near = _near(path)
    return f"{why} {WHAT}{f' Name {near}.' if near else ''}"


def _near(path: Path) -> str:
    """A level's folder, or a ticket's file, that may have been meant; empty where there is none."""
    if path.is_dir() and (path / "ticket.pt").is_file():
        return str(path / "ticket.pt")
    folder = path if path.is_dir() else path.parent
    if _is_whole(folder):  # a file in it was named
        return str(folder)
    for pattern in ("level_*", "ticket/level_*", "replicate_*/ticket/level_*", "version_*/replicate_*/ticket/level_*"):
        if found := [level for level in sorted(folder.glob(pattern), key=_order) if _is_whole(level)]:
            return f"a level, such as {found[-1]}"
    return ""


def _order(level: Path) -> tuple[int, str]:
    return len(level.name), level.name  # level_100 comes after level_99


def _is_whole(level: Path) -> bool:
    parts = level.resolve().parts[-2:]
    is_ticket = len(parts) == 2 and parts[0] == "ticket"
    return is_ticket and (level / "mask.pt").is_file() and (level.resolve().parent.parent / "rewind.pt").is_file()
