"""Means and ranges over replicates and trials."""

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
    """Whether a training's validation loss was lowest at its last step: it was too short to have an early stop.

    What is untrained, of no step at all, does not count.
    """
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
                falling=any(0 < record.steps == record.early_stop_step for record in ok),
                early_stop_step=Spread.of(record.early_stop_step for record in ok),
                early_stop_test_acc=Spread.of(record.early_stop_test_acc for record in ok),
                final_test_acc=Spread.of(record.final_test_acc for record in ok),
                early_stop_test_loss=Spread.of(record.early_stop_test_loss for record in ok),
                final_test_loss=Spread.of(record.final_test_loss for record in ok),
            )
        )
    return points


def has_loss_alone(points: Sequence[Point]) -> bool:
    """Whether a test loss is known and no accuracy, as of a regression."""
    has_accuracy = any(point.early_stop_test_acc or point.final_test_acc for point in points)
    return not has_accuracy and any(point.final_test_loss for point in points)


def several(what: str, numbers: Sequence[int]) -> str:
    """`level 3`, `levels 1-3, 6`."""
    return f"{what}{'s' if len(numbers) > 1 else ''} {ranges(numbers)}"


def ranges(levels: Sequence[int]) -> str:
    """[1, 2, 3, 6] as `1-3, 6`."""
    parts: list[list[int]] = []
    for level in levels:
        if parts and level == parts[-1][-1] + 1:
            parts[-1].append(level)
        else:
            parts.append([level])
    return ", ".join(f"{p[0]}-{p[-1]}" if len(p) > 1 else str(p[0]) for p in parts)
