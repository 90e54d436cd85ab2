"""Which levels are winning tickets, and whether chance alone may have made them so."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from lth_lightning.results.interval import FEWEST, half_width
from lth_lightning.results.record import OK, Record
from lth_lightning.results.summary import Point, has_loss_alone, several, summarize
from lth_lightning.results.training import TICKET

ROUNDING = 1e-12
"""By which a mean of equal differences may miss their value."""


@dataclass(frozen=True)
class Winner:
    """A winning ticket.

    Attributes:
        point: its means and ranges.
        is_certain: whether chance is excluded, for its accuracy and for its step.
    """

    point: Point
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

    @classmethod
    def of(cls, records: Iterable[Record], others: Iterable[Record]) -> "Paired | None":
        """None where no replicate has both; several trials of a replicate are averaged."""
        ours, theirs = _by_replicate(records), _by_replicate(others)
        shared = [replicate for replicate in ours if replicate in theirs]
        if not shared:
            return None
        return cls(*(_difference([ours[r][part] - theirs[r][part] for r in shared]) for part in (0, 1)))


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


def winning_levels(records: Sequence[Record]) -> list[Winner] | None:
    """Levels whose ticket is, on average, at least as accurate as the dense network at early stop, and no later.

    The hypothesis' own terms (LTH section 1: commensurate accuracy in at most as many steps). Each ticket is held
    against the dense network of its own replicate. Levels of which a training has no early stop are left out. None
    where no replicate has the numbers of the dense network and of a ticket, or a dense network has no early stop.
    """
    tickets = _tickets(summarize(records))
    # A run that starts from a ticket has no dense network: its level 0 is pruned already.
    dense = tickets.get(0)
    if dense is None or dense.density != 1 or dense.falling or not _judged(records):
        return None
    winners = []
    for level, point in tickets.items():
        pair = Paired.of(_of(records, TICKET, level), _of(records, TICKET, 0)) if level else None
        if pair and not point.falling and pair.acc.mean >= -ROUNDING and pair.step.mean <= ROUNDING:
            is_certain = pair.acc.mean - pair.acc.error >= -ROUNDING and pair.step.mean + pair.step.error <= ROUNDING
            winners.append(Winner(point, is_certain))
    return winners


def _tickets(points: Sequence[Point]) -> dict[int, Point]:
    """Those that have an early-stop step and a test accuracy, by level."""
    return {point.level: point for point in points if point.arm == TICKET and _is_known(point)}


def _is_known(point: Point) -> bool:
    return point.early_stop_step is not None and point.early_stop_test_acc is not None


def _judged(records: Sequence[Record]) -> set[int]:
    """Replicates of which the dense network and a pruned ticket have the numbers."""
    pruned = [record for record in records if record.arm == TICKET and record.level]
    return {*_by_replicate(_of(records, TICKET, 0))} & {*_by_replicate(pruned)}


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
    if has_loss_alone(points):
        return ["No verdict: winning is judged by test accuracy (test_acc), which this module does not log."]
    tickets = _tickets(points)
    if 0 in tickets and tickets[0].density == 1 and tickets[0].falling:
        return [
            "No verdict: the validation loss of a dense network was lowest at its last evaluation, so there is no "
            "early stop to compare with. Train longer (--trainer.max_steps) or evaluate more often "
            "(--pruning.evaluate_every)."
        ]
    winners = winning_levels(records)
    if winners is None:
        needed = "No verdict: it needs a dense level 0, a pruned level, and val_loss and test_acc of both."
        return [needed, *_against_controls(records, points, tickets, [])]
    if not winners:
        sentence = "No winning ticket: no level matches the dense network's test accuracy at early stop as early"
    else:
        smallest = min(winner.point.density for winner in winners)
        sentence = (
            f"Winning tickets at {several('level', [winner.point.level for winner in winners])}, down to "
            f"{smallest:.1%} of the weights: at least the dense network's test accuracy at early stop, no later"
        )
    found = [f"{sentence} ({_basis(records, winners)})."]
    if falling := [level for level, point in tickets.items() if point.falling]:
        found.append(
            f"{several('Level', falling)} cannot be judged: a validation loss was lowest at its last evaluation."
        )
    return [*found, *_against_controls(records, points, tickets, winners)]


def _basis(records: Sequence[Record], winners: Sequence[Winner]) -> str:
    """On how many trainings it stands, and where chance is excluded."""
    replicates = len(_judged(records))
    if replicates == 1:
        return "a single replicate, so chance is not excluded"
    mean = f"the mean of {replicates} replicates"
    if replicates < FEWEST:
        return f"{mean}, too few to exclude chance"
    if not winners:
        return mean
    certain = [winner.point.level for winner in winners if winner.is_certain]
    if len(certain) == len(winners):
        return f"{mean}; chance is excluded"
    return f"{mean}; chance is excluded at {several('level', certain) if certain else 'none of them'}"


def _against_controls(
    records: Sequence[Record], points: Sequence[Point], tickets: Mapping[int, Point], winners: Sequence[Winner]
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
    if control.falling:
        stops = "has no early stop within its steps"
    else:
        # Only untrained weights are evaluated at step 0.
        stops = f"stops early at {sooner:.2f} times the ticket's step" if sooner else "is untrained"
    gap = 100 * pair.acc.mean
    certain = [name for name, part in (("accuracy", pair.acc), ("step", pair.step)) if part.is_certain]
    chance = ""
    if control.trials > 1 and pair.acc.error < float("inf"):
        chance = f" (chance is excluded for {' and '.join(f'the {name}' for name in certain) or 'neither'})"
    return (
        f"At level {ticket.level} ({ticket.density:.1%}) {control.arm} {stops}, and the ticket is {abs(gap):.2f} "
        f"points {'more' if gap >= 0 else 'less'} accurate{chance}."
    )
