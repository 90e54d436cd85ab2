"""Which training a file of a run belongs to, by where it lies."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lth_lightning.errors import UserError

_REPLICATE = re.compile(r"replicate_(0|[1-9]\d*)")
_LABEL = re.compile(r"(.+)_(0|[1-9]\d*)")
_LEVEL = re.compile(r"level_(\d\d|[1-9]\d{2,})")


def place_of(folder: Path) -> dict[str, int | str]:
    """`replicate`, `arm`, `trial` and `level` of a training's folder, `replicate` of a replicate's; empty of another.

    A copy that someone has put aside, such as `level_03_old`, is another.
    """
    parts = folder.parts[-3:]
    if parts and (found := _REPLICATE.fullmatch(parts[-1])):
        return {"replicate": int(found[1])}
    if len(parts) < 3 or not (replicate := _REPLICATE.fullmatch(parts[0])) or not (level := _LEVEL.fullmatch(parts[2])):
        return {}
    identity: dict[str, int | str] = {"replicate": int(replicate[1]), "level": int(level[1])}
    if parts[1] == "ticket":
        return {**identity, "arm": "ticket", "trial": 0}
    label = _LABEL.fullmatch(parts[1])
    return {**identity, "arm": label[1], "trial": int(label[2])} if label else {}


def check_place(path: Path, content: Mapping[str, Any]) -> None:
    """Raise UserError where a file says of itself that it belongs to another training than the one it lies with.

    What it does not say, as files of older versions do not, is not looked at; nor is a file that lies in no run.
    """
    # A path that tells it is not resolved: of thousands of files that takes longer than to read them.
    place = place_of(path.parent) or place_of(path.parent.resolve())
    for name, value in place.items():
        if name in content and content[name] != value:
            raise UserError(
                f"{path} is not the file that belongs there: it says {name} {content[name]}, and lies with {name} "
                f"{value}. Put each file back into its own folder."
            )
