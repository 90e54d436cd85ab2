"""The lower bounds that are promised are those that are tested."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_the_constraints_of_the_lowest_versions_are_the_bounds_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    bounds = dict(re.match(r"([\w-]+)(?:\[\w+\])?>=([\d.]+)", text).groups() for text in project["dependencies"])  # type: ignore[union-attr]
    pinned = dict(line.split("==") for line in (ROOT / ".ci" / "lowest.txt").read_text().split() if "==" in line)
    assert pinned.keys() == bounds.keys()
    for name, version in bounds.items():
        assert pinned[name].split(".")[: version.count(".") + 1] == version.split("."), name
