"""Means and ranges over replicates and trials, and which levels are winning tickets."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean

from lth_lightning.results.record import OK, Record
from lth_lightning.results.training import TICKET


@dataclass(frozen=True)
class Spread:
    """A quantity over trials: its mean, minimum and maximum."""

    mean: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float | None]) -> "Spread | None":
        """None where there is no value."""
        known = [value for value in values if value is not None]
        return cls(fmean(known), min(known), max(known)) if known else None


@dataclass(frozen=True)
class Point:
    """One arm at one level, over its replicates and trials. Diverged trainings are counted, not averaged."""

    level: int
    arm: str
    density: float
    trials: int
    diverged: int
    falling: bool
    """Whether the validation loss was lowest at the last step of all its trainings: they were too short."""
    early_stop_step: Spread | None
    early_stop_test_acc: Spread | None
    final_test_acc: Spread | None
    early_stop_test_loss: Spread | None = None
    final_test_loss: Spread | None = None


def summarize(records: Sequence[Record]) -> list[Point]:
    """A point for each level and arm, level by level, the ticket first."""
    groups: dict[tuple[int, bool, str], list[Record]] = {}
    for record in records:
        groups.setdefault((record.level, record.arm != TICKET, record.arm), []).append(record)
    points = []
    for (level, _, arm), group in sorted(groups.items()):
        ok = [record for record in group if record.status == OK]
        points.append(
            Point(
                level=level,
                arm=arm,
                density=group[0].density,
                trials=len(ok),
                diverged=len(group) - len(ok),
                falling=bool(ok) and all(record.early_stop_step == record.steps for record in ok),
                early_stop_step=Spread.of(record.early_stop_step for record in ok),
                early_stop_test_acc=Spread.of(record.early_stop_test_acc for record in ok),
                final_test_acc=Spread.of(record.final_test_acc for record in ok),
                early_stop_test_loss=Spread.of(record.early_stop_test_loss for record in ok),
                final_test_loss=Spread.of(record.final_test_loss for record in ok),
            )
        )
    return points


def has_accuracy(points: Sequence[Point]) -> bool:
    """Whether a test accuracy is known of any; a module of a regression logs none."""
    return any(point.early_stop_test_acc or point.final_test_acc for point in points)


def winning_levels(points: Sequence[Point]) -> list[Point] | None:
    """Levels whose ticket is, on average, at least as accurate as the dense network at early stop, and no later.

    The hypothesis' own terms (LTH section 1: commensurate accuracy in at most as many steps). None where the dense
    network or all tickets lack the numbers, or the dense network was trained too briefly to have an early stop.
    """
    tickets = [p for p in points if p.arm == TICKET and p.early_stop_step and p.early_stop_test_acc]
    # A run that starts from a ticket has no dense network: its level 0 is pruned already.
    dense = next((p for p in tickets if p.level == 0 and p.density == 1), None)
    others = [p for p in tickets if p.level > 0]
    if dense is None or dense.falling or not others:
        return None
    return [p for p in others if _mean(p.early_stop_test_acc) >= _mean(dense.early_stop_test_acc)
            and _mean(p.early_stop_step) <= _mean(dense.early_stop_step)]  # fmt: skip


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
    winners = winning_levels(points)
    replicates = len({record.replicate for record in records})
    basis = (
        f"the mean of {replicates} replicates" if replicates > 1 else "a single replicate, so chance is not excluded"
    )
    if not has_accuracy(points) and any(point.final_test_loss for point in points):
        return ["No verdict: winning is judged by test accuracy (test_acc), which this module does not log."]
    if any(point.falling and point.arm == TICKET and point.density == 1 for point in points):
        return [
            "No verdict: the dense network's validation loss was lowest at its last evaluation, so there is no early "
            "stop to compare with. Train longer (--trainer.max_steps) or evaluate more often "
            "(--pruning.evaluate_every)."
        ]
    if winners is None:
        needed = "No verdict: it needs a dense level 0, a pruned level, and val_loss and test_acc of both."
        return [needed, *_against_controls(points, [])]
    if not winners:
        sentence = "No winning ticket: no level matches the dense network's test accuracy at early stop as early"
    else:
        named = ranges([point.level for point in winners])
        smallest = min(point.density for point in winners)
        sentence = (
            f"Winning tickets at level{'s' if len(winners) > 1 else ''} {named}, down to {smallest:.1%} of the "
            "weights: at least the dense network's test accuracy at early stop, no later"
        )
    return [f"{sentence} ({basis}).", *_against_controls(points, winners)]


def _against_controls(points: Sequence[Point], winners: Sequence[Point]) -> list[str]:
    """At the last winning level (else the last level of all) that the control has, ticket against control."""
    sentences = []
    tickets = {p.level: p for p in points if p.arm == TICKET and p.early_stop_step and p.early_stop_test_acc}
    for arm in sorted({p.arm for p in points if p.arm != TICKET}):
        known = [p for p in points if p.arm == arm and p.early_stop_step and p.early_stop_test_acc]
        shared = {p.level: p for p in known if p.level in tickets}
        won = [p.level for p in winners if p.level in shared]
        if not shared:
            continue
        level = max(won or shared)
        ticket, control = tickets[level], shared[level]
        gap = 100 * (_mean(ticket.early_stop_test_acc) - _mean(control.early_stop_test_acc))
        sooner = _mean(control.early_stop_step) / max(1, _mean(ticket.early_stop_step))
        # Only untrained weights are evaluated at step 0.
        stops = f"stops early at {sooner:.2f} times the ticket's step" if sooner else "is untrained"
        sentences.append(
            f"At level {level} ({ticket.density:.1%}) {arm} {stops}, and the ticket is {abs(gap):.2f} points "
            f"{'more' if gap >= 0 else 'less'} accurate."
        )
    return sentences


def _mean(spread: Spread | None) -> float:
    assert spread is not None
    return spread.mean


def ranges(levels: Sequence[int]) -> str:
    """[1, 2, 3, 6] as `1-3, 6`."""
    parts: list[list[int]] = []
    for level in levels:
        if parts and level == parts[-1][-1] + 1:
            parts[-1].append(level)
        else:
            parts.append([level])
    return ", ".join(f"{p[0]}-{p[-1]}" if len(p) > 1 else str(p[0]) for p in parts)
