"""Means, ranges, winning tickets and the sentences about them, against numbers worked out by hand."""

import io
from dataclasses import replace
from itertools import product
from math import inf

import numpy as np
import pytest
from rich.console import Console
from scipy import stats

from lth_lightning.results import Record
from lth_lightning.results.interval import half_width
from lth_lightning.results.summary import Point, Spread, summarize
from lth_lightning.results.terminal import results_table
from lth_lightning.results.winning import Judged, verdict, winning_levels

DENSITY = {0: 1.0, 1: 0.8, 2: 0.64, 3: 0.512, 4: 0.4096}


def record(
    level: int,
    step: int | None = 1_000,
    acc: float | None = 0.98,
    *,
    arm: str = "ticket",
    replicate: int = 0,
    trial: int = 0,
    status: str = "ok",
    final: float | None = None,
    density: float | None = None,
) -> Record:
    density = DENSITY[level] if density is None else density
    left = round(1_000 * density)
    return Record(
        replicate, arm, trial, level, status, 1_000, left, density, 5_000,
        early_stop_step=step, early_stop_test_acc=acc, final_test_acc=final,
    )  # fmt: skip


def test_points_are_means_and_ranges_over_replicates():
    points = summarize(
        [
            record(0, 1_000, 0.5, replicate=0, final=0.5),
            record(0, 1_300, 0.75, replicate=1, final=0.25),
            record(0, 700, 1.0, replicate=2, final=0.75),
        ]
    )
    assert points == [
        Point(
            level=0, arm="ticket", density=1.0, trials=3, diverged=0, falling=False,
            early_stop_step=Spread(1_000, 700, 1_300),
            early_stop_test_acc=Spread(0.75, 0.5, 1.0),
            final_test_acc=Spread(0.5, 0.25, 0.75),
        )
    ]  # fmt: skip


def test_points_stand_level_by_level_the_ticket_first():
    arms = ["ticket", "random_reinit", "a_control"]
    records = [record(level, arm=arm, density=0.5) for arm in arms for level in (10, 9, 0)]
    expected = [(level, arm) for level in (0, 9, 10) for arm in ("ticket", "a_control", "random_reinit")]
    assert [(point.level, point.arm) for point in summarize(records)] == expected


def test_trials_of_a_control_are_averaged_with_its_replicates():
    records = [record(1, 100 * n, arm="reinit", replicate=n // 3, trial=n % 3) for n in range(6)]
    (point,) = summarize(records)
    assert point.trials == 6
    assert point.early_stop_step == Spread(250, 0, 500)


def test_diverged_trainings_are_counted_and_not_averaged():
    (point,) = summarize(
        [record(0, 100, 0.9), record(0, 300, 0.7, replicate=1), record(0, 9_999, 0.1, replicate=2, status="diverged")]
    )
    assert (point.trials, point.diverged) == (2, 1)
    assert point.early_stop_step == Spread(200, 100, 300)
    assert point.early_stop_test_acc is not None
    assert point.early_stop_test_acc.mean == pytest.approx(0.8)


def test_a_level_whose_trainings_all_diverged_has_no_numbers():
    (point,) = summarize([record(3, status="diverged")])
    assert (point.trials, point.diverged, point.early_stop_step, point.early_stop_test_acc) == (0, 1, None, None)


def test_missing_metrics_are_left_out_of_the_mean():
    (point,) = summarize([record(0, 100, None), record(0, None, 0.5, replicate=1)])
    assert point.trials == 2
    assert point.early_stop_step == Spread(100, 100, 100)
    assert point.early_stop_test_acc == Spread(0.5, 0.5, 0.5)
    assert point.final_test_acc is None


def test_a_step_of_zero_is_a_number():
    (point,) = summarize([record(0, 0, 0.0)])
    assert point.early_stop_step == Spread(0, 0, 0)
    assert point.early_stop_test_acc == Spread(0, 0, 0)


def test_no_records_have_no_points():
    assert summarize([]) == []


DENSE = record(0, 1_000, 0.98)


def levels_of(winners: list[Judged] | None) -> list[int] | None:
    return None if winners is None else [winner.point.level for winner in winners]


@pytest.mark.parametrize(
    ("step", "acc", "wins"),
    [
        (1_000, 0.98, True),
        (900, 0.98, True),
        (1_000, 0.981, True),
        (1_001, 0.99, False),
        (500, 0.9799, False),
        (None, 0.99, False),
        (500, None, False),
    ],
)
def test_a_winning_ticket_is_as_accurate_and_no_later(step, acc, wins):
    assert levels_of(winning_levels([DENSE, record(1, step, acc), record(2, 2_000, 0.5)])) == ([1] if wins else [])


def test_means_decide_not_single_replicates():
    records = [
        *(record(0, 1_000, acc, replicate=n) for n, acc in enumerate((0.97, 0.98))),
        *(record(1, step, acc, replicate=n) for n, (step, acc) in enumerate(((1_500, 0.96), (400, 1.0)))),
        *(record(2, step, acc, replicate=n) for n, (step, acc) in enumerate(((1_500, 0.99), (600, 0.99)))),
    ]
    assert levels_of(winning_levels(records)) == [1]


def test_controls_are_no_tickets():
    assert winning_levels([DENSE, record(1, 2_000), record(1, 10, 1.0, arm="reinit")]) == []


JUDGED_BY = "winning is judged by val_loss and test_acc, and "
NO_DENSE = "there is no dense network (level 0) to compare with"
UNPAIRED = "no replicate has all numbers of a pruned level and of its dense network"
END = record(0).steps


@pytest.mark.parametrize(
    ("records", "why"),
    [
        ([], NO_DENSE),
        ([record(1), record(2)], NO_DENSE),
        ([record(0, arm="reinit"), record(1)], NO_DENSE),
        ([DENSE], "there is no pruned level"),
        ([DENSE, record(1, arm="reinit")], "there is no pruned level"),
        ([record(0, status="diverged")], "the dense network diverged"),
        ([record(0, status="diverged"), record(1)], "the dense network diverged"),
        ([DENSE, record(1, status="diverged")], "all pruned networks diverged"),
        ([record(0, None), record(1, None)], f"{JUDGED_BY}val_loss is missing"),
        ([record(0, None, None, final=0.9), record(1, None, None, final=0.9)], f"{JUDGED_BY}val_loss is missing"),
        ([record(0, acc=None), record(1, acc=None)], f"{JUDGED_BY}test_acc is missing"),
        ([record(0, None, None), record(1, None, None)], f"{JUDGED_BY}val_loss and test_acc are missing"),
        (
            [record(0, None, None), record(1, acc=None)],
            f"{JUDGED_BY}val_loss of the dense network and test_acc are missing",
        ),
        ([record(0, None), record(1)], f"{JUDGED_BY}val_loss of the dense network is missing"),
        ([record(0, acc=None), record(1)], f"{JUDGED_BY}test_acc of the dense network is missing"),
        ([DENSE, record(1, acc=None)], f"{JUDGED_BY}test_acc of the pruned networks is missing"),
        ([DENSE, record(1, None), record(2, acc=None), record(3, status="diverged")], UNPAIRED),
        ([DENSE, record(1, replicate=1)], UNPAIRED),
        (
            [DENSE, record(1, END), record(2, END)],
            "levels 1-2 cannot be judged, since a validation loss was lowest at its last evaluation. Train longer "
            "(--trainer.max_steps) or evaluate more often (--pruning.evaluate_every)",
        ),
        (
            [record(0, density=0.9), record(1)],
            "the run starts from a ticket, so there is no dense network to compare its tickets with",
        ),
        (
            [record(0, END, density=0.9), record(0, density=0.9, arm="random_mask")],
            "the run starts from a ticket, so there is no dense network to compare its tickets with; at level 0 a "
            "validation loss of a ticket was lowest at its last evaluation, so it is not compared with controls either",
        ),
    ],
)
def test_where_no_level_can_be_judged_it_is_said_what_is_missing_and_only_that(records, why):
    assert winning_levels(records) is None
    assert verdict(records) == f"No verdict: {why}."


def test_no_level_is_both_without_a_ticket_and_not_judged():
    """Over all ways in which two levels may end."""
    ways = [(900, 0.98), (1_100, 0.98), (900, 0.9), (END, 0.98), (None, 0.98), (900, None)]
    for first, second in product(ways, ways):
        records = [DENSE, record(1, *first), record(2, *second)]
        said = verdict(records)
        won = levels_of(winning_levels(records))
        unjudged = [level for level, way in enumerate((first, second), 1) if way in ways[3:]]
        assert said.startswith("No verdict: ") == (len(unjudged) == 2), said
        assert said.startswith("Winning tickets at level") == bool(won), said
        assert ("no level matches" in said) == (won == [] and not unjudged), said
        if won is not None:
            assert [level for level in (1, 2) if f"Level {level} cannot be judged: " in said] == unjudged
        if won == [] and unjudged:
            assert said.startswith(f"No winning ticket at level {3 - unjudged[0]}, which does not match the dense")


def test_the_verdict_names_winning_levels_and_how_small_they_are():
    records = [DENSE, record(1, 900), record(2, 800), record(3, 1_100), record(4, 1_000, 0.99)]
    assert verdict(records) == (
        "Winning tickets at levels 1-2, 4, down to 41.0% of the weights: at least the dense network's test accuracy at "
        "early stop, no later (a single replicate, so chance is not excluded)."
    )


def test_the_verdict_of_one_level_is_singular_and_says_how_many_replicates():
    records = [record(level, step, replicate=n) for n in range(3) for level, step in ((0, 1_000), (1, 1_100), (2, 900))]
    assert verdict(records) == (
        "Winning tickets at level 2, down to 64.0% of the weights: at least the dense network's test accuracy at "
        "early stop, no later (the mean of 3 replicates; chance is excluded)."
    )


def test_the_verdict_says_when_no_ticket_won():
    assert verdict([DENSE, record(1, 1_100)]) == (
        "No winning ticket: no level matches the dense network's test accuracy at early stop as early "
        "(a single replicate, so chance is not excluded)."
    )


def test_each_control_is_compared_at_the_sparsest_winning_level_that_it_has():
    records = [
        DENSE,
        record(1, 800, 0.985),
        record(2, 500, 0.985),
        record(3, 2_000, 0.9),
        record(1, 1_600, 0.98, arm="random_reinit"),
        record(2, 1_200, 0.975, arm="random_reinit"),
        record(2, 1_300, 0.975, arm="random_reinit", trial=1),
        record(3, 4_000, 0.8, arm="random_reinit"),
        record(1, 600, 0.99, arm="random_mask"),
    ]
    said = verdict(records).split("chance is not excluded). ")[1]
    assert said == (
        "At level 1 (80.0%) random_mask stops early at 0.75 times the ticket's step, and the ticket is 0.50 points "
        "less accurate. At level 2 (64.0%) random_reinit stops early at 2.50 times the ticket's step, and the ticket "
        "is 1.00 points more accurate."
    )


def test_without_a_winner_a_control_is_compared_at_the_sparsest_level():
    records = [DENSE, record(1, 2_000), record(2, 3_000, 0.9), *(record(n, 6_000, 0.9, arm="reinit") for n in (1, 2))]
    assert verdict(records).endswith(
        "At level 2 (64.0%) reinit stops early at 2.00 times the ticket's step, and the ticket is 0.00 points more "
        "accurate."
    )


@pytest.mark.parametrize(
    "control",
    [
        record(1, arm="reinit", status="diverged"),
        record(1, None, arm="reinit"),
        record(1, acc=None, arm="reinit"),
        record(4, arm="reinit"),
    ],
    ids=["diverged", "no step", "no accuracy", "a level the ticket has not"],
)
def test_a_control_that_cannot_be_compared_is_passed_over(control):
    assert "reinit" not in verdict([DENSE, record(1, 900), control])


def test_a_ticket_that_stops_at_step_0_divides_nothing_by_zero():
    assert "300.00 times" in verdict([DENSE, record(1, 0), record(1, 300, arm="reinit")])


def test_an_untrained_control_is_compared_by_its_accuracy_alone():
    untrained = replace(record(1, 0, 0.33, arm="rewound"), steps=0)
    assert verdict([DENSE, record(1, 900, 0.98), untrained]).endswith(
        "At level 1 (80.0%) rewound is untrained, and the ticket is 65.00 points more accurate."
    )


def test_networks_that_go_on_from_trained_weights_are_no_winning_tickets():
    records = [DENSE, record(1, 20, 0.99)]
    assert "Winning tickets" in verdict(records)
    assert verdict(records, trains_on=True).startswith("No verdict")
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(results_table(records, trains_on=True))
    assert "*" not in console.export_text()


def lines(records: list[Record]) -> list[list[str]]:
    """The cells of the printed table, without its title."""
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(results_table(records))
    return [line.split() for line in console.export_text().splitlines()[1:]]


def test_the_table_gives_percents_ranges_and_stars():
    records = [
        record(0, 1_000, 0.98, final=0.981),
        record(0, 1_100, 0.97, replicate=1, final=0.981),
        record(1, 900, 0.98, final=0.99),
        record(1, 9, 0.1, replicate=1, status="diverged"),
        record(1, 2_000, None, arm="reinit"),
    ]
    assert lines(records)[1:] == [
        ["0", "100.0%", "ticket", "2", "1050", "(1000-1100)", "97.50", "(97.00-98.00)", "98.10"],
        ["1", "80.0%", "ticket", "*", "1", "(+1", "diverged)", "900", "98.00", "99.00"],
        ["reinit", "1", "2000", "-", "-"],
    ]


def test_the_table_of_no_records_is_empty():
    assert lines([])[1:] == []


def test_there_is_no_verdict_where_the_dense_networks_loss_was_still_falling():
    steps = record(0).steps
    records = [record(0, steps, replicate=r) for r in (0, 1)]
    records += [record(1, steps, replicate=r) for r in (0, 1)]
    assert winning_levels(records) is None
    assert "dense network was lowest at its last evaluation" in verdict(records)
    assert "Train longer" in verdict(records)
    records[0].early_stop_step = steps - 1
    assert winning_levels(records) is None  # the other replicate has no early stop
    assert "Train longer" in verdict(records)


def test_a_level_without_an_early_stop_in_some_replicate_is_not_judged():
    records = [record(level, 1_000 - level, replicate=r) for r in range(3) for level in range(4)]
    assert levels_of(winning_levels(records)) == [1, 2, 3]
    records[2].early_stop_step = records[2].steps
    assert levels_of(winning_levels(records)) == [1, 3]
    assert "Level 2 cannot be judged: a validation loss was lowest at its last evaluation." in verdict(records)


def test_the_interval_is_students():
    generator = np.random.default_rng(0)
    for number in (3, 5, 10):
        values = generator.normal(1, 2, number)
        low, high = stats.ttest_1samp(values, 0).confidence_interval(0.95)
        assert half_width(values.tolist()) == pytest.approx((high - low) / 2)
    assert half_width([1.0, 1.0]) == half_width([1.0]) == inf
    assert half_width([1.0, 1.0, 1.0]) == 0


def test_chance_is_excluded_where_the_paired_intervals_are_on_the_winning_side():
    """Each replicate's ticket is a little better than its own dense network; replicates differ far more."""
    dense = [(0.90, 3_000), (0.95, 1_000), (0.99, 2_000)]
    better = [(0.0018, -100), (0.0020, -110), (0.0023, -90)]
    mixed = [(0.001, -1_000), (0.002, 10), (0.003, -20)]
    records = [record(0, step, acc, replicate=r) for r, (acc, step) in enumerate(dense)]
    for level, gains in ((1, better), (2, mixed)):
        records += [
            record(level, dense[r][1] + step, dense[r][0] + acc, replicate=r) for r, (acc, step) in enumerate(gains)
        ]

    def is_certain(level: int) -> bool:
        """By SciPy's paired t-test, over the lists as they stand in the records."""
        ours, theirs = ([r for r in records if r.level == number] for number in (level, 0))
        acc, step = (
            stats.ttest_rel([getattr(r, name) for r in ours], [getattr(r, name) for r in theirs]).confidence_interval()
            for name in ("early_stop_test_acc", "early_stop_step")
        )
        return bool(acc.low >= 0 and step.high <= 0)

    assert [is_certain(level) for level in (1, 2)] == [True, False]
    winners = winning_levels(records)
    assert winners is not None
    assert [(winner.point.level, winner.is_certain) for winner in winners] == [(1, True), (2, False)]
    assert verdict(records).endswith("(the mean of 3 replicates; chance is excluded at level 1).")
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(results_table(records))
    starred = [line.split()[2:4] for line in console.export_text().splitlines() if "*" in line][1:]
    assert starred == [["ticket", "**"], ["ticket", "*"]]


def test_against_a_control_it_is_said_where_chance_is_excluded():
    records = [
        record(level, step + 10 * r, acc, arm=arm, replicate=r)
        for r in range(3)
        for level, step, acc, arm in (
            (0, 1_000, 0.98, "ticket"), (1, 900, 0.985, "ticket"), (1, 1_800 - 20 * r, 0.984 + 0.001 * r, "reinit")
        )
    ]  # fmt: skip
    assert verdict(records).endswith("the ticket is 0.00 points more accurate (chance is excluded for the step).")


def test_a_control_without_an_early_stop_is_compared_by_its_accuracy_alone():
    """One of its trials is enough; the table has a step for it, so none is denied."""
    records = [
        part
        for r in range(3)
        for part in (
            record(0, 1_000, 0.98, replicate=r),
            record(1, 900, 0.98, replicate=r),
            record(1, END if r else 20, 0.97, arm="reinit", replicate=r),
        )
    ]
    for few in (records[3:6], records):
        chance = " (chance is excluded for the accuracy)" if len(few) > 3 else ""
        assert verdict(few).endswith(
            "At level 1 (80.0%) a validation loss of reinit was lowest at its last evaluation, so steps are not "
            f"compared, and the ticket is 1.00 points more accurate{chance}."
        )


def test_a_ticket_on_other_data_is_compared_with_its_controls_though_there_is_no_dense_network():
    records = [record(0, 1_000, 0.98, density=0.2), record(0, 1_500, 0.97, density=0.2, arm="random_mask")]
    assert verdict(records) == (
        "No verdict: the run starts from a ticket, so there is no dense network to compare its tickets with. At level "
        "0 (20.0%) random_mask stops early at 1.50 times the ticket's step, and the ticket is 1.00 points more "
        "accurate."
    )


def test_means_of_levels_that_fewer_replicates_have_are_not_said_to_be_of_all():
    records = [record(level, 1_000 - level, replicate=r) for r in range(3) for level in range(3 if r else 4)]
    assert "(means of 1 to 3 replicates; chance is excluded at levels 1-2)" in verdict(records)


def test_without_any_accuracy_the_table_shows_losses_and_no_ticket_is_judged():
    records = [
        replace(record(level, acc=None), early_stop_test_loss=0.25 + level, final_test_loss=0.5) for level in (0, 1)
    ]
    console = Console(file=io.StringIO(), width=120)
    console.print(results_table(records))
    text = console.file.getvalue()
    assert "winning" not in text
    assert "test acc" not in text
    assert "early-stop step test loss there test loss at the end" in " ".join(text.split())
    assert "0 100.0% ticket 1 1000 0.2500 0.5000 1 80.0% ticket 1 1000 1.2500 0.5000" in " ".join(text.split())
    assert verdict(records) == f"No verdict: {JUDGED_BY}test_acc is missing."


def test_only_replicates_that_have_a_dense_network_and_a_ticket_are_counted():
    dense = [record(0, 1_000, 0.9, replicate=r) for r in (0, 1)]
    tickets = [record(1, 900 - r, 0.91, replicate=r) for r in (1, 2, 3)]
    alone = [record(1, 900, 0.8, replicate=4, arm="random_reinit")]
    diverged = [record(0, replicate=5, status="diverged"), record(1, 900, 0.91, replicate=5)]
    assert "a single replicate, so chance is not excluded" in verdict([*dense, *tickets, *alone, *diverged])
    with_one_more = [*dense, *tickets, record(0, 1_000, 0.9, replicate=2)]
    assert "the mean of 2 replicates, too few to exclude chance" in verdict(with_one_more)


def test_without_a_replicate_that_has_both_there_is_no_verdict():
    records = [record(0, 1_000, 0.9, replicate=0), record(1, 900, 0.91, replicate=1)]
    assert winning_levels(records) is None
    assert verdict(records).startswith("No verdict:")
