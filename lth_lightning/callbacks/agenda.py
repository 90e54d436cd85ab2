"""Which training can be made next."""

from collections.abc import Iterable

from lth_lightning.results.record import DIVERGED, Record
from lth_lightning.results.training import Line, Training


def side_by_side(training: Training) -> tuple[int, bool, Training]:
    """Sorts trainings for several workers: level by level, tickets first, so that no chain of levels is left over."""
    return training.level, not training.is_ticket, training


class Agenda:
    """The trainings that are still to be made.

    One can be made when the lower levels of its own arm and of its replicate's tickets are finished: its mask exists
    then, and whether either has diverged is known; where one has, the levels above are not made. So what is trained
    does not depend on how many are side by side.

    Args:
        pending: in the order in which they are wanted.
        records: the finished ones.
    """

    def __init__(self, pending: Iterable[Training], records: Iterable[Record]) -> None:
        self._waiting = list(pending)
        self._open = list(self._waiting)
        self._diverged: dict[Line, int] = {r.order[:3]: r.level for r in records if r.status == DIVERGED}
        self._drop_stopped()

    def take(self) -> Training | None:
        """The first that can be made now, until it is `finished`; None where all that are left wait for others."""
        for training in self._waiting:
            if self._can_be_made(training):
                self._waiting.remove(training)
                return training
        return None

    def take_level(self) -> list[Training]:
        """All of the first one's level that can be made now."""
        first = self.take()
        if first is None:
            return []
        beside = [t for t in self._waiting if t.level == first.level and self._can_be_made(t)]
        self._waiting = [training for training in self._waiting if training not in beside]
        return [first, *beside]

    def finished(self, record: Record) -> int:
        """A training that was taken is recorded; how many others will not be made, since it diverged."""
        self._open = [training for training in self._open if training.order != record.order]
        if record.status == DIVERGED:
            self._diverged[record.order[:3]] = record.level
        return self._drop_stopped()

    def _drop_stopped(self) -> int:
        dropped = [training for training in self._waiting if self._is_stopped(training)]
        self._waiting = [training for training in self._waiting if training not in dropped]
        self._open = [training for training in self._open if training not in dropped]
        return len(dropped)

    @property
    def left(self) -> list[Training]:
        """Those that are not finished."""
        return list(self._open)

    def __len__(self) -> int:
        """How many are not finished."""
        return len(self._open)

    def _can_be_made(self, training: Training) -> bool:
        return not any(lower.level < training.level and self._decides(lower, training) for lower in self._open)

    @staticmethod
    def _decides(lower: Training, training: Training) -> bool:
        return lower.line in (training.line, training.ticket(0).line)

    def _is_stopped(self, training: Training) -> bool:
        lines = (training.line, training.ticket(0).line)
        return any(line in self._diverged and self._diverged[line] < training.level for line in lines)
