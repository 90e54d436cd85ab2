"""Agenda: which training can be made next, however many are made side by side."""

import random
from collections.abc import Iterable
from pathlib import Path

import pytest

from lth_lightning.callbacks.agenda import Agenda, side_by_side
from lth_lightning.callbacks.controls import Control, RandomMask, RandomReinit
from lth_lightning.callbacks.plan import plan_trainings
from lth_lightning.results.record import DIVERGED, OK, Record
from lth_lightning.results.training import Training

RUN = Path("run")


def record(training: Training, diverged: bool = False) -> Record:
    return Record(*training.order, DIVERGED if diverged else OK, 100, 50, 0.5, 20)


def deciding(training: Training, others: Iterable[Training]) -> set[Training]:
    """Those of `others` below it in its own line or in its replicate's tickets: what it has to wait for."""
    lines = (training.line, (training.replicate, "ticket", 0))
    return {other for other in others if other.line in lines and other.level < training.level}


def expected(plan: Iterable[Training], diverging: set[Training]) -> set[Training]:
    """By the rule's words, from the bottom up: none is made above a level that was made and diverged."""
    made: set[Training] = set()
    for training in sorted(plan, key=lambda t: t.level):
        if not deciding(training, made & diverging):
            made.add(training)
    return made


class Simulation:
    """A run whose trainings end in a random order."""

    def __init__(self, seed: int) -> None:
        self.draw = random.Random(seed)
        last = self.draw.randint(0, 4)
        controls: list[Control] = []
        for kind in (RandomReinit, RandomMask):
            if levels := [level for level in range(last + 1) if self.draw.random() < 0.6]:
                controls.append(kind(levels=levels, trials=self.draw.randint(1, 2)))
        self.plan = plan_trainings(RUN, range(self.draw.randint(1, 3)), last, controls)
        self.diverging = {training for training in self.plan if self.draw.random() < 0.15}
        self.expected = expected(self.plan, self.diverging)
        self.finished: list[Training] = []
        self.dropped = 0

    def run(self, workers: int, stop_after: int = 1000) -> None:
        """One session, which ends when `stop_after` trainings are finished; others under way then are lost."""
        records = [record(training, training in self.diverging) for training in self.finished]
        pending = [training for training in self.plan if training not in self.finished]
        agenda = Agenda(sorted(pending, key=side_by_side) if workers > 1 else pending, records)
        self.dropped = len(pending) - len(agenda)
        under_way: list[Training] = []
        while stop_after:
            while len(under_way) < workers and (training := agenda.take()):
                assert deciding(training, self.expected) <= set(self.finished)
                under_way.append(training)
            if not under_way:
                assert len(agenda) == 0, "nothing is under way, and nothing can be begun"
                return
            ended = under_way.pop(self.draw.randrange(len(under_way)))
            self.finished.append(ended)
            self.dropped += agenda.finished(record(ended, ended in self.diverging))
            stop_after -= 1


@pytest.mark.parametrize("workers", [1, 2, 3, 16])
def test_the_same_trainings_are_made_however_many_at_once_and_each_after_what_decides_about_it(workers: int) -> None:
    for seed in range(60):
        run = Simulation(seed)
        run.run(workers)
        assert len(run.finished) == len(set(run.finished))
        assert set(run.finished) == run.expected
        assert run.dropped == len(run.plan) - len(run.expected)


@pytest.mark.parametrize("workers", [(2, 1), (1, 3), (3, 2)])
def test_a_run_that_goes_on_makes_what_it_would_have_made(workers: tuple[int, int]) -> None:
    for seed in range(60):
        run = Simulation(seed)
        run.run(workers[0], stop_after=run.draw.randint(0, len(run.plan)))
        run.run(workers[1])
        assert len(run.finished) == len(set(run.finished))
        assert set(run.finished) == run.expected


def test_by_whole_levels_the_same_trainings_are_made() -> None:
    for seed in range(60):
        run = Simulation(seed)
        agenda = Agenda(sorted(run.plan, key=side_by_side), [])
        while level := agenda.take_level():
            assert len({training.level for training in level}) == 1
            for training in level:
                assert deciding(training, run.expected) <= set(run.finished)
            run.finished += level
            for training in level:
                agenda.finished(record(training, training in run.diverging))
        assert len(agenda) == 0
        assert len(run.finished) == len(set(run.finished))
        assert set(run.finished) == run.expected


def test_one_by_one_they_come_in_the_order_of_the_plan() -> None:
    plan = plan_trainings(RUN, range(2), 3, [RandomReinit(trials=2), RandomMask(levels=[0, 3])])
    agenda = Agenda(plan, [])
    for training in plan:
        assert agenda.take() == training
        agenda.finished(record(training))
    assert agenda.take() is None


def test_a_training_whose_maker_died_holds_back_those_above_it_and_no_other() -> None:
    plan = plan_trainings(RUN, range(2), 2, [RandomReinit(levels=[1])])
    agenda = Agenda(sorted(plan, key=side_by_side), [])
    lost = Training(0, "ticket", 0, 1, RUN)
    made = []
    while training := agenda.take():
        made.append(training)
        if training != lost:
            agenda.finished(record(training))
    assert set(plan) - set(made) == {Training(0, "ticket", 0, 2, RUN)}


def test_a_control_of_the_level_at_which_the_ticket_diverged_is_made() -> None:
    plan = plan_trainings(RUN, range(1), 2, [RandomReinit()])
    agenda = Agenda(plan, [])
    taken = {training.order: training for training in iter(agenda.take, None) if training.level == 0}
    assert list(taken) == [(0, "ticket", 0, 0)]
    agenda.finished(record(taken[0, "ticket", 0, 0]))
    ticket = agenda.take()
    assert ticket == Training(0, "ticket", 0, 1, RUN)
    assert agenda.finished(record(ticket, diverged=True)) == 2
    assert agenda.take() == Training(0, "random_reinit", 0, 1, RUN)
    assert agenda.take() is None


def test_two_workers_are_busy_to_the_end() -> None:
    """Trainings of equal length, quickstart's plan: no chain of levels is left over for one worker alone."""
    plan = plan_trainings(RUN, range(3), 15, [RandomReinit()])
    agenda = Agenda(sorted(plan, key=side_by_side), [])
    rounds = 0
    while pair := [training for training in (agenda.take(), agenda.take()) if training]:
        for training in pair:
            agenda.finished(record(training))
        rounds += 1
    assert rounds == -(-len(plan) // 2)
