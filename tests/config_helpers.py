"""What the tests of the shipped configs share: their headers, and the runs that each of them is."""

import re
import shlex
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

import pytest

from lth_lightning import arguments, sweep
from lth_lightning.callbacks.quiet import quiet
from lth_lightning.cli import LTHCLI
from lth_lightning.shipped import config_folder
from lth_lightning.sweep.cells import new_cells

NAMES = sorted(path.relative_to(config_folder()).with_suffix("").as_posix() for path in config_folder().rglob("*.yaml"))

_SHAPE = re.compile(
    r"(?P<what>.+) Claims: (?P<claims>none|[A-Z]\d*(?:, [A-Z]\d*)*) "
    r"Cost: (?P<trainings>[\d,]+) trainings?(?: of (?P<each>[\d,]+) steps)? a replicate"
    r"(?: in (?P<runs>\d+) runs)?(?:, (?P<replicates>\d+) replicates)?: (?P<total>[\d,]+) steps "
    r"Smaller: (?P<smaller>--.+)"
)


@dataclass
class Cost:
    """What a header says of the whole experiment, all runs of a sweep together."""

    trainings: int
    """Of one replicate."""
    each: int | None
    """Steps of a training, where all have the same."""
    runs: int
    replicates: int
    total: int
    """Steps of everything."""


@dataclass
class Header:
    """The comment that a config begins with, in its fixed shape."""

    what: str
    claims: str
    cost: Cost
    smaller: list[str]
    """Flags of a smaller experiment."""


def header(name: str) -> Header:
    """The parts of the header of a shipped config; fails where one is missing."""
    lines = (config_folder() / f"{name}.yaml").read_text().splitlines()
    comment = list(takewhile(lambda line: line.startswith("#"), lines))
    found = _SHAPE.fullmatch(" ".join(line.removeprefix("# ") for line in comment))
    assert found, f"{name}: {comment}"
    number = {
        key: int((found[key] or "1").replace(",", "")) for key in ("trainings", "each", "runs", "replicates", "total")
    }
    cost = Cost(**number)
    if not found["each"]:
        cost.each = None
    return Header(found["what"], found["claims"], cost, shlex.split(found["smaller"]))


def runs_of(name: str, words: list[str], monkeypatch: pytest.MonkeyPatch) -> list[LTHCLI]:
    """Each run of a config, a sweep's cells, checked as before a training, with everything of its real size.

    Of numbers that go to the model, the first and the last are checked; the runs between have the first one's plan.
    """
    clis: list[LTHCLI] = []

    def check(base: LTHCLI, words: list[str]) -> None:
        grid = base.config["fit"]["sweep"]
        cells = new_cells("sweep", words, grid)
        ends = {flag: (values[0], values[-1]) for flag, values in grid.items() if flag.startswith("model.")}
        first = None
        for cell in cells:
            between = any(cell.values[flag] not in ends[flag] for flag in ends)
            clis.append(first if first and between else LTHCLI.of_cell(cell.words, only_check=True))
            first = first or clis[0]

    with monkeypatch.context() as patch, quiet():
        patch.setattr(sweep, "run", check)
        base = LTHCLI(arguments.prepare(["fit", "--config", name, *words]), only_check=True)
    return clis or [base]


def cost_of(runs: list[LTHCLI]) -> Cost:
    """What the runs would do, by their own plans."""
    (replicates,) = {run.driver.loop.replicates for run in runs}
    steps = []
    for run in runs:
        assert run.driver.steps
        steps += [run.driver.loop.steps_of(training, run.driver.steps) for training in run.driver.plan(Path())]
    return Cost(
        trainings=len(steps) // replicates,
        each=steps[0] if len(set(steps)) == 1 else None,
        runs=len(runs),
        replicates=replicates,
        total=sum(steps),
    )
