"""The configs that come with the package."""

from pathlib import Path


def config_folder() -> Path:
    """Where the shipped configs are: in the installed package, or beside it in a checkout."""
    installed = Path(__file__).parent / "configs"
    return installed if installed.is_dir() else Path(__file__).parent.parent / "configs"


def config_names() -> str:
    """What `--config` knows by name, sorted."""
    folder = config_folder()
    return ", ".join(sorted(path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.yaml")))
