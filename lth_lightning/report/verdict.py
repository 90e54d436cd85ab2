"""What a report says of a claim."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Outcome = Literal["holds", "does not hold", "cannot tell"]


@dataclass(frozen=True)
class Verdict:
    """A claim of a paper, and what the runs say of it. Numbers are texts, with their units, ready to be shown.

    Attributes:
        claim: its name, such as `L1`; several verdicts share it where it has several parts.
        text: the claim in a sentence.
        source: where it stands, such as `LTH section 2, Fig. 4a`.
        runs: the names of the runs it was measured in.
        outcome: holds, does not hold, or cannot tell.
        reason: why it cannot be told; empty otherwise.
        measured: what the means over replicates give, as the paper's lines are means; empty where nothing could be.
        spread: `95% interval 0.81 to 0.96; each alone 0.78 to 0.93`: what it may be, and the least and the most that
            single replicates give; without the interval where they are too few, empty where all agree.
        trials: how many replicates that is.
        paper: the paper's number.
        accepted: what counts as holding.
    """

    claim: str
    text: str
    source: str
    runs: tuple[str, ...]
    outcome: Outcome
    reason: str
    measured: str
    spread: str
    trials: int
    paper: str
    accepted: str


def by_reason(verdicts: Sequence[Verdict]) -> list[tuple[str, list[Verdict]]]:
    """Those that cannot be told, by their first reason without its numbers; the most frequent reason comes first."""
    groups: dict[str, list[Verdict]] = {}
    for verdict in verdicts:
        if verdict.outcome == "cannot tell":
            groups.setdefault(verdict.reason.split(":")[0].split(";")[0], []).append(verdict)
    return sorted(groups.items(), key=lambda group: -len(group[1]))
