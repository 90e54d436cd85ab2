"""The claims of the paper, from claims.yaml, and which runs they speak of."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from lth_lightning.report.runs import Run
from lth_lightning.results.record import OK

FILE = Path(__file__).with_name("claims.yaml")

Settings = Mapping[str, Any]


@dataclass(frozen=True)
class Claim:
    """An entry of claims.yaml; that file says what its parts mean."""

    claim: str
    text: str
    figure: str
    source: str
    experiment: str
    check: Mapping[str, Any]
    accept: tuple[float | None, float | None]
    paper: float | None = None

    @property
    def where_from(self) -> str:
        """`LTH section 2, Fig. 4a`."""
        return f"{self.source}, Fig. {self.figure}"


@cache
def claims() -> list[Claim]:
    """All claims, in the order of the file."""
    return [Claim(**{**entry, "accept": tuple(entry["accept"])}) for entry in _content()["claims"]]


@cache
def _content() -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(FILE.read_text())
    return content


def settings_of(experiment: str, where: Settings | None = None) -> dict[str, Any]:
    """What a run of `experiment` must have set, with `where` instead of some of it."""
    experiments = _content()["experiments"]
    return {**experiments["all"], **experiments[experiment], **(where or {})}


def matching(runs: Sequence[Run], settings: Settings) -> list[Run]:
    """The runs that have these settings, whatever their number of steps."""
    return [run for run in runs if all(_has(run, key, value) for key, value in settings.items() if key != "steps")]


def _has(run: Run, key: str, value: Any) -> bool:
    if isinstance(value, dict):
        inside = f"{key}."
        return {k.removeprefix(inside): v for k, v in run.settings.items() if k.startswith(inside)} == value
    # A setting that a network, a data set or an older version does not have is as it is in all experiments.
    default = _content()["experiments"]["all"].get(key)
    # An older version has [] for an empty list of patterns.
    return bool((run.setting(key, default) or None) == (value or None))


def steps_of(run: Run, arm: str) -> int | None:
    """Optimizer steps of the arm's shortest training; a control may have fewer than the tickets."""
    return min((record.steps for record in run.records if record.arm == arm and record.status == OK), default=None)
