"""Which levels are winning tickets, and whether chance alone may have made them so."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from lth_lightning.results.interval import FEWEST, half_width
from lth_lightning.results.record import OK, Record
from lth_lightning.results.summary import Point, several, summarize
from lth_lightning.results.training import TICKET

ROUNDING = 1e-12
"""By which a mean of equal differences may miss their value."""


@dataclass(frozen=True)
class Judged:
    """A pruned level that can be held against the dense network.

    Attributes:
        point: its means and ranges.
        replicates: how many have it and the dense network.
        wins: whether it is a winning ticket.
        is_certain: whether chance is excluded, for its accuracy and for its step; False where it does not win.
    """

    point: Point
    replicates: int
    wins: bool
    is_certain: bool


@dataclass(frozen=True)
class Difference:
    """How much more one arm has of a quantity than another: the mean over the replicates that have both.

    Attributes:
        error: half the width of the 95% confidence interval of the mean.
    """

    mean: float
    error: float

    @property
    def is_certain(self) -> bool:
        """Whether the whole interval lies on one side of 0."""
        return abs(self.mean) > self.error


@dataclass(frozen=True)
class Paired:
    """An arm against another at early stop, replicate by replicate."""

    acc: Difference
    step: Difference
    replicates: int

    @classmethod
    def of(cls, records: Iterable[Record], others: Iterable[Record]) -> "Paired | None":
        """None where no replicate has both; several trials of a replicate are averaged."""
        ours, theirs = _by_replicate(records), _by_replicate(others)
        shared = [replicate for replicate in ours if replicate in theirs]
        if not shared:
            return None
        acc, step = (_difference([ours[r][part] - theirs[r][part] for r in shared]) for part in (0, 1))
        return cls(acc, step, len(shared))


def _by_replicate(records: Iterable[Record]) -> Mapping[int, tuple[float, float]]:
    """Test accuracy at early stop, and its step."""
    found: dict[int, list[tuple[float, float]]] = {}
    for record in records:
        acc, step = record.early_stop_test_acc, record.early_stop_step
        if record.status == OK and acc is not None and step is not None:
            found.setdefault(record.replicate, []).append((acc, step))
    return {
        replicate: (fmean(acc for acc, _ in trials), fmean(step for _, step in trials))
        for replicate, trials in found.items()
    }


def _difference(values: Sequence[float]) -> Difference:
    return Difference(fmean(values), half_width(values))


def winning_levels(records: Sequence[Record]) -> list[Judged] | None:
    """Levels whose ticket is, on average, at least as accurate as the dense network at early stop, and no later.

    None where no level can be judged.
    """
    judged = judged_levels(records)
    return [level for level in judged if level.wins] if judged else None


def judged_levels(records: Sequence[Record]) -> list[Judged]:
    """Which pruned levels can be judged, and whether they win.

    The hypothesis' own terms (LTH section 1: commensurate accuracy in at most as many steps). Each ticket is held
    against the dense network of its own replicate. Levels of which a training has no early stop are left out, and so
    are all where a dense network has none.
    """
    tickets = _tickets(summarize(records))
    # A run that starts from a ticket has no dense network: its level 0 is pruned already.
    dense = tickets.get(0)
    if dense is None or dense.density != 1 or dense.falling:
        return []
    judged = []
    for level, point in tickets.items():
        pair = Paired.of(_of(records, TICKET, level), _of(records, TICKET, 0)) if level else None
        if pair and not point.falling:
            acc, step = pair.acc, pair.step
            wins = acc.mean >= -ROUNDING and step.mean <= ROUNDING
            is_certain = wins and acc.mean - acc.error >= -ROUNDING and step.mean + step.error <= ROUNDING
            judged.append(Judged(point, pair.replicates, wins, is_certain))
    return judged


def _tickets(points: Sequence[Point]) -> dict[int, Point]:
    """Those that have an early-stop step and a test accuracy, by level."""
    return {point.level: point for point in points if point.arm == TICKET and _is_known(point)}


def _is_known(point: Point) -> bool:
    return point.early_stop_step is not None and point.early_stop_test_acc is not None


def _of(records: Sequence[Record], arm: str, level: int) -> list[Record]:
    return [record for record in records if record.arm == arm and record.level == level]


def verdict(records: Sequence[Record], trains_on: bool = False) -> str:
    """`sentences` as one text."""
    return " ".join(sentences(records, trains_on))


def sentences(records: Sequence[Record], trains_on: bool = False) -> list[str]:
    """One plain sentence on the tickets, and one on each control where there is one to compare with.

    `trains_on` says that the tickets go on from trained weights, so that their steps are not all of their training.
    """
    if trains_on:
        return [
            "No verdict: these networks go on from trained weights, and a winning ticket trains from its first ones "
            "(the control Rewound does)."
        ]
    points = summarize(records)
    tickets = _tickets(points)
    judged = judged_levels(records)
    winners = [level for level in judged if level.wins]
    found = _of_tickets(points, judged, winners) if judged else [f"No verdict: {_why_not(records, tickets)}."]
    return [*found, *_against_controls(records, points, tickets, winners)]


def _of_tickets(points: Sequence[Point], judged: Sequence[Judged], winners: Sequence[Judged]) -> list[str]:
    """Which of the levels that can be judged win; and which others there are."""
    levels = [level.point.level for level in judged]
    others = [point for point in points if point.arm == TICKET and point.level not in (0, *levels) and point.trials]
    if winners:
        smallest = min(winner.point.density for winner in winners)
        sentence = (
            f"Winning tickets at {several('level', [winner.point.level for winner in winners])}, down to "
            f"{smallest:.1%} of the weights: at least the dense network's test accuracy at early stop, no later"
        )
    elif others:
        sentence = (
            f"No winning ticket at {several('level', levels)}, which {'do' if len(levels) > 1 else 'does'} not match "
            "the dense network's test accuracy at early stop as early"
        )
    else:
        sentence = "No winning ticket: no level matches the dense network's test accuracy at early stop as early"
    found = [f"{sentence} ({_basis(winners or judged, winners)})."]
    if falling := [point.level for point in others if point.falling]:
        found.append(
            f"{several('Level', falling)} cannot be judged: a validation loss was lowest at its last evaluation."
        )
    if lacking := [point.level for point in others if not point.falling]:
        found.append(
            f"{several('Level', lacking)} cannot be judged: no replicate has all numbers of "
            f"{'them' if len(lacking) > 1 else 'it'} and of the dense network."
        )
    return found


METRICS = {"val_loss": ("early_stop_step",), "test_acc": ("early_stop_test_acc", "final_test_acc")}
"""What winning is judged by, and the columns one of which is filled where it was logged."""

LONGER = "Train longer (--trainer.max_steps) or evaluate more often (--pruning.evaluate_every)"


def _why_not(records: Sequence[Record], tickets: Mapping[int, Point]) -> str:
    """Why no level can be judged: what is missing, and only that."""
    dense = _of(records, TICKET, 0)
    pruned = [record for record in records if record.arm == TICKET and record.level]
    if any(record.density < 1 for record in dense):
        told = "the run starts from a ticket, so there is no dense network to compare its tickets with"
        falling = [level for level, point in tickets.items() if point.falling]
        too_short = f"{several('level', falling)} a validation loss of a ticket was lowest at its last evaluation"
        has_controls = any(record.arm != TICKET for record in records)
        if not falling or not has_controls:
            return told
        those = "they are" if len(falling) > 1 else "it is"
        return f"{told}; at {too_short}, so {those} not compared with controls either"
    if not dense:
        return "there is no dense network (level 0) to compare with"
    if not _ok(dense):
        return "the dense network diverged"
    if not pruned:
        return "there is no pruned level"
    if not _ok(pruned):
        return "all pruned networks diverged"
    if missing := _missing(_ok(dense), _ok(pruned)):
        which = f"{' and '.join(missing)} {'are' if len(missing) > 1 else 'is'}"
        return f"winning is judged by {' and '.join(METRICS)}, and {which} missing"
    if 0 in tickets and tickets[0].falling:
        return (
            "the validation loss of a dense network was lowest at its last evaluation, so there is no early stop to "
            f"compare with. {LONGER}"
        )
    if falling := [level for level, point in tickets.items() if level and point.falling]:
        return (
            f"{several('level', falling)} cannot be judged, since a validation loss was lowest at its last "
            f"evaluation. {LONGER}"
        )
    return "no replicate has all numbers of a pruned level and of its dense network"


def _ok(records: Iterable[Record]) -> list[Record]:
    return [record for record in records if record.status == OK]


def _missing(dense: Sequence[Record], pruned: Sequence[Record]) -> list[str]:
    """The metrics that no dense network has, or no pruned one."""
    found = []
    for name, columns in METRICS.items():
        lacking = [
            whose
            for whose, group in (("the dense network", dense), ("the pruned networks", pruned))
            if all(getattr(record, column) is None for record in group for column in columns)
        ]
        if lacking:
            found.append(name if len(lacking) == 2 else f"{name} of {lacking[0]}")
    return found


def _basis(shown: Sequence[Judged], winners: Sequence[Judged]) -> str:
    """On how many trainings of a level it stands, and where chance is excluded."""
    fewest, most = min(level.replicates for level in shown), max(level.replicates for level in shown)
    if most == 1:
        return "a single replicate, so chance is not excluded"
    mean = f"the mean of {most} replicates" if fewest == most else f"means of {fewest} to {most} replicates"
    if most < FEWEST:
        return f"{mean}, too few to exclude chance"
    if not winners:
        return mean
    certain = [winner.point.level for winner in winners if winner.is_certain]
    if len(certain) == len(winners):
        return f"{mean}; chance is excluded"
    return f"{mean}; chance is excluded at {several('level', certain) if certain else 'none of them'}"


def _against_controls(
    records: Sequence[Record], points: Sequence[Point], tickets: Mapping[int, Point], winners: Sequence[Judged]
) -> list[str]:
    """At the last winning level (else the last level of all) that the control has, ticket against control."""
    found = []
    for arm in sorted({point.arm for point in points if point.arm != TICKET}):
        shared = {}
        for point in points:
            if point.arm == arm and point.level in tickets and not tickets[point.level].falling:
                pair = Paired.of(_of(records, TICKET, point.level), _of(records, arm, point.level))
                if pair:
                    shared[point.level] = point, pair
        if shared:
            won = [winner.point.level for winner in winners if winner.point.level in shared]
            level = max(won or shared)
            found.append(_against(tickets[level], *shared[level]))
    return found


def _against(ticket: Point, control: Point, pair: Paired) -> str:
    assert ticket.early_stop_step
    assert control.early_stop_step
    sooner = control.early_stop_step.mean / max(1, ticket.early_stop_step.mean)
    parts = [("accuracy", pair.acc)]
    if control.falling:
        said = f"a validation loss of {control.arm} was lowest at its last evaluation, so steps are not compared"
    elif not sooner:
        said = f"{control.arm} is untrained"  # nothing else is evaluated at step 0
    else:
        said = f"{control.arm} stops early at {sooner:.2f} times the ticket's step"
        parts.append(("step", pair.step))
    gap = 100 * pair.acc.mean
    certain = [name for name, part in parts if part.is_certain]
    chance = ""
    if control.trials > 1 and pair.acc.error < float("inf"):
        where = f"excluded for {' and '.join(f'the {name}' for name in certain)}" if certain else "not excluded"
        chance = f" (chance is {where})"
    return (
        f"At level {ticket.level} ({ticket.density:.1%}) {said}, and the ticket is {abs(gap):.2f} "
        f"points {'more' if gap >= 0 else 'less'} accurate{chance}."
    )
