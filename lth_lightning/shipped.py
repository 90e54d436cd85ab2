"""The configs that come with the package."""

from pathlib import Path


def config_folder() -> Path:
    """Where the shipped configs are: in the installed package, or beside it in a checkout."""
    installed = Path(__file__).parent / "configs"
    return installed if installed.is_dir() else Path(__file__).parent.parent / "configs"


def config_names(kind: str = "") -> str:
    """What `--config` knows by name, sorted: those of one kind, such as `paper`; or the others, and the kinds."""
    top = config_folder()
    found = [path.relative_to(top).with_suffix("").as_posix() for path in (top / kind).glob("*.yaml")]
    kinds = [f"{path.name}/…" for path in (top / kind).iterdir() if path.is_dir()]
    return ", ".join(sorted(found) + sorted(kinds))
