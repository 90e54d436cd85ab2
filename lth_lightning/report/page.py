"""The page of a report: one HTML file that needs nothing else, neither network nor fonts nor other files."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from lth_lightning.report.figure import Picture
from lth_lightning.report.layers_left import Layers
from lth_lightning.report.page_svg import dark_colours, split
from lth_lightning.report.page_table import table
from lth_lightning.report.verdict import Verdict, by_reason

OUTCOMES = (
    ("holds", "\N{CHECK MARK}", "holds", "hold"),
    ("does not hold", "\N{BALLOT X}", "does not hold", "do not hold"),
    ("cannot tell", "?", "cannot be told", "cannot be told"),
)
"""Of a verdict: its outcome, its symbol, and how one and how several are counted."""


@dataclass(frozen=True)
class RunFacts:
    """What the page says of a run.

    Attributes:
        name: of the run in this report.
        state: how far it is, such as `running: 14 of 111 trainings`.
        result: the sentences of `lth fit` at its end: which tickets win, then against each control; empty without
            results.
        facts: label and value: folder, network, data, steps, replicates, seed, versions, …
        config: the text of config.yaml; empty where there is none.
        command: a shell command that repeats the run; empty where none does.
        is_from_python: whether it was started from Python, so that there is neither.
    """

    name: str
    state: str
    result: Sequence[str]
    facts: Sequence[tuple[str, str]]
    config: str
    command: str
    is_from_python: bool = False


@dataclass(frozen=True)
class Page:
    """All that stands on the page, in its order but for the pictures' images.

    Attributes:
        title: the page's.
        runs: what was run.
        notes: what is missing, damaged or still being written, one line each.
        verdicts: parts of one claim have its name in common; they are shown together.
        pictures: the figures.
        layers: what is left of each layer, for the runs that hold weights.
        summary: a row for each run, arm and level, see `page_table.table`.
        made: by which version, and when.
    """

    title: str
    runs: Sequence[RunFacts]
    notes: Sequence[str]
    verdicts: Sequence[Verdict]
    pictures: Sequence[Picture]
    summary: pd.DataFrame
    made: str
    layers: Sequence[Layers] = ()


def render(page: Page, svgs: Mapping[str, str]) -> str:
    """The HTML of `page`; `svgs` has each picture's image by its name, as matplotlib wrote it."""
    folder = Path(__file__).parent
    environment = Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["breakable"] = _breakable
    shared = _shared(page.runs)
    return environment.get_template("page.html.jinja").render(
        page=page,
        shared=shared,
        own=[[fact for fact in run.facts if fact not in shared] for run in page.runs],
        counts=[
            (outcome, symbol, number, one if number == 1 else several)
            for outcome, symbol, one, several in OUTCOMES
            if (number := sum(verdict.outcome == outcome for verdict in page.verdicts))
        ],
        symbols={outcome: symbol for outcome, symbol, _, _ in OUTCOMES},
        claims=_claims([verdict for verdict in page.verdicts if verdict.outcome != "cannot tell"]),
        unsure=by_reason(page.verdicts),
        drawings={
            picture.name: split(picture.figure, svgs[picture.name], f"figure-{number}-")
            for number, picture in enumerate(page.pictures, start=1)
        },
        table=table(page.summary),
        style=Markup((folder / "page.css").read_text() + dark_colours(svgs.values())),
        script=Markup((folder / "page.js").read_text()),
    )


def _breakable(text: str) -> Markup:
    """Paths and settings may be broken between their parts, but `version_0` not before its number."""
    return Markup(re.sub(r"([/=,]|_(?!\d))(?=.)", r"\1<wbr>", str(escape(text))))


def _shared(runs: Sequence[RunFacts]) -> list[tuple[str, str]]:
    """What is said once, since it is true of all of several runs."""
    if len(runs) < 2:
        return []
    return [fact for fact in runs[0].facts if all(fact in run.facts for run in runs)]


def _claims(verdicts: Sequence[Verdict]) -> list[tuple[str, str, list[Verdict]]]:
    """Name, source (empty where its parts differ) and parts of each claim, by first appearance."""
    groups: dict[str, list[Verdict]] = {}
    for verdict in verdicts:
        groups.setdefault(verdict.claim, []).append(verdict)
    return [
        (claim, parts[0].source if len({part.source for part in parts}) == 1 else "", parts)
        for claim, parts in groups.items()
    ]
